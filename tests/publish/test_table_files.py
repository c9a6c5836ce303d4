"""Tables as Excel, Stata and CSV: read back with other programs, and nothing is cut off."""

from __future__ import annotations

import csv
import datetime as dt
import json
import math
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ctenrich.cli.main import app
from ctenrich.cli.query_output import RowFormat, write_rows
from ctenrich.errors import InputError, UsageError
from ctenrich.publish.table_files import TableFormat, export_tables
from ctenrich.reasons import Reason
from ctenrich.results import table_formats
from ctenrich.results.schema import arrow_schema
from ctenrich.workspace import Workspace

pd = pytest.importorskip("pandas")
LONG = "ü" * 3000
NS = {"m": "http://schemas.openxmlformats.org/spreadsheetml/2006/main"}


def odd_table() -> pa.Table:
    """One column of each kind, with values that a format may spoil."""
    return pa.table(
        {
            "uid": ["1.2.840", None],
            "formula": ["=1+1", "-12.5"],
            "long text": [LONG, ""],
            "if": [1, 2],
            "count": pa.array([3, None], pa.int64()),
            "large": pa.array([2**60 + 1, 5], pa.int64()),
            "value": [0.1, math.inf],
            "share": pa.array([0.25, None], pa.float64()),
            "flag": pa.array([True, None], pa.bool_()),
            "day": pa.array([dt.date(2020, 2, 29), None], pa.date32()),
            "code": [{"CodeValue": "1", "CodeMeaning": "é"}, None],
            "list": [[1, 2], []],
        }
    )


def sheet_values(path: Path, number: int) -> list[list[str | None]]:
    """The cells of a sheet, by an XML parser; booleans and numbers as they are written."""
    with zipfile.ZipFile(path) as book:
        root = ElementTree.fromstring(book.read(f"xl/worksheets/sheet{number}.xml"))
    rows = []
    for row in root.iterfind(".//m:row", NS):
        cells: dict[str, str | None] = {}
        for cell in row.iterfind("m:c", NS):
            text = cell.find("m:is/m:t", NS)
            cells[str(cell.get("r")).rstrip("0123456789")] = (
                text.text if text is not None else cell.findtext("m:v", None, NS)
            )
        rows.append([cells.get(chr(65 + n)) for n in range(12)])
    return rows


@pytest.fixture
def file(tmp_path: Path) -> Path:
    pq.write_table(odd_table(), tmp_path / "odd.parquet")
    return tmp_path / "odd.parquet"


