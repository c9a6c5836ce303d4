"""BigQuery SQL on DuckDB: one statement is parsed, checked and translated, and the translation's known faults mended.

sqlglot does the work. What it gets silently wrong for our use, each mended here and tested in tests/catalog/test_sql:

* ``UNNEST(x) AS a WITH OFFSET AS o`` comes out with o from 1; BigQuery counts from 0.
* ``TRUNC(x, n)``, raw strings and ``IGNORE NULLS`` are wrong or missing in the older versions.
* ``x[OFFSET(expression)]`` is shifted only where the index is a literal.
* ``DIV(a - b, c)`` becomes ``a - b // c``: the parentheses are lost.
* ``NUMERIC`` becomes DuckDB's DECIMAL(18, 3); BigQuery's has nine decimals.
* ``FORMAT('%05d', n)`` becomes DuckDB's ``format``, which returns the format string as it is.
* ``LEFT JOIN UNNEST(x)`` without a condition needs ``ON TRUE``.
* ``ARRAY_AGG(x LIMIT n)`` loses or misplaces its limit.
* ``CONCAT(a, b, c, ...)`` becomes ``a || b || c``, whose cost grows with the square of its length; where no part can be
  NULL it is DuckDB's concat.
* Aliases of UNNEST that shadow a column are ambiguous, and fields of its elements are unknown (`unnest`).
* ``x IN UNNEST(@list)`` becomes a CASE that no scan can use as a filter.
* Parameters have no type, so an empty list or a NULL takes a wrong one: every parameter is cast.

sqlglot 25.20 to 30 and DuckDB 1.3 to 1.5 are supported; what they do differently is in `_PLAIN_FUNCTIONS`, `_calls` and
the functions named `_mend_...`.

Tables are taken from a checked list: a statement that names any other table, a file or a table function is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from ctenrich.catalog.unnest import resolve_unnest_names
from ctenrich.errors import UsageError, did_you_mean
from ctenrich.reasons import Reason

__all__ = ["parameter_names", "parse_statement", "qualify_tables", "table_names", "to_duckdb", "tree_to_duckdb"]

_DUCKDB_TYPES = {"STRING": "VARCHAR", "INT64": "BIGINT", "FLOAT64": "DOUBLE", "BOOL": "BOOLEAN"}
_LONGEST = 200_000
_FUNCTIONS = frozenset({"IEEE_DIVIDE", "ARRAY_IS_DISTINCT", "NORMALIZE_AND_CASEFOLD", "SAFE_ADD", "SAFE_SUBTRACT"})
_PLAIN_FUNCTIONS = frozenset(
    {
        "ARRAY_REVERSE",
        "BIT_COUNT",
        "CHAR_LENGTH",
        "ENDS_WITH",
        "FORMAT",
        "REPLACE",
        "REVERSE",
        "STRPOS",
        "SUBSTR",
        "TRUNC",
    }
)
"""Functions that have a class in sqlglot 30, but none in 25."""
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
        if call.name.upper() not in _FUNCTIONS | _PLAIN_FUNCTIONS:
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


def qualify_tables(sql: str, place: str) -> str:
    """Return a statement in BigQuery's dialect whose tables without a dataset are those of `place`.

    Parameters
    ----------
    sql : str
        One statement in BigQuery's dialect.
    place : str
        ``PROJECT.DATASET``.

    Returns
    -------
    str
    """
    tree = _parsed(sql).copy()
    project, dataset = place.split(".")
    for table in _tables(tree):
        if not table.db:
            table.set("catalog", exp.to_identifier(project, quoted=True))
            table.set("db", exp.to_identifier(dataset, quoted=True))
    return str(tree.sql("bigquery", comments=False))


def to_duckdb(
    sql: str,
    types: Mapping[str, str],
    tables: Mapping[str, str],
    columns: Mapping[str, Collection[str]] | None = None,
) -> str:
    """Translate one BigQuery statement for DuckDB.

    Parameters
    ----------
    sql : str
        BigQuery SQL with @parameters.
    types : mapping
        BigQuery type of each parameter, e.g. ``{"collections": "ARRAY<STRING>"}``.
    tables : mapping
        Every table that may be read: the name as the statement writes it (in lower case) -> the DuckDB name.
    columns : mapping, optional
        Columns of these tables, by the name as the statement writes it (in lower case).

    Returns
    -------
    str
        DuckDB SQL with $parameters to bind.

    Raises
    ------
    UsageError
        BAD_QUERY or BAD_PARAMETER.
    """
    return tree_to_duckdb(_parsed(sql).copy(), types, tables, columns)


def tree_to_duckdb(
    tree: exp.Query,
    types: Mapping[str, str],
    tables: Mapping[str, str],
    columns: Mapping[str, Collection[str]] | None = None,
) -> str:
    """Translate the tree of a BigQuery statement, which is changed, like :func:`to_duckdb`.

    Parameters
    ----------
    tree : sqlglot.exp.Query
        As :func:`parse_statement` gives it.
    types : mapping
        BigQuery type of each parameter, e.g. ``{"collections": "ARRAY<STRING>"}``.
    tables : mapping
        Every table that may be read: the name as the statement writes it (in lower case) -> the DuckDB name.
    columns : mapping, optional
        Columns of these tables, by the name as the statement writes it (in lower case).

    Returns
    -------
    str
        DuckDB SQL with $parameters to bind.

    Raises
    ------
    UsageError
        BAD_QUERY or BAD_PARAMETER.
    """
    resolve_unnest_names(tree, columns)
    for table in _tables(tree):
        name = _full_name(table)
        local = tables.get(name.lower())
        if local is None:
            hint = did_you_mean(name, tables, f"known: {', '.join(sorted(tables))}")
            raise UsageError(Reason.BAD_QUERY, f"there is no table {name[:120]}", hint)
        if not table.alias:
            table.set("alias", exp.TableAlias(this=exp.to_identifier(table.name, quoted=True)))
        table.set("this", exp.to_identifier(local, quoted=True))
        table.set("db", None)
        table.set("catalog", None)
    for step in (
        _mend_order,
        _mend_raw_strings,
        _mend_replacements,
        _mend_numeric,
        _mend_division,
        _mend_truncation,
        _mend_in_unnest,
        _mend_joins,
        _mend_offsets,
        _mend_brackets,
        _mend_format,
        _mend_nulls,
        _mend_array_agg,
        _mend_concat,
    ):
        step(tree)
    _type_parameters(tree, types)
    try:
        return tree.sql("duckdb", copy=False, unsupported_level=sqlglot.ErrorLevel.RAISE)
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
    """Make WITH OFFSET count from 0, by a subquery: DuckDB has WITH ORDINALITY only since 1.4, and it counts from 1."""
    for unnest in list(tree.find_all(exp.Unnest)):
        offset = unnest.args.get("offset")
        if not isinstance(offset, exp.Identifier):
            continue
        array, columns = unnest.expressions[0], unnest.alias_column_names
        one = exp.Literal.number(1)
        position = exp.Sub(this=_call("generate_subscripts", array.copy(), one.copy()), expression=one)
        value = exp.alias_(_call("unnest", array.copy()), columns[0] if columns else "_value")
        unnest.replace(exp.select(exp.alias_(position, offset.name), value).subquery(f"_offset_{offset.name}"))


def _call(name: str, *arguments: Any) -> exp.Anonymous:
    return exp.Anonymous(this=name, expressions=list(arguments))


def _mend_order(tree: exp.Query) -> None:
    """Name the columns of an ordered SELECT: to old DuckDB ``ORDER BY x`` after ``SELECT a.x`` can be ambiguous."""
    for select in tree.find_all(exp.Select):
        for column in select.expressions if select.args.get("order") else ():
            if type(column) is exp.Column and column.table and isinstance(column.this, exp.Identifier):
                column.replace(exp.alias_(column.copy(), column.name, quoted=bool(column.this.args.get("quoted"))))


def _mend_raw_strings(tree: exp.Query) -> None:
    """Make a raw string an ordinary one: DuckDB's have no escapes, and old versions of sqlglot double the backslash."""
    for node in list(tree.find_all(exp.RawString)):
        node.replace(exp.Literal.string(node.name))


