"""A selection in parts of little memory is that of the whole catalog: same cohort file, same excluded series."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.catalog.test_engines import EMPTY, tables
from tests.select.test_rules_agree import stack
from tests.support.catalog_cases import ROOT, write_series, write_structures

from ctenrich.catalog import open_catalog
from ctenrich.catalog.folder import index_folders
from ctenrich.catalog.image_parts import split_query
from ctenrich.catalog.queries import load_query, parse_query
from ctenrich.catalog.schema import arrow_schema
from ctenrich.errors import UsageError
from ctenrich.select.files import excluded_path, lock_path, without_local_paths, write_cohort
from ctenrich.select.selection import Selection, select_cohort
from ctenrich.select.spool import SpooledSeries

LITTLE = 300_000
"""Bytes for a hundred images of a part."""


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cases of the engines' tests, and series whose images have several studies or patients, or no UID."""
    rows = [
        *tables()[0],
        *stack("7.1", [0, 3, 6, 9], StudyInstanceUID=["7.10", "7.10", "7.11", "7.11"]),
        *stack("7.2", [0, 3, 6, 9], StudyInstanceUID="7.11"),
        *stack("7.3", [0, 3, 6, 9], PatientID=["P", "P", "P", "R"]),
        *stack("", [0, 3, 6]),
        *stack("7.5", [0, 3, 6], StudyInstanceUID=None),
    ]
    place = tmp_path_factory.mktemp("export") / "idc_v25" / "dicom_all"
    place.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([{**EMPTY, **row} for row in rows], arrow_schema()), place / "0.parquet")
    return place.parents[1]


def selected(spec: str, out: Path, memory: int | None, parameters: dict[str, Any]) -> Selection:
    with closing(open_catalog(spec, memory=memory)) as catalog:
        selection = select_cohort("select_ct_series", catalog, parameters, name="c")
    write_cohort(selection, out)
    return selection


@pytest.mark.parametrize(
    "parameters",
    [
        {"one_per_study": True},
        pytest.param({}, marks=pytest.mark.long),
        pytest.param({"collections": ["nlst"]}, marks=pytest.mark.long),
        pytest.param({"patients": ["A", "P", "Q"]}, marks=pytest.mark.long),
    ],
    ids=["one_per_study", "all", "collection", "patients"],
)
def test_parts_change_nothing(export: Path, tmp_path: Path, parameters: dict[str, Any]) -> None:
    spec, whole, parted = f"parquet:{export}", tmp_path / "whole.parquet", tmp_path / "parted.parquet"
    expected = selected(spec, whole, None, parameters)
    found = selected(spec, parted, LITTLE // 3 if "patients" in parameters else LITTLE, parameters)
    assert isinstance(found.cohort.series, SpooledSeries) == ("patients" not in parameters)  # theirs are in one part
    assert found.cohort.sha256 == expected.cohort.sha256
    assert found.excluded.equals(expected.excluded)
    assert parted.read_bytes() == whole.read_bytes()
    assert excluded_path(parted).read_bytes() == excluded_path(whole).read_bytes()
    series = expected.cohort.series
    assert len(found.cohort.series) == len(series) > 3
    assert found.cohort.series[:3] == series[:3]
    assert found.cohort.series[len(series) - 1] == found.cohort.series[-1] == series[-1]


@pytest.mark.parametrize(
    "memory",
    [300_000, *(pytest.param(memory, marks=pytest.mark.long) for memory in (9_000, 77_000, 150_000))],
)
def test_the_result_does_not_depend_on_the_limit(export: Path, tmp_path: Path, memory: int) -> None:
    """From a part for every few studies to parts of a hundred images."""
    whole, parted = tmp_path / "whole.parquet", tmp_path / "parted.parquet"
    expected = selected(f"parquet:{export}", whole, None, {})
    found = selected(f"parquet:{export}", parted, memory, {})
    assert isinstance(found.cohort.series, SpooledSeries)
    assert found.cohort.sha256 == expected.cohort.sha256
    assert parted.read_bytes() == whole.read_bytes()
    assert excluded_path(parted).read_bytes() == excluded_path(whole).read_bytes()
    files = [lock_path(path).read_text().replace(path.name, "") for path in (whole, parted)]
    assert without_time(files[0]) == without_time(files[1])


def without_time(lock: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lock)
    return {key: value for key, value in found.items() if key != "time"}


@pytest.mark.parametrize("name", ["select_ct_series", "select_nlst", "select_nsclc_radiomics"])
def test_shipped_queries_are_divided_by_the_rows_of_single_images(name: str) -> None:
    split = split_query(load_query(name))
    assert split is not None
    assert [name for name, _ in split.summaries] == ["summary_others"]


@pytest.mark.long
def test_a_query_without_a_step_of_single_images_is_divided_by_its_columns(export: Path) -> None:
    shipped = load_query("select_ct_series")
    mine = parse_query(
        "mine", shipped.text.replace("COALESCE(SOPInstanceUID, '') AS", "CONCAT(COALESCE(SOPInstanceUID, '')) AS")
    )
    assert split_query(mine) is None
    with closing(open_catalog(f"parquet:{export}", memory=600_000)) as catalog:
        found = select_cohort(mine, catalog, {})
        assert isinstance(found.cohort.series, SpooledSeries)
    with closing(open_catalog(f"parquet:{export}")) as catalog:
        expected = select_cohort(shipped, catalog, {})
    assert found.cohort.sha256 == expected.cohort.sha256
    assert found.excluded.equals(expected.excluded)


def test_a_copy_without_local_paths_is_that_of_series_in_memory(export: Path, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("whole.parquet", "parted.parquet")]
    for path, memory in zip(paths, (None, LITTLE), strict=True):
        selection = selected(f"parquet:{export}", path, memory, {})
        write_cohort(replace(selection, cohort=without_local_paths(selection.cohort)), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_folder_catalog_is_divided_too(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for number in range(6):
        write_series(folder, count=5, series=str(number + 1), study=str(number + 1), patient=f"P{number}")
    write_structures(folder / "rt.dcm", frame=f"{ROOT}.1.99", series=f"{ROOT}.1.1")
    index_folders([folder], tmp_path / "c.duckdb", processes=1)
    spec, whole, parted = f"folder:{tmp_path / 'c.duckdb'}", tmp_path / "whole.parquet", tmp_path / "parted.parquet"
    expected = selected(spec, whole, None, {})
    found = selected(spec, parted, 20_000, {})
    assert isinstance(found.cohort.series, SpooledSeries)
    assert found.catalog_version == expected.catalog_version
    assert [c.modality for c in found.cohort.series[0].companions] == ["RTSTRUCT"]
    assert parted.read_bytes() == whole.read_bytes()


def test_a_query_that_states_no_partition_is_asked_once(export: Path) -> None:
    query = load_query("select_ct_series")
    undivided = parse_query("mine", query.text.replace("-- Partition: StudyInstanceUID\n", ""))
    with closing(open_catalog(f"parquet:{export}", memory=LITTLE)) as catalog:
        found = select_cohort(undivided, catalog, {})
        assert isinstance(found.cohort.series, tuple)
        assert found.cohort.sha256 == select_cohort(replace(query, name="mine"), catalog, {}).cohort.sha256
    with pytest.raises(UsageError, match="BAD_QUERY"):
        parse_query("mine", query.text.replace("Partition: StudyInstanceUID", "Partition: PatientID"))


def test_no_temporary_file_is_left(export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = selected(f"parquet:{export}", tmp_path / "out" / "c.parquet", LITTLE, {})
    assert isinstance(found.cohort.series, SpooledSeries)
    del found
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
