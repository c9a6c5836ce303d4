"""Check the structure of an Imaging Measurement Report: content items, relationships, TID 1500, measurement groups."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from ctenrich import __version__
from ctenrich.dicom.sr_tree import children, code_value, item_name, walk
from ctenrich.records import Issue, Severity

__all__ = ["report_issues"]

Fault = tuple[str, Severity, str]
Concept = tuple[str, str]

_ERROR, _WARNING = Severity.ERROR, Severity.WARNING
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")

SITE = {(codes.SCT.FindingSite.value, "SCT"), ("G-C0E3", "SRT")}
ABSENT_NUMBER = "NumericValueQualifierCodeSequence"
_VALUES = {
    "TEXT": "TextValue",
    "CODE": "ConceptCodeSequence",
    "NUM": "MeasuredValueSequence",
    "DATETIME": "DateTime",
    "DATE": "Date",
    "TIME": "Time",
    "UIDREF": "UID",
    "PNAME": "PersonName",
    "COMPOSITE": "ReferencedSOPSequence",
    "IMAGE": "ReferencedSOPSequence",
    "WAVEFORM": "ReferencedSOPSequence",
    "SCOORD": "GraphicData",
    "SCOORD3D": "GraphicData",
    "TCOORD": "TemporalRangeType",
    "CONTAINER": "ContinuityOfContent",
    "TABLE": "TableRowDefinitionSequence",
}
"""Value type -> the element that holds its value (PS3.3 C.17.3.2)."""
_MAY_BE_EMPTY = {"MeasuredValueSequence"}
_SOURCES = {
    "CONTAINS": {"CONTAINER"},
    "HAS ACQ CONTEXT": {"CONTAINER", "IMAGE", "WAVEFORM", "COMPOSITE", "NUM"},
    "INFERRED FROM": {"TEXT", "CODE", "NUM"},
    "SELECTED FROM": {"SCOORD", "SCOORD3D", "TCOORD"},
    "HAS PROPERTIES": {"TEXT", "CODE", "NUM", "PNAME"},
    "HAS OBS CONTEXT": {"CONTAINER", "TEXT", "CODE", "NUM"},
    "HAS CONCEPT MOD": set(_VALUES),
}
"""Relationship -> value types that may be its source (PS3.3 A.35.2 to A.35.13)."""
_MODIFIERS = {"TEXT", "CODE"}
_PUBLISHED_SCHEMES = frozenset(
    [
        "SCT",
        "SRT",
        "SNM3",
        "DCM",
        "UCUM",
        "LN",
        "FMA",
        "RADLEX",
        "RADELEMENT",
        "UMLS",
        "NCIt",
        "MDC",
        "RFC5646",
        "RFC3066",
        "ISO3166_1",
        "ISO639_1",
        "ISO639_2",
        "BI",
        "I10",
    ]
)
"""Schemes of PS3.16 table 8-1 that need no identification."""


def _dcm(keyword: str) -> Concept:
    found = getattr(codes.DCM, keyword)
    return found.value, found.scheme_designator


REPORT_TITLES = {
    _dcm("ImagingMeasurementReport"),
    _dcm("OncologyMeasurementReport"),
    _dcm("DynamicContrastMRMeasurementReport"),
    _dcm("PETMeasurementReport"),
}
LANGUAGE = _dcm("LanguageOfContentItemAndDescendants")
PROCEDURE = _dcm("ProcedureReported")
MEASUREMENTS = {
    _dcm("ImagingMeasurements"),
    _dcm("DerivedImagingMeasurements"),
    ("C0034375", "UMLS"),
    ("C0034375", "NCIt"),
}
GROUP = _dcm("MeasurementGroup")
TRACKING_ID, TRACKING_UID = _dcm("TrackingIdentifier"), _dcm("TrackingUniqueIdentifier")
SEGMENT, SEGMENT_FRAME = _dcm("ReferencedSegment"), _dcm("ReferencedSegmentationFrame")
VOLUME_SURFACE = _dcm("VolumeSurface")
SOURCE_SERIES, SOURCE_IMAGE = _dcm("SourceSeriesForSegmentation"), _dcm("SourceImageForSegmentation")
ALGORITHM_NAME, ALGORITHM_VERSION = _dcm("AlgorithmName"), _dcm("AlgorithmVersion")


def report_issues(item: Dataset, about: str) -> list[Issue]:
    """Check the content tree of an SR document.

    Every item must have its value and an allowed relationship (PS3.3 C.17.3); codes must be complete; numbers must be
    finite, with a unit, or state why they are absent. An Imaging Measurement Report must have language, procedure and
    measurements; a group must have tracking identifier and UID, and for a segment the references of TID 1411. Other
    reports are checked only as content trees, with a note.

    Parameters
    ----------
    item : pydicom.Dataset
        The object.
    about : str
        Subject of the issues: a SOP Instance UID, or a file name without folders.

    Returns
    -------
    list of Issue
        Equal findings are counted.
    """
    faults = [*_tree_faults(item), *_scheme_faults(item)]
    if item_name(item) in REPORT_TITLES:
        faults += _report_faults(item)
    else:
        faults.append(("tid1500.title", Severity.NOTE, "not an Imaging Measurement Report: only its tree was checked"))
    counted = Counter(faults)
    return [
        Issue(rule, severity, about, text + (f" ({n} times)" if n > 1 else ""), "ctenrich", __version__)
        for (rule, severity, text), n in counted.items()
    ]


# ---------------------------------------------------------------- content items


def _tree_faults(root: Dataset) -> Iterator[Fault]:
    if str(root.get("ValueType", "")) != "CONTAINER":
        yield "sr.root", _ERROR, "the root is not a CONTAINER"
    yield from _item_faults(root, is_root=True)
    for parent, child in walk(root):
        yield from _relation_faults(parent, child)
        if "ReferencedContentItemIdentifier" not in child:
            yield from _item_faults(child)


def _relation_faults(parent: Dataset, child: Dataset) -> Iterator[Fault]:
    relation, source = str(child.get("RelationshipType", "")), str(parent.get("ValueType", ""))
    target = str(child.get("ValueType", ""))
    if relation not in _SOURCES:
        yield "sr.relationship", _ERROR, f"unknown relationship {relation!r}"
    elif source not in _SOURCES[relation] or (relation == "HAS CONCEPT MOD" and target not in _MODIFIERS):
        yield "sr.relationship", _ERROR, f"{source} {relation} {target} is not allowed"


def _item_faults(item: Dataset, *, is_root: bool = False) -> Iterator[Fault]:
    kind = str(item.get("ValueType", ""))
    if kind not in _VALUES:
        yield "sr.value_type", _ERROR, f"unknown value type {kind!r}"
        return
    keyword = _VALUES[kind]
    if keyword not in item or (keyword not in _MAY_BE_EMPTY and _is_empty(item[keyword].value)):
        yield "sr.value", _ERROR, f"a {kind} item has no {keyword}"
        return
    named = item.get("ConceptNameCodeSequence", None)
    if named:
        yield from _code_faults(named[0])
    elif kind in {"TEXT", "CODE", "NUM", "DATETIME", "DATE", "TIME", "UIDREF", "PNAME"} or is_root:
        yield "sr.concept_name", _ERROR, f"a {kind} item has no concept name"
    check = _VALUE_CHECKS.get(kind)
    if check is not None:
        yield from check(item)


def _is_empty(value: object) -> bool:
    return value is None or value == "" or (hasattr(value, "__len__") and len(value) == 0)


def _code_faults(code: Dataset) -> Iterator[Fault]:
    value = code_value(code)
    if (
        not value
        or not code.get("CodeMeaning", "")
        or not (code.get("CodingSchemeDesignator", "") or "URNCodeValue" in code)
    ):
        yield "sr.code", _ERROR, "a code lacks value, scheme or meaning"
    elif str(code.CodeMeaning) != str(code.CodeMeaning).strip():
        yield "sr.code", _WARNING, f"the meaning of code {value} has leading or trailing blanks"


def _code_value(item: Dataset) -> Iterator[Fault]:
    yield from _code_faults(item.ConceptCodeSequence[0])


def _number_value(item: Dataset) -> Iterator[Fault]:
    if len(item.MeasuredValueSequence) == 0:
        if not item.get(ABSENT_NUMBER, None):
            yield "sr.number", _ERROR, "a NUM item has neither a value nor a reason for its absence"
        return
    measured = item.MeasuredValueSequence[0]
    units = measured.get("MeasurementUnitsCodeSequence", None)
    if not units:
        yield "sr.number", _ERROR, "a number has no unit"
    else:
        yield from _code_faults(units[0])
    try:
        values = [float(measured.NumericValue)]
        values += [float(measured.FloatingPointValue)] if "FloatingPointValue" in measured else []
    except (AttributeError, TypeError, ValueError):
        yield "sr.number", _ERROR, "a NUM item has no numeric value"
        return
    if not all(math.isfinite(v) for v in values):
        yield "sr.number", _ERROR, "a number is not finite"
    elif not math.isclose(values[0], values[-1], rel_tol=1e-7, abs_tol=1e-12):
        yield "sr.number", _ERROR, "the decimal and the floating point value of a number differ"


def _uid_value(item: Dataset) -> Iterator[Fault]:
    uid = str(item.UID)
    if len(uid) > 64 or not _UID.fullmatch(uid):
        yield "sr.uid", _ERROR, "a UIDREF item does not hold a UID"


def _reference_value(item: Dataset) -> Iterator[Fault]:
    for reference in item.ReferencedSOPSequence:
        for keyword in ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID"):
            if not _UID.fullmatch(str(reference.get(keyword, ""))):
                yield "sr.reference", _ERROR, f"a reference has no {keyword}"


_VALUE_CHECKS: dict[str, Callable[[Dataset], Iterator[Fault]]] = {
    "CODE": _code_value,
    "NUM": _number_value,
    "UIDREF": _uid_value,
    "IMAGE": _reference_value,
    "COMPOSITE": _reference_value,
}


def _scheme_faults(root: Dataset) -> Iterator[Fault]:
    """Schemes that the standard does not list must be identified (PS3.3 C.12.1, Coding Scheme Identification)."""
    declared = {
        str(i.get("CodingSchemeDesignator", "")) for i in root.get("CodingSchemeIdentificationSequence", None) or ()
    }
    used = {str(code.get("CodingSchemeDesignator", "")) for code in _codes(root)} - {""}
    for scheme in sorted(used - declared - _PUBLISHED_SCHEMES):
        severity = _ERROR if scheme.startswith("99") else _WARNING
        yield "sr.coding_scheme", severity, f"coding scheme {scheme} is used but not identified"


def _codes(root: Dataset) -> Iterator[Dataset]:
    for item in (root, *(child for _, child in walk(root))):
        yield from item.get("ConceptNameCodeSequence", None) or ()
        yield from item.get("ConceptCodeSequence", None) or ()
        for measured in item.get("MeasuredValueSequence", None) or ():
            yield from measured.get("MeasurementUnitsCodeSequence", None) or ()


# ---------------------------------------------------------------- TID 1500


def _report_faults(root: Dataset) -> Iterator[Fault]:
    template = root.get("ContentTemplateSequence", None)
    if not template or str(template[0].get("TemplateIdentifier", "")) != "1500":
        yield "tid1500.template", _ERROR, "the root does not name template 1500"
    for concept, kind, name in ((LANGUAGE, "CODE", "language"), (PROCEDURE, "CODE", "procedure reported")):
        found = children(root, "", concept)
        if not found or any(str(f.get("ValueType", "")) != kind for f in found):
            yield "tid1500.row", _ERROR, f"no {name}"
    containers = children(root, "", *MEASUREMENTS)
    if not containers:
        yield "tid1500.row", _ERROR, "neither measurements nor qualitative evaluations"
    seen: Counter[str] = Counter()
    segments: dict[str, set[object]] = {}
    for container in containers:
        for group in children(container, "", GROUP):
            yield from _group_faults(group)
            for item in children(group, "", TRACKING_UID):
                uid = str(item.get("UID", ""))
                seen[uid] += 1
                segments.setdefault(uid, set()).add(_referenced_segment(group))
    if any(count > 1 and (len(segments[uid]) > 1 or None in segments[uid]) for uid, count in seen.items()):
        yield "tid1500.tracking", _WARNING, "groups share a tracking unique identifier"


def _referenced_segment(group: Dataset) -> tuple[str, str] | None:
    """SOP Instance UID and number of the segment of a group: groups of one segment may share its identifier."""
    for item in children(group, "", SEGMENT):
        for reference in item.get("ReferencedSOPSequence", None) or ():
            return str(reference.get("ReferencedSOPInstanceUID", "")), str(reference.get("ReferencedSegmentNumber", ""))
    return None


def _group_faults(group: Dataset) -> Iterator[Fault]:
    if str(group.get("ValueType", "")) != "CONTAINER" or str(group.get("RelationshipType", "")) != "CONTAINS":
        yield "tid1500.group", _ERROR, "a measurement group is not a CONTAINER with CONTAINS"
    for concept, kind, name in ((TRACKING_ID, "TEXT", "tracking identifier"), (TRACKING_UID, "UIDREF", "tracking UID")):
        found = children(group, "", concept)
        if len(found) != 1:
            yield "tid1500.tracking", _ERROR, f"a group has {len(found)} items for its {name}"
        for item in found:
            if str(item.get("ValueType", "")) != kind or str(item.get("RelationshipType", "")) != "HAS OBS CONTEXT":
                yield "tid1500.tracking", _ERROR, f"the {name} of a group is not a {kind} with HAS OBS CONTEXT"
    yield from _placement_faults(group)
    if bool(children(group, "", ALGORITHM_NAME)) != bool(children(group, "", ALGORITHM_VERSION)):
        yield "tid1500.algorithm", _ERROR, "an algorithm has a name without a version, or a version without a name"
    template = group.get("ContentTemplateSequence", None)
    yield from _segment_faults(group, str(template[0].get("TemplateIdentifier", "")) if template else "")


def _placement_faults(group: Dataset) -> Iterator[Fault]:
    for item in children(group):
        relation, kind = str(item.get("RelationshipType", "")), str(item.get("ValueType", ""))
        if kind == "NUM" and relation != "CONTAINS":
            yield "tid1500.measurement", _ERROR, "a measurement is not contained in its group"
        if item_name(item) in SITE and (kind, relation) != ("CODE", "HAS CONCEPT MOD"):
            yield "tid1500.site", _ERROR, "a finding site is not a CODE with HAS CONCEPT MOD"
        if item_name(item) in {SEGMENT, SEGMENT_FRAME} and (kind, relation) != ("IMAGE", "CONTAINS"):
            yield "tid1500.segment", _ERROR, "a referenced segment is not an IMAGE with CONTAINS"


def _segment_faults(group: Dataset, template: str) -> Iterator[Fault]:
    """TID 1410 and 1411: a segment must be referenced together with the images that it was made from."""
    segments = children(group, "", SEGMENT, SEGMENT_FRAME)
    if len(segments) > 1:
        yield "tid1500.segment", _ERROR, "a group references several segments"
    for item in segments:
        for reference in item.get("ReferencedSOPSequence", None) or ():
            if "ReferencedSegmentNumber" not in reference:
                yield "tid1500.segment", _ERROR, "a referenced segment has no segment number"
    if segments and not children(group, "", SOURCE_SERIES, SOURCE_IMAGE):
        yield "tid1500.segment", _ERROR, "a segment names neither source series nor source images"
    regions = [c for c in children(group) if str(c.get("ValueType", "")) in {"SCOORD", "SCOORD3D"}]
    if template in {"1410", "1411"} and not segments and not regions and not children(group, "", VOLUME_SURFACE):
        yield "tid1500.segment", _ERROR, f"a group of template {template} has no segment or region"
