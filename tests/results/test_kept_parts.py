"""Parts of tables that are kept: the same bytes as at once, and only what changed is read again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctenrich.results import kept_parts, runs, tables
from ctenrich.results.kept_parts import KeptParts, Part, file_states, stable_parts
from ctenrich.results.tables import build_tables
from ctenrich.workspace import Workspace, sha256_of_file
from tests.support.report_runs import make_run, uid_of
from tests.support.result_reports import (
    HEART,
    MM3,
    SITE,
    VOLUME,
    coded,
    group,
    head,
    number,
    segment_links,
    write_seg,
    write_sr,
)


def hashes(run: Workspace) -> dict[str, str]:
    return {name: sha256_of_file(path) for name, path in build_tables(run).items()}


def write_objects(run: Workspace, uid: str, volume: str) -> None:
    folder = run.series_dir(uid) / "expert" / "objects"
    write_seg(folder / "seg.dcm", f"{uid}.14")
    links = [*head(), coded(SITE, HEART), *segment_links(f"{uid}.14", uid)]
    write_sr(folder / "shape_sr.dcm", f"{uid}.16", [group(*links, number(VOLUME, volume, MM3))])


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A run of three series with objects whose parts are kept, one part for each series or file."""
    made = make_run(tmp_path / "run", 3)
    for place in range(3):
        write_objects(made, uid_of(place), str(10 + place))
    monkeypatch.setattr(tables, "_MANY", 1)
    for module in (tables, runs):
        monkeypatch.setattr(module, "_LARGEST", 1)
    return made


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is made rather than found: names of files, and series."""
    seen: list[str] = []
    read, rows = tables._part_of_files, runs._tables_of_series

    def read_files(paths: Sequence[Path]) -> Part:
        seen.extend(path.parts[-4] for path in paths)
        return read(paths)

    def make_rows(part: runs._SeriesPart, ledger: dict[str, list[dict[str, object]]]) -> dict[str, pa.Table]:
        seen.extend(part.uids)
        return rows(part, ledger)

    monkeypatch.setattr(tables, "_part_of_files", read_files)
    monkeypatch.setattr(runs, "_tables_of_series", make_rows)
    return seen


def test_only_changed_series_are_read_again(run: Workspace, made: list[str]) -> None:
    first = hashes(run)
    assert set(made) == {uid_of(place) for place in range(3)}
    made.clear()
    assert hashes(run) == first
    assert made == []
    write_objects(run, uid_of(2), "99")
    changed = hashes(run)
    assert set(made) == {uid_of(2)}
    assert {name for name in first if changed[name] != first[name]} >= {"quantitative_measurements"}
    shutil.rmtree(run.tables)
    assert hashes(run) == changed


def test_the_seg_of_a_kept_report_may_go_and_come_back(run: Workspace, made: list[str]) -> None:
    first = hashes(run)
    seg = run.series_dir(uid_of(1)) / "expert" / "objects" / "seg.dcm"
    seg.rename(seg.with_suffix(".away"))
    without = hashes(run)
    assert without["strict_quantitative_measurements"] != first["strict_quantitative_measurements"]
    shutil.rmtree(run.tables)
    assert hashes(run) == without
    seg.with_suffix(".away").rename(seg)
    assert hashes(run) == first


def test_parts_that_are_damaged_are_made_again_and_others_deleted(run: Workspace, made: list[str]) -> None:
    first = hashes(run)
    folder = run.tables / "parts"
    kept = sorted(folder.iterdir())
    for path, content in zip(
        kept, (b"", b"short", kept[2].read_bytes()[:-1], kept[3].read_bytes() + b"x"), strict=False
    ):
        path.write_bytes(content)
    (folder / "of-an-earlier-run.part").write_bytes(b"")
    made.clear()
    assert hashes(run) == first
    assert made
    assert sorted(folder.iterdir()) == kept


def test_other_software_makes_all_parts_again(run: Workspace, made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    first = hashes(run)
    made.clear()
    monkeypatch.setattr(tables, "software_version", lambda: "another")
    assert hashes(run) == first
    assert set(made) == {uid_of(place) for place in range(3)}


def test_a_small_run_keeps_no_parts(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 1)
    build_tables(run)
    assert not (run.tables / "parts").exists()


def test_parts_have_tables_and_facts(tmp_path: Path) -> None:
    kept = KeptParts(tmp_path / "parts", "1")
    table = pa.table({"a": [1, None], "b": [["x"], []]})
    name = kept.name("x", "y")
    assert name != kept.name("xy")
    assert kept.find(name) is None
    kept.keep(name, Part(tables={"t": table, "none": table.slice(0, 0)}, facts={"tree": {"A": None}}))
    found = kept.find(name)
    assert found is not None
    assert found.tables["t"].equals(table)
    assert found.tables["none"].num_rows == 0
    assert found.facts == {"tree": {"A": None}}


def test_states_of_files_follow_names_sizes_and_times(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "series"
    folder.mkdir(parents=True)
    (folder / "a").write_text("1")
    first = file_states(tmp_path / "run", [folder])
    assert file_states(tmp_path / "run", [folder, folder / "absent"]) == first
    os.utime(folder / "a", ns=(1, 1))
    second = file_states(tmp_path / "run", [folder])
    shutil.copytree(tmp_path / "run", tmp_path / "moved")
    assert file_states(tmp_path / "moved", [tmp_path / "moved" / "series"]) == second != first
    (folder / "b").write_text("")
    assert file_states(tmp_path / "run", [folder]) not in (first, second)


names = st.lists(st.text(max_size=8), unique=True, max_size=200).map(sorted)


@given(names, st.integers(1, 8), st.integers(8, 20))
def test_parts_cover_a_list_in_its_order(listed: list[str], smallest: int, largest: int) -> None:
    parts = list(stable_parts(listed, smallest, largest))
    assert [place for start, end in parts for place in range(start, end)] == list(range(len(listed)))
    assert all(0 < end - start <= largest for start, end in parts)
    assert all(end - start >= smallest for start, end in parts[:-1])


def test_another_entry_changes_few_parts() -> None:
    listed = sorted(f"1.2.{n * 7919 % 100_003}" for n in range(2000))
    before = {tuple(listed[start:end]) for start, end in stable_parts(listed, 16, 40)}
    more = sorted([*listed, "1.2.5"])
    after = {tuple(more[start:end]) for start, end in stable_parts(more, 16, 40)}
    assert len(before) > 50
    assert len(after - before) <= 5


def test_the_version_is_that_of_all_files_of_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "codes.csv").write_text("a")
    monkeypatch.setattr(kept_parts.ctenrich, "__file__", str(tmp_path / "__init__.py"))
    first = kept_parts.software_version()
    assert kept_parts.software_version() == first
    (tmp_path / "codes.csv").write_text("b")
    assert kept_parts.software_version() != first
