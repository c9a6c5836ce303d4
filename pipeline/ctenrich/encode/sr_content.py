"""Build content items of structured reports (PS3.3 C.17.3) and the TID 1500 tree as plain datasets.

Items are built and written once, without copies or searches, so that a report with one group per slice stays cheap.
Tests check the structure with the readers of other libraries.
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
    "composite",
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


def _tag_and_vr(keyword: str) -> tuple[BaseTag, str]:
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    number = tag_for_keyword(keyword)
    assert number is not None
    return Tag(number), dictionary_VR(number)


@cache
def _cached_tag_and_vr(keyword: str) -> tuple[BaseTag, str]:
    return _tag_and_vr(keyword)


def make(**values: object) -> Dataset:
    """Build a dataset from keywords; sequences are given as lists of datasets."""
    out = Dataset()
    for keyword, value in values.items():
        tag, vr = _cached_tag_and_vr(keyword)
        out.add(DataElement(tag, vr, ItemSequence(value) if vr == "SQ" else value))  # type: ignore[arg-type]
    return out


def as_code(code_or_concept: AnyCode) -> Code:
    """Convert a code of pydicom to :class:`ctenrich.codes.mappings.Code`."""
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
    # one item may be shared by many sequences: writing does not change it
    return [_concept_item(as_code(value))]


@cache
def concept(name: str) -> Code:
    """Return the code of a concept of mappings/concepts.csv."""
    return load_concepts()[name].code


def _sr_item(relationship: str, value_type: str, name: AnyCode, **values: object) -> Dataset:
    head: dict[str, object] = {"RelationshipType": relationship} if relationship else {}
    return make(**head, ValueType=value_type, ConceptNameCodeSequence=_code_sequence(name), **values)


def container(relationship: str, name: AnyCode, children: Iterable[Dataset], template: str = "") -> Dataset:
    """Build a CONTAINER item.

    Parameters
    ----------
    relationship : str
        Relationship to the parent (PS3.3 C.17.3.2.4); empty for the root.
    name : Code
        Concept name.
    children : iterable of Dataset
        Its content items.
    template : str
        Identifier of the DCMR template of which it is the root; empty if it is none.

    Returns
    -------
    Dataset
        The content item.
    """
    values: dict[str, object] = {"ContinuityOfContent": "SEPARATE"}
    if template:
        values["ContentTemplateSequence"] = [make(MappingResource="DCMR", TemplateIdentifier=template)]
    items = list(children)
    if items:
        values["ContentSequence"] = items
    return _sr_item(relationship, "CONTAINER", name, **values)


def text(relationship: str, name: AnyCode, value: str) -> Dataset:
    """Build a TEXT item.

    Parameters
    ----------
    relationship : str
        Relationship to the parent (PS3.3 C.17.3.2.4).
    name : Code
        Concept name.
    value : str
        The text.

    Returns
    -------
    Dataset
        The content item.
    """
    return _sr_item(relationship, "TEXT", name, TextValue=value)


def uidref(relationship: str, name: AnyCode, value: str) -> Dataset:
    """Build a UIDREF item.

    Parameters
    ----------
    relationship : str
        Relationship to the parent (PS3.3 C.17.3.2.4).
    name : Code
        Concept name.
    value : str
        The UID.

    Returns
    -------
    Dataset
        The content item.
    """
    return _sr_item(relationship, "UIDREF", name, UID=value)


def code(relationship: str, name: AnyCode, value: AnyCode, children: Sequence[Dataset] = ()) -> Dataset:
    """Build a CODE item.

    Parameters
    ----------
    relationship : str
        Relationship to the parent (PS3.3 C.17.3.2.4).
    name : Code
        Concept name.
    value : Code
        The code.
    children : sequence of Dataset
        Content items below it, e.g. modifiers.

    Returns
    -------
    Dataset
        The content item.
    """
    more = {"ContentSequence": list(children)} if children else {}
    return _sr_item(relationship, "CODE", name, ConceptCodeSequence=_code_sequence(value), **more)


def composite(relationship: str, name: AnyCode, sop_class: str, sop_instance: str) -> Dataset:
    """Build a COMPOSITE item, which refers to an instance that SR does not count as an image, e.g. an RT Dose.

    Parameters
    ----------
    relationship : str
        Relationship to the parent (PS3.3 C.17.3.2.4).
    name : Code
        Concept name.
    sop_class : str
        Referenced SOP Class UID.
    sop_instance : str
        Referenced SOP Instance UID.

    Returns
    -------
    Dataset
        The content item.
    """
    reference = make(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=sop_instance)
    return _sr_item(relationship, "COMPOSITE", name, ReferencedSOPSequence=[reference])


def image(
    relationship: str, name: AnyCode | None, sop_class: str, sop_instance: str, segment: int | None = None
) -> Dataset:
    """Build an IMAGE item that refers to an instance, or to one segment of it.

    Parameters
    ----------
    relationship : str
        Relationship to the parent (PS3.3 C.17.3.2.4).
    name : Code or None
        Concept name; None in an image library (TID 1601).
    sop_class : str
        Referenced SOP Class UID.
    sop_instance : str
        Referenced SOP Instance UID.
    segment : int, optional
        Referenced Segment Number.

    Returns
    -------
    Dataset
        The content item.
    """
    reference = make(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=sop_instance)
    if segment is not None:
        tag, vr = _cached_tag_and_vr("ReferencedSegmentNumber")
        reference.add(DataElement(tag, vr, segment))
    if name is None:
        return make(RelationshipType=relationship, ValueType="IMAGE", ReferencedSOPSequence=[reference])
    return _sr_item(relationship, "IMAGE", name, ReferencedSOPSequence=[reference])


def num(relationship: str, name: AnyCode, value: float, unit: AnyCode, children: Sequence[Dataset] = ()) -> Dataset:
    """Build a NUM item with a decimal string of at most 16 characters and the exact double (PS3.3 C.18.1).

    Parameters
    ----------
    relationship : str
        Relationship to the parent (PS3.3 C.17.3.2.4).
    name : Code
        Concept name.
    value : float
        The number, in `unit`.
    unit : Code
        UCUM unit.
    children : sequence of Dataset
        Content items below it.

    Returns
    -------
    Dataset
        The content item.
    """
    measured = make(
        FloatingPointValue=float(value),
        MeasurementUnitsCodeSequence=_code_sequence(unit),
        NumericValue=DSfloat(float(value), auto_format=True),
    )
    more = {"ContentSequence": list(children)} if children else {}
    return _sr_item(relationship, "NUM", name, MeasuredValueSequence=[measured], **more)


# ---------------------------------------------------------------- templates


def tracking_items(identifier: str, uid: str) -> list[Dataset]:
    """Build Tracking Identifier and Tracking Unique Identifier (TID 4108).

    Parameters
    ----------
    identifier : str
        Text for people.
    uid : str
        Tracking Unique Identifier.

    Returns
    -------
    list of Dataset
        The two content items.
    """
    return [
        text(CONTEXT, codes.DCM.TrackingIdentifier, identifier),
        uidref(CONTEXT, codes.DCM.TrackingUniqueIdentifier, uid),
    ]


def finding_site(site: Code, laterality: Code | None = None, topography: Code | None = None) -> Dataset:
    """Build a Finding Site, with Laterality first and Topographical modifier second (TID 1411, TID 1501).

    Parameters
    ----------
    site : Code
        Anatomical location.
    laterality : Code, optional
        Laterality (CID 244).
    topography : Code, optional
        Topographical modifier.

    Returns
    -------
    Dataset
        The content item.
    """
    children = []
    if laterality is not None:
        children.append(code(MODIFIER, codes.SCT.Laterality, laterality))
    if topography is not None:
        children.append(code(MODIFIER, codes.SCT.TopographicalModifier, topography))
    return code(MODIFIER, codes.SCT.FindingSite, site, children)


def algorithm_items(algorithm: Algorithm) -> list[Dataset]:
    """Build the items of an Algorithm Identification (TID 4019)."""
    return [
        text(MODIFIER, codes.DCM.AlgorithmName, algorithm.name),
        text(MODIFIER, codes.DCM.AlgorithmVersion, algorithm.version),
        *(text(MODIFIER, codes.DCM.AlgorithmParameters, parameter) for parameter in algorithm.parameters),
    ]


def measurement(quantity: Code, value: float, unit: Code) -> Dataset:
    """Build a measurement of a group (TID 1419).

    Parameters
    ----------
    quantity : Code
        Concept name.
    value : float
        The number, in `unit`.
    unit : Code
        UCUM unit.

    Returns
    -------
    Dataset
        The content item.
    """
    return num(CONTAINS, quantity, value, unit)


def measurement_report(groups: Iterable[Dataset], observer: Observer, series: SortedSeries) -> Dataset:
    """Build the root of an Imaging Measurement Report (TID 1500) on one CT series.

    Parameters
    ----------
    groups : iterable of Dataset
        Measurement groups.
    observer : Observer
        The device that made the observations (TID 1004).
    series : SortedSeries
        The series, whose slices are listed in the image library (TID 1600).

    Returns
    -------
    Dataset
        Root content item.
    """
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