def test_excel(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("xlsxwriter")
    found = export_tables(file, TableFormat.EXCEL, tmp_path / "out")
    assert found.files == (tmp_path / "out" / "odd.xlsx",)
    header, first, second = sheet_values(found.files[0], 1)
    assert header == odd_table().column_names
    assert first == ["1.2.840", "=1+1", LONG, "1", "3", str(2**60 + 1), "0.1", "0.25", "1", "43890",
                     '{"CodeValue": "1", "CodeMeaning": "é"}', "[1, 2]"]  # fmt: skip
    assert second == [None, "-12.5", None, "2", None, "5", "inf", None, None, None, None, "[]"]
    with zipfile.ZipFile(found.files[0]) as book:
        assert b"<f>" not in book.read("xl/worksheets/sheet1.xml"), "text is no formula"
        assert b'name="columns"' in book.read("xl/workbook.xml")


def test_excel_has_limits(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xlsxwriter")
    monkeypatch.setattr(table_formats, "_SHEET_ROWS", 2)
    found = export_tables(file, TableFormat.EXCEL, tmp_path / "out")
    assert [sheet_values(found.files[0], n)[1][3] for n in (1, 2)] == ["1", "2"], "rows go on in a second sheet"
    pq.write_table(pa.table({"text": ["x" * 32_768]}), file)
    with pytest.raises(InputError, match=r"odd\.text holds a text of 32768 characters") as caught:
        export_tables(file, TableFormat.EXCEL, tmp_path / "long")
    assert caught.value.reason is Reason.TABLE_FORMAT
    assert not list((tmp_path / "long").iterdir())


def test_a_table_that_excel_cannot_hold_is_a_csv_file_beside_the_workbook(run: Workspace, tmp_path: Path) -> None:
    pytest.importorskip("xlsxwriter")
    nested = [{"text": "y" * 32_768}]
    pq.write_table(pa.table({"text": ["x" * 32_767]}), tmp_path / "tables" / "organs.parquet")
    pq.write_table(pa.table({"code": [nested, None]}), tmp_path / "tables" / "outcomes.parquet")
    found = export_tables(run, TableFormat.EXCEL, tmp_path / "out")
    assert [path.name for path in found.files] == ["tables.xlsx", "outcomes.csv"]
    assert (found.as_csv, found.rows) == (("outcomes",), {"organs": 1, "outcomes": 2})
    assert sheet_values(found.files[0], 1)[1][0] == "x" * 32_767
    csv.field_size_limit(100_000)
    with found.files[1].open(encoding="utf-8", newline="") as handle:
        assert [json.loads(row[0]) if row[0] else None for row in list(csv.reader(handle))[1:]] == [nested, None]


def test_stata(file: Path, tmp_path: Path) -> None:
    export_tables(file, TableFormat.STATA, tmp_path / "out")
    with pd.io.stata.StataReader(tmp_path / "out" / "odd.dta") as reader:
        frame, labels = reader.read(), reader.variable_labels()
    assert list(frame) == [
        "uid", "formula", "long_text", "_if", "count", "large", "value", "share", "flag", "day", "code", "list",
    ]  # fmt: skip
    assert labels["_if"] == "if"
    assert list(frame["long_text"]) == [LONG, ""]
    assert list(frame["_if"]) == [1, 2]
    assert frame["count"][0] == 3
    assert math.isnan(frame["count"][1])
    assert list(frame["large"]) == [str(2**60 + 1), "5"], "no number is rounded"
    assert list(frame["value"]) == ["0.1", "inf"]
    assert frame["flag"][0] == 1
    assert frame["day"][0] == pd.Timestamp(2020, 2, 29)
    assert list(frame["uid"]) == ["1.2.840", ""]


def test_csv(file: Path, tmp_path: Path) -> None:
    found = export_tables(file, TableFormat.CSV, tmp_path / "out")
    assert [path.name for path in found.files] == ["odd.csv", "columns.csv"]
    rows = list(csv.reader((tmp_path / "out" / "odd.csv").read_text("utf-8").splitlines()))
    assert rows[1][:4] == ["1.2.840", "'=1+1", LONG, "1"]
    assert rows[2][1] == "-12.5"


@pytest.fixture
def run(tmp_path: Path) -> Workspace:
    (tmp_path / "tables").mkdir()
    for name in ("organs", "outcomes"):
        pq.write_table(arrow_schema(name).empty_table(), tmp_path / "tables" / f"{name}.parquet")
    return Workspace(tmp_path)


@pytest.mark.parametrize("fmt", TableFormat)
def test_the_tables_of_a_run_without_rows(run: Workspace, tmp_path: Path, fmt: TableFormat) -> None:
    if fmt is TableFormat.EXCEL:
        pytest.importorskip("xlsxwriter")
    found = export_tables(run, fmt, tmp_path / "out")
    assert found.rows == {"organs": 0, "outcomes": 0}
    assert {path.name for path in found.files} == {
        TableFormat.CSV: {"organs.csv", "outcomes.csv", "columns.csv"},
        TableFormat.EXCEL: {"tables.xlsx"},
        TableFormat.STATA: {"organs.dta", "outcomes.dta"},
    }[fmt]
    if fmt is TableFormat.CSV:
        columns = list(csv.DictReader((tmp_path / "out" / "columns.csv").read_text("utf-8").splitlines()))
        assert {row["meaning"] == "" for row in columns} == {False}, "each column is explained"


WRONG: list[Callable[[Workspace], object]] = [
    lambda run: export_tables(run, TableFormat.CSV, run.root / "out", names=["organ"]),
    lambda run: export_tables(run.root / "none.parquet", TableFormat.CSV, run.root / "out"),
    lambda run: export_tables(Workspace(run.root / "tables"), TableFormat.CSV, run.root / "out"),
]


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_requests(run: Workspace, wrong: Callable[[Workspace], object]) -> None:
    with pytest.raises(UsageError) as caught:
        wrong(run)
    assert caught.value.reason in (Reason.NOT_FOUND, Reason.NOT_PREPARED)


def test_the_command(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xlsxwriter")
    done = CliRunner().invoke(app, ["export", str(file), "csv-tables", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "2 rows of 1 table: 2 files in" in done.output
    wrong = CliRunner().invoke(app, ["export", str(file), "stata", "--only", "accepted"])
    assert wrong.exit_code == 2
    query_rows = pq.read_table(file)
    for form in (RowFormat.STATA, RowFormat.EXCEL):
        write_rows(query_rows, form, tmp_path / f"rows.{form.value}")
        assert (tmp_path / f"rows.{form.value}").stat().st_size > 1000
        with pytest.raises(UsageError, match="is no text for a terminal"):
            write_rows(query_rows, form, None)
    monkeypatch.setitem(sys.modules, "xlsxwriter", None)
    missing = CliRunner().invoke(app, ["export", str(file), "excel", "--out", str(tmp_path / "out")])
    assert "ctenrich[tables]" in missing.output
