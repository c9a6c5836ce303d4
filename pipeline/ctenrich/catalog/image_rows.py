"""Split a selection query into the rows that it makes of single images, and what it judges from them.

The first steps of the shipped queries read one image at a time: they filter, cast numbers and join the attributes of
the header to one text. Their rows are much narrower than the catalog's, and can be made before the images are divided
into parts. Whether a query has this form is found from its SQL; one of another form is divided with the catalog's own
columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import sqlglot
from sqlglot import exp

from ctenrich.catalog.sql import parse_statement

__all__ = ["IMAGES", "LISTED_COLUMNS", "SplitQuery", "split_images"]

IMAGES = "images_of_part"
"""Table that the second part of a split query reads in place of its first step."""
_SERIES = "SeriesInstanceUID"
_POSITION = "SAFE_CAST(TRIM(ImagePositionPatient[SAFE_OFFSET({})]) AS FLOAT64)"
_ORIENTATION = "SAFE_CAST(TRIM(ImageOrientationPatient[SAFE_OFFSET({})]) AS FLOAT64)"
LISTED_COLUMNS = {
    _SERIES: "COALESCE(SeriesInstanceUID, '')",
    "SOPInstanceUID": "COALESCE(SOPInstanceUID, '')",
    "gcs_url": "gcs_url",
    "instance_size": "instance_size",
    "instance_hash": "instance_hash",
    **{name: _POSITION.format(at) for at, name in enumerate(("x", "y", "z"))},
    **{name: _ORIENTATION.format(at) for at, name in enumerate(("r1", "r2", "r3", "c1", "c2", "c3"))},
}
"""Columns of an image's row from which the instances of a series are listed, with the SQL that they must have."""
_NOT_OF_ONE_ROW = ("joins", "laterals", "group", "having", "qualify", "distinct", "order", "limit", "offset", "windows")
_NOT_OF_A_SUMMARY = ("joins", "laterals", "having", "qualify", "distinct", "order", "limit", "offset", "windows")


@dataclass(frozen=True, kw_only=True)
class SplitQuery:
    """A query in parts; the trees are in BigQuery's dialect, and are copied before they are changed."""

    images: exp.Query
    """One row per image that is judged."""
    series: exp.Query
    """Of the same images: ``uid`` of each series, ``study`` (its smallest Study Instance UID) and ``images``."""
    summaries: tuple[tuple[str, exp.Query], ...]
    """Name and tree of each step that has a row per series, of images that need not be judged."""
    rest: exp.Query
    """The query, which reads `IMAGES` and the tables of the summaries' names in place of these steps."""


@lru_cache(maxsize=16)
def split_images(text: str, table: str) -> SplitQuery | None:
    """Split a query that reads a table of images.

    Parameters
    ----------
    text : str
        SQL in BigQuery's dialect.
    table : str
        Name of the table of images, without dataset.

    Returns
    -------
    SplitQuery or None
        None if the query has another form: one step of its WITH clause makes a row of each image, with the columns of
        `LISTED_COLUMNS`; all others that read the table are grouped by series.
    """
    tree = parse_statement(text).copy()
    clauses = list(tree.find_all(exp.With))
    if len(clauses) != 1:
        return None
    steps = clauses[0].expressions
    reading = [step for step in steps if any(_reads(step, table))]
    if len(list(_reads(tree, table))) != len(reading):  # the SELECT itself reads it, or a step does so twice
        return None
    of_images = [step for step in reading if _is_of_one_row(step.this)]
    summaries = [step for step in reading if step not in of_images]
    if len(of_images) != 1 or not all(_is_summary(step.this) for step in summaries):
        return None
    (step,) = of_images
    before = steps[: steps.index(step)]
    if any(other in reading for other in before):
        return None
    images = step.this.copy()
    series = step.this.copy()
    series.set(
        "expressions",
        [
            sqlglot.parse_one(column, read="bigquery")
            for column in (
                f"{LISTED_COLUMNS[_SERIES]} AS uid",
                "MIN(COALESCE(StudyInstanceUID, '')) AS study",
                "COUNT(*) AS images",
            )
        ],
    )
    series.set("group", exp.Group(expressions=[exp.Literal.number(1)]))
    for query in (images, series):
        if before:
            query.set(_with_key(query), exp.With(expressions=[other.copy() for other in before]))
    found = tuple((f"summary_{one.alias}", one.this.copy()) for one in summaries)
    step.set("this", exp.select("*").from_(exp.to_table(IMAGES)))
    for (name, _), one in zip(found, summaries, strict=True):
        one.set("this", exp.select("*").from_(exp.to_table(name)))
    return SplitQuery(images=images, series=series, summaries=found, rest=tree)


def _with_key(query: exp.Query) -> str:
    """Name of the argument that holds the WITH clause; it is another in older versions of sqlglot."""
    return "with_" if "with_" in query.arg_types else "with"


def _reads(node: exp.Expr, table: str) -> Iterator[exp.Table]:
    return (found for found in node.find_all(exp.Table) if found.name.lower() == table)


def _is_of_one_row(query: exp.Expr) -> bool:
    """Whether each row is made of one row of the table, with all columns from which instances are listed."""
    if not isinstance(query, exp.Select) or not _is_plain(query, _NOT_OF_ONE_ROW):
        return False
    if any(
        node.find_ancestor(exp.Select) is query
        for node in query.find_all(exp.AggFunc, exp.Window, exp.Unnest)
        if not isinstance(node.parent, exp.In)
    ):
        return False
    columns = {column.alias_or_name: column.unalias() for column in query.expressions}
    return all(
        name in columns and columns[name] == sqlglot.parse_one(sql, read="bigquery")
        for name, sql in LISTED_COLUMNS.items()
    )


def _is_summary(query: exp.Expr) -> bool:
    """Whether there is a row for each series that does not depend on other series."""
    if not isinstance(query, exp.Select) or not _is_plain(query, _NOT_OF_A_SUMMARY) or not query.args.get("group"):
        return False
    keys = query.args["group"].expressions
    named = [column for column in query.expressions if column.alias_or_name == _SERIES]
    return len(keys) == 1 and len(named) == 1 and all(column == exp.column(_SERIES) for column in (*keys, *named))


def _is_plain(query: exp.Select, without: tuple[str, ...]) -> bool:
    """Whether it reads one table by name, and has none of some clauses."""
    source = query.args.get("from_") or query.args.get("from")
    return (
        source is not None and isinstance(source.this, exp.Table) and not any(query.args.get(name) for name in without)
    )