def _mend_replacements(tree: exp.Query) -> None:
    """Make REGEXP_REPLACE replace every match: DuckDB replaces only the first, and old sqlglot asks for no more."""
    for node in tree.find_all(exp.RegexpReplace):
        if not node.args.get("modifiers"):
            node.set("modifiers", exp.Literal.string("g"))


def _mend_truncation(tree: exp.Query) -> None:
    """Turn ``TRUNC(x, n)`` into ``x - x % 0.1...``, exact for NUMERIC: DuckDB truncates to decimals only since 1.4."""
    for node, (value, *places) in _calls(tree, "Trunc", "TRUNC"):
        if places:
            if not (isinstance(places[0], exp.Literal) and places[0].name in "123456789"):
                raise UsageError(Reason.BAD_QUERY, "TRUNC wants the number of its decimals as a literal, 1 to 9")
            unit = exp.Literal.number(f"{10.0 ** -int(places[0].name):.{places[0].name}f}")
            rest = exp.Mod(this=exp.Paren(this=value.copy()), expression=unit)
            node.replace(exp.Paren(this=exp.Sub(this=exp.Paren(this=value.copy()), expression=rest)))


def _mend_brackets(tree: exp.Query) -> None:
    """Turn ``x[OFFSET(i)]`` with a computed index into a bounded list_extract, which counts from 1."""
    for node in list(tree.find_all(exp.Bracket)):
        index = node.expressions[0]
        base = node.args.get("offset")
        if base is None or isinstance(index, exp.Literal):
            continue
        position: Any = exp.Paren(this=index.copy())
        if base == 0:
            position = exp.Add(this=position, expression=exp.Literal.number(1))
        extract = exp.Anonymous(this="list_extract", expressions=[node.this.copy(), position])
        inside = exp.GTE(this=position.copy(), expression=exp.Literal.number(1))
        node.replace(exp.Case(ifs=[exp.If(this=inside, true=extract)]))


