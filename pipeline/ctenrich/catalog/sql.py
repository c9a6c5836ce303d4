"""BigQuery SQL on DuckDB: one statement is parsed, checked and translated, and the translation's known faults mended.

sqlglot does the work. What it gets silently wrong for our use, each mended here and tested in tests/catalog/test_sql:

* ``UNNEST(x) AS a WITH OFFSET AS o`` comes out with o from 1; BigQuery counts from 0.
* ``x[OFFSET(expression)]`` is shifted only where the index is a literal.
* ``DIV(a - b, c)`` becomes ``a - b // c``: the parentheses are lost.
* ``NUMERIC`` becomes DuckDB's DECIMAL(18, 3); BigQuery's has nine decimals.
* ``FORMAT('%05d', n)`` becomes DuckDB's ``format``, which returns the format string as it is.
* ``LEFT JOIN UNNEST(x)`` without a condition needs ``ON TRUE``.
* ``ARRAY_AGG(x LIMIT n)`` loses or misplaces its limit.
* ``x IN UNNEST(@list)`` becomes a CASE that no scan can use as a filter.
* Parameters have no type, so an empty list or a NULL takes a wrong one: every parameter is cast.

Tables are taken from a checked list: a statement that names any other table, a file or a table function is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason

__all__ = ["parameter_names", "parse_statement", "table_names", "to_duckdb"]

_DUCKDB_TYPES = {"STRING": "VARCHAR", "INT64": "BIGINT", "FLOAT64": "DOUBLE", "BOOL": "BOOLEAN"}
_LONGEST = 200_000
_FUNCTIONS = frozenset({"IEEE_DIVIDE", "ARRAY_IS_DISTINCT", "NORMALIZE_AND_CASEFOLD", "SAFE_ADD", "SAFE_SUBTRACT"})
_VERBS = re.compile(r"%[-+ #0]*\d*(?:\.\d+)?([a-zA-Z%])")


def parse_statement(sql: str) -> exp.Query:
    """Parse one SELECT (or WITH ... SELECT) in BigQuery's dialect.

    Raises
    ------
    UsageError
        BAD_QUERY: not one statement, not a SELECT, or a function that could leave the catalog.
    """
    if len(sql) > _LONGEST or "\x00" in sql:
        raise UsageError(Reason.BAD_QUERY, "the query is too long or holds a NUL character")
    try:
        statements = [s for s in sqlglot.parse(sql, read="bigquery") if s is not None]
    except (SqlglotError, RecursionError) as error:
        first = str(error).splitlines()[0] if str(error) else "too deeply nested"
        raise UsageError(Reason.BAD_QUERY, f"the query is not valid SQL: {_without_colour_codes(first)}") from None
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise UsageError(Reason.BAD_QUERY, "a query is one SELECT statement")
    tree: exp.Query = statements[0]
    if tree.find(exp.DML, exp.DDL, exp.Command, exp.Into) is not None:
        raise UsageError(Reason.BAD_QUERY, "a query only reads")
    for call in tree.find_all(exp.Anonymous):
        if call.name.upper() not in _FUNCTIONS:
            raise UsageError(Reason.BAD_QUERY, f"the function {call.name[:60]} is not known here")
    return tree


@lru_cache(maxsize=16)
def _parsed(sql: str) -> exp.Query:
    """The statement's tree, which nobody changes: a long query takes a tenth of a second to parse."""
    return parse_statement(sql)


def _without_colour_codes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)[:200]


@lru_cache(maxsize=64)
def parameter_names(sql: str) -> tuple[str, ...]:
    """Names of the @parameters of a statement, in order of first use."""
    return tuple(dict.fromkeys(p.name for p in _parsed(sql).find_all(exp.Parameter)))


def _tables(tree: exp.Query) -> list[exp.Table]:
    """Tables of the statement that are not its own WITH names.

    A plain name is a WITH name only where a WITH clause of an enclosing query defines it.
    """
    found = []
    for table in tree.find_all(exp.Table):
        if not isinstance(table.this, exp.Identifier):
            raise UsageError(Reason.BAD_QUERY, "a query reads tables by name, not functions or files")
        if table.db or table.catalog or not _is_cte(table):
            found.append(table)
    return found


