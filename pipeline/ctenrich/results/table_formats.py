"""Tables as Excel workbooks, Stata files and CSV: nothing is cut off, and what a format cannot hold becomes text."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctenrich.errors import InputError
from ctenrich.reasons import Reason
from ctenrich.results.csv_cells import csv_cell
from ctenrich.tools import need_package
from ctenrich.workspace import atomic_path

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["fits_excel", "flat_value", "write_csv_table", "write_excel", "write_stata"]

_EXTRA = "tables"
_WHOLE = 2**53
"""Whole numbers up to this have a float64 of their own; Excel and Stata have no larger ones."""
_SHEET_ROWS, _SHEET_COLUMNS, _CELL, _SHEET_NAME = 1_048_576, 16_384, 32_767, 31
"""Limits of Excel's file format."""
_STATA_TEXT, _STATA_NAME, _STATA_LABEL = 2045, 32, 80
"""Limits of Stata's file format 118: characters of a name and a label, bytes of a text that is no strL."""
_BATCH = 4096
_STATA_RESERVED = frozenset(
    {"_all", "_b", "_coef", "_cons", "_n", "_N", "_pi", "_pred", "_rc", "_skip", "byte", "double", "float", "if", "in"}
    | {"int", "long", "strL", "using", "with"}
)
"""Names that no variable of Stata may have (Stata User's Guide 11.3)."""


def flat_value(value: Any) -> Any:
    """Return a nested value as JSON text and a decimal as a number; others stay as they are."""
    if isinstance(value, dict | list):
        return json.dumps(value, default=_json_value, ensure_ascii=False)
    return _number(value) if isinstance(value, Decimal) else value


def _json_value(value: Any) -> object:
    if isinstance(value, Decimal):
        return _number(value)
    return value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)


def _number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def _rows(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[Any, ...]]:
    """Rows of a table, some in memory at a time, nested values as text."""
    for batch in batches:
        for start in range(0, batch.num_rows, _BATCH):
            columns = [column.to_pylist() for column in batch.slice(start, _BATCH).columns]
            yield from zip(*([flat_value(value) for value in column] for column in columns), strict=True)


# ---------------------------------------------------------------- CSV


def write_csv_table(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write a table as CSV in UTF-8; text that a spreadsheet would take for a formula gets an apostrophe before it.

    Parameters
    ----------
    path : Path
        The file.
    schema : pyarrow.Schema
        Names of the columns.
    batches : iterable of pyarrow.RecordBatch
        The rows.
    """
    import csv

    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(schema.names)
        writer.writerows([csv_cell(value) for value in row] for row in _rows(batches))


# ---------------------------------------------------------------- Excel


def write_excel(path: Path, tables: Mapping[str, tuple[pa.Schema, Iterable[pa.RecordBatch]]]) -> None:
    """Write tables as sheets of one Excel workbook; a table with more rows than a sheet holds gets further sheets.

    Text is never a formula. Whole numbers beyond 2^53, numbers that are not finite, and dates before 1900 are text.

    Parameters
    ----------
    path : Path
        The file, ``.xlsx``.
    tables : mapping
        Name -> columns and rows.

    Raises
    ------
    UsageError
        MISSING_EXTRA without XlsxWriter.
    InputError
        TABLE_FORMAT for a text of more than 32,767 characters, or more than 16,384 columns.
    """
    need_package("xlsxwriter", extra=_EXTRA, purpose="an Excel workbook")
    import xlsxwriter  # heavy adapter

    options = {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    with atomic_path(path) as temporary:
        book = xlsxwriter.Workbook(str(temporary), options)
        try:
            dates = book.add_format({"num_format": "yyyy-mm-dd"})
            names = _SheetNames()
            for name, (schema, batches) in tables.items():
                _write_sheets(book, names, name, schema, _rows(batches), dates)
        finally:
            book.close()


def fits_excel(batches: Iterable[pa.RecordBatch]) -> bool:
    """Return whether the texts of a table are short enough for cells of Excel; nested values count as JSON text."""
    return all(_fits_cells(column) for batch in batches for column in batch.columns)


def _fits_cells(column: pa.Array) -> bool:
    import pyarrow.compute as pc
    import pyarrow.types as kinds

    if kinds.is_string(column.type) or kinds.is_large_string(column.type):
        return bool((pc.max(pc.utf8_length(column)).as_py() or 0) <= _CELL)
    if kinds.is_nested(column.type):
        return all(len(_text(flat_value(value.as_py()))) <= _CELL for value in column if value.is_valid)
    return True


class _SheetNames:
    """Names of sheets: at most 31 characters, each once whatever its case."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def next(self, name: str) -> str:
        clean = re.sub(r"[\[\]:*?/\\']", "_", name) or "table"
        found, number = clean[:_SHEET_NAME], 1
        while found.lower() in self._taken:
            number += 1
            found = f"{clean[: _SHEET_NAME - len(str(number)) - 1]}_{number}"
        self._taken.add(found.lower())
        return found


def _write_sheets(book: Any, names: _SheetNames, name: str, schema: Any, rows: Iterator[Any], dates: Any) -> None:
    if len(schema.names) > _SHEET_COLUMNS:
        raise InputError(Reason.TABLE_FORMAT, f"{name} has {len(schema.names)} columns; a sheet of Excel has 16,384")
    sheet, line = None, 0
    for row in rows:
        if sheet is None or line == _SHEET_ROWS:
            sheet, line = _new_sheet(book, names.next(name), schema.names), 1
        for column, value in enumerate(row):
            _write_cell(sheet, (line, column), value, f"{name}.{schema.names[column]}", dates)
        line += 1
    if sheet is None:
        _new_sheet(book, names.next(name), schema.names)


def _new_sheet(book: Any, name: str, columns: list[str]) -> Any:
    sheet = book.add_worksheet(name)
    sheet.freeze_panes(1, 0)
    for number, column in enumerate(columns):
        sheet.write_string(0, number, column)
    return sheet


def _write_cell(sheet: Any, place: tuple[int, int], value: Any, name: str, dates: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool):
        sheet.write_boolean(*place, value)
    elif (
        isinstance(value, int | float)
        and math.isfinite(value)
        and abs(value) <= (_WHOLE if isinstance(value, int) else math.inf)
    ):
        sheet.write_number(*place, value)
    elif isinstance(value, dt.date) and not isinstance(value, dt.datetime) and value.year >= 1901:
        sheet.write_datetime(*place, dt.datetime(value.year, value.month, value.day), dates)
    else:
        text = _text(value)
        if len(text) > _CELL:
            message = f"{name} holds a text of {len(text)} characters; a cell of Excel holds 32,767"
            raise InputError(Reason.TABLE_FORMAT, message, "export this table as CSV, Stata or Parquet")
        sheet.write_string(*place, text)


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)


