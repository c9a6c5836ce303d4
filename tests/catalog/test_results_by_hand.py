"""Questions to result tables: rows worked out by hand on DuckDB, on Parquet in a bucket and on BigQuery's client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctenrich.catalog import open_catalog
from ctenrich.catalog.queries import load_query
from ctenrich.results.query import result_queries, run_query
from ctenrich.results.remote import PublishedTables
from ctenrich.workspace import Workspace

PLACE = "test-project.byhand"
TYPES: dict[str, Any] = {
    "slice_index": pa.int64(), "distance": pa.float64(), "z": pa.float64(), "segment_number": pa.int64(),
    "segmentationSegmentNumber": pa.int64(), "valueFloat": pa.float64(), "score": pa.float64(),
    "SegmentNumber": pa.int64(), "value": pa.float64(), "lower": pa.float64(), "upper": pa.float64(),
    "expert_dice": pa.float64(),
} | {
    f"{part}_{name}": kind for name in ("mean_gy", "d2cc_gy", "v20gy_percent")
    for part, kind in (("reference", pa.float64()), ("difference", pa.float64()), ("within_bounds", pa.bool_()))
}  # fmt: skip
CODED = ("Quantity", "derivationModifier", "Units", "Value", "topographicalModifier")


def _table(columns: str, *rows: tuple[Any, ...]) -> pa.Table:
    """Rows of plain columns; those in `CODED` become records of a meaning and a value."""
    names = columns.split()
    code = pa.struct([("CodeMeaning", pa.string()), ("CodeValue", pa.string())])
    kinds = [code if n in CODED else TYPES.get(n, pa.string()) for n in names]
    made = [
        [{"CodeMeaning": v, "CodeValue": v} if n in CODED else v for n, v in zip(names, row, strict=True)]
        for row in rows
    ]
    data = [pa.array(list(column), kind) for column, kind in zip(zip(*made, strict=True), kinds, strict=True)]
    return pa.table(data, names=names)


def _segmentations() -> pa.Table:
    modifier = pa.list_(pa.struct([("CodeMeaning", pa.string())]))
    kind = pa.struct([("CodeMeaning", pa.string()), ("SegmentedPropertyTypeModifierCodeSequence", modifier)])
    plain = _table(
        "PatientID StudyInstanceUID segmented_SeriesInstanceUID SeriesInstanceUID SOPInstanceUID SegmentNumber "
        "SegmentAlgorithmType SegmentAlgorithmName viewer_url",
        ("P1", "1", "1.1", "8.1", "7.1", 2, "MANUAL", "", "v1"),
        ("P1", "1", "1.1", "8.1", "7.1", 1, "AUTOMATIC", "net", "v1"),
    )
    sides: list[dict[str, Any]] = [{"CodeMeaning": "Left"}]
    organs = [
        {"CodeMeaning": "Heart", "SegmentedPropertyTypeModifierCodeSequence": []},
        {"CodeMeaning": "Lung", "SegmentedPropertyTypeModifierCodeSequence": sides},
    ]
    return plain.append_column("SegmentedPropertyType", pa.array(organs, kind))


TABLES: dict[str, pa.Table] = {
    "series": _table(
        "SeriesInstanceUID viewer_url body_part_examined", ("1.1", "v1", "CHEST"), ("1.2", "v2", "ABDOMEN")
    ),
    "slices": _table(
        "SeriesInstanceUID slice_index SOPInstanceUID distance z",
        *(("1.1", k, f"1.1.{k}", 3.0 * k, 3.0 * k - 10) for k in (2, 0, 3, 1)),
        *(("1.2", k, f"1.2.{k}", 5.0 * k, 5.0 * k) for k in range(2)),
    ),
    "objects": _table(
        "SOPInstanceUID kind SeriesInstanceUID product",
        ("7.1", "seg", "1.1", "expert"), ("7.2", "shape_sr", "1.1", "expert"), ("7.3", "shape_sr", "1.1", "net"),
        ("7.4", "landmarks_sr", "1.1", "bpr"), ("7.5", "regions_sr", "1.1", "bpr"), ("7.6", "regions_sr", "1.2", "bpr"),
    ),
    "segments": _table(
        "SeriesInstanceUID product segment_number segment",
        ("1.1", "expert", 1, "heart"), ("1.1", "expert", 2, "aorta"), ("1.1", "net", 5, "heart"),
    ),
    "quantitative_measurements": _table(
        "SOPInstanceUID segmentationSegmentNumber Quantity derivationModifier valueFloat Units",
        ("7.2", 1, "Sphericity", None, 0.5, "1"), ("7.2", 2, "Sphericity", None, 0.25, "1"),
        ("7.2", 1, "Volume", None, 600.0, "mm3"), ("7.3", 5, "Sphericity", None, 0.75, "1"),
    ),
    "landmarks": _table(
        "SeriesInstanceUID product landmark score slice_index absent_reason",
        ("1.1", "bpr", "Th8", 50.0, 1, ""), ("1.1", "bpr", "Th7", 55.0, 3, ""),
        ("1.1", "bpr", "Th6", 60.0, None, "high"),
        ("1.1", "bpr", "lung_start", 40.0, 0, ""), ("1.1", "bpr", "lung_end", 70.0, None, "above the scan"),
        ("1.2", "bpr", "Th7", 55.0, 0, ""), ("1.2", "bpr", "Th8", 50.0, 1, ""), ("1.2", "bpr", "Th6", 60.0, 1, ""),
    ),
    "image_level_annotations": _table(
        "SOPInstanceUID landmark region topographicalModifier ReferencedSOPInstanceUID",
        ("7.4", "lung_end", None, "Top", "1.1.3"), ("7.4", "Th8", None, "Center", "1.1.1"),
        ("7.5", None, "chest", None, "1.1.0"), ("7.6", None, "abdomen", None, "1.2.0"),
    ),
    "dose_metrics": _table(
        "SeriesInstanceUID product organ metric value lower upper",
        ("1.1", "expert", "heart", "Mean[Gy]", 20.0, 19.5, 20.5), ("1.1", "net", "heart", "Mean[Gy]", 22.5, 22.0, 23.0),
        ("1.1", "expert", "heart", "Max[Gy]", 60.0, 59.0, 61.0),
        ("1.2", "expert", "aorta", "Mean[Gy]", None, None, None),
    ),
    "dose_differences": _table(
        "SeriesInstanceUID product organ reference_mean_gy difference_mean_gy within_bounds_mean_gy reference_d2cc_gy "
        "difference_d2cc_gy within_bounds_d2cc_gy difference_v20gy_percent within_bounds_v20gy_percent",
        ("1.1", "net", "heart", 20.0, 0.25, True, 50.0, -4.0, False, 1.5, True),
        ("1.1", "net", "aorta", 50.0, -4.0, True, None, None, None, 0.5, None),
    ),
    "organs": _table(
        "SeriesInstanceUID product organ expert_dice", ("1.1", "net", "heart", 0.75), ("1.1", "expert", "heart", None)
    ),
    "segmentations": _segmentations(),
}  # fmt: skip
BY_HAND: dict[str, tuple[dict[str, object], list[tuple[Any, ...]]]] = {
    "landmarks_of_series": (
        {"series": "1.1"},
        [("1.1", "Th8", "Center", 1, 3.0, "1.1.1"), ("1.1", "lung_end", "Top", 3, 9.0, "1.1.3")],
    ),
    "expert_against_model": (
        {"quantity": "Sphericity"}, [("1.1", "heart", "expert", 0.5, "net", 0.75, 0.25)]
    ),
    # 1.1 has Th6 nowhere; in 1.2 the vertebrae are upside down, and two are on one slice
    "vertebra_distances": (
        {}, [("1.1", "bpr", "Th8", "Th7", 6.0), ("1.2", "bpr", "Th7", "Th6", 5.0), ("1.2", "bpr", "Th8", "Th7", -5.0)]
    ),
    "organ_doses": (
        {}, [("1.2", "aorta", None, None, None, None, None, None), ("1.1", "heart", 20.0, 19.5, 20.5, "net", 22.5, 2.5)]
    ),
    # tolerances: 4 of 1 Gy (2 % of 50 Gy) each, 0.25 of 0.5 Gy (2 % of 20 Gy would be less), 1.5 of 1 point
    "cost_of_contours": (
        {},
        [("1.1", "net", "aorta", None, -4.0, None, 0.5, 4.0, False),
         ("1.1", "net", "heart", 0.75, 0.25, -4.0, 1.5, 4.0, True)],
    ),
    "series_with_vertebrae": ({"first": "Th8", "last": "Th6"}, [("1.2", "bpr", 3)]),
    "series_without_landmark": ({}, [("1.1", "bpr", "lung_end", "above the scan", "v1")]),
    "series_without_region": ({"region": "Chest"}, [("1.2", "bpr", "ABDOMEN", "v2")]),
    "features_of_series": (
        {"series": "1.1"},
        [("expert", "aorta", "Sphericity", 0.25, "1"), ("expert", "heart", "Sphericity", 0.5, "1"),
         ("net", "heart", "Sphericity", 0.75, "1"), ("expert", "heart", "Volume", 600.0, "mm3")],
    ),
    "measured_values": (
        {"segment": "heart"},
        [("1.1", "expert", "shape_sr", "heart", 1, "Sphericity", None, 0.5, "1"),
         ("1.1", "expert", "shape_sr", "heart", 1, "Volume", None, 600.0, "mm3"),
         ("1.1", "net", "shape_sr", "heart", 5, "Sphericity", None, 0.75, "1")],
    ),
    "feature_over_cohort": (
        {"quantity": "Sphericity", "segment": "heart"},
        [("1.1", "expert", "heart", 0.5, "1", "v1"), ("1.1", "net", "heart", 0.75, "1", "v1")],
    ),
    "source_images": (
        {"object": "7.1"}, [("7.1", "seg", "1.1", k, f"1.1.{k}", 3.0 * k - 10) for k in range(4)]
    ),
    "segmentations": (
        {},
        [("P1", "1", "1.1", "8.1", "7.1", 1, "Lung", "Left", "AUTOMATIC", "net", "v1"),
         ("P1", "1", "1.1", "8.1", "7.1", 2, "Heart", None, "MANUAL", "", "v1")],
    ),
}  # fmt: skip
ELSEWHERE = {
    "region_shares", "region_extents", "series_with_feature_in_range", "absent_organs", "lung_height",
    "landmark_coverage", "published_features", "published_measurement_groups", "published_annotations",
    "features_with_clinical_data",
}  # fmt: skip
"""Compared with rows by hand, or with another walk over the same objects, in tests/results/test_queries.py."""


def test_every_question_is_asked() -> None:
    assert set(result_queries()) == {*BY_HAND, *ELSEWHERE}
    assert not ELSEWHERE & BY_HAND.keys()


Ask = Callable[[str, dict[str, object]], pa.Table]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("byhand"))
    workspace.tables.mkdir(parents=True)
    for name, table in TABLES.items():
        pq.write_table(table, workspace.tables / f"{name}.parquet")
    return workspace


@pytest.fixture(scope="module")
def bucket(run: Workspace, s3_endpoint: str) -> str:
    import boto3

    client = boto3.client(
        "s3", endpoint_url=s3_endpoint, aws_access_key_id="x", aws_secret_access_key="x", region_name="us-east-1"
    )
    client.create_bucket(Bucket="byhand", ACL="public-read")
    for path in sorted(run.tables.glob("*.parquet")):
        key = f"tables/{path.stem}/000000000000.parquet"
        client.upload_file(str(path), "byhand", key, ExtraArgs={"ACL": "public-read"})
    return s3_endpoint


@pytest.fixture(scope="module")
def published(run: Workspace, bigquery_endpoint: str) -> str:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import bigquery

    options: Any = bigquery.ParquetOptions()  # type: ignore[no-untyped-call]
    options.enable_list_inference = True
    config = bigquery.LoadJobConfig(source_format="PARQUET", parquet_options=options)
    endpoint: Any = {"api_endpoint": bigquery_endpoint}
    with bigquery.Client("test-project", AnonymousCredentials(), client_options=endpoint) as client:  # type: ignore[no-untyped-call]
        client.create_dataset(PLACE, exists_ok=True)
        for path in sorted(run.tables.glob("*.parquet")):
            with Path(path).open("rb") as handle:
                client.load_table_from_file(handle, f"{PLACE}.{path.stem}", job_config=config).result(timeout=120)
    return bigquery_endpoint


@pytest.fixture(params=["run", "bucket", "bigquery"])
def ask(request: pytest.FixtureRequest, run: Workspace, monkeypatch: pytest.MonkeyPatch) -> Ask:
    if request.param == "run":
        return lambda name, given: run_query(run, name, given)
    if request.param == "bigquery":
        there = PublishedTables(PLACE, endpoint=request.getfixturevalue("published"))
        return there.run_query
    monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("bucket"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    catalog = open_catalog("parquet:s3://byhand/tables")
    return lambda name, given: catalog.run(load_query(name), given).table


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_rows_are_those_worked_out_by_hand(ask: Ask, name: str) -> None:
    given, expected = BY_HAND[name]
    table = ask(name, given)
    assert table.column_names == [column.name for column in load_query(name).columns], "as the header says"
    assert [tuple(row.values()) for row in table.to_pylist()] == expected