def _is_cte(table: exp.Table) -> bool:
    node = table.parent
    while node is not None:
        for cte in getattr(node, "ctes", ()) if isinstance(node, exp.Query) else ():
            if cte.alias.lower() == table.name.lower():
                return True
        node = node.parent
    return False


def _full_name(table: exp.Table) -> str:
    return ".".join(part for part in (table.catalog, table.db, table.name) if part)


@lru_cache(maxsize=64)
def table_names(sql: str) -> tuple[str, ...]:
    """Tables that a statement reads, as ``project.dataset.table`` or as plain names, in order of first use."""
    return tuple(dict.fromkeys(_full_name(table) for table in _tables(_parsed(sql))))


def to_duckdb(sql: str, types: Mapping[str, str], tables: Mapping[str, str]) -> str:
    """Translate one BigQuery statement for DuckDB.

    Parameters
    ----------
    sql : str
        BigQuery SQL with @parameters.
    types : mapping
        BigQuery type of each parameter, e.g. ``{"collections": "ARRAY<STRING>"}``.
    tables : mapping
        Every table that may be read: the name as the statement writes it (in lower case) -> the DuckDB name.

    Returns
    -------
    str
        DuckDB SQL with $parameters to bind.

    Raises
    ------
    UsageError
        BAD_QUERY or BAD_PARAMETER.
    """
    tree = _parsed(sql).copy()
    for table in _tables(tree):
        name = _full_name(table)
        local = tables.get(name.lower())
        if local is None:
            hint = f"known: {', '.join(sorted(tables))}"
            raise UsageError(Reason.BAD_QUERY, f"this catalog has no table {name[:120]}", hint)
        if not table.alias:
            table.set("alias", exp.TableAlias(this=exp.to_identifier(table.name, quoted=True)))
        table.set("this", exp.to_identifier(local, quoted=True))
        table.set("db", None)
        table.set("catalog", None)
    for step in (
        _mend_numeric,
        _mend_division,
        _mend_in_unnest,
        _mend_offsets,
        _mend_brackets,
        _mend_format,
        _mend_array_agg,
        _mend_joins,
    ):
        step(tree)
    _type_parameters(tree, types)
    try:
        return tree.sql("duckdb", unsupported_level=sqlglot.ErrorLevel.RAISE)
    except SqlglotError as error:
        raise UsageError(
            Reason.BAD_QUERY, f"the query cannot be translated: {_without_colour_codes(str(error))}"
        ) from error


def _mend_numeric(tree: exp.Query) -> None:
    for kind in tree.find_all(exp.DataType):
        if getattr(kind.this, "name", "") in {"DECIMAL", "BIGDECIMAL"} and not kind.expressions:
            wanted = exp.DataType.build("DECIMAL(38, 9)", dialect="duckdb")
            kind.set("this", wanted.this)
            kind.set("expressions", wanted.expressions)


def _mend_division(tree: exp.Query) -> None:
    for node in tree.find_all(exp.IntDiv, exp.Mod):
        for side in ("this", "expression"):
            if isinstance(node.args[side], exp.Binary):
                node.set(side, exp.Paren(this=node.args[side].copy()))


def _mend_in_unnest(tree: exp.Query) -> None:
    for node in list(tree.find_all(exp.In)):
        unnest = node.args.get("unnest")
        if unnest is not None:
            values = exp.select(exp.Anonymous(this="unnest", expressions=[unnest.expressions[0].copy()]))
            node.set("unnest", None)
            node.set("query", exp.Subquery(this=values))


