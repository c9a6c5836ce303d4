"""Encode dose metrics as an Enhanced SR (TID 1500) with one measurement group (TID 1411) per segment."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict
from itertools import groupby

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from ctenrich import __version__
from ctenrich.codes.dose_metrics import COVERAGE, dose_metric_code
from ctenrich.dicom.sop_classes import RT_DOSE
from ctenrich.encode.context import content_description, identify, read_source, series_description
from ctenrich.encode.files import ObjectTarget, write_object
from ctenrich.encode.seg import segment_code, tracking
from ctenrich.encode.sr_content import (
    CONTAINS,
    Algorithm,
    Observer,
    algorithm_items,
    code,
    composite,
    container,
    finding_site,
    image,
    make,
    measurement_report,
    num,
    tracking_items,
    uidref,
)
from ctenrich.encode.sr_document import ENHANCED_SR, Document, sr_dataset
from ctenrich.errors import EncodingError
from ctenrich.reasons import Reason
from ctenrich.records import (
    DoseMeasurements,
    DoseOrigin,
    DoseValue,
    EncodedObject,
    Issue,
    ObjectKind,
    Segment,
    SegmentDoses,
    SegmentMasks,
    Severity,
    SortedSeries,
)
from ctenrich.settings import Settings
from ctenrich.uids import derive_uid
from ctenrich.workspace import Workspace

__all__ = ["NOT_ENCODED", "SERIES_DESCRIPTION", "SERIES_NUMBER", "encode_dose_sr", "why_no_doses"]

SERIES_DESCRIPTION = "{title}_Doses"
SERIES_NUMBER = 1002
NOT_ENCODED = "Volume[cc]"
"""The volume of a segment is in the shape SR."""
_NAME = "ctenrich dose"
_SCHEME = "ctenrich: dose metrics by their names in TG-263"
_PROPERTIES = "HAS PROPERTIES"
_UNCERTAINTY = codes.cid225


def why_no_doses(doses: DoseMeasurements) -> Reason | None:
    """Return why an SR of these doses would be empty; None if a segment has a value."""
    if doses.reason is not None:
        return doses.reason
    if any(_encoded(one) for one in doses.segments):
        return None
    reasons = [value.reason for one in doses.segments for value in one.values if value.reason is not None]
    return reasons[0] if reasons else Reason.EMPTY_SEGMENTATION


def _encoded(one: SegmentDoses) -> list[tuple[DoseValue, float]]:
    """The metrics that have a value and are written, with it."""
    return [(v, v.value) for v in one.values if v.value is not None and v.metric != NOT_ENCODED]


def encode_dose_sr(
    doses: DoseMeasurements,
    masks: SegmentMasks,
    seg: EncodedObject,
    series: SortedSeries,
    *,
    settings: Settings,
    workspace: Workspace,
) -> EncodedObject:
    """Write the SR of dose metrics.

    Each segment with a value has one group: tracking, finding, finding site and referenced segment as in the shape SR,
    the RT Doses as Source of Measurement, and the metrics. Maximum, minimum, mean and median have the codes of CID
    10061, D_x and V_x private ones. The distances to the bounds of a metric are properties of it, with the codes of CID
    225. Metrics without a value are left out, with a note.

    Parameters
    ----------
    doses : DoseMeasurements
        With at least one value.
    masks : SegmentMasks
        The masks that were sampled.
    seg : EncodedObject
        The SEG of these masks, which the groups refer to.
    series : SortedSeries
        The source series.
    settings : Settings
        ``settings.encode``: dates, deflated copy.
    workspace : Workspace
        Folder of the run.

    Returns
    -------
    EncodedObject
        Record of the written file, with notes on omitted metrics.

    Raises
    ------
    EncodingError
        ENCODING if a metric has no code, a value is not finite, or segments and doses do not match.
    """
    _check_doses(doses, masks)
    source = read_source(series, workspace)
    made_of = hashlib.sha256(repr(asdict(doses)).encode()).hexdigest()
    identity = identify("dose_sr", series, masks.product, settings.encode, made_of, seg.sop_instance_uid, masks.sha256)
    found = {one.number: one for one in doses.segments if _encoded(one)}
    groups = [_segment_group(s, found[s.number], doses, seg, series) for s in masks.segments if s.number in found]
    observer = Observer(derive_uid("device", _NAME, __version__), _NAME, __version__, __version__)
    root = measurement_report(groups, observer, series)
    document = Document(
        ENHANCED_SR,
        series_description(SERIES_DESCRIPTION, masks.product, masks.model),
        content_description("Doses", masks.product, masks.model),
        SERIES_NUMBER,
        frozenset({"99CTENRICH"}),
        masks.model,
        (seg,),
    )
    dataset = sr_dataset(document, root, series, source, identity, settings.encode)
    dataset.CodingSchemeIdentificationSequence[0].CodingSchemeName = _SCHEME
    _add_evidence(dataset, doses.origins)
    issues = (*source.issues, *_omission_notes(doses, identity.sop_instance_uid))
    target = ObjectTarget(
        kind=ObjectKind.DOSE_SR, series_instance_uid=series.series_instance_uid, product=masks.product
    )
    return write_object(dataset, target, workspace, issues, deflated_copy=settings.encode.deflated_copy)


def _check_doses(doses: DoseMeasurements, masks: SegmentMasks) -> None:
    if doses.series_instance_uid != masks.series_instance_uid or doses.product != masks.product:
        raise EncodingError(Reason.ENCODING, "doses and masks belong to different products")
    names = {s.number: s.name for s in masks.segments if not s.absent}
    for one in doses.segments:
        if names.get(one.number) != one.name:
            raise EncodingError(Reason.ENCODING, f"doses of segment {one.number} are not of {one.name!r}")
        for value, _ in _encoded(one):
            numbers = (value.value, value.lower, value.upper)
            if not all(math.isfinite(number) for number in numbers if number is not None):
                raise EncodingError(Reason.ENCODING, f"{value.metric} of {one.name} is not a finite number")


def _segment_group(
    segment: Segment, found: SegmentDoses, doses: DoseMeasurements, seg: EncodedObject, series: SortedSeries
) -> Dataset:
    """Build the measurement group of a segment (TID 1411)."""
    mapped = segment_code(segment)
    identifier, uid = tracking(seg.sop_instance_uid, segment.number)
    algorithm = Algorithm(_NAME, __version__, _algorithm_parameters(found, doses))
    coverage = dose_metric_code(COVERAGE)
    items = [
        *tracking_items(identifier, uid),
        code(CONTAINS, codes.DCM.Finding, mapped.finding),
        image(CONTAINS, codes.DCM.ReferencedSegment, seg.sop_class_uid, seg.sop_instance_uid, segment.number),
        uidref(CONTAINS, codes.DCM.SourceSeriesForSegmentation, series.series_instance_uid),
        *(composite(CONTAINS, codes.DCM.SourceOfMeasurement, RT_DOSE, one.sop_instance_uid) for one in doses.origins),
        finding_site(mapped.finding_site, mapped.finding_site_laterality),
        *algorithm_items(algorithm),
        num(CONTAINS, coverage.quantity, 100 * found.coverage, coverage.unit),
        *(_metric(value, number) for value, number in _encoded(found)),
    ]
    return container(CONTAINS, codes.DCM.MeasurementGroup, items, "1411")


def _metric(one: DoseValue, value: float) -> Dataset:
    """Build a measurement (TID 1419) with the distances to its bounds."""
    mapped = dose_metric_code(one.metric)
    bounds = []
    if one.lower is not None:
        name = _UNCERTAINTY.RangeOfLowerMeasurementUncertainty
        bounds.append(num(_PROPERTIES, name, value - one.lower, mapped.unit))
    if one.upper is not None:
        name = _UNCERTAINTY.RangeOfUpperMeasurementUncertainty
        bounds.append(num(_PROPERTIES, name, one.upper - value, mapped.unit))
    return num(CONTAINS, mapped.quantity, value, mapped.unit, bounds)


def _algorithm_parameters(found: SegmentDoses, doses: DoseMeasurements) -> tuple[str, ...]:
    steps = " x ".join(f"{step:.4g}" for step in found.step)
    parameters = [f"dose={one.factor} x {one.sop_instance_uid}" for one in doses.origins]
    parameters.append(f"steps of {steps} mm between slices, rows and columns; {found.samples} points")
    if doses.prescription is not None:
        parameters.append(f"prescribed dose={doses.prescription:g} Gy ({doses.prescription_source})")
    return (*parameters, "research only")


def _add_evidence(dataset: Dataset, origins: tuple[DoseOrigin, ...]) -> None:
    """Add the doses to the evidence (PS3.3 C.17.2); they may be in another study than the CT."""
    studies = {item.StudyInstanceUID: item for item in dataset.CurrentRequestedProcedureEvidenceSequence}
    ordered = sorted(origins, key=lambda one: (one.study_instance_uid, one.series_instance_uid))
    for (study, series), own in groupby(ordered, key=lambda one: (one.study_instance_uid, one.series_instance_uid)):
        references = [make(ReferencedSOPClassUID=RT_DOSE, ReferencedSOPInstanceUID=one.sop_instance_uid) for one in own]
        item = make(ReferencedSOPSequence=references, SeriesInstanceUID=series)
        if study in studies:
            studies[study].ReferencedSeriesSequence.append(item)
        else:
            studies[study] = make(ReferencedSeriesSequence=[item], StudyInstanceUID=study)
            dataset.CurrentRequestedProcedureEvidenceSequence.append(studies[study])


def _omission_notes(doses: DoseMeasurements, subject: str) -> list[Issue]:
    notes = []
    for one in doses.segments:
        reasons = {value.reason for value in one.values if value.reason is not None}
        for reason in sorted(reasons):
            names = ", ".join(value.metric for value in one.values if value.reason == reason)
            message = f"{one.name}: {names} omitted: {reason.sentence}"
            notes.append(Issue("OMITTED_METRIC", Severity.NOTE, subject, message, "ctenrich", __version__))
    return notes
