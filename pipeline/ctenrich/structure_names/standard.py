"""The standard names of mappings/structures.csv: names of TG-263 with base, side, code, segment and synonyms."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

from ctenrich.codes.mappings import Code, find_segment, load_segments
from ctenrich.resources import folder
from ctenrich.structure_names.parse import fold
from ctenrich.structure_names.targets import check_target

__all__ = [
    "RELATIVE",
    "RelativeName",
    "Side",
    "StandardName",
    "bases_by_synonym",
    "find_standard",
    "name_of_side",
    "relative_base",
    "segment_of",
    "standard_name_of",
    "standard_names",
    "standard_of",
]

RELATIVE = {"ipsilateral": "Ipsi", "contralateral": "Contra"}
"""Side relative to the treated side -> TG-263's qualifier of a name that states it: ``Lung^Ipsi``."""


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


class RelativeName(NamedTuple):
    """A name relative to the treated side, e.g. ``Lung^Ipsi``."""

    left: StandardName
    """The name of the left one of the pair."""
    ipsilateral: bool


def relative_base(name: str) -> RelativeName | None:
    """Return the pair of organs behind a name relative to the treated side; None if the name is another one.

    Parameters
    ----------
    name : str
        E.g. ``Lung^Ipsi``, ``Parotid^Contra``.
    """
    base, _, qualifier = name.partition("^")
    left = name_of_side(base, Side.LEFT)
    if qualifier not in RELATIVE.values() or left is None or name_of_side(base, Side.RIGHT) is None:
        return None
    return RelativeName(left, qualifier == RELATIVE["ipsilateral"])


def standard_of(accepted: str) -> StandardName | None:
    """Return the name of TG-263 behind an accepted name with margin, subtracted target or qualifier.

    Parameters
    ----------
    accepted : str
        E.g. ``Heart^old``, ``OpticNrv_PRV03_L``, ``Lungs-PTV``.
    """
    plain = accepted.partition("^")[0]
    exact = find_standard(plain)
    if exact is not None:
        return exact
    plain = re.sub(r"_PRV\d{0,2}", "", plain)
    plain = re.sub(r"-(GTV|CTV|PTV|ITV)$", "", plain)
    return find_standard(plain)


def standard_name_of(segment: str) -> str:
    """Return the standard name of a segment of a run; empty if it has none.

    Parameters
    ----------
    segment : str
        A row of mappings/segments.csv, or the name that was accepted for an ROI: ``V_Azygos``, ``Heart^alt``, ``PTV1``.

    Returns
    -------
    str
        The name of TG-263, with the qualifier or margin of the segment's name.
    """
    known = _by_segment().get(segment)
    if known is not None:
        return known
    exact = find_standard(segment)
    if exact is not None:
        return exact.name
    numbered = re.fullmatch(r"(gtv|ctv|itv|ptv)_(\d+)", segment)
    if numbered is not None:
        return f"{numbered[1].upper()}{numbered[2]}"
    follows = relative_base(segment) is not None or standard_of(segment) is not None or not check_target(segment)
    return segment if follows else ""


def segment_of(standard: str) -> str:
    """Return the name of the segment of an ROI that a person gave a standard name; the inverse of `standard_name_of`.

    A row of segments.csv, that of the user before all, or else the standard name itself, of which
    :func:`ctenrich.codes.mappings.codes_of` knows the codes.
    """
    rows = load_segments()
    own = find_segment(standard) if standard in standard_names() else None
    candidates = (standard, _segments().get(standard, ""), own.name if own is not None else "")
    return next((name for name in candidates if name in rows and standard_name_of(name) == standard), standard)


@cache
def _segments() -> Mapping[str, str]:
    return {one.name: one.segment for one in standard_names().values()}


@cache
def _by_segment() -> Mapping[str, str]:
    """Row of mappings/segments.csv -> name of TG-263."""
    wanted = ("anatomy", "target")
    found: dict[str, str] = {}
    for one in standard_names().values():
        if one.segment and one.kind in wanted:
            found.setdefault(one.segment, one.name)
    return found
