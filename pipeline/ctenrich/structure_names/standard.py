"""The standard names of mappings/structures.csv: names of TG-263 with base, side, code, segment and synonyms."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from types import MappingProxyType

from ctenrich.codes.mappings import Code
from ctenrich.resources import folder
from ctenrich.structure_names.parse import fold

__all__ = ["Side", "StandardName", "bases_by_synonym", "find_standard", "name_of_side", "standard_names"]


class Side(StrEnum):
    """Side of a structure."""

    NONE = ""
    LEFT = "L"
    RIGHT = "R"
    BOTH = "B"


@dataclass(frozen=True, kw_only=True)
class StandardName:
    """One name of TG-263."""

    name: str
    base: str
    """Name without its side, e.g. ``Lung``; shared by ``Lung_L``, ``Lung_R`` and ``Lungs``."""
    side: Side
    kind: str
    """anatomy, target, derived (with a margin, or minus a target), device or general."""
    segment: str
    """Row of mappings/segments.csv; empty if there is none."""
    code: Code | None
    """SNOMED CT code, of CID 9514 where it is in there; None if none was found."""
    laterality: Code | None
    synonyms: tuple[str, ...]
    """Names of the base in several languages, without side."""


@cache
def standard_names() -> Mapping[str, StandardName]:
    """Return all standard names by name."""
    with (folder("mappings") / "structures.csv").open(encoding="utf-8", newline="") as handle:
        found = {row["name"]: _standard_name(row) for row in csv.DictReader(handle)}
    return MappingProxyType(found)


def _standard_name(row: Mapping[str, str]) -> StandardName:
    def code(prefix: str) -> Code | None:
        value = row[f"{prefix}_code"]
        return Code(value, row[f"{prefix}_scheme"], row[f"{prefix}_meaning"]) if value else None

    return StandardName(
        name=row["name"],
        base=row["base"],
        side=Side(row["side"]),
        kind=row["kind"],
        segment=row["segment"],
        code=code("type"),
        laterality=code("laterality"),
        synonyms=tuple(part for part in row["synonyms"].split("|") if part),
    )


def find_standard(name: str) -> StandardName | None:
    """Return the standard name that is written so, whatever the case; None if there is none."""
    return _by_case().get(name.casefold())


@cache
def _by_case() -> Mapping[str, StandardName]:
    return {name.casefold(): one for name, one in standard_names().items()}


@cache
def bases_by_synonym() -> Mapping[str, frozenset[str]]:
    """Folded synonym (see :func:`ctenrich.structure_names.parse.fold`) -> bases that it may mean."""
    found: dict[str, set[str]] = {}
    for one in standard_names().values():
        if one.kind == "derived":
            continue
        own = (one.base, *one.synonyms) if one.side is not Side.BOTH else (one.base, one.name, *one.synonyms)
        for text in own:
            found.setdefault(fold(text), set()).add(one.base)
    return {text: frozenset(bases) for text, bases in found.items()}


def name_of_side(base: str, side: Side) -> StandardName | None:
    """Return the standard name of a base on a side; None if TG-263 has none.

    Parameters
    ----------
    base : str
        E.g. ``Lung``.
    side : Side
        NONE gives the name without a side, else the one of both sides: never one of a single side.
    """
    found = _by_base().get(base, {})
    if side is Side.NONE:
        return found.get(Side.NONE) or found.get(Side.BOTH)
    return found.get(side)


@cache
def _by_base() -> Mapping[str, Mapping[Side, StandardName]]:
    found: dict[str, dict[Side, StandardName]] = {}
    for one in standard_names().values():
        if one.kind != "derived":
            found.setdefault(one.base, {}).setdefault(one.side, one)
    return found
