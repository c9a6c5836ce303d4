"""Views on the result tables: the SELECT of each is a file of ``queries/views``, for DuckDB and for BigQuery."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from types import MappingProxyType

from ctenrich.catalog.queries import Query, load_query
from ctenrich.catalog.sql import qualify_tables, table_names
from ctenrich.resources import folder

__all__ = ["available_views", "published_view", "result_views"]


@cache
def result_views() -> Mapping[str, Query]:
    """All views by name."""
    paths = sorted((folder("queries") / "views").glob("*.sql"))
    return MappingProxyType({path.stem: load_query(path) for path in paths})


def available_views(tables: Collection[str]) -> dict[str, Query]:
    """Return the views whose tables are all among `tables`, by name."""
    return {name: view for name, view in result_views().items() if set(table_names(view.text)) <= set(tables)}


def published_view(view: Query, place: str) -> str:
    """Return the SELECT of a view on BigQuery, where views need qualified names.

    Parameters
    ----------
    view : Query
        The view.
    place : str
        ``PROJECT.DATASET`` of the tables.

    Returns
    -------
    str
        BigQuery's SQL.
    """
    return qualify_tables(view.text, place)
