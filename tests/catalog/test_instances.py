"""Instances that are listed outside of the query are those of the query, in its order."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.catalog.test_engines import EMPTY, tables
from tests.select.test_rules_agree import stack

import ctenrich.catalog.instances as instances
from ctenrich.catalog import open_catalog
from ctenrich.catalog.base import QueryResult
from ctenrich.catalog.queries import load_query, parse_query
from ctenrich.catalog.schema import arrow_schema
from ctenrich.errors import UsageError

CT = load_query("select_ct_series")
TILTED = ["1", "0", "0", "0", "0.866025", "-0.5"]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cases of the engines' tests, a tilted series, and one that has a result of an analysis among its images."""
    rows = [
        *tables()[0],
        *stack("8.1", [9, 0, 6, 3], ImageOrientationPatient=TILTED),
        *stack("8.2", [0, 3, 6, 9], analysis_result_id=[None, None, None, "derived"]),
    ]
    place = tmp_path_factory.mktemp("export") / "idc_v25" / "dicom_all"
    place.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([{**EMPTY, **row} for row in rows], arrow_schema()), place / "0.parquet")
    return place.parents[1]


def asked(export: Path, parameters: dict[str, Any]) -> tuple[pa.Table, pa.Table]:
    """Answer of the whole query, and with instances that are listed outside of it."""
    with closing(open_catalog(f"parquet:{export}")) as catalog:
        (part,) = catalog.run_in_parts(CT, parameters)  # type: ignore[attr-defined]
        return catalog.run(CT, parameters).table, part.table


@pytest.mark.parametrize("parameters", [{}, {"one_per_study": True, "original_only": True}])
def test_rows_are_those_of_the_whole_query(export: Path, parameters: dict[str, Any]) -> None:
    expected, found = (table.sort_by("SeriesInstanceUID") for table in asked(export, parameters))
    assert found.column_names == expected.column_names
    assert found.to_pylist() == expected.to_pylist()
    assert sum(len(row["instances"]) > 2 for row in expected.to_pylist()) > 3


def test_the_query_is_asked_whole_where_images_of_a_series_are_left_out(
    export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: list[str] = []
    run = instances.run_on_duckdb

    def noted(connection: Any, query: Any, *others: Any) -> QueryResult:
        asked_for.append(query.text)
        return run(connection, query, *others)

    monkeypatch.setattr(instances, "run_on_duckdb", noted)
    asked(export, {})
    assert len(asked_for) == 1
    asked(export, {"original_only": True})
    assert [text == CT.text for text in asked_for] == [False, False, True]


def test_other_statements_on_instances_are_refused() -> None:
    with pytest.raises(UsageError, match="BAD_QUERY"):
        parse_query(
            "mine", CT.text.replace("Instances: images of Modality CT along the slice normal", "Instances: all")
        )
