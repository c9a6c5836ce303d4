"""Names in BigQuery's UNNEST: the alias wins over columns of its name, and the fields of its elements are columns.

``FROM t CROSS JOIN UNNEST(ContentSequence) AS contentSequence`` is usual in queries on nested DICOM attributes. In
BigQuery ``contentSequence`` is then the element; DuckDB calls it ambiguous. Here such an alias gets a name of its own,
which changes neither the meaning nor the names of the result's columns. This module needs nothing but sqlglot.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from sqlglot import exp

__all__ = ["resolve_unnest_names"]

_DATE_PARTS = frozenset(("day", "week", "month", "quarter", "year", "hour", "minute", "second", "isoyear", "isoweek"))
_AFTER_SELECT = ("group", "having", "qualify", "order")
"""Clauses in which the aliases of the SELECT list are known."""
Names = frozenset[str] | None
"""Names of columns in lower case; None: not known."""


@dataclass(frozen=True)
class _Source:
    """One item of FROM, in order."""

    node: exp.Expr
    """Table, subquery or UNNEST."""
    clause: exp.Expr
    """FROM or JOIN that it belongs to."""
    names: Names

    @property
    def alias(self) -> str:
        """Name of the element, if it is an UNNEST with an alias."""
        return _element_name(self.node) if isinstance(self.node, exp.Unnest) else ""


def resolve_unnest_names(tree: exp.Expr, columns: Mapping[str, Collection[str]] | None = None) -> None:
    """Give aliases of UNNEST that shadow a column a name of their own, and qualify fields of elements.

    Parameters
    ----------
    tree : sqlglot.exp.Expression
        One statement in BigQuery's dialect; changed in place.
    columns : mapping, optional
        Table, as the statement names it in lower case -> names of its columns. A table that is not there may have a
        column of any name.
    """
    known = {name: frozenset(c.lower() for c in found) for name, found in (columns or {}).items()}
    for number, select in enumerate(list(tree.find_all(exp.Select))):
        sources = _sources(select, known)
        for at, source in enumerate(sources):
            if source.alias and _is_shadowing(source, sources) and not select.is_star:
                _rename(select, sources, at, f"{source.alias}_{number}_{at}")
        _qualify_fields(select, known)


def _sources(select: exp.Select, known: Mapping[str, frozenset[str]]) -> list[_Source]:
    begin = select.args.get("from_") or select.args.get("from")
    clauses = [*([begin] if begin is not None else []), *(select.args.get("joins") or [])]
    return [_Source(clause.this, clause, _names_of(clause.this, known)) for clause in clauses]


def _element_name(unnest: exp.Unnest) -> str:
    alias = unnest.args.get("alias")
    if alias is None:
        return ""
    return str(alias.columns[0].name if alias.columns else alias.name)


def _names_of(node: exp.Expr, known: Mapping[str, frozenset[str]]) -> Names:
    if isinstance(node, exp.Unnest):
        offset = node.args.get("offset")
        names = (_element_name(node), offset.name if isinstance(offset, exp.Identifier) else "")
        return frozenset(name.lower() for name in names if name)
    if isinstance(node, exp.Subquery):
        return _projected(node.this, known)
    if not isinstance(node, exp.Table):
        return None
    query = _with_query(node)
    if query is not None:
        return _projected(query, known)
    return known.get(".".join(part for part in (node.catalog, node.db, node.name) if part).lower())


def _with_query(table: exp.Table) -> exp.Expr | None:
    """The query of the WITH clause that a plain table name means."""
    node = None if table.db else table.parent
    while node is not None:
        for cte in getattr(node, "ctes", ()) if isinstance(node, exp.Query) else ():
            if cte.alias.lower() == table.name.lower():
                found: exp.Expr = cte.this
                return found
        node = node.parent
    return None


def _projected(query: exp.Expr, known: Mapping[str, frozenset[str]]) -> Names:
    """Names of the columns of a query's result."""
    while isinstance(query, (exp.SetOperation, exp.Subquery)):
        query = query.this
    if not isinstance(query, exp.Select):
        return None
    found: set[str] = set()
    for projection in query.expressions:
        if projection.is_star:
            names = [source.names for source in _sources(query, known)]
            if any(one is None for one in names) or not isinstance(projection, exp.Star):
                return None
            found.update(*(one for one in names if one is not None))
        elif projection.output_name:
            found.add(projection.output_name.lower())
    return frozenset(found)


