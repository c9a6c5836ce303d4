"""Find the measurement groups, and the parts of each, in a TID 1500 report that was read as a nested dictionary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ctenrich.dicom.nested import Nested
from ctenrich.dicom.sop_classes import REPORT_CLASSES
from ctenrich.dicom.sr_tree import children, code_value, concept_code, first

__all__ = [
    "Group",
    "code3",
    "code4",
    "empty_code",
    "groups",
]


@dataclass(frozen=True)
class Group:
    """One measurement group."""

    number: int
    """Position among the items of its container, from 0."""
    item: Nested


def code3(sequence: Sequence[Nested] | None) -> Nested | None:
    """First code of a sequence as {CodeValue, CodingSchemeDesignator, CodeMeaning}; None for an empty sequence."""
    item = first(sequence)
    if item is None:
        return None
    return {
        "CodeValue": code_value(item) or None,
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
    """Return a record of three NULLs, as in IDC's views where a modifier is absent."""
    return {"CodeValue": None, "CodingSchemeDesignator": None, "CodeMeaning": None}


def groups(report: Nested) -> Iterator[Group]:
    """Iterate over the measurement groups of a TID 1500 report, by the rules of IDC's view.

    The document must name template 1500 of DCMR; a group is a CONTAINER with the concept meaning "Measurement Group"
    two levels below the root, and its number is its position among all children of its container (from 0).
    """
    template = first(report.get("ContentTemplateSequence")) or {}
    if report.get("SOPClassUID") not in REPORT_CLASSES:
        return
    if (template.get("TemplateIdentifier"), template.get("MappingResource")) != ("1500", "DCMR"):
        return
    for container in children(report):
        for number, item in enumerate(children(container)):
            name = concept_code(item)
            is_container = item.get("ValueType") == "CONTAINER"
            if is_container and name is not None and name.get("CodeMeaning") == "Measurement Group":
                yield Group(number, item)