def _mend_offsets(tree: exp.Query) -> None:
    """Make WITH OFFSET count from 0."""
    for unnest in list(tree.find_all(exp.Unnest)):
        offset = unnest.args.get("offset")
        owner = unnest.find_ancestor(exp.Select)
        if not isinstance(offset, exp.Identifier) or owner is None:
            continue
        for column in list(owner.find_all(exp.Column)):
            if column.name == offset.name and not column.table and _defining_select(column, offset.name) is owner:
                shifted = exp.Paren(this=exp.Sub(this=column.copy(), expression=exp.Literal.number(1)))
                is_projection = isinstance(column.parent, exp.Select) and column.arg_key == "expressions"
                column.replace(exp.alias_(shifted, offset.name) if is_projection else shifted)


def _defining_select(column: exp.Column, name: str) -> exp.Select | None:
    select = column.find_ancestor(exp.Select)
    while select is not None:
        sources = [select.args.get("from_"), *(select.args.get("joins") or [])]
        for source in sources:
            this = source.this if source is not None else None
            if isinstance(this, exp.Unnest) and getattr(this.args.get("offset"), "name", None) == name:
                return select
        select = select.find_ancestor(exp.Select)
    return None


def _mend_brackets(tree: exp.Query) -> None:
    """Turn ``x[OFFSET(i)]`` with a computed index into a bounded list_extract, which counts from 1."""
    for node in list(tree.find_all(exp.Bracket)):
        index = node.expressions[0]
        base = node.args.get("offset")
        if base is None or isinstance(index, exp.Literal):
            continue
        position: exp.Expr = exp.Paren(this=index.copy())
        if base == 0:
            position = exp.Add(this=position, expression=exp.Literal.number(1))
        extract = exp.Anonymous(this="list_extract", expressions=[node.this.copy(), position])
        inside = exp.GTE(this=position.copy(), expression=exp.Literal.number(1))
        node.replace(exp.Case(ifs=[exp.If(this=inside, true=extract)]))


def _mend_format(tree: exp.Query) -> None:
    for node in list(tree.find_all(exp.Format)):
        pattern = node.this
        if not (isinstance(pattern, exp.Literal) and pattern.is_string):
            raise UsageError(Reason.BAD_QUERY, "FORMAT wants its pattern as a literal")
        verbs = _VERBS.findall(pattern.name)
        if not set(verbs) <= set("dfegsxX%"):
            raise UsageError(Reason.BAD_QUERY, "FORMAT knows %d %f %e %g %s %x here")
        values = []
        wanted = [verb for verb in verbs if verb != "%"]
        for verb, value in zip(wanted, node.expressions, strict=False):
            kind = "VARCHAR" if verb == "s" else "BIGINT" if verb in "dxX" else "DOUBLE"
            values.append(exp.cast(value.copy(), exp.DataType.build(kind, dialect="duckdb")))
        node.replace(exp.Anonymous(this="printf", expressions=[pattern.copy(), *values]))


def _mend_array_agg(tree: exp.Query) -> None:
    for node in list(tree.find_all(exp.ArrayAgg)):
        limit = node.this
        if not isinstance(limit, exp.Limit):
            continue
        whole = node.parent if isinstance(node.parent, exp.IgnoreNulls) else node
        inner: exp.Expr = node.copy()
        inner.set("this", limit.this.copy())
        if whole is not node:
            inner = exp.IgnoreNulls(this=inner)
        bounds = [exp.Literal.number(1), limit.expression.copy()]
        whole.replace(exp.Anonymous(this="list_slice", expressions=[inner, *bounds]))


def _mend_joins(tree: exp.Query) -> None:
    for join in tree.find_all(exp.Join):
        if isinstance(join.this, exp.Unnest) and join.side == "LEFT" and not join.args.get("on"):
            join.set("on", exp.true())


def _type_parameters(tree: exp.Query, types: Mapping[str, str]) -> None:
    for node in list(tree.find_all(exp.Parameter)):
        kind = types.get(node.name)
        if kind is None:
            raise UsageError(Reason.BAD_PARAMETER, f"the query uses @{node.name}, which its header does not name")
        target = f"{_DUCKDB_TYPES[kind[6:-1]]}[]" if kind.startswith("ARRAY<") else _DUCKDB_TYPES[kind]
        node.replace(exp.cast(node.copy(), exp.DataType.build(target, dialect="duckdb")))
