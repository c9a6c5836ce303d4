"""Content items of structured reports (PS3.3 C.17.3) and the TID 1500 tree, as plain datasets.

Items are built once and written once: nothing is copied or searched again, which is what makes a report with a group
for every slice cheap. The structure is checked by other libraries' readers in the tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as ItemSequence
from pydicom.sr.codedict import codes
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import DSfloat

from ctenrich import __version__
from ctenrich.codes.mappings import Code, load_concepts
from ctenrich.encode.context import MANUFACTURER
from ctenrich.records import SortedSeries

if TYPE_CHECKING:
    from pydicom.sr.coding import Code as PydicomCode

    AnyCode = Code | PydicomCode

__all__ = [
    "Algorithm",
    "Observer",
    "algorithm_items",
    "as_code",
    "code",
    "concept",
    "container",
    "finding_site",
    "image",
    "measurement",
    "measurement_report",
    "num",
    "text",
    "tracking_items",
    "uidref",
]

ACQ, CONTAINS, CONTEXT, MODIFIER = "HAS ACQ CONTEXT", "CONTAINS", "HAS OBS CONTEXT", "HAS CONCEPT MOD"


@dataclass(frozen=True)
class Observer:
    """The device that made the observations (TID 1004)."""

    uid: str
    name: str
    model: str
    serial: str


@dataclass(frozen=True)
class Algorithm:
    """Algorithm Identification (TID 4019)."""

    name: str
    version: str
    parameters: tuple[str, ...] = ()


# ---------------------------------------------------------------- elements


def _tag(keyword: str) -> tuple[BaseTag, str]:
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    number = tag_for_keyword(keyword)
    assert number is not None
    return Tag(number), dictionary_VR(number)


@cache
def _element(keyword: str) -> tuple[BaseTag, str]:
    return _tag(keyword)


def make(**values: object) -> Dataset:
    """Dataset from keywords; sequences from lists of datasets."""
    out = Dataset()
    for keyword, value in values.items():
        tag, vr = _element(keyword)
        out.add(DataElement(tag, vr, ItemSequence(value) if vr == "SQ" else value))  # type: ignore[arg-type]
    return out


def as_code(code_or_concept: AnyCode) -> Code:
    """One of pydicom's codes as ours."""
    if isinstance(code_or_concept, Code):
        return code_or_concept
    return Code(code_or_concept.value, code_or_concept.scheme_designator, code_or_concept.meaning)


@cache
def _concept_item(code_value: Code) -> Dataset:
    return make(
        CodeValue=code_value.value,
        CodingSchemeDesignator=code_value.scheme,
        CodeMeaning=code_value.meaning[:64],
    )


def _code_sequence(value: AnyCode) -> list[Dataset]:
    # an item may stand in many sequences: it is only read when it is written
    return [_concept_item(as_code(value))]


@cache
def concept(name: str) -> Code:
    """Code of a concept of mappings/concepts.csv."""
    return load_concepts()[name].code


def _item(relationship: str, value_type: str, name: AnyCode, **values: object) -> Dataset:
    head: dict[str, object] = {"RelationshipType": relationship} if relationship else {}
    return make(**head, ValueType=value_type, ConceptNameCodeSequence=_code_sequence(name), **values)


def container(relationship: str, name: AnyCode, children: Iterable[Dataset], template: str = "") -> Dataset:
    """CONTAINER item, with its template where it is the root of one."""
    values: dict[str, object] = {"ContinuityOfContent": "SEPARATE"}
    if template:
        values["ContentTemplateSequence"] = [make(MappingResource="DCMR", TemplateIdentifier=template)]
    items = list(children)
    if items:
        values["ContentSequence"] = items
    return _item(relationship, "CONTAINER", name, **values)


def text(relationship: str, name: AnyCode, value: str) -> Dataset:
    """TEXT item."""
    return _item(relationship, "TEXT", name, TextValue=value)


def uidref(relationship: str, name: AnyCode, value: str) -> Dataset:
    """UIDREF item."""
    return _item(relationship, "UIDREF", name, UID=value)


def code(relationship: str, name: AnyCode, value: AnyCode, children: Sequence[Dataset] = ()) -> Dataset:
    """CODE item."""
    more = {"ContentSequence": list(children)} if children else {}
    return _item(relationship, "CODE", name, ConceptCodeSequence=_code_sequence(value), **more)


