"""Read the content tree of a structured report with pydicom into plain nodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

from ctenrich.codes.mappings import Code

__all__ = ["Concept", "Node", "concept_of", "groups_of", "read_tree"]

Concept = tuple[str, str]
"""(code value, coding scheme)."""


@dataclass(frozen=True)
class Node:
    """One content item."""

    type: str
    concept: Concept | None
    code: Concept | None = None
    """Value of a CODE item."""
    text: str = ""
    """Value of a TEXT or UIDREF item."""
    number: float | None = None
    """Numeric Value of a NUM item."""
    exact: float | None = None
    """Floating Point Value of a NUM item, if it has one."""
    unit: Concept | None = None
    reference: tuple[str, str] | None = None
    """(SOP Class UID, SOP Instance UID) of an IMAGE or COMPOSITE item."""
    segment: int | None = None
    """Referenced Segment Number."""
    children: tuple[Node, ...] = field(default=())

    def walk(self) -> Iterator[Node]:
        """Iterate over the node and all its descendants."""
        yield self
        for child in self.children:
            yield from child.walk()

    def named(self, code: Code | Concept) -> list[Node]:
        """Return the children that have a concept name."""
        wanted = concept_of(code) if isinstance(code, Code) else code
        return [child for child in self.children if child.concept == wanted]


def concept_of(code: Code) -> Concept:
    """Return value and scheme of a code, which are compared."""
    return code.value, code.scheme


def read_tree(dataset: Dataset) -> Node:
    """Read a content item and its descendants (PS3.3 C.17.3)."""
    names = dataset.get("ConceptNameCodeSequence", None)
    kind = str(dataset.get("ValueType", ""))
    values: dict[str, object] = {}
    if kind == "CODE":
        values["code"] = _read_concept(dataset.ConceptCodeSequence[0])
    elif kind == "TEXT":
        values["text"] = str(dataset.TextValue)
    elif kind == "UIDREF":
        values["text"] = str(dataset.UID)
    elif kind == "NUM" and dataset.MeasuredValueSequence:
        measured = dataset.MeasuredValueSequence[0]
        values["number"] = float(measured.NumericValue)
        values["exact"] = float(measured.FloatingPointValue) if "FloatingPointValue" in measured else None
        values["unit"] = _read_concept(measured.MeasurementUnitsCodeSequence[0])
    elif kind in {"IMAGE", "COMPOSITE"}:
        reference = dataset.ReferencedSOPSequence[0]
        values["reference"] = (str(reference.ReferencedSOPClassUID), str(reference.ReferencedSOPInstanceUID))
        number = reference.get("ReferencedSegmentNumber", None)
        values["segment"] = None if number is None else int(number)
    children = tuple(read_tree(item) for item in dataset.get("ContentSequence", None) or ())
    return Node(kind, _read_concept(names[0]) if names else None, children=children, **values)  # type: ignore[arg-type]


def _read_concept(item: Dataset) -> Concept:
    return str(item.CodeValue), str(item.CodingSchemeDesignator)


def groups_of(root: Node) -> list[Node]:
    """Return the measurement groups of a TID 1500 report."""
    from pydicom.sr.codedict import codes

    wanted = (codes.DCM.MeasurementGroup.value, codes.DCM.MeasurementGroup.scheme_designator)
    return [node for node in root.walk() if node.type == "CONTAINER" and node.concept == wanted]