def _is_shadowing(source: _Source, sources: list[_Source]) -> bool:
    """Whether another item of FROM has, or may have, a column of the alias's name."""
    name = source.alias.lower()
    return any(other.names is None or name in other.names for other in sources if other is not source)


def _rename(select: exp.Select, sources: list[_Source], at: int, new: str) -> None:
    """Rename an alias, and every name that means it: it is known from its place in FROM on."""
    unnest, old = sources[at].node, sources[at].alias
    alias = unnest.args["alias"]
    name = exp.to_identifier(new)
    if alias.columns:
        alias.set("columns", [name, *alias.columns[1:]])
    else:
        alias.set("this", name)
    for column in list(_columns_in_reach(select, sources, at, old)):
        first = column.parts[0]
        is_projection = isinstance(column.parent, exp.Select) and column.arg_key == "expressions"
        first.replace(exp.to_identifier(new))
        if is_projection and len(column.parts) == 1:
            column.replace(exp.alias_(column.copy(), old))


def _columns_in_reach(select: exp.Select, sources: list[_Source], at: int, name: str) -> Iterator[exp.Column]:
    """Columns of a SELECT, and of the subqueries in it, that begin with a name that the FROM item `at` defines."""
    before = {id(source.clause) for source in sources[:at]}
    ctes = {id(cte) for cte in select.ctes}
    own = sources[at].node

    def is_left_out(node: exp.Expr) -> bool:
        return id(node) in before or id(node) in ctes or node is own or (node is not select and _defines(node, name))

    for node in select.walk(prune=is_left_out):
        if isinstance(node, exp.Column) and node.parts[0].name.lower() == name.lower():
            yield node


def _defines(node: exp.Expr, name: str) -> bool:
    """Whether a subquery has an item of FROM of that name."""
    if not isinstance(node, exp.Select):
        return False
    found = _sources(node, {})
    return any(name.lower() in (source.alias.lower(), source.node.alias_or_name.lower()) for source in found)


def _qualify_fields(select: exp.Select, known: Mapping[str, frozenset[str]]) -> None:
    """Qualify plain names that are no column of any table: they are fields of the last UNNEST's elements."""
    sources = _sources(select, known)
    unnests = [source.alias for source in sources if source.alias]
    visible = _visible(select, known)
    if not unnests or visible is None:
        return
    aliases = {p.alias.lower() for p in select.expressions if isinstance(p, exp.Alias)}
    for column in list(select.find_all(exp.Column)):
        plain = len(column.parts) == 1 and not column.is_star and column.find_ancestor(exp.Select) is select
        known_here = visible | _DATE_PARTS | (aliases if _clause(column, select) in _AFTER_SELECT else set())
        if plain and column.name.lower() not in known_here:
            field = exp.column(column.name, table=unnests[-1])
            is_projection = isinstance(column.parent, exp.Select) and column.arg_key == "expressions"
            column.replace(exp.alias_(field, column.name) if is_projection else field)


def _clause(node: exp.Expr, select: exp.Select) -> str:
    """Name of the clause of `select` that a node is in."""
    while node.parent is not None and node.parent is not select:
        node = node.parent
    return str(node.arg_key)


def _visible(select: exp.Select, known: Mapping[str, frozenset[str]]) -> set[str] | None:
    """Names of all columns of a SELECT and of those around it; None if a table is not known."""
    found: set[str] = set()
    around: exp.Select | None = select
    while around is not None:
        for source in _sources(around, known):
            if source.names is None:
                return None
            found |= source.names
        around = around.find_ancestor(exp.Select)
    return found
