"""A TID 1500 report of any maker -> measurement groups, and groups -> flat rows.

Reads what is there instead of what should be: groups are found by their concept anywhere in the tree, both old (SRT)
and new (SCT) codes of the finding site count, a value that is not a number becomes None with its qualifier.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from ctenrich.codes.mappings import Code, load_concepts
from ctenrich.codes.names import landmark_or_region
from ctenrich.dicom.objects import damage_as_input_error, quiet, whole
from ctenrich.dicom.sr_tree import children, code_value, evidence_references, has_name, segment_number
from ctenrich.errors import InputError
from ctenrich.reasons import Reason

if TYPE_CHECKING:
    from pydicom.sr.coding import Code as PydicomCode

    AnyCode = Code | PydicomCode

__all__ = ["Evaluation", "Group", "Report", "Site", "Value", "read_sr", "rows_of"]

MAX_DEPTH = 40
"""Levels of nested items; a deeper tree is no report."""


@dataclass(frozen=True)
class Site:
    """A finding site."""

    code: Code
    laterality: Code | None = None
    topography: Code | None = None


@dataclass(frozen=True, kw_only=True)
class Value:
    """A measurement; `value` is None where the report states that there is none."""

    quantity: Code
    value: float | None
    unit: Code | None
    derivation: Code | None = None
    qualifier: Code | None = None


@dataclass(frozen=True)
class Evaluation:
    """A qualitative evaluation: a code or a text."""

    name: Code
    code: Code | None
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Group:
    """A measurement group (TID 1410, 1411 or 1501)."""

    index: int
    """Place among the children of its container, from 0."""
    tracking_id: str
    tracking_uid: str
    finding: Code | None
    sites: tuple[Site, ...]
    segment_instance_uid: str
    segment_number: int | None
    source_series_uid: str
    source_images: tuple[str, ...]
    algorithm: tuple[str, str]
    """(name, version)."""
    values: tuple[Value, ...]
    evaluations: tuple[Evaluation, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Identifiers, measurement groups and evidence of a report."""

    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    series_description: str
    title: Code | None
    observer: str
    groups: tuple[Group, ...]
    evidence: tuple[str, ...]
    """SOP Instance UIDs of the evidence sequences."""
    patient_id: str = ""


def read_sr(path: Path) -> Report:
    """Read a structured report.

    Raises
    ------
    InputError
        NOT_DICOM if the file is no structured report, or nested beyond reason.
    """
    with quiet():
        dataset = whole(path)
        with damage_as_input_error("report"):
            if dataset.get("ValueType") != "CONTAINER" or "ContentSequence" not in dataset:
                raise InputError(Reason.NOT_DICOM, "the file is not a structured report")
            return _report(dataset)


def _report(dataset: Dataset) -> Report:
    return Report(
        sop_instance_uid=str(dataset.get("SOPInstanceUID", "")),
        series_instance_uid=str(dataset.get("SeriesInstanceUID", "")),
        study_instance_uid=str(dataset.get("StudyInstanceUID", "")),
        series_description=str(dataset.get("SeriesDescription", "") or ""),
        title=_item_code(dataset, "ConceptNameCodeSequence"),
        observer=next((_item_text(i) for i in _named(dataset, codes.DCM.DeviceObserverName)), ""),
        groups=tuple(_measurement_groups(dataset, 0)),
        evidence=tuple(dict.fromkeys(r.sop_instance_uid for r in evidence_references(dataset))),
        patient_id=str(dataset.get("PatientID", "") or ""),
    )


def rows_of(report: Report) -> list[dict[str, object]]:
    """One flat row for each measurement and each qualitative evaluation; a group without either gives one row."""
    rows: list[dict[str, object]] = []
    for group in report.groups:
        head = _head(report, group)
        found = [_value_columns(value) for value in group.values]
        found += [_evaluation_columns(item) for item in group.evaluations]
        rows += [{**head, **columns} for columns in found or [{}]]
    return rows


