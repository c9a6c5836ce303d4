"""DuckDB as the engine of a catalog: one locked-down connection, typed errors, results as Arrow tables."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ctenrich.catalog.base import QueryResult
from ctenrich.catalog.queries import Query, bind
from ctenrich.catalog.sql import table_names, to_duckdb
from ctenrich.errors import CtenrichError, InputError, TransientError, UsageError
from ctenrich.reasons import Reason

__all__ = ["LEAST_MEMORY", "arrow_batches", "arrow_table", "duckdb_error", "run_on_duckdb", "table_map"]

_NO_COLUMN = re.compile(r'column "([^"]+)" not found|does not have a column named "([^"]+)"', re.IGNORECASE)
IDC_PROJECT = "bigquery-public-data"
_ELSEWHERE = {
    "dicom_all": "the series index is asked with select_idc_series; catalogs with instances are folder, parquet and "
    "bigquery; ",
    "idc_index": "select_idc_series is for the catalog idc; this one is asked with select_ct_series; ",
}
"""What to do about a table that another kind of catalog has."""


def table_map(query: Query, local: Mapping[str, str]) -> dict[str, str]:
    """Map each table that a query names to the table of the catalog.

    A query may write ``bigquery-public-data.idc_vN.TABLE`` (a pinned version; ``idc_vN_clinical`` for clinical
    tables) or TABLE alone; `local` maps table names in lower case to the names in DuckDB.

    Parameters
    ----------
    query : Query
        The query.
    local : mapping
        Table name in lower case -> name in DuckDB.

    Returns
    -------
    dict
        Name as the query writes it, in lower case -> name in DuckDB.

    Raises
    ------
    UsageError
        BAD_QUERY for a table that is not in the list, or is not pinned.
    """
    found: dict[str, str] = {}
    for name in table_names(query.text):
        *where, table = name.split(".")
        if where and (len(where) != 2 or where[0] != IDC_PROJECT):
            raise UsageError(Reason.BAD_QUERY, f"tables come from {IDC_PROJECT}, not from {name[:120]}")
        if where and re.fullmatch(r"idc_v\d+(_clinical)?", where[1]) is None:
            hint = "name a version, as in idc_v25: idc_current changes under a query"
            raise UsageError(Reason.BAD_QUERY, f"the dataset {where[1][:60]} is not a pinned version", hint)
        if table.lower() not in local:
            hint = _ELSEWHERE.get(table.lower(), "") + f"it has: {', '.join(sorted(local))}"
            raise UsageError(Reason.BAD_QUERY, f"this catalog has no table {table[:60]}", hint)
        found[name.lower()] = local[table.lower()]
    return found


def run_on_duckdb(
    connection: Any,
    query: Query,
    parameters: Mapping[str, object],
    local: Mapping[str, str],
    memory: int | None = None,
) -> QueryResult:
    """Translate, bind and run a query on a DuckDB connection.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        Its limit of memory is changed.
    query : Query
        The query, in BigQuery's dialect.
    parameters : mapping
        Values of its @parameters.
    local : mapping
        Tables that the query may read: name in lower case -> name in DuckDB.
    memory : int, optional
        Bytes that DuckDB may take; None: four fifths of this machine's memory.

    Returns
    -------
    QueryResult
        The rows as an Arrow table.

    Raises
    ------
    UsageError
        BAD_QUERY, BAD_PARAMETER, MISSING_COLUMN.
    InputError
        OUT_OF_MEMORY.
    TransientError
        CATALOG_UNREACHABLE: a file of the catalog cannot be read.
    """
    import duckdb

    bound = bind(query, parameters)
    types = {name: kind for name, (kind, _) in bound.items()}
    sql = _translated(query.text, tuple(types.items()), tuple(table_map(query, local).items()))
    values = {name: value for name, (_, value) in bound.items() if re.search(rf"\${name}\b", sql)}
    begin = time.monotonic()
    try:
        table = _in_little_memory(connection, sql, values, memory)
    except duckdb.Error as error:
        raise duckdb_error(error, query.name) from error
    return QueryResult(table, None, time.monotonic() - begin)


@lru_cache(maxsize=32)
def _translated(sql: str, types: tuple[tuple[str, str], ...], tables: tuple[tuple[str, str], ...]) -> str:
    """The statement for DuckDB: the translation of a long query takes longer than its answer on a small catalog."""
    return to_duckdb(sql, dict(types), dict(tables))


_LITTLE = 1_300_000_000
LEAST_MEMORY = 1 << 28
"""Bytes that DuckDB needs at least."""


def _in_little_memory(connection: Any, sql: str, values: Mapping[str, object], memory: int | None) -> Any:
    """Run in 1.3 GB, enough for a million slices; if that is not enough, again in `memory`.

    Without a limit DuckDB keeps all that it has read of the catalog in memory.
    """
    import duckdb
    import psutil

    most = max(memory or int(psutil.virtual_memory().total * 0.8), LEAST_MEMORY)
    (temporary,) = connection.execute("SELECT COALESCE(current_setting('temp_directory'), '')").fetchone()
    try:
        connection.execute(f"SET memory_limit = '{min(_LITTLE, most)}B'")
        return arrow_table(connection.execute(sql, values or None))
    except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
        if isinstance(error, duckdb.IOException) and not (temporary and temporary in str(error)):
            raise
    finally:
        connection.execute(f"SET memory_limit = '{most}B'")
    return arrow_table(connection.execute(sql, values or None))


def arrow_table(result: Any) -> Any:
    """Rows of a DuckDB result as an Arrow table; the method has another name before DuckDB 1.4."""
    return (getattr(result, "to_arrow_table", None) or result.fetch_arrow_table)()


def arrow_batches(result: Any, rows: int) -> Any:
    """Rows of a DuckDB result, batch by batch; the method has another name before DuckDB 1.4.

    Parameters
    ----------
    result : duckdb.DuckDBPyConnection
        A connection whose statement was executed.
    rows : int
        Rows per batch.

    Returns
    -------
    pyarrow.RecordBatchReader
    """
    return (getattr(result, "to_arrow_reader", None) or result.fetch_record_batch)(rows)


def duckdb_error(error: Exception, name: str) -> CtenrichError:
    """The ctenrich error for an exception of DuckDB.

    Parameters
    ----------
    error : duckdb.Error
        The exception.
    name : str
        Name of the query, for the message.

    Returns
    -------
    CtenrichError
        To be raised by the caller.
    """
    import duckdb

    first = str(error).splitlines()[0][:300]
    if isinstance(error, duckdb.BinderException):
        column = re.search(
            r'(?:column|Column)[^"]*"([^"]+)"[^"]*not found|does not have a column named "([^"]+)"', str(error)
        )
        if column:
            return UsageError(Reason.MISSING_COLUMN, f"{name} needs the column {column[1] or column[2]}", first)
        return UsageError(Reason.BAD_QUERY, f"{name}: {first}")
    if isinstance(error, (duckdb.HTTPException, duckdb.IOException)):
        return TransientError(Reason.CATALOG_UNREACHABLE, f"the catalog's files cannot be read: {first}")
    if isinstance(error, duckdb.OutOfMemoryException):
        return InputError(Reason.OUT_OF_MEMORY, f"{name} needs more memory than the catalog may use")
    return UsageError(Reason.BAD_QUERY, f"{name}: {first}")
