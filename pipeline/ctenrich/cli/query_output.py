"""What ``ctenrich query`` prints: rows in six formats, the list of queries and tables, descriptions of one."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Sequence
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import pyarrow as pa

    from ctenrich.results.describe import Description

__all__ = ["RowFormat", "print_description", "print_lists", "write_rows"]


class RowFormat(StrEnum):
    """Formats of the rows of a query."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"
    EXCEL = "xlsx"
    STATA = "dta"


def write_rows(table: pa.Table, form: RowFormat, out: Path | None) -> None:
    """Print the rows of a query, or write them into a file.

    Parameters
    ----------
    table : pyarrow.Table
        The rows.
    form : RowFormat
        How to write them.
    out : Path or None
        File; None: stdout.

    Raises
    ------
    UsageError
        BAD_PARAMETER: Parquet on a terminal, Excel and Stata without a file, or a table for people into a file;
        MISSING_EXTRA for Excel and Stata.
    InputError
        TABLE_FORMAT for rows that Excel cannot hold.
    """
    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason
    from ctenrich.workspace import write_bytes

    if form is RowFormat.TABLE:
        if out is not None:
            hint = "add --format csv, json, parquet, xlsx or dta, or give the file such an ending"
            raise UsageError(Reason.BAD_PARAMETER, "a table is for the terminal, not for a file", hint)
        return _print_rows(table)
    if form in (RowFormat.EXCEL, RowFormat.STATA):
        return _write_file(table, form, out)
    if form is RowFormat.PARQUET and out is None and sys.stdout.isatty():
        raise UsageError(Reason.BAD_PARAMETER, "Parquet is no text for a terminal", "add --out FILE.parquet")
    content = {RowFormat.CSV: _csv_bytes, RowFormat.JSON: _json_bytes, RowFormat.PARQUET: _parquet_bytes}[form](table)
    if out is not None:
        write_bytes(out, content)
        typer.echo(f"{table.num_rows} rows: {out}", err=True)
        return None
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()
    return None


def _write_file(table: pa.Table, form: RowFormat, out: Path | None) -> None:
    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason
    from ctenrich.results.table_formats import write_excel, write_stata

    if out is None:
        raise UsageError(
            Reason.BAD_PARAMETER, f"{form.value} is no text for a terminal", f"add --out FILE.{form.value}"
        )
    if form is RowFormat.EXCEL:
        write_excel(out, {"rows": (table.schema, table.to_batches())})
    else:
        write_stata(out, table.schema, table.to_batches())
    typer.echo(f"{table.num_rows} rows: {out}", err=True)


def _print_rows(table: pa.Table) -> None:
    from ctenrich.cli.console import print_table

    rows = [tuple(_cell(value) for value in row.values()) for row in table.to_pylist()]
    print_table("1 row" if len(rows) == 1 else f"{len(rows)} rows", table.column_names, rows)


def _cell(value: Any) -> object:
    """A value for people: codes as meaning (value, scheme), other nested values as JSON, NULL as nothing."""
    if value is None:
        return ""
    if isinstance(value, dict) and "CodeMeaning" in value and "CodeValue" in value:
        if value["CodeValue"] is None:
            return ""
        return f"{value['CodeMeaning']} ({value['CodeValue']}, {value.get('CodingSchemeDesignator') or ''})"
    if isinstance(value, list):
        return "; ".join(str(_cell(item)) for item in value)
    return _flat(value)


def _flat(value: Any) -> object:
    """Nested values as JSON text, others as they are."""
    return json.dumps(value, default=_json_value, ensure_ascii=False) if isinstance(value, dict | list) else value


def _json_value(value: Any) -> object:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime.date | datetime.time | datetime.datetime):
        return value.isoformat()
    return str(value)


def _csv_bytes(table: pa.Table) -> bytes:
    from ctenrich.cli.console import csv_text

    rows = [tuple(_flat(value) for value in row.values()) for row in table.to_pylist()]
    return csv_text(table.column_names, rows).encode()


def _json_bytes(table: pa.Table) -> bytes:
    text = json.dumps(table.to_pylist(), default=_json_value, ensure_ascii=False, indent=1)
    return f"{text}\n".encode()


def _parquet_bytes(table: pa.Table) -> bytes:
    import io

    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def print_lists(queries: Sequence[Description], tables: Sequence[Description]) -> None:
    """Print the shipped queries and the tables.

    Parameters
    ----------
    queries, tables : sequence of Description
        In the order in which they are printed.
    """
    from ctenrich.cli.console import print_table

    rows = [(q.name, q.text, ", ".join(q.parameters)) for q in queries]
    print_table("Queries: ctenrich query RUN NAME", ("name", "purpose", "parameters"), rows)
    counted = [(t.name, t.text, "" if t.rows is None else t.rows) for t in tables]
    print_table("Tables: ctenrich query RUN --describe NAME", ("name", "one row per", "rows"), counted)


def print_description(found: Description) -> None:
    """Print the purpose and the parameters of a query, and the columns of a query or a table."""
    from ctenrich.cli.console import print_table

    typer.echo(f"{found.name}: {found.text}")
    for parameter in found.parameters:
        typer.echo(f"  --param {parameter}")
    rows = [(column.name, column.type, column.text) for column in found.columns]
    print_table(f"{len(rows)} columns", ("column", "type", "meaning"), rows)
