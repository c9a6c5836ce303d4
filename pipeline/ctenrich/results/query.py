"""Query a run's tables in SQL: a read-only DuckDB that can read the run's Parquet files and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctenrich.catalog.engine import arrow_table
from ctenrich.catalog.queries import bind, load_query, parse_query, shipped_queries
from ctenrich.catalog.sql import table_names, to_duckdb
from ctenrich.errors import UsageError, did_you_mean
from ctenrich.reasons import Reason
from ctenrich.results.complete import check_tables
from ctenrich.results.schema import TABLE_TEXTS
from ctenrich.results.views import available_views
from ctenrich.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["result_queries", "run_query", "table_files"]

_CLINICAL = re.compile(r"(?:bigquery-public-data\.)?idc_(?:v\d+|current)_clinical\.(\w+)")
_NAME = re.compile(r"[A-Za-z_]\w{0,127}")
_MEMORY = "4GB"


def result_queries() -> tuple[str, ...]:
    """Names of the shipped queries on a run's tables (the others select series)."""
    return tuple(name for name in shipped_queries() if not name.startswith("select_"))


def run_query(workspace: Workspace, sql: str, parameters: Mapping[str, object] | None = None) -> pa.Table:
    """Run one SELECT on the run's tables.

    Parameters
    ----------
    workspace : Workspace
        A run whose tables have been built.
    sql : str
        A ``.sql`` file or the name of a query in queries/ (BigQuery's dialect, ``@parameters``), or a statement: in
        BigQuery's dialect if it contains a back-tick or an @parameter, otherwise in DuckDB's with ``$parameters``.
    parameters : mapping, optional
        Values to bind.

    Returns
    -------
    pyarrow.Table

    Raises
    ------
    UsageError
        NOT_FOUND, NOT_PREPARED (no tables), BAD_QUERY or BAD_PARAMETER.
    """
    given = dict(parameters or {})
    files = table_files(workspace)
    if not files:
        raise UsageError(Reason.NOT_PREPARED, "the run has no tables yet", "run: ctenrich report RUN")
    check_tables(workspace)
    text, values = _to_duckdb_query(sql.strip(), given, files)
    return _run_in_duckdb(text, values, files)


def _view_statements(files: Mapping[str, Path]) -> dict[str, str]:
    """Views on the run's tables: name -> SELECT for DuckDB."""
    views = available_views(files)
    return {
        name: to_duckdb(view.text, {}, {name: name for name in table_names(view.text)}) for name, view in views.items()
    }


def table_files(workspace: Workspace) -> dict[str, Path]:
    """Table name -> Parquet file; files in ``tables/clinical/`` are ``clinical_NAME``."""
    found = {p.stem: p for p in sorted(workspace.tables.glob("*.parquet"))}
    found |= {f"clinical_{p.stem}": p for p in sorted((workspace.tables / "clinical").glob("*.parquet"))}
    return {name: path for name, path in found.items() if _NAME.fullmatch(name)}


def _to_duckdb_query(sql: str, given: dict[str, object], files: Mapping[str, Path]) -> tuple[str, dict[str, Any]]:
    """Return the text for DuckDB and the values to bind."""
    named = sql.lower().endswith(".sql") or sql in shipped_queries()
    if not named and "`" not in sql and "@" not in sql:
        return sql, given
    query = load_query(sql) if named else parse_query("the statement", sql)
    bound = bind(query, given)
    local = {name.lower(): name for name in (*files, *available_views(files))}
    for name in table_names(query.text):
        clinical = _CLINICAL.fullmatch(name)
        if clinical:
            local[name.lower()] = f"clinical_{clinical[1]}"
            _need_clinical(clinical[1], files)
    columns = {name.lower(): _column_names(local.get(name.lower(), ""), files) for name in table_names(query.text)}
    text = to_duckdb(query.text, {name: kind for name, (kind, _) in bound.items()}, local, columns)
    return text, {name: value for name, (_, value) in bound.items()}


def _column_names(table: str, files: Mapping[str, Path]) -> list[str]:
    """Columns of a table or view; none if it is unknown, which is reported later."""
    import pyarrow.parquet as pq

    view = available_views(files).get(table)
    sources = table_names(view.text) if view is not None else (table,)
    return [name for source in sources if source in files for name in pq.read_schema(files[source]).names]


def _need_clinical(name: str, files: Mapping[str, Path]) -> None:
    if f"clinical_{name}" not in files:
        hint = f"save IDC's clinical table as tables/clinical/{name}.parquet in the run's folder"
        raise UsageError(Reason.NOT_FOUND, f"the clinical table {name} is not in this run", hint)


def _run_in_duckdb(text: str, values: dict[str, Any], files: Mapping[str, Path]) -> pa.Table:
    import duckdb

    with duckdb.connect(":memory:", config={"memory_limit": _MEMORY, "autoload_known_extensions": "false"}) as db:
        for name, path in files.items():
            db.read_parquet(str(path), hive_partitioning=False).create_view(name)
        for name, statement in _view_statements(files).items():
            db.sql(statement).create_view(name)
        db.execute("SET allowed_paths = ?", [[str(p) for p in files.values()]])
        db.execute("SET enable_external_access = false")
        db.execute("SET lock_configuration = true")
        try:
            statements = db.extract_statements(text)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise UsageError(Reason.BAD_QUERY, "a query is one SELECT statement", "nothing can be written here")
            _check_values(statements[0].named_parameters, values)
            return arrow_table(db.execute(statements[0], values or None))
        except duckdb.Error as error:
            raise UsageError(Reason.BAD_QUERY, _without_folders(str(error)), _hint(str(error), files)) from None


def _hint(error: str, files: Mapping[str, Path]) -> str:
    """What to do about DuckDB's error: names that are like the unknown table or column."""
    import pyarrow.parquet as pq

    more = "ctenrich query --list shows the tables, --describe TABLE its columns"
    table = re.search(r"Table with name (\S+) does not exist", error)
    if table:
        if table[1].lower() in TABLE_TEXTS and table[1].lower() not in files:
            return "the tables are of an earlier version; run: ctenrich report RUN"
        return did_you_mean(table[1], [*files, *available_views(files)], more)
    column = re.search(r'column "([^"]+)"', error, re.IGNORECASE)
    if column:
        return did_you_mean(column[1], {n for path in files.values() for n in pq.read_schema(path).names}, more)
    return f"tables: {', '.join(files)}"


def _check_values(wanted: set[str], values: Mapping[str, object]) -> None:
    missing, unknown = sorted(wanted - set(values)), sorted(set(values) - wanted)
    if missing:
        raise UsageError(Reason.BAD_PARAMETER, f"the query needs a value for {missing[0]}")
    if unknown:
        raise UsageError(Reason.BAD_PARAMETER, f"the query has no parameter {unknown[0][:60]!r}")


def _without_folders(text: str) -> str:
    """Return the first lines of a DuckDB message, without folders."""
    lines = [line for line in text.splitlines() if line.strip()]
    return re.sub(r"(/[^\s'\"]*)+/", "", " ".join(lines[:3]))[:400]
