"""A run whose series folders are divided over 256 folders has the results of one whose folders are not."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.support.cohorts import make_cohort, partial_files

from ctenrich import steps
from ctenrich.encode.rtstruct import StructureSetOptions
from ctenrich.errors import UsageError
from ctenrich.publish.content import Content, PublishOptions, gather
from ctenrich.publish.privacy import check_identity_removed
from ctenrich.publish.structure_sets import export_structure_sets
from ctenrich.reasons import Reason
from ctenrich.records import Product, ProductKind
from ctenrich.release.changes import read_manifest
from ctenrich.release.release import ReleaseOptions
from ctenrich.runner.creation import run_format
from ctenrich.runner.run import Run
from ctenrich.series_store import SeriesStore
from ctenrich.settings import FetchSettings, RunSettings, Settings
from ctenrich.view.contents import RunView
from ctenrich.workspace import DIVIDED_FORMAT, FORMAT, Workspace

COUNT = 2
EXPERT = Product(ProductKind.EXPERT)
DIVIDED = Settings(fetch=FetchSettings(copy_local=True), run=RunSettings(divide_folders_from=1))
WHOLE = replace(DIVIDED, run=RunSettings(divide_folders_from=COUNT + 1))
_OF_THE_CALL = {"runs", "timings", "outcomes"}
"""Tables with times of the call."""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cohort(tmp_path_factory.mktemp("cohort"), COUNT)


def finished_run(cohort: Path, out: Path, settings: Settings) -> Run:
    run = steps.start(cohort, out, segmenters=["expert"], settings=settings)
    assert steps.run_all(run).exit_code == 0
    return steps.open_run(out)


@pytest.fixture(scope="module")
def whole(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finished_run(cohort, tmp_path_factory.mktemp("whole") / "run", WHOLE)


@pytest.fixture(scope="module")
def divided(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finished_run(cohort, tmp_path_factory.mktemp("divided") / "run", DIVIDED)


@pytest.fixture
def own_run(divided: Run, tmp_path: Path) -> Run:
    """A copy of the divided run that a test may change."""
    return steps.open_run(shutil.copytree(divided.root, tmp_path / "run"))


def uids(run: Run) -> list[str]:
    return [entry.series_instance_uid for entry in run.cohort.series]


def files_of(run: Run, kind: str = "*") -> dict[str, bytes]:
    """Path within ``UID/...`` -> content of every file of the series."""
    found = {}
    for uid in uids(run):
        folder = run.workspace.series_dir(uid)
        for path in folder.rglob(kind):
            if path.is_file():
                found[f"{uid}/{path.relative_to(folder).as_posix()}"] = path.read_bytes()
    return found


# ---------------------------------------------------------------- the folders


def test_only_divided_runs_have_the_folders_between(whole: Run, divided: Run) -> None:
    assert sorted(path.name for path in (whole.root / "series").iterdir()) == sorted(uids(whole))
    for uid in uids(divided):
        part = hashlib.sha256(uid.encode()).hexdigest()[:2]
        assert divided.workspace.series_path(uid) == f"series/{part}/{uid}"
        assert divided.workspace.series_dir(uid).is_dir()
    parts = {divided.workspace.series_dir(uid).parent.name for uid in uids(divided)}
    assert {path.name for path in (divided.root / "series").iterdir()} == parts
    assert (whole.config.format, divided.config.format) == (FORMAT, DIVIDED_FORMAT)


def test_a_divided_run_is_found_without_its_record_being_loaded(divided: Run, whole: Run) -> None:
    for run in (divided, whole):
        again = Workspace(run.root)
        assert again.series_uids() == sorted(uids(run))
        assert list(again.series_dirs()) == [again.series_dir(uid) for uid in sorted(uids(run))]
        objects = list(again.object_files())
        assert objects == list(again.object_files(EXPERT.folder)) == sorted(objects, key=lambda p: p.parts[-4:])
        assert len(objects) == 2 * COUNT
        assert not list(again.object_files("nnunet=none"))


def test_the_number_of_series_of_a_new_run_decides() -> None:
    usual = RunSettings()
    assert [run_format(n, usual) for n in (1, 9_999, 10_000, 126_000)] == [FORMAT, FORMAT, *[DIVIDED_FORMAT] * 2]
    assert run_format(126_000, RunSettings(divide_folders_from=0)) == FORMAT
    assert run_format(1, RunSettings(divide_folders_from=1)) == DIVIDED_FORMAT


def test_a_folder_without_a_run_is_not_divided_until_it_has_one(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert workspace.series_path("1.2.3") == "series/1.2.3"
    (tmp_path / "run.json").write_text("{")
    assert workspace.series_path("1.2.3") == "series/1.2.3"
    (tmp_path / "run.json").write_text(json.dumps({"format": DIVIDED_FORMAT}))
    assert workspace.series_path("1.2.3") == f"series/{hashlib.sha256(b'1.2.3').hexdigest()[:2]}/1.2.3"
    assert workspace.series_uids() == []


def test_a_run_keeps_its_format_whatever_the_settings_are_later(cohort: Path, own_run: Run) -> None:
    again = steps.start(cohort, own_run.root, segmenters=["expert"], settings=WHOLE)
    assert again.config.format == DIVIDED_FORMAT
    summary = steps.run_all(again)
    assert (summary.exit_code, summary.ran) == (0, 0)


def test_a_format_of_a_later_version_is_refused(own_run: Run) -> None:
    path = own_run.root / "run.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"format": 3}))
    with pytest.raises(UsageError) as caught:
        Run.open(own_run.root)
    assert caught.value.reason is Reason.BAD_RUN


FILES_OF_A_SERIES, FILES_OF_A_PRODUCT = 8, 9
"""Those of a series but its source, and of a product of contours but its masks; docs/large-cohorts.md states them."""


def test_the_manifests_of_a_folder_are_one_file(divided: Run) -> None:
    for uid in uids(divided):
        folder = divided.workspace.series_dir(uid)
        files = [path.relative_to(folder).parts for path in folder.rglob("*") if path.is_file()]
        assert len([names for names in files if names[0] not in ("source", "expert")]) == FILES_OF_A_SERIES, files
        own = [names for names in files if names[0] == "expert" and names[1] != "masks"]
        assert len(own) == FILES_OF_A_PRODUCT, files
        assert not list(folder.rglob("manifests"))
        assert sorted(json.loads((folder / "manifests.json").read_bytes())) == ["convert", "fetch", "sort"]
        own_stages = json.loads((folder / "expert" / "manifests.json").read_bytes())
        assert sorted(own_stages) == ["encode", "measure", "segment", "validate"]


# ---------------------------------------------------------------- the results


def _without_timings(content: bytes) -> Any:
    """A record without its timings and the key of modification times."""
    found = json.loads(content)
    return {k: v for k, v in found.items() if k not in ("timings", "key")} if isinstance(found, dict) else found


def test_every_file_of_every_series_but_manifests_is_the_same(whole: Run, divided: Run) -> None:
    first, second = (
        {name: content for name, content in files_of(run).items() if "/manifests" not in name}
        for run in (whole, divided)
    )
    assert first.keys() == second.keys()
    for name, content in first.items():
        if name.endswith(".json"):
            assert _without_timings(content) == _without_timings(second[name]), name
        else:
            assert content == second[name], name
    assert len([name for name in first if name.endswith(".dcm") and "/objects/" in name]) == 2 * COUNT
    assert partial_files(divided.root) == []


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = pq.read_table(path).to_pylist()
    return [row | ({"path": Path(row["path"]).parts[-4:]} if row.get("path") else {}) for row in rows]


def test_every_table_is_the_same_but_for_the_paths(whole: Run, divided: Run) -> None:
    names = {path.name for path in whole.workspace.tables.glob("*.parquet")}
    assert names == {path.name for path in divided.workspace.tables.glob("*.parquet")}
    for name in sorted(names):
        if Path(name).stem not in _OF_THE_CALL:
            assert _rows(whole.workspace.tables / name) == _rows(divided.workspace.tables / name), name
    paths = [row["path"] for row in pq.read_table(divided.workspace.tables / "objects.parquet").to_pylist()]
    assert paths == [path.relative_to(divided.root).as_posix() for path in divided.workspace.object_files()]


def test_the_pages_of_the_report_link_to_the_files(divided: Run) -> None:
    index = steps.report(divided)
    for uid in uids(divided):
        page = index.parent / "series" / f"{uid}.html"
        assert f"{divided.workspace.series_path(uid)}/expert/objects/seg.dcm" in page.read_text("utf-8")


def test_the_report_remakes_the_page_of_a_series_that_changed(own_run: Run) -> None:
    pages = [steps.report(own_run).parent / "series" / f"{uid}.html" for uid in uids(own_run)]
    before = [page.read_text("utf-8") for page in pages]
    for page in pages:
        page.write_text("old", "utf-8")
    folder = own_run.workspace.series_dir(uids(own_run)[0]) / EXPERT.folder
    (folder / "new").write_text("a file appeared")
    (folder / "new").unlink()
    steps.report(own_run)
    assert [page.read_text("utf-8") for page in pages] == [before[0], "old"]


def test_the_viewer_finds_series_and_objects(divided: Run) -> None:
    view = RunView(divided.workspace)
    assert view.series == sorted(uids(divided))
    for uid in uids(divided):
        assert len(view.objects(uid)) == 2
        assert all(path.is_file() for path in view.slices(uid))


def test_the_released_data_set_is_the_same(whole: Run, divided: Run, tmp_path: Path) -> None:
    manifests = []
    for name, run in (("whole", whole), ("divided", divided)):
        steps.release(run, tmp_path / name, options=ReleaseOptions(identified=True))
        listed = read_manifest(tmp_path / name)
        manifests.append({path: sha256 for path, sha256 in listed.items() if path.startswith("dicom/")})
    assert manifests[0] == manifests[1]
    assert len(manifests[0]) == 2 * COUNT


def test_verify_compares_the_same_hashes(whole: Run, own_run: Run) -> None:
    first, second = steps.verify(whole), steps.verify(own_run)
    assert (first.mismatches, second.mismatches, first.hashes) == ((), (), second.hashes)
    path = next(own_run.workspace.object_files())
    path.write_bytes(path.read_bytes() + b"\0\0")
    (found,) = steps.verify(own_run).mismatches
    assert found.path == path.relative_to(own_run.root).as_posix()
    manifests = own_run.workspace.series_dir(uids(own_run)[0]) / "manifests.json"
    manifests.write_bytes(b"{")
    assert manifests.relative_to(own_run.root).as_posix() in {one.path for one in steps.verify(own_run).mismatches}


# ---------------------------------------------------------------- going on


def test_a_resumed_run_makes_what_is_missing_and_nothing_else(divided: Run, own_run: Run) -> None:
    before = files_of(divided, "*.dcm")
    path = next(own_run.workspace.object_files())
    path.unlink()
    summary = steps.run_all(own_run)
    assert (summary.exit_code, summary.ran) == (0, 1)
    assert files_of(own_run, "*.dcm") == before


def test_damaged_manifests_are_made_again(divided: Run, own_run: Run) -> None:
    before = files_of(divided, "*.dcm")
    (own_run.workspace.series_dir(uids(own_run)[0]) / "manifests.json").write_bytes(b"[]")
    (own_run.workspace.product_dir(uids(own_run)[1], EXPERT) / "manifests.json").unlink()
    summary = steps.run_all(own_run)
    assert (summary.exit_code, summary.ran) == (0, 7), "three stages of a series and four of a product"
    assert files_of(own_run, "*.dcm") == before
    assert steps.run_all(steps.open_run(own_run.root)).ran == 0


def test_retry_fetches_a_series_again(own_run: Run) -> None:
    from ctenrich.ledger.database import Database

    uid = uids(own_run)[0]
    with Database(own_run.ledger_path, read_only=False) as database, database.transaction() as db:
        db.execute(
            "UPDATE outcomes SET state = 'failed', reason = 'IO_ERROR' WHERE series_instance_uid = ? AND product = ''",
            [uid],
        )
    shutil.rmtree(own_run.workspace.series_dir(uid) / "source")
    assert steps.retry(own_run, []) > 0
    assert steps.run_all(own_run).exit_code == 0
    assert list((own_run.workspace.series_dir(uid) / "source").rglob("*.dcm"))


def test_fetched_objects_are_deleted_after_use_within_a_quota(cohort: Path, divided: Run, tmp_path: Path) -> None:
    sizes = [
        sum(path.stat().st_size for path in source.rglob("*.dcm")) for source in divided.root.glob("series/*/*/source")
    ]
    fetch = FetchSettings(copy_local=True, delete_after_use=True, disk_quota=max(sizes) * 3 + min(sizes) // 2)
    run = finished_run(cohort, tmp_path / "run", replace(DIVIDED, fetch=fetch))
    assert not [path for uid in uids(run) for path in (run.workspace.series_dir(uid) / "source").rglob("*")]
    objects = {name: content for name, content in files_of(divided, "*.dcm").items() if "/objects/" in name}
    assert files_of(run, "*.dcm") == objects
    assert not steps.verify(run).mismatches
    kept = replace(fetch, delete_after_use=False)
    run = steps.start(cohort, tmp_path / "kept", segmenters=["expert"], settings=replace(DIVIDED, fetch=kept))
    assert steps.run_all(run).reasons[Reason.DISK_FULL.value] == COUNT - 1, "the quota counts all series"


def test_exports_and_uploads_are_the_same(whole: Run, divided: Run, tmp_path: Path) -> None:
    found = []
    for name, run in (("whole", whole), ("divided", divided)):
        out = tmp_path / name
        exported = steps.export(run, "nifti", out / "nifti")
        assert {one.state.value for one in exported.objects} == {"done"}
        export_structure_sets(run.workspace, out / "rtstruct", settings=Settings(), options=StructureSetOptions())
        names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
        sent = gather(run.workspace, PublishOptions(what=frozenset({Content.OBJECTS, Content.SOURCES})))
        assert not sent.unavailable
        assert all((run.root / one.place).is_file() for one in sent.files)
        found.append((names, [Path(one.place).parts[-3:] for one in sent.files]))
        with pytest.raises(UsageError, match=f"in {COUNT} of {COUNT} series"):  # phantoms do not state it
            check_identity_removed(run.workspace)
        assert [str(p) for uid in uids(run) for p in SeriesStore(run.workspace).products(uid)] == ["expert"] * COUNT
    assert found[0] == found[1]
