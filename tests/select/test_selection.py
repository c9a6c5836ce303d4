"""Selection on the folder catalog: verdicts, books, companions, order, files."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.catalog_cases import ROOT, write_series, write_structures

from ctenrich.catalog import Catalog, open_catalog
from ctenrich.catalog.folder import index_folders
from ctenrich.catalog.queries import load_query, parse_query
from ctenrich.errors import InconsistencyError, UsageError
from ctenrich.reasons import Reason
from ctenrich.records import CompanionLink
from ctenrich.select.cohort_file import read_cohort
from ctenrich.select.files import excluded_path, lock_path, read_excluded, write_cohort
from ctenrich.select.selection import EXCLUDED_COLUMNS, Selection, select_cohort
from ctenrich.settings import GeometrySettings


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Five series of two studies, with contours of the first."""
    folder = tmp_path / "in"
    write_series(folder, count=5, series="1")
    write_series(folder, heights=[0, 3, 6, 12, 15], series="2")
    write_series(folder, heights=[0, 3, 8, 11, 16, 19, 24], series="3")
    write_series(folder, count=1, series="4", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_series(folder, count=7, series="1", study="2", patient="P2")
    write_structures(folder / "rt.dcm", frame=f"{ROOT}.1.99", series=f"{ROOT}.1.1")
    write_structures(folder / "loose.dcm", number=2, frame=f"{ROOT}.1.99", series="1.2.3.4")
    write_structures(folder / "other.dcm", number=3, frame="1.2.3", series=None)
    return folder


def catalog_of(tree: Path, name: str = "c.duckdb") -> Catalog:
    index_folders([tree], tree.parent / name, processes=1)
    return open_catalog(f"folder:{tree.parent / name}")


def reasons(selection: Selection) -> dict[str, list[str]]:
    rows = selection.excluded.to_pylist()
    return {row["series_instance_uid"].removeprefix(ROOT): row["reasons"] for row in rows}


def test_every_series_ends_in_the_cohort_or_with_its_reasons(tree: Path) -> None:
    selection = select_cohort("select_ct_series", catalog_of(tree), {})
    assert [s.series_instance_uid.removeprefix(ROOT) for s in selection.cohort.series] == [".1.1", ".2.1"]
    assert reasons(selection) == {
        ".1.2": ["MISSING_SLICE"],
        ".1.3": ["IRREGULAR_SPACING"],
        ".1.4": ["LOCALIZER", "ONE_SLICE"],
    }
    assert selection.excluded["reason"].to_pylist() == ["MISSING_SLICE", "IRREGULAR_SPACING", "LOCALIZER"]
    first = selection.cohort.series[0]
    assert [i.sop_instance_uid for i in first.instances] == [f"{ROOT}.1.1.{n}" for n in range(1, 6)]
    assert all(i.url.startswith("file:///") and i.size for i in first.instances)
    assert first.expected_instances is None, "a folder does not know how many there should be"


def test_a_companion_of_the_same_frame_of_reference_as_three_series_belongs_to_none(tree: Path) -> None:
    first, second = select_cohort("select_ct_series", catalog_of(tree), {}).cohort.series
    assert [(c.instance.sop_instance_uid[-2:], c.link) for c in first.companions] == [(".1", CompanionLink.REFERENCE)]
    assert [(n.rule, n.object) for n in first.notes] == [
        ("companion.study", f"{ROOT}.8.7.1"), ("companion.several", f"{ROOT}.8.7.2"),
    ]  # fmt: skip
    note = first.notes[1]
    assert all(f"{ROOT}.1.{n}" in note.message for n in (1, 2, 3)), "the candidates are listed, chosen or not"
    assert f"{ROOT}.1.4" not in note.message, "a localizer is no candidate"
    assert (second.companions, second.notes) == ((), ())


def test_a_cohort_file_reads_back_as_it_was(tree: Path) -> None:
    selection = select_cohort("select_ct_series", catalog_of(tree), {"minimum_slices": "3"}, name="mine")
    path = tree.parent / "out" / "mine.parquet"
    write_cohort(selection, path)
    assert read_cohort(path) == selection.cohort
    assert read_excluded(path).equals(selection.excluded)
    assert sorted(p.name for p in path.parent.iterdir()) == ["mine.excluded.parquet", "mine.lock.json", "mine.parquet"]
    before = path.read_bytes(), excluded_path(path).read_bytes()
    write_cohort(selection, path)
    assert (path.read_bytes(), excluded_path(path).read_bytes()) == before
    assert "CANARY" not in lock_path(path).read_text()


def test_arrow_reads_a_cohort_by_itself(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow's threads abort the process if they let go of a file of Python while the interpreter ends."""
    path = tree.parent / "cohort.parquet"
    write_cohort(select_cohort("select_ct_series", catalog_of(tree), {}), path)
    given: list[type] = []

    def watched(read: Callable[[object], object]) -> Callable[[object], object]:
        return lambda source: (given.append(type(source)), read(source))[1]

    monkeypatch.setattr(pq, "read_table", watched(pq.read_table))
    monkeypatch.setattr(pq, "ParquetFile", watched(pq.ParquetFile))
    assert list(read_cohort(path).series)
    read_excluded(path)
    assert len(given) >= 4
    assert set(given) == {pa.OSFile}


@pytest.mark.parametrize(("old", "new"), [(b"reasons", b"reason\xff"), (b"INCOMPLETE", b"INCOMPLET\xe9")])
def test_excluded_series_that_are_not_utf8_are_refused(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = tmp_path / "cohort.parquet"
    rows = {name: ["INCOMPLETE"] for name in EXCLUDED_COLUMNS}
    pq.write_table(pa.table(rows), excluded_path(path), compression="none", use_dictionary=False)
    excluded_path(path).write_bytes(excluded_path(path).read_bytes().replace(old, new))
    with pytest.raises(UsageError, match="BAD_COHORT"):
        read_excluded(path)


def test_a_changed_cohort_file_is_refused(tree: Path) -> None:
    path = tree.parent / "mine.parquet"
    write_cohort(select_cohort("select_ct_series", catalog_of(tree), {}), path)
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    with pytest.raises(UsageError) as caught:
        read_cohort(path)
    assert caught.value.reason is Reason.BAD_COHORT
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(UsageError, match="BAD_COHORT"):
        read_cohort(path)
    path.write_bytes(b"PAR1")
    with pytest.raises(UsageError, match="BAD_COHORT"):
        read_cohort(path)


@pytest.mark.parametrize(
    ("order", "kept"),
    [("most_slices", ".1.1"), ("thinnest", ".1.5"), ("smallest_uid", ".1.1")],
)
def test_one_series_a_study_by_the_stated_order(tree: Path, order: str, kept: str) -> None:
    write_series(tree, count=4, series="5", SliceThickness="1.5")
    parameters = {"one_per_study": True, "study_order": order}
    selection = select_cohort("select_ct_series", catalog_of(tree), parameters)
    assert [s.series_instance_uid.removeprefix(ROOT) for s in selection.cohort.series] == [kept, ".2.1"]
    other = ({".1.1", ".1.5"} - {kept}).pop()
    assert reasons(selection)[other] == ["OTHER_SERIES_OF_STUDY"]
    assert len(reasons(selection)) == 4


def test_the_order_of_the_input_changes_nothing(tree: Path) -> None:
    catalog = catalog_of(tree)
    hashes = {select_cohort("select_ct_series", catalog, {"one_per_study": True}).cohort.sha256}
    import duckdb

    for seed in range(6):
        shuffled = tree.parent / f"shuffled{seed}.duckdb"
        with duckdb.connect(str(shuffled)) as connection:
            connection.execute(f"ATTACH '{tree.parent / 'c.duckdb'}' AS old (READ_ONLY)")
            for name in ("about", "crawls", "faults", "instances"):
                connection.execute(f"CREATE TABLE {name} AS FROM old.{name}")
            connection.execute("SELECT setseed(?)", [random.Random(seed).random()])
            connection.execute("CREATE TABLE dicom_all AS FROM old.instances WHERE NOT is_copy ORDER BY random()")
        again = open_catalog(f"folder:{shuffled}")
        hashes.add(select_cohort("select_ct_series", again, {"one_per_study": True}).cohort.sha256)
        again.close()
    assert len(hashes) == 1


def test_options_ask_for_more(tree: Path) -> None:
    catalog = catalog_of(tree)

    def failed(**parameters: object) -> list[str] | None:
        return reasons(select_cohort("select_ct_series", catalog, parameters, companions=False)).get(".1.1")

    assert failed() is None
    assert failed(slice_count_min=6) == ["SLICE_COUNT"]
    assert failed(slice_count_max=4) == ["SLICE_COUNT"]
    assert failed(slice_thickness_min=3.5) == ["SLICE_THICKNESS"]
    assert failed(slice_thickness_max="2.5") == ["SLICE_THICKNESS"]
    assert failed(slice_thickness_min=3.0, slice_thickness_max=3.0) is None
    assert failed(manufacturers=["acme"]) == ["NOT_STATED"]
    assert failed(near_axial=True, allow_lossy=False) is None
    assert failed(minimum_slices=6) == ["TOO_FEW_SLICES"]


def test_the_defaults_of_the_query_are_those_of_the_settings() -> None:
    query = load_query("select_ct_series")
    for setting in fields(GeometrySettings):
        parameter = query.parameter(setting.name)
        if parameter is not None:
            assert parameter.default == getattr(GeometrySettings(), setting.name), setting.name
    named = {p.name for p in query.parameters}
    assert named >= {
        "spacing_relative", "spacing_absolute", "line_tolerance", "drift", "cosines", "pixel_spacing_relative",
        "minimum_slices",
    }  # fmt: skip


def test_a_query_of_instances_works_too(tree: Path) -> None:
    columns = "PatientID, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID, gcs_url"
    text = f"SELECT {columns} FROM dicom_all WHERE Modality = @m"
    selection = select_cohort(parse_query("mine", text), catalog_of(tree), {"m": "CT"})
    assert len(selection.cohort.series) == 5
    assert selection.excluded.num_rows == 0


def test_a_series_twice_breaks_the_books(tree: Path) -> None:
    text = "SELECT SeriesInstanceUID, [] AS instances FROM dicom_all WHERE Modality = 'CT'"
    with pytest.raises(InconsistencyError):
        select_cohort(parse_query("mine", text), catalog_of(tree), {})


@pytest.mark.data
def test_real_series_bring_their_contours(tmp_path: Path, real_data: Callable[[str], Path]) -> None:
    index_folders([real_data("LUNG1-005")], tmp_path / "c.duckdb", processes=1)
    selection = select_cohort("select_ct_series", open_catalog(f"folder:{tmp_path / 'c.duckdb'}"), {})
    (entry,) = selection.cohort.series
    assert len(entry.instances) == 91
    assert [(c.modality, c.link.value) for c in entry.companions] == [
        ("RTSTRUCT", "reference"),
        ("SEG", "frame_of_reference"),
    ]
