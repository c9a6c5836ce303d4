"""Make the rows of the object tables from one SEG or SR, and from nothing else."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation
from functools import cached_property
from typing import Any

from ctenrich.codes.names import landmark_or_region
from ctenrich.dicom.nested import Nested
from ctenrich.dicom.sop_classes import SEGMENTATION_CLASSES
from ctenrich.dicom.sr_tree import Name, children, evidence_references, first, item_name
from ctenrich.results.content import Group, code3, code4, empty_code, groups

__all__ = ["Rows", "numeric", "object_rows", "viewer_url"]

Rows = dict[str, list[Nested]]


_FINDING = (("121071", "DCM"),)
_SITE = (("363698007", "SCT"), ("G-C0E3", "SRT"))
_REGION = (("123014", "DCM"),)
_TRACKING_ID, _TRACKING_UID = ("112039", "DCM"), ("112040", "DCM")
_SOURCE_SERIES = ("121232", "DCM")
_DERIVATION, _LATERALITY, _TOPOGRAPHY = ("121401", "DCM"), ("272741003", "SCT"), ("106233006", "SCT")
_ALGORITHM = {"algorithmName": ("111001", "DCM"), "algorithmVersion": ("111003", "DCM")}
_PARAMETERS = ("111002", "DCM")
_EXACT = Context(prec=60)
_NINE_DECIMALS, _NUMERIC_END = Decimal("1e-9"), Decimal("1e29")


class _Children:
    """Children of a content item by Value Type, each with its concept name.

    Parameters
    ----------
    item : dict
        Content item.
    names : dict
        Concept names by the identity of their sequences, which content items share.
    """

    def __init__(self, item: Nested, names: dict[int, Name | None]) -> None:
        self._typed: dict[str | None, list[tuple[Name | None, Nested]]] = defaultdict(list)
        for child in item.get("ContentSequence") or ():
            code = id(child.get("ConceptNameCodeSequence"))
            if code not in names:
                names[code] = item_name(child)
            self._typed[child.get("ValueType")].append((names[code], child))

    def named(self, value_type: str, *names: Name) -> list[Nested]:
        """Children of a type with one of some names, in their order."""
        return [child for name, child in self._typed.get(value_type, ()) if name in names]

    def others(self, value_type: str, *names: Name) -> list[Nested]:
        """Children of a type with none of some names, in their order."""
        return [child for name, child in self._typed.get(value_type, ()) if name not in names]

    def first(self, value_type: str, *names: Name) -> Nested:
        """First child of a type with one of some names; empty if there is none."""
        for name, child in self._typed.get(value_type, ()):
            if name in names:
                return child
        return {}


@dataclass(frozen=True)
class _Report:
    """A report with what all of its groups need."""

    report: Nested

    @cached_property
    def names(self) -> dict[int, Name | None]:
        """Concept names that were looked up, by the identity of their sequences."""
        return {}

    @cached_property
    def base(self) -> Nested:
        """Columns that are the same in all rows."""
        names = ("PatientID", "StudyInstanceUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesDescription")
        return {name: self.report.get(name) for name in names}

    @cached_property
    def evidence(self) -> dict[str, tuple[str | None, str | None]]:
        """SOP Instance UIDs that the report lists as evidence -> (series, study)."""
        found = evidence_references(self.report)
        return {r.sop_instance_uid: (r.series_instance_uid or None, r.study_instance_uid or None) for r in found}


def object_rows(report: Nested) -> Rows:
    """Make the rows of one object for every extended object table: table name -> rows."""
    out: Rows = defaultdict(list)
    if report.get("SOPClassUID") in SEGMENTATION_CLASSES:
        out["segmentations"] = segment_rows(report)
        return out
    shared = _Report(report)
    for group in groups(report):
        content = _Children(group.item, shared.names)
        base = _group_row(shared, group, content)
        out["measurement_groups"].append(base)
        out["quantitative_measurements"] += _quantitative_rows(base, content)
        out["qualitative_measurements"] += _qualitative_rows(base, content)
        out["image_level_annotations"] += _annotation_rows(base, content, shared.evidence)
    return out


def viewer_url(study: str | None, series: str | None) -> str:
    """Address of a series in IDC's public viewer (OHIF 3).

    Parameters
    ----------
    study, series : str or None
        Study and Series Instance UID.

    Returns
    -------
    str
    """
    root = "https://viewer.imaging.datacommons.cancer.gov/v3/viewer/"
    return f"{root}?StudyInstanceUIDs={study}&initialSeriesInstanceUID={series}"


def segment_rows(seg: Nested) -> list[Nested]:
    """Make one row per segment of a SEG."""
    shared = {
        name: seg.get(name)
        for name in (
            "PatientID",
            "StudyInstanceUID",
            "SeriesInstanceUID",
            "SOPInstanceUID",
            "SOPClassUID",
            "FrameOfReferenceUID",
            "SegmentationType",
            "SeriesDescription",
        )
    }
    shared["segmented_SeriesInstanceUID"] = shared["ReferencedSeriesInstanceUID"] = _segmented_series(seg)
    shared["viewer_url"] = viewer_url(seg.get("StudyInstanceUID"), seg.get("SeriesInstanceUID"))
    return [{**shared, **_segment(item)} for item in seg.get("SegmentSequence") or ()]


def _segment(item: Nested) -> Nested:
    region = first(item.get("AnatomicRegionSequence")) or {}
    algorithm = first(item.get("SegmentationAlgorithmIdentificationSequence")) or {}
    names = item.get("SegmentAlgorithmName")
    return {
        "AnatomicRegion": code3(item.get("AnatomicRegionSequence")),
        "AnatomicRegionModifier": code3(region.get("AnatomicRegionModifierSequence")),
        "SegmentedPropertyCategory": code3(item.get("SegmentedPropertyCategoryCodeSequence")),
        "SegmentedPropertyType": _property(first(item.get("SegmentedPropertyTypeCodeSequence"))),
        "SegmentAlgorithmType": item.get("SegmentAlgorithmType"),
        "SegmentAlgorithmName": first(names) if isinstance(names, list) else names,
        "SegmentNumber": item.get("SegmentNumber"),
        "TrackingUID": item.get("TrackingUID"),
        "TrackingID": item.get("TrackingID"),
        "SegmentLabel": item.get("SegmentLabel"),
        "SegmentDescription": item.get("SegmentDescription"),
        "algorithmFamily": code3(algorithm.get("AlgorithmFamilyCodeSequence")),
        "algorithmName": algorithm.get("AlgorithmName"),
        "algorithmVersion": algorithm.get("AlgorithmVersion"),
        "algorithmParameters": _lines(algorithm.get("AlgorithmParameters")),
        "RecommendedDisplayCIELabValue": item.get("RecommendedDisplayCIELabValue") or [],
    }


def _lines(text: str | None) -> list[str]:
    return [line for line in (text or "").splitlines() if line]


def _property(item: Nested | None) -> Nested | None:
    if item is None:
        return None
    out = code3([item]) or {}
    for name in ("AnatomicRegionModifierSequence", "SegmentedPropertyTypeModifierCodeSequence"):
        out[name] = [code3([modifier]) for modifier in item.get(name) or ()]
    return out


def _segmented_series(seg: Nested) -> str | None:
    """Series of the first instance that the SEG references."""
    series = first(seg.get("ReferencedSeriesSequence")) or {}
    return series.get("SeriesInstanceUID") if series.get("ReferencedInstanceSequence") else None


def _group_row(shared: _Report, group: Group, content: _Children) -> Nested:
    """Make the row of one measurement group."""
    evidence = shared.evidence
    site = content.first("CODE", *_SITE)
    segment, image = _references(content)
    image_uid = image.get("ReferencedSOPInstanceUID")
    source = content.first("UIDREF", _SOURCE_SERIES).get("UID")
    segment_uid = segment.get("ReferencedSOPInstanceUID")
    return {
        **shared.base,
        "measurementGroup_number": group.number,
        "trackingIdentifier": content.first("TEXT", _TRACKING_ID).get("TextValue"),
        "trackingUniqueIdentifier": content.first("UIDREF", _TRACKING_UID).get("UID"),
        "finding": _code_of(content.first("CODE", *_FINDING)),
        "findingSite": _code_of(site),
        "sourceSegmentedSeriesUID": source,
        "segmentationInstanceUID": segment_uid,
        "segmentationSeriesUID": evidence.get(segment_uid or "", (None, None))[0],
        "segmentationSegmentNumber": first(segment.get("ReferencedSegmentNumber")),
        "contentSequence": group.item,
        "referencedSOPInstanceUID": image_uid,
        "ReferencedSeriesInstanceUID": source or evidence.get(image_uid or "", (None, None))[0],
        "topographicalModifier": _modifier(site, _TOPOGRAPHY),
        "lateralityModifier": _modifier(site, _LATERALITY),
        **_algorithm(content),
    }


def _references(content: _Children) -> tuple[Nested, Nested]:
    """Find the SEG and the source image that a group refers to directly (empty if none)."""
    segment: Nested = {}
    image: Nested = {}
    for child in content.others("IMAGE"):
        reference = first(child.get("ReferencedSOPSequence")) or {}
        if reference.get("ReferencedSOPClassUID") in SEGMENTATION_CLASSES:
            segment = segment or reference
        else:
            image = image or reference
    return segment, ({} if segment else image)


def _code_of(item: Nested) -> Nested | None:
    return code4(item.get("ConceptCodeSequence"))


def _modifier(item: Nested, name: Name) -> Nested | None:
    found = first(children(item, "CODE", name))
    return code3(found.get("ConceptCodeSequence")) if found else None


def _algorithm(content: _Children) -> Nested:
    out: Nested = {key: content.first("TEXT", name).get("TextValue") for key, name in _ALGORITHM.items()}
    out["algorithmParameters"] = [child.get("TextValue") for child in content.named("TEXT", _PARAMETERS)]
    return out


def _own_algorithm(item: Nested) -> Nested:
    """Columns of the algorithm of a measurement, where it does not have that of its group."""
    if not item.get("ContentSequence"):
        return {}
    own = _algorithm(_Children(item, {}))
    return own if own["algorithmName"] else {}


def _quantitative_rows(base: Nested, content: _Children) -> list[Nested]:
    """Make one row per NUM child of the group."""
    laterality = base["lateralityModifier"] or empty_code()
    rows = []
    for item in content.others("NUM"):
        measured = first(item.get("MeasuredValueSequence")) or {}
        text = first(measured.get("NumericValue"))
        rows.append(
            {
                **base,
                "_item": item,
                "Quantity": code3(item.get("ConceptNameCodeSequence")),
                "derivationModifier": _modifier(item, _DERIVATION) or empty_code(),
                "lateralityModifier": laterality,
                "Value": numeric(text),
                "Units": code4(measured.get("MeasurementUnitsCodeSequence")),
                "valueFloat": _float(first(measured.get("FloatingPointValue")), text),
                **_own_algorithm(item),
            }
        )
    return rows


def _qualitative_rows(base: Nested, content: _Children) -> list[Nested]:
    """Make one row per CODE child of the group, except its finding and finding sites."""
    return [
        {**base, "Quantity": code3(item.get("ConceptNameCodeSequence")), "Value": _code_of(item)}
        for item in content.others("CODE", *_FINDING, *_SITE)
    ]


def _annotation_rows(
    base: Nested, content: _Children, evidence: dict[str, tuple[str | None, str | None]]
) -> list[Nested]:
    """Make one row per anatomic site that an image-level group names; none for groups about segments."""
    image = base["referencedSOPInstanceUID"]
    if image is None:
        return []
    series, study = evidence.get(image, (None, None))
    reference = {
        "ReferencedSOPInstanceUID": image,
        "ReferencedSeriesInstanceUID": series,
        "ReferencedStudyInstanceUID": study,
    }
    return [{**base, **reference, **_annotation(item)} for item in content.named("CODE", *_SITE, *_REGION)]


def _annotation(item: Nested) -> Nested:
    """Columns of one anatomic site, with the key of its landmark or region."""
    value, modifier = _code_of(item), _modifier(item, _TOPOGRAPHY)
    landmark, region = landmark_or_region(_pair(value) or ("", ""), _pair(modifier))
    return {
        "Quantity": code3(item.get("ConceptNameCodeSequence")),
        "Value": value,
        "landmark": landmark or None,
        "region": region or None,
        "topographicalModifier": modifier,
        "lateralityModifier": _modifier(item, _LATERALITY),
    }


def _pair(code: Nested | None) -> tuple[str, str] | None:
    return (code["CodeValue"] or "", code["CodingSchemeDesignator"] or "") if code is not None else None


def numeric(text: str | None) -> Decimal | None:
    """Convert a DS to BigQuery's NUMERIC: 9 decimals, half away from zero; None if not finite or out of range."""
    try:
        value = Decimal((text or "").strip()).quantize(_NINE_DECIMALS, "ROUND_HALF_UP", _EXACT)
    except InvalidOperation:
        return None
    return value if value.is_finite() and value.copy_abs() < _NUMERIC_END else None


def _float(exact: Any, text: str | None) -> float | None:
    try:
        value = float(exact if exact is not None else (text or "").strip())
    except ValueError:
        return None
    return value if math.isfinite(value) else None