def image(
    relationship: str, name: AnyCode | None, sop_class: str, sop_instance: str, segment: int | None = None
) -> Dataset:
    """IMAGE item, of a whole instance or of one segment of it."""
    reference = make(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=sop_instance)
    if segment is not None:
        tag, vr = _element("ReferencedSegmentNumber")
        reference.add(DataElement(tag, vr, segment))
    if name is None:
        return make(RelationshipType=relationship, ValueType="IMAGE", ReferencedSOPSequence=[reference])
    return _item(relationship, "IMAGE", name, ReferencedSOPSequence=[reference])


def num(relationship: str, name: AnyCode, value: float, unit: AnyCode, children: Sequence[Dataset] = ()) -> Dataset:
    """NUM item: the decimal text of at most 16 characters, and beside it the exact double (PS3.3 C.18.1)."""
    measured = make(
        FloatingPointValue=float(value),
        MeasurementUnitsCodeSequence=_code_sequence(unit),
        NumericValue=DSfloat(float(value), auto_format=True),
    )
    more = {"ContentSequence": list(children)} if children else {}
    return _item(relationship, "NUM", name, MeasuredValueSequence=[measured], **more)


# ---------------------------------------------------------------- templates


def tracking_items(identifier: str, uid: str) -> list[Dataset]:
    """Tracking Identifier and Tracking Unique Identifier (TID 4108)."""
    return [
        text(CONTEXT, codes.DCM.TrackingIdentifier, identifier),
        uidref(CONTEXT, codes.DCM.TrackingUniqueIdentifier, uid),
    ]


def finding_site(site: Code, laterality: Code | None = None, topography: Code | None = None) -> Dataset:
    """Finding Site, with Laterality first and Topographical modifier second (TID 1411, TID 1501)."""
    children = []
    if laterality is not None:
        children.append(code(MODIFIER, codes.SCT.Laterality, laterality))
    if topography is not None:
        children.append(code(MODIFIER, codes.SCT.TopographicalModifier, topography))
    return code(MODIFIER, codes.SCT.FindingSite, site, children)


def algorithm_items(algorithm: Algorithm) -> list[Dataset]:
    """Algorithm Identification (TID 4019)."""
    return [
        text(MODIFIER, codes.DCM.AlgorithmName, algorithm.name),
        text(MODIFIER, codes.DCM.AlgorithmVersion, algorithm.version),
        *(text(MODIFIER, codes.DCM.AlgorithmParameters, parameter) for parameter in algorithm.parameters),
    ]


def measurement(quantity: Code, value: float, unit: Code) -> Dataset:
    """A measurement of a group (TID 1419)."""
    return num(CONTAINS, quantity, value, unit)


def measurement_report(groups: Iterable[Dataset], observer: Observer, series: SortedSeries) -> Dataset:
    """Root of an Imaging Measurement Report (TID 1500) over one CT series."""
    library = container(
        CONTAINS,
        codes.DCM.ImageLibraryGroup,
        [
            code(ACQ, codes.DCM.Modality, codes.DCM.ComputedTomography),
            *(image(CONTAINS, None, item.sop_class_uid, item.sop_instance_uid) for item in series.slices),
        ],
    )
    children = [
        code(MODIFIER, codes.DCM.LanguageOfContentItemAndDescendants, concept("language")),
        code(CONTEXT, codes.DCM.ObserverType, codes.DCM.Device),
        uidref(CONTEXT, codes.DCM.DeviceObserverUID, observer.uid),
        text(CONTEXT, codes.DCM.DeviceObserverName, observer.name),
        text(CONTEXT, codes.DCM.DeviceObserverManufacturer, f"{MANUFACTURER} {__version__}"),
        text(CONTEXT, codes.DCM.DeviceObserverModelName, observer.model),
        text(CONTEXT, codes.DCM.DeviceObserverSerialNumber, observer.serial),
        code(MODIFIER, codes.DCM.ProcedureReported, codes.SCT.ImagingProcedure),
        container(CONTAINS, codes.DCM.ImageLibrary, [library]),
        container(CONTAINS, codes.DCM.ImagingMeasurements, groups),
    ]
    return container("", codes.DCM.ImagingMeasurementReport, children, "1500")
