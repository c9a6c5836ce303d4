"""Export the tables of a run, or any Parquet file of ctenrich, for Excel, Stata and programs that read CSV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctenrich.errors import UsageError, did_you_mean
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.results.complete import check_tables
from ctenrich.results.query import table_files
from ctenrich.results.table_formats import fits_excel, write_csv_table, write_excel, write_stata
from ctenrich.workspace import Workspace, require_file

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TableFormat", "TablesExport", "export_tables"]

_TASK = "tables"
_COLUMNS = "columns"
"""Table of all columns that is written beside the others."""
_BATCH = 8192


class TableFormat(StrEnum):
    """Format of exported tables."""

    CSV = "csv-tables"
    """One CSV file per table, and ``columns.csv``."""
    EXCEL = "excel"
    """One workbook with a sheet per table, and the sheet ``columns``; of a run, tables that Excel cannot hold are CSV
    files beside it."""
    STATA = "stata"
    """One ``.dta`` file per table; descriptions are labels of its variables."""


@dataclass(frozen=True, kw_only=True)
class TablesExport:
    """What was written."""

    rows: Mapping[str, int]
    """Table -> number of rows."""
    files: tuple[Path, ...]
    as_csv: tuple[str, ...] = ()
    """Tables that are CSV files because Excel cannot hold them."""


def export_tables(
    source: Workspace | Path,
    fmt: TableFormat,
    out: Path,
    *,
    names: Sequence[str] = (),
    progress: Progress = SILENT,
) -> TablesExport:
    """Write tables in the format of another program.

    Parameters
    ----------
    source : Workspace or Path
        A run whose tables have been built; or a Parquet file: a cohort, treatments, links, excluded series.
    fmt : TableFormat
    out : Path
        Folder to write to.
    names : sequence of str
        Tables of the run; default: all.
    progress : Progress
        Advanced by one for every table.

    Returns
    -------
    TablesExport

    Raises
    ------
    UsageError
        NOT_PREPARED if the run has no tables; NOT_FOUND for a table or file that is not there; BAD_PARAMETER for a file
        that is no Parquet file; MISSING_EXTRA.
    InputError
        TABLE_FORMAT for a table that the format cannot hold whole, if it is the only one.
    """
    files = _files_of(source, names)
    opened = {name: _open(path) for name, path in files.items()}
    progress.start(_TASK, len(opened))
    rows = {name: file.metadata.num_rows for name, file in opened.items()}
    written: list[Path] = []
    too_long: list[str] = []
    tables: dict[str, tuple[pa.Schema, Iterable[pa.RecordBatch]]]
    tables = {name: (file.schema_arrow, _batches(file, progress)) for name, file in opened.items()}
    if fmt is TableFormat.EXCEL:
        path = out / ("tables.xlsx" if isinstance(source, Workspace) else f"{next(iter(files))}.xlsx")
        if len(opened) > 1:
            too_long = [name for name, file in opened.items() if not fits_excel(file.iter_batches(batch_size=_BATCH))]
        sheets = {name: one for name, one in tables.items() if name not in too_long}
        write_excel(path, {**sheets, _COLUMNS: _column_table(opened)})
        written.append(path)
        for name in too_long:
            write_csv_table(out / f"{name}.csv", *tables[name])
            written.append(out / f"{name}.csv")
    elif fmt is TableFormat.STATA:
        for name, (schema, batches) in tables.items():
            write_stata(out / f"{name}.dta", schema, batches)
            written.append(out / f"{name}.dta")
    else:
        for name, (schema, batches) in {**tables, _COLUMNS: _column_table(opened)}.items():
            write_csv_table(out / f"{name}.csv", schema, batches)
            written.append(out / f"{name}.csv")
    progress.finish(_TASK)
    return TablesExport(rows=rows, files=tuple(written), as_csv=tuple(too_long))


def _files_of(source: Workspace | Path, names: Sequence[str]) -> dict[str, Path]:
    if not isinstance(source, Workspace):
        require_file(source, "name a run, or a Parquet file")
        if names:
            raise UsageError(Reason.BAD_PARAMETER, "a file is one table: --table is for runs")
        return {source.name.removesuffix(".parquet"): source}
    files = table_files(source)
    if not files:
        raise UsageError(Reason.NOT_PREPARED, "the run has no tables yet", "run: ctenrich report RUN")
    check_tables(source)
    for name in names:
        if name not in files:
            hint = did_you_mean(name, files, "ctenrich query --list has the tables")
            raise UsageError(Reason.NOT_FOUND, f"the run has no table {name}", hint)
    return {name: files[name] for name in (names or files)}


def _open(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise UsageError(Reason.BAD_PARAMETER, f"{path.name} is no Parquet file") from error


def _batches(file: Any, progress: Progress) -> Iterator[pa.RecordBatch]:
    yield from file.iter_batches(batch_size=_BATCH)
    progress.advance(_TASK)


def _column_table(opened: Mapping[str, Any]) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    """All columns of the tables with their types and meanings."""
    import pyarrow as pa

    rows = [
        {
            "table": name,
            "column": field.name,
            "type": str(field.type),
            "meaning": (field.metadata or {}).get(b"description", b"").decode(),
        }
        for name, file in opened.items()
        for field in file.schema_arrow
    ]
    schema = pa.schema([(name, pa.string()) for name in ("table", "column", "type", "meaning")])
    return schema, pa.Table.from_pylist(rows, schema).to_batches()
