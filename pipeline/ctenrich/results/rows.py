"""Make the rows of the object tables from one SEG or SR, and from nothing else."""

from __future__ import annotations

import math
from collections import defaultdict
from decimal import Decimal, InvalidOperation, localcontext
from typing import Any

from ctenrich.codes.names import landmark_or_region
from ctenrich.dicom.nested import Nested
from ctenrich.dicom.sop_classes import SEGMENTATION_CLASSES
from ctenrich.dicom.sr_tree import children, evidence_references, first, has_name
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


def object_rows(report: Nested) -> Rows:
    """Make the rows of one object for every extended object table: table name -> rows."""
    out: Rows = defaultdict(list)
    if report.get("SOPClassUID") in SEGMENTATION_CLASSES:
        out["segmentations"] = segment_rows(report)
        return out
    evidence = _evidence(report)
    for group in groups(report):
        base = group_row(report, group, evidence)
        out["measurement_groups"].append(base)
        out["quantitative_measurements"] += quantitative_rows(base, group)
        out["qualitative_measurements"] += qualitative_rows(base, group)
        out["image_level_annotations"] += annotation_rows(base, group, evidence)
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


def group_row(report: Nested, group: Group, evidence: dict[str, tuple[str | None, str | None]]) -> Nested:
    """Make the row of one measurement group."""
    item = group.item
    site = first(children(item, "CODE", *_SITE))
    segment, image = _references(item)
    number = first(segment.get("ReferencedSegmentNumber"))
    image_uid = image.get("ReferencedSOPInstanceUID")
    source = (first(children(item, "UIDREF", _SOURCE_SERIES)) or {}).get("UID")
    segment_uid = segment.get("ReferencedSOPInstanceUID")
    return {
        **{n: report.get(n) for n in ("PatientID", "StudyInstanceUID", "SOPInstanceUID", "SeriesInstanceUID")},
        "SeriesDescription": report.get("SeriesDescription"),
        "measurementGroup_number": group.number,
        "trackingIdentifier": (first(children(item, "TEXT", _TRACKING_ID)) or {}).get("TextValue"),
        "trackingUniqueIdentifier": (first(children(item, "UIDREF", _TRACKING_UID)) or {}).get("UID"),
        "finding": _code_of(first(children(item, "CODE", *_FINDING))),
        "findingSite": _code_of(site),
        "sourceSegmentedSeriesUID": source,
        "segmentationInstanceUID": segment_uid,
        "segmentationSeriesUID": evidence.get(segment_uid or "", (None, None))[0],
        "segmentationSegmentNumber": number,
        "contentSequence": item,
        "referencedSOPInstanceUID": image_uid,
        "ReferencedSeriesInstanceUID": source or evidence.get(image_uid or "", (None, None))[0],
        "topographicalModifier": _modifier(site, _TOPOGRAPHY),
        "lateralityModifier": _modifier(site, _LATERALITY),
        **_algorithm(item),
    }


def _references(item: Nested) -> tuple[Nested, Nested]:
    """Find the SEG and the source image that a group refers to directly (empty if none)."""
    segment: Nested = {}
    image: Nested = {}
    for child in children(item, "IMAGE"):
        reference = first(child.get("ReferencedSOPSequence")) or {}
        if reference.get("ReferencedSOPClassUID") in SEGMENTATION_CLASSES:
            segment = segment or reference
        else:
            image = image or reference
    return segment, ({} if segment else image)


def _code_of(item: Nested | None) -> Nested | None:
    return code4(item.get("ConceptCodeSequence")) if item else None


def _modifier(item: Nested | None, name: tuple[str, str]) -> Nested | None:
    found = first(children(item, "CODE", name)) if item else None
    return code3(found.get("ConceptCodeSequence")) if found else None


def _algorithm(item: Nested) -> Nested:
    out: Nested = {key: (first(children(item, "TEXT", n)) or {}).get("TextValue") for key, n in _ALGORITHM.items()}
    out["algorithmParameters"] = [c.get("TextValue") for c in children(item, "TEXT", _PARAMETERS)]
    return out


def quantitative_rows(base: Nested, group: Group) -> list[Nested]:
    """Make one row per NUM child of the group."""
    laterality = base["lateralityModifier"] or empty_code()
    rows = []
    for item in children(group.item, "NUM"):
        measured = first(item.get("MeasuredValueSequence")) or {}
        text = first(measured.get("NumericValue"))
        own = _algorithm(item)
        algorithm = own if own["algorithmName"] else {key: base[key] for key in own}
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
                **algorithm,
            }
        )
    return rows


def qualitative_rows(base: Nested, group: Group) -> list[Nested]:
    """Make one row per CODE child of the group, except its finding and finding sites."""
    return [
        {**base, "Quantity": code3(item.get("ConceptNameCodeSequence")), "Value": _code_of(item)}
        for item in children(group.item, "CODE")
        if not has_name(item, (*_FINDING, *_SITE))
    ]


def annotation_rows(base: Nested, group: Group, evidence: dict[str, tuple[str | None, str | None]]) -> list[Nested]:
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
    return [{**base, **reference, **_annotation(item)} for item in children(group.item, "CODE", *_SITE, *_REGION)]


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


def _evidence(report: Nested) -> dict[str, tuple[str | None, str | None]]:
    """Map the SOP Instance UIDs that the SR lists as evidence to (series, study)."""
    found = evidence_references(report)
    return {r.sop_instance_uid: (r.series_instance_uid or None, r.study_instance_uid or None) for r in found}


def numeric(text: str | None) -> Decimal | None:
    """Convert a DS to BigQuery's NUMERIC: 9 decimals, half away from zero; None if not finite or out of range."""
    with localcontext() as context:
        context.prec = 60
        try:
            number = Decimal((text or "").strip())
            value = number.quantize(Decimal("1e-9"), rounding="ROUND_HALF_UP")
        except InvalidOperation:
            return None
        return value if value.is_finite() and value.copy_abs() < Decimal("1e29") else None


def _float(exact: Any, text: str | None) -> float | None:
    try:
        value = float(exact if exact is not None else (text or "").strip())
    except ValueError:
        return None
    return value if math.isfinite(value) else None