def _mend_format(tree: exp.Query) -> None:
    for node, (pattern, *arguments) in _calls(tree, "Format", "FORMAT"):
        if not (isinstance(pattern, exp.Literal) and pattern.is_string):
            raise UsageError(Reason.BAD_QUERY, "FORMAT wants its pattern as a literal")
        verbs = _VERBS.findall(pattern.name)
        if not set(verbs) <= set("dfegsxX%"):
            raise UsageError(Reason.BAD_QUERY, "FORMAT knows %d %f %e %g %s %x here")
        values = []
        wanted = [verb for verb in verbs if verb != "%"]
        for verb, value in zip(wanted, arguments, strict=False):
            kind = "VARCHAR" if verb == "s" else "BIGINT" if verb in "dxX" else "DOUBLE"
            values.append(exp.cast(value.copy(), exp.DataType.build(kind, dialect="duckdb")))
        node.replace(exp.Anonymous(this="printf", expressions=[pattern.copy(), *values]))


def _calls(tree: exp.Query, typed: str, name: str) -> list[tuple[Any, list[Any]]]:
    """Calls of a function with their arguments; newer versions of sqlglot have a class for more functions."""
    kind = getattr(exp, typed, None)
    found = []
    for node in tree.find_all(kind) if kind else ():
        given = (node.args.get(key) for key in node.arg_types if key != "expressions")
        found.append((node, [value for value in (*given, *node.expressions) if isinstance(value, exp.Expression)]))
    plain = [call for call in tree.find_all(exp.Anonymous) if call.name.upper() == name]
    return found + [(call, call.expressions) for call in plain]


def _mend_nulls(tree: exp.Query) -> None:
    """Turn ``ARRAY_AGG(x IGNORE NULLS)`` into a filter, which old versions of sqlglot drop."""
    for node in list(tree.find_all(exp.IgnoreNulls)):
        call = node.this
        value = call.this if isinstance(call, exp.ArrayAgg) else None
        while isinstance(value, (exp.Limit, exp.Order, exp.Distinct)):
            value = value.expressions[0] if isinstance(value, exp.Distinct) else value.this
        if value is not None:
            kept = exp.Where(this=exp.Not(this=exp.Is(this=value.copy(), expression=exp.Null())))
            node.replace(exp.Filter(this=call.copy(), expression=kept))


def _mend_array_agg(tree: exp.Query) -> None:
    for node in list(tree.find_all(exp.ArrayAgg)):
        limit = node.this
        if not isinstance(limit, exp.Limit):
            continue
        whole = node.parent if isinstance(node.parent, exp.Filter) else node
        inner: Any = node.copy()
        inner.set("this", limit.this.copy())
        if whole is not node:
            inner = exp.Filter(this=inner, expression=whole.expression.copy())
        bounds = [exp.Literal.number(1), limit.expression.copy()]
        whole.replace(exp.Anonymous(this="list_slice", expressions=[inner, *bounds]))


def _mend_joins(tree: exp.Query) -> None:
    for join in tree.find_all(exp.Join):
        if isinstance(join.this, exp.Unnest) and join.side == "LEFT" and not join.args.get("on"):
            join.set("on", exp.true())


def _mend_concat(tree: exp.Query) -> None:
    """Keep CONCAT where no part can be NULL: ``a || b || c`` copies the text once for each part."""
    for node in list(tree.find_all(exp.Concat)):
        if all(_is_text_literal(part) or _has_default(part) for part in node.expressions):
            node.replace(exp.Anonymous(this="concat", expressions=[part.copy() for part in node.expressions]))


def _has_default(node: exp.Expr) -> bool:
    return isinstance(node, exp.Coalesce) and any(_is_text_literal(value) for value in node.expressions)


def _is_text_literal(node: exp.Expr) -> bool:
    return isinstance(node, exp.Literal) and node.is_string


def _type_parameters(tree: exp.Query, types: Mapping[str, str]) -> None:
    for node in list(tree.find_all(exp.Parameter)):
        kind = types.get(node.name)
        if kind is None:
            raise UsageError(Reason.BAD_PARAMETER, f"the query uses @{node.name}, which its header does not name")
        target = f"{_DUCKDB_TYPES[kind[6:-1]]}[]" if kind.startswith("ARRAY<") else _DUCKDB_TYPES[kind]
        node.replace(exp.cast(node.copy(), exp.DataType.build(target, dialect="duckdb")))