def _head(report: Report, group: Group) -> dict[str, object]:
    site = group.sites[0] if group.sites else None
    found = [_anatomy(s) for s in group.sites] if not group.segment_instance_uid else []
    return {
        "patient_id": report.patient_id,
        "series_description": report.series_description,
        "sr_instance_uid": report.sop_instance_uid,
        "group": group.index,
        "tracking_id": group.tracking_id,
        "tracking_uid": group.tracking_uid,
        "landmark": "; ".join(landmark for landmark, _ in found if landmark),
        "region": "; ".join(region for _, region in found if region),
        "finding": group.finding.meaning if group.finding else "",
        "finding_site": "; ".join(s.code.meaning for s in group.sites),
        "finding_site_code": "; ".join(s.code.value for s in group.sites),
        "laterality": site.laterality.meaning if site and site.laterality else "",
        "topographical_modifier": site.topography.meaning if site and site.topography else "",
        "segment_instance_uid": group.segment_instance_uid,
        "segment_number": group.segment_number,
        "source_series_uid": group.source_series_uid,
        "source_image_uid": "; ".join(group.source_images),
        "algorithm": " ".join(part for part in group.algorithm if part),
    }


def _anatomy(site: Site) -> tuple[str, str]:
    """Keys of the landmark and of the region that a site means; empty if it is none."""
    modifier = site.topography
    return landmark_or_region(
        (site.code.value, site.code.scheme), (modifier.value, modifier.scheme) if modifier is not None else None
    )


def _columns(prefix: str, code: Code) -> dict[str, object]:
    return {prefix: code.meaning, f"{prefix}_code": code.value, f"{prefix}_scheme": code.scheme}


def _evaluation_columns(item: Evaluation) -> dict[str, object]:
    return {
        **_columns("quantity", item.name),
        "evaluation": item.code.meaning if item.code else item.text,
        "evaluation_code": item.code.value if item.code else "",
    }


def _value_columns(value: Value) -> dict[str, object]:
    return {
        **_columns("quantity", value.quantity),
        "value": value.value,
        "unit": value.unit.value if value.unit else "",
        "derivation": value.derivation.meaning if value.derivation else "",
        "qualifier": value.qualifier.meaning if value.qualifier else "",
    }


# ---------------------------------------------------------------- tree


def _item_code(item: Dataset, keyword: str) -> Code | None:
    sequence = item.get(keyword)
    if not sequence:
        return None
    code = sequence[0]
    scheme, meaning = code.get("CodingSchemeDesignator") or "", code.get("CodeMeaning") or ""
    return Code(code_value(code), str(scheme), str(meaning))


def _is(item: Dataset, *wanted: AnyCode) -> bool:
    return has_name(item, [(w.value, w.scheme if isinstance(w, Code) else w.scheme_designator) for w in wanted])


def _named(item: Dataset, *wanted: AnyCode) -> list[Dataset]:
    return [child for child in children(item) if _is(child, *wanted)]


def _item_text(item: Dataset) -> str:
    return str(item.get("TextValue") or item.get("UID") or "")


def _is_finding_site(item: Dataset) -> bool:
    # older makers write the SNOMED RT code of the same concept
    return _is(item, codes.SCT.FindingSite, _mapped_concept("older_finding_site"))


def _mapped_concept(name: str) -> Code:
    return load_concepts()[name].code


def _measurement_groups(item: Dataset, depth: int) -> Iterator[Group]:
    if depth > MAX_DEPTH:
        raise InputError(Reason.NOT_DICOM, f"the content is nested deeper than {MAX_DEPTH} levels")
    for index, child in enumerate(children(item)):
        if child.get("ValueType") != "CONTAINER":
            continue
        if _is(child, codes.DCM.MeasurementGroup):
            yield _measurement_group(index, child)
        else:
            yield from _measurement_groups(child, depth + 1)