# ---------------------------------------------------------------- Stata


def write_stata(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write a table as a Stata file (format 118, Stata 14 and later).

    Columns whose names Stata does not allow are renamed; every variable has the name and the description of its column
    as label. True is 1. A column with whole numbers beyond 2^53 or numbers that are not finite is text.

    Parameters
    ----------
    path : Path
        The file, ``.dta``.
    schema : pyarrow.Schema
        The columns, with descriptions in their metadata.
    batches : iterable of pyarrow.RecordBatch
        The rows; the whole table is in memory.

    Raises
    ------
    UsageError
        MISSING_EXTRA without pandas.
    """
    need_package("pandas", extra=_EXTRA, purpose="a Stata file")
    import pandas as pd  # heavy adapter

    columns: list[list[Any]] = [[] for _ in schema.names]
    for row in _rows(batches):
        for values, value in zip(columns, row, strict=True):
            values.append(value)
    names = _stata_names(schema.names)
    made = {name: _stata_column(values, field.type) for name, values, field in zip(names, columns, schema, strict=True)}
    frame = pd.DataFrame(made)
    labels = {name: _label(field) for name, field in zip(names, schema, strict=True)}
    long = [name for name, column in made.items() if column.dtype == object and _longest(column) > _STATA_TEXT]
    days: Any = {name: "td" for name, column in made.items() if str(column.dtype).startswith("datetime64")}
    with atomic_path(path) as temporary:
        frame.to_stata(
            temporary, write_index=False, version=118, variable_labels=labels, convert_strl=long, convert_dates=days
        )


def _stata_column(values: list[Any], kind: pa.DataType) -> Any:
    import pandas as pd
    import pyarrow.types as kinds

    numeric = kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_boolean(kind) or kinds.is_decimal(kind)
    if numeric and all(value is None or _fits(value) for value in values):
        numbers = pd.Series([math.nan if value is None else float(value) for value in values], dtype="float64")
        whole = kinds.is_integer(kind) or kinds.is_boolean(kind)
        if whole and values and not numbers.isna().any() and numbers.abs().max() < 2**31 - 100:
            return numbers.astype("int32")
        return numbers
    if kinds.is_date(kind) and all(value is None or 1700 <= value.year <= 2200 for value in values):
        return pd.Series(pd.to_datetime(values), dtype="datetime64[ns]")
    return pd.Series(["" if value is None else _text(value) for value in values], dtype=object)


def _fits(value: Any) -> bool:
    return math.isfinite(value) and (isinstance(value, float) or abs(value) <= _WHOLE) and abs(value) < 8e307


def _longest(column: Any) -> int:
    return max((len(text.encode()) for text in column), default=0)


def _label(field: pa.Field) -> str:
    text = (field.metadata or {}).get(b"description", b"").decode()
    return f"{field.name}: {text}"[:_STATA_LABEL] if text else field.name[:_STATA_LABEL]


def _stata_names(names: list[str]) -> list[str]:
    """Names of variables: letters, digits and underscores, at most 32, not reserved, each once."""
    found: list[str] = []
    for name in names:
        clean = re.sub(r"[^A-Za-z0-9_]", "_", name) or "_"
        if clean[0].isdigit() or clean in _STATA_RESERVED or re.fullmatch(r"str[0-9]+", clean):
            clean = f"_{clean}"
        candidate, number = clean[:_STATA_NAME], 1
        while candidate in found:
            number += 1
            candidate = f"{clean[: _STATA_NAME - len(str(number)) - 1]}_{number}"
        found.append(candidate)
    return found
