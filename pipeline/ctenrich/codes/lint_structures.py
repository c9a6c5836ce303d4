"""Rules of the linter about structures: sides that contradict each other, and concepts that two structures share."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from ctenrich.codes.lint_rows import CodeTriple, MappingRow, known_meanings, mapping_issue, read_rows, sides_in
from ctenrich.records import Issue, Severity
from ctenrich.resources import folder as resource_folder

__all__ = ["check_structures"]

_GENERIC = ("DCM", "111099")
"""Selected region: the concept of a structure that has none of its own; the name tells such structures apart."""

_NOT_OF_THE_CONCEPT = ("category", "finding", "SegmentedPropertyCategoryCodeSequence")
"""Columns that say nothing about which structure a row denotes."""


def check_structures(files: Mapping[str, Sequence[MappingRow]]) -> Iterator[Issue]:
    """Check the rows of mapping files for contradictory sides and shared concepts.

    Parameters
    ----------
    files : mapping
        File name -> its rows. ``tasks.csv`` is checked against ``segments.csv``, and against the package's.

    Yields
    ------
    Issue
        SIDE, EQUAL_SIDES, SAME_CONCEPT or UNKNOWN_SEGMENT.
    """
    for name, rows in files.items():
        if name == "concepts.csv":
            continue
        for row in rows:
            yield from _check_row_sides(row)
        yield from _check_equal_sides(rows)
        if name != "tasks.csv":
            yield from _check_same_concept((row.group, row.key, row.place, row) for row in rows if row.group)
    if "tasks.csv" in files:
        yield from _check_tasks(files["tasks.csv"], files.get("segments.csv", ()))


# ---------------------------------------------------------------- sides


def _check_row_sides(row: MappingRow) -> Iterator[Issue]:
    named = sides_in(row.key) if row.codes else set()
    for column, triple in row.codes.items():
        modifier = row.codes.get(_modifier_column(column, row.codes))
        inside = _sides_of(triple)
        beside = sides_in(modifier.meaning) if modifier else set()
        if column != _concept_column(column, row.codes):
            if len(named) == len(inside) == 1 and named != inside:
                message = f"{row.key!r} names {min(named)}, but {triple.value} ({triple.meaning}) is its modifier"
                yield mapping_issue("SIDE", Severity.ERROR, row.place, message)
        elif len(inside) == 1 and len(beside) == 1:
            known = _sided_meaning(triple, min(inside))
            if inside != beside:
                message = f"{triple.value} means {known!r}, but its modifier is {min(beside)}"
                yield mapping_issue("SIDE", Severity.ERROR, row.place, message)
            else:
                message = f"{triple.value} means {known!r}: the modifier {min(beside)} states the side twice"
                yield mapping_issue("SIDE", Severity.WARNING, row.place, message)
        elif len(inside) == 1 and len(named) == 1 and inside != named:
            message = (
                f"{row.key!r} names {min(named)}, but {triple.value} means {_sided_meaning(triple, min(inside))!r}"
            )
            yield mapping_issue("SIDE", Severity.ERROR, row.place, message)


def _modifier_column(column: str, columns: Mapping[str, CodeTriple]) -> str:
    """Column of the modifier of a concept, empty if it has none."""
    return next((other for other in columns if other != column and _concept_column(other, columns) == column), "")


def _concept_column(column: str, columns: Mapping[str, CodeTriple]) -> str:
    """Column of the concept that a column modifies; the column itself if it is no modifier."""
    if column == "laterality":
        return "type"
    if column == "modifier":
        return "site"
    if "modifier" not in column.casefold():
        return column
    stem = re.sub("_?modifier", "", column, flags=re.IGNORECASE)
    return stem if stem in columns else column


def _sides_of(triple: CodeTriple) -> set[str]:
    """Sides in any known meaning of a concept."""
    found = [sides_in(meaning) for meaning in (triple.meaning, *_meanings(triple))]
    return set.union(*found)


def _sided_meaning(triple: CodeTriple, side: str) -> str:
    return next(meaning for meaning in (*_meanings(triple), triple.meaning) if side in sides_in(meaning))


def _meanings(triple: CodeTriple) -> tuple[str, ...]:
    return known_meanings(triple.scheme).get(triple.value, ())


def _check_equal_sides(rows: Sequence[MappingRow]) -> Iterator[Issue]:
    pairs: dict[str, dict[str, MappingRow]] = defaultdict(dict)
    for row in rows:
        sides = sides_in(row.key)
        if len(sides) == 1 and row.codes:
            side = min(sides)
            pairs[re.sub(rf"(?<![a-z]){side}(?![a-z])", "*", row.key.casefold())][side] = row
    for found in pairs.values():
        if len(found) == 2 and _all_codes(found["left"]) == _all_codes(found["right"]):
            first, second = sorted(found.values(), key=lambda row: row.line)
            message = (
                f"{first.key!r} (line {first.line}) and {second.key!r} have equal codes: no modifier states the side"
            )
            yield mapping_issue("EQUAL_SIDES", Severity.ERROR, second.place, message)


def _all_codes(row: MappingRow) -> dict[str, tuple[str, str]]:
    return {column: (triple.scheme, triple.value) for column, triple in row.codes.items()}


# ---------------------------------------------------------------- shared concepts


def _check_same_concept(labels: Iterator[tuple[str, str, str, MappingRow]]) -> Iterator[Issue]:
    """Check the labels of tasks: (task, label, where it is, row with its codes)."""
    seen: dict[tuple[object, ...], str] = {}
    for task, label, place, row in labels:
        codes = {column: code for column, code in _all_codes(row).items() if column not in _NOT_OF_THE_CONCEPT}
        if not codes or _GENERIC in codes.values():
            continue
        concept = (task, *sorted(codes.items()))
        if concept in seen:
            message = f"{label!r} has the codes of {seen[concept]!r} of the same task"
            yield mapping_issue("SAME_CONCEPT", Severity.WARNING, place, message)
        seen.setdefault(concept, label)


def _check_tasks(tasks: Sequence[MappingRow], segments: Sequence[MappingRow]) -> Iterator[Issue]:
    rows = {row.key: row for row in (*read_rows(resource_folder("mappings") / "segments.csv"), *segments)}
    labels = []
    for row in tasks:
        name = row.cells.get("segment", "").strip() or row.cells.get("class_name", "").strip()
        if row.cells.get("role", "").strip() == "auxiliary":
            continue
        if name in rows:
            labels.append((row.group, row.cells.get("class_name", "").strip(), row.place, rows[name]))
        else:
            message = f"{row.key!r} denotes {name!r}, which segments.csv does not have"
            yield mapping_issue("UNKNOWN_SEGMENT", Severity.ERROR, row.place, message)
    yield from _check_same_concept(iter(labels))