def _measurement_group(index: int, item: Dataset) -> Group:
    segment_uid, segment_number, images = _images(item)
    return Group(
        index=index,
        tracking_id=next((_item_text(i) for i in _named(item, codes.DCM.TrackingIdentifier)), ""),
        tracking_uid=next((_item_text(i) for i in _named(item, codes.DCM.TrackingUniqueIdentifier)), ""),
        finding=next((_item_code(i, "ConceptCodeSequence") for i in _named(item, codes.DCM.Finding)), None),
        sites=tuple(s for s in (_site(i) for i in children(item) if _is_finding_site(i)) if s is not None),
        segment_instance_uid=segment_uid,
        segment_number=segment_number,
        source_series_uid=next((_item_text(i) for i in _named(item, codes.DCM.SourceSeriesForSegmentation)), ""),
        source_images=images,
        algorithm=_algorithm(item),
        values=tuple(v for v in (_value(i) for i in children(item) if i.get("ValueType") == "NUM") if v is not None),
        evaluations=tuple(_evaluations(item)),
    )


def _algorithm(item: Dataset) -> tuple[str, str]:
    """Of the group, else of its first measurement that names one (dcmqi writes it there)."""
    for holder in (item, *(c for c in children(item) if c.get("ValueType") == "NUM")):
        name = next((_item_text(i) for i in _named(holder, codes.DCM.AlgorithmName)), "")
        if name:
            return name, next((_item_text(i) for i in _named(holder, codes.DCM.AlgorithmVersion)), "")
    return "", ""


def _site(item: Dataset) -> Site | None:
    code = _item_code(item, "ConceptCodeSequence")
    if code is None:
        return None
    laterality = next((_item_code(i, "ConceptCodeSequence") for i in _named(item, codes.SCT.Laterality)), None)
    topography = next(
        (_item_code(i, "ConceptCodeSequence") for i in _named(item, codes.SCT.TopographicalModifier)), None
    )
    return Site(code, laterality, topography)


def _images(item: Dataset) -> tuple[str, int | None, tuple[str, ...]]:
    """(SEG instance, segment number, other images) that a group refers to."""
    segment_uid, number = "", None
    images: list[str] = []
    for child in children(item):
        if child.get("ValueType") != "IMAGE" or not child.get("ReferencedSOPSequence"):
            continue
        reference = child.ReferencedSOPSequence[0]
        uid = str(reference.get("ReferencedSOPInstanceUID", ""))
        segment = segment_number(reference)
        if segment is not None:
            segment_uid, number = uid, segment
        else:
            images.append(uid)
    return segment_uid, number, tuple(images)


def _value(item: Dataset) -> Value | None:
    quantity = _item_code(item, "ConceptNameCodeSequence")
    if quantity is None:
        return None
    measured = item.get("MeasuredValueSequence")
    number: float | None = None
    unit = None
    if measured:
        unit = _item_code(measured[0], "MeasurementUnitsCodeSequence")
        number = _number(measured[0])
    derivation = next((_item_code(i, "ConceptCodeSequence") for i in _named(item, codes.DCM.Derivation)), None)
    qualifier = _item_code(item, "NumericValueQualifierCodeSequence")
    return Value(quantity=quantity, value=number, unit=unit, derivation=derivation, qualifier=qualifier)


def _number(measured: Dataset) -> float | None:
    exact = measured.get("FloatingPointValue")
    text = exact if exact is not None else measured.get("NumericValue")
    if text is None:
        return None
    try:
        value = float(text if isinstance(text, int | float | str) else str(text))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _evaluations(item: Dataset) -> Iterator[Evaluation]:
    known = (codes.DCM.Finding, _mapped_concept("finding_category"))
    for child in children(item):
        name = _item_code(child, "ConceptNameCodeSequence")
        if name is None or _is(child, *known) or _is_finding_site(child) or child.get("RelationshipType") != "CONTAINS":
            continue
        if child.get("ValueType") == "CODE":
            yield Evaluation(name, _item_code(child, "ConceptCodeSequence"))
        elif child.get("ValueType") == "TEXT":
            yield Evaluation(name, None, _item_text(child))
