"""Walk a TID 1500 report that was read as a nested dictionary, and find the parts of each measurement group."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ctenrich.dicom.nested import Nested
from ctenrich.dicom.sop_classes import REPORT_CLASSES

__all__ = [
    "Group",
    "children",
    "code3",
    "code4",
    "concept_name",
    "empty_code",
    "first",
    "groups",
    "is_named",
]

Name = tuple[str, str]


@dataclass(frozen=True)
class Group:
    """One measurement group and its place among the items of its container."""

    number: int
    item: Nested


def first(values: Sequence[Any] | None) -> Any:
    """First value of a list, or None."""
    return values[0] if values else None


def concept_name(item: Nested) -> Nested:
    """First item of the Concept Name Code Sequence, or an empty dictionary."""
    return first(item.get("ConceptNameCodeSequence")) or {}


def is_named(item: Nested, names: Collection[Name]) -> bool:
    """Whether the item's concept name is one of (code value, scheme)."""
    name = concept_name(item)
    found: Name = (name.get("CodeValue") or "", name.get("CodingSchemeDesignator") or "")
    return found in names


def children(item: Nested, value_type: str, *names: Name) -> list[Nested]:
    """Direct children of one value type whose name is one of `names` (all of them if none is given)."""
    found = (c for c in item.get("ContentSequence") or () if c.get("ValueType") == value_type)
    return [c for c in found if not names or is_named(c, names)]


def code3(sequence: Sequence[Nested] | None) -> Nested | None:
    """First code of a sequence as {CodeValue, CodingSchemeDesignator, CodeMeaning}; None if there is none."""
    item = first(sequence)
    if item is None:
        return None
    value = item.get("CodeValue") or item.get("LongCodeValue") or item.get("URNCodeValue")
    return {
        "CodeValue": value,
        "CodingSchemeDesignator": item.get("CodingSchemeDesignator"),
        "CodeMeaning": item.get("CodeMeaning"),
    }


def code4(sequence: Sequence[Nested] | None) -> Nested | None:
    """As :func:`code3`, with CodingSchemeVersion."""
    out = code3(sequence)
    if out is not None:
        out["CodingSchemeVersion"] = sequence[0].get("CodingSchemeVersion") if sequence else None
    return out


def empty_code() -> Nested:
    """A record of three NULLs, which IDC gives where a modifier is absent."""
    return {"CodeValue": None, "CodingSchemeDesignator": None, "CodeMeaning": None}


def groups(report: Nested) -> Iterator[Group]:
    """Measurement groups of a TID 1500 report, as IDC's view finds them.

    The document must name template 1500 of DCMR; a group is a CONTAINER with the concept meaning "Measurement Group"
    two levels below the root, and its number is its position among all children of its container (from 0).
    """
    template = first(report.get("ContentTemplateSequence")) or {}
    if report.get("SOPClassUID") not in REPORT_CLASSES:
        return
    if (template.get("TemplateIdentifier"), template.get("MappingResource")) != ("1500", "DCMR"):
        return
    for container in report.get("ContentSequence") or ():
        for number, item in enumerate(container.get("ContentSequence") or ()):
            if item.get("ValueType") == "CONTAINER" and concept_name(item).get("CodeMeaning") == "Measurement Group":
                yield Group(number, item)
