"""Content items of structured reports (PS3.3 C.17.3): names, children, codes and references.

An item is a pydicom data set or a nested dictionary of `ctenrich.dicom.nested`: both have `get(keyword)`. Tables,
checks, exports and the viewer read reports with these functions; the proof has a reader of its own on purpose.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple, Protocol

__all__ = [
    "ContentItem",
    "EvidenceReference",
    "Name",
    "children",
    "code_value",
    "concept_code",
    "evidence_references",
    "first",
    "has_name",
    "item_name",
    "segment_number",
    "walk",
]

Name = tuple[str, str]
"""Code value and coding scheme designator."""


class ContentItem(Protocol):
    """A content item, code or reference: `pydicom.Dataset`, or a dictionary keyword -> value."""

    def get(self, key: str, /) -> Any:
        """Value of an element; None where it is absent."""


class EvidenceReference(NamedTuple):
    """An instance that a report lists as its evidence (PS3.3 C.17.2)."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str


def first(values: Any) -> Any:
    """First value of a sequence or list; None where it is absent or empty."""
    return values[0] if values else None


def code_value(code: ContentItem) -> str:
    """Code Value, Long Code Value or URN Code Value of a code (PS3.3 8.1), whichever it has; else empty."""
    return str(code.get("CodeValue") or code.get("LongCodeValue") or code.get("URNCodeValue") or "")


def concept_code(item: ContentItem) -> ContentItem | None:
    """Concept name of a content item, as the code that it is."""
    found: ContentItem | None = first(item.get("ConceptNameCodeSequence"))
    return found


def item_name(item: ContentItem) -> Name | None:
    """Concept name of a content item as (code value, scheme); None where it has none."""
    names = item.get("ConceptNameCodeSequence")
    if not names:
        return None
    code = names[0]
    return str(code.get("CodeValue") or "") or code_value(code), str(code.get("CodingSchemeDesignator") or "")


def has_name(item: ContentItem, names: Collection[Name]) -> bool:
    """Whether a content item's concept name is one of some names.

    Parameters
    ----------
    item : ContentItem
        A content item.
    names : collection of (str, str)
        Code value and coding scheme designator.

    Returns
    -------
    bool
        False for an item without a concept name.
    """
    return item_name(item) in names


def children(item: ContentItem, value_type: str = "", *names: Name) -> list[Any]:
    """Direct children of a content item.

    Parameters
    ----------
    item : ContentItem
        A content item, or the report itself.
    value_type : str
        Only children of this Value Type; empty: of every type.
    *names : (str, str)
        Only children with one of these concept names; none: with any name, or without one.

    Returns
    -------
    list
        In the order of the Content Sequence, of the type of `item`.
    """
    found = item.get("ContentSequence")
    if not found:
        return []
    if value_type:
        found = (child for child in found if child.get("ValueType") == value_type)
    return [child for child in found if not names or item_name(child) in names]


def walk(root: ContentItem) -> Iterator[tuple[Any, Any]]:
    """Every content item below a root as (parent, item), parents first, in the order of the document.

    The depth is not limited and not recursed into: a hostile report cannot exhaust the stack here.
    """
    waiting = [(root, child) for child in reversed(children(root))]
    while waiting:
        parent, item = waiting.pop()
        yield parent, item
        waiting += [(item, child) for child in reversed(children(item))]


def segment_number(reference: ContentItem) -> int | None:
    """First Referenced Segment Number of an item of a Referenced SOP Sequence; None where it names no segment."""
    number = reference.get("ReferencedSegmentNumber")
    if number is None:
        return None
    return int(number if isinstance(number, int) else number[0])


def evidence_references(report: ContentItem) -> Iterator[EvidenceReference]:
    """Instances in the evidence sequences of a report (PS3.3 C.17.2), in their order; an absent UID is empty."""
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in report.get(keyword) or ():
            for series in study.get("ReferencedSeriesSequence") or ():
                for instance in series.get("ReferencedSOPSequence") or ():
                    uids = (study.get("StudyInstanceUID"), series.get("SeriesInstanceUID"))
                    uid = instance.get("ReferencedSOPInstanceUID")
                    yield EvidenceReference(*(str(value or "") for value in (*uids, uid)))
