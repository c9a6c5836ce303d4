"""Describe result tables, views and shipped queries: what a row is, and what each column means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctenrich.catalog.queries import Query, load_query
from ctenrich.errors import UsageError, did_you_mean
from ctenrich.reasons import Reason
from ctenrich.results.query import result_queries, table_files
from ctenrich.results.schema import TABLE_TEXTS, arrow_schema
from ctenrich.results.views import available_views, result_views
from ctenrich.workspace import Workspace

__all__ = ["DescribedColumn", "Description", "describe", "described_columns", "list_queries", "list_tables"]


@dataclass(frozen=True, kw_only=True)
class DescribedColumn:
    """One column of a table or of a query's result."""

    name: str
    type: str
    """In words, e.g. ``text`` or ``list of integer``."""
    text: str


@dataclass(frozen=True, kw_only=True)
class Description:
    """A table, a view or a query."""

    name: str
    text: str
    """What a row is, or the purpose of a query."""
    parameters: tuple[str, ...] = ()
    """Of a query: ``name=default``, or ``name`` if it must be given."""
    columns: tuple[DescribedColumn, ...] = ()
    rows: int | None = None
    """Number of rows in a run; None if it is not known."""


def list_queries() -> list[Description]:
    """Return the shipped queries on result tables, by name."""
    return [_described_query(load_query(name)) for name in result_queries()]


def list_tables(workspace: Workspace | None) -> list[Description]:
    """Return the tables of a run with their numbers of rows, or those that every run has; views follow.

    Parameters
    ----------
    workspace : Workspace or None
        The run; None: any run.
    """
    import pyarrow.parquet as pq

    files: dict[str, Path] = table_files(workspace) if workspace is not None else {}
    found = [
        Description(name=name, text=_table_text(name), rows=pq.read_metadata(files[name]).num_rows if files else None)
        for name in (files or TABLE_TEXTS)
    ]
    views = available_views(files or TABLE_TEXTS)
    return [*found, *(Description(name=name, text=f"view: {view.purpose}") for name, view in views.items())]


def describe(name: str, workspace: Workspace | None) -> Description:
    """Describe a table, a view or a shipped query.

    Parameters
    ----------
    name : str
        Its name; case does not matter.
    workspace : Workspace or None
        The run that has the table; None: as this version writes it.

    Returns
    -------
    Description
        With its columns.

    Raises
    ------
    UsageError
        NOT_FOUND, with the names that are alike.
    """
    files: dict[str, Path] = table_files(workspace) if workspace is not None else {}
    tables = {table.lower(): table for table in (files or TABLE_TEXTS)}
    queries = {query.lower(): query for query in result_queries()}
    views = {view.lower(): view for view in result_views()}
    wanted = name.strip().lower()
    if wanted in queries:
        return _described_query(load_query(queries[wanted]))
    source = wanted if wanted in tables else "measurement_groups" if wanted in views else ""
    if not source or (source not in tables and source not in TABLE_TEXTS):
        known = [*tables.values(), *views.values(), *queries.values()]
        hint = did_you_mean(name, known, "ctenrich query --list shows all tables and queries")
        raise UsageError(Reason.NOT_FOUND, f"there is no table or query {name[:80]}", hint)
    columns = _columns_of(tables.get(source, source), files)
    text = f"view: {result_views()[views[wanted]].purpose}" if wanted in views else _table_text(tables[wanted])
    return Description(name=views.get(wanted) or tables[wanted], text=text, columns=columns)


def _table_text(name: str) -> str:
    if name.startswith("strict_"):
        return f"as {name.removeprefix('strict_')}, with IDC's columns and rows only"
    return TABLE_TEXTS.get(name, "")


def _described_query(query: Query) -> Description:
    parameters = tuple(
        p.name if p.required else f"{p.name}={'' if p.default is None else p.default}" for p in query.parameters
    )
    columns = tuple(
        DescribedColumn(name=c.name, type=f"{c.type}{f', {c.unit}' if c.unit else ''}", text=c.description)
        for c in query.columns
    )
    return Description(name=query.name, text=query.purpose, parameters=parameters, columns=columns)


def _columns_of(table: str, files: dict[str, Path]) -> tuple[DescribedColumn, ...]:
    import pyarrow.parquet as pq

    if table == "dicom_metadata" and table not in files:
        raise UsageError(
            Reason.NOT_FOUND, "its columns are the attributes that the objects of a run have", "name a run"
        )
    return described_columns(pq.read_schema(files[table]) if table in files else arrow_schema(table))


def described_columns(schema: Any) -> tuple[DescribedColumn, ...]:
    """Columns of a :class:`pyarrow.Schema`, with the descriptions that it has."""
    return tuple(
        DescribedColumn(
            name=field.name,
            type=_type_text(field.type),
            text=((field.metadata or {}).get(b"description") or b"").decode(),
        )
        for field in schema
    )


def _type_text(kind: Any) -> str:
    import pyarrow.types as kinds

    if kinds.is_list(kind):
        return f"list of {_type_text(kind.value_type)}"
    if kinds.is_struct(kind):
        return f"record: {', '.join(field.name for field in kind)}"
    names = {"string": "text", "int64": "integer", "bool": "true or false", "date32[day]": "date"}
    return names.get(str(kind), str(kind))
