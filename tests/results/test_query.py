from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.results.query import run_query
from ctenrich.results.tables import build_tables
from ctenrich.workspace import Workspace
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


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    folder = workspace.series_dir("1.9") / "expert" / "objects"
    write_seg(folder / "seg.dcm", "1.9.4")
    links = [*head(), coded(SITE, HEART), *segment_links("1.9.4", "1.9")]
    write_sr(folder / "shape_sr.dcm", "1.9.6", [group(*links, number(VOLUME, "3.25", MM3))])
    build_tables(workspace)
    return workspace


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT Value FROM quantitative_measurements WHERE findingSite.CodeMeaning = $organ",
        "SELECT Value FROM `quantitative_measurements` WHERE findingSite.CodeMeaning = @organ",
    ],
)
def test_both_dialects_with_bound_parameters(filled: Workspace, sql: str) -> None:
    assert run_query(filled, sql, {"organ": "Heart"}).to_pylist() == [{"Value": Decimal("3.250000000")}]
    assert run_query(filled, sql, {"organ": "x' OR '1'='1"}).num_rows == 0


def test_a_file_is_bigquery_sql(filled: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "mine.sql"
    path.write_text(
        "-- Purpose: segments.\n-- Parameters:\n--   @least INT64 = 2 -- smallest number\n"
        "SELECT SegmentNumber AS n FROM segmentations WHERE SegmentNumber >= @least ORDER BY n\n"
    )
    assert run_query(filled, str(path)).to_pylist() == [{"n": 3}]
    assert run_query(filled, str(path), {"least": "1"}).num_rows == 2


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM '/etc/passwd'",
        "COPY segmentations TO 'x.csv'",
        "DROP VIEW segmentations",
        "SELECT 1; SELECT 2",
        "ATTACH 'a.db'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SELECT getenv('HOME')",
        "SELECT * FROM `other-project.set.table`",
        "SELECT * FROM nothing",
        "SELEKT",
    ],
)
def test_nothing_but_the_tables_can_be_read(filled: Workspace, sql: str) -> None:
    with pytest.raises(UsageError) as caught:
        run_query(filled, sql)
    assert caught.value.reason is Reason.BAD_QUERY
    assert "/etc/" not in str(caught.value)


def test_missing_and_unknown_parameters(filled: Workspace) -> None:
    for sql, given in (("SELECT $a", {}), ("SELECT 1", {"a": 1})):
        with pytest.raises(UsageError) as caught:
            run_query(filled, sql, given)
        assert caught.value.reason is Reason.BAD_PARAMETER


def test_a_run_without_tables(workspace: Workspace) -> None:
    with pytest.raises(UsageError) as caught:
        run_query(workspace, "SELECT 1")
    assert caught.value.reason is Reason.NOT_PREPARED


def test_a_folder_name_with_a_quote(tmp_path: Path) -> None:
    odd = Workspace(tmp_path / "it's a run")
    write_seg(odd.series_dir("1.9") / "expert" / "objects" / "seg.dcm", "1.9.4")
    build_tables(odd)
    assert run_query(odd, "SELECT count(*) AS n FROM segmentations").to_pylist() == [{"n": 2}]


def test_clinical_tables_join(filled: Workspace) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sql = (
        "SELECT c.age FROM segmentations s JOIN `bigquery-public-data.idc_v25_clinical.my_clinical` c "
        "ON c.dicom_patient_id = s.PatientID WHERE s.SegmentNumber = 1"
    )
    with pytest.raises(UsageError) as caught:
        run_query(filled, sql)
    assert caught.value.reason is Reason.NOT_FOUND
    folder = filled.tables / "clinical"
    folder.mkdir()
    pq.write_table(pa.table({"dicom_patient_id": ["P1"], "age": ["061Y"]}), folder / "my_clinical.parquet")
    assert run_query(filled, sql).to_pylist() == [{"age": "061Y"}]
