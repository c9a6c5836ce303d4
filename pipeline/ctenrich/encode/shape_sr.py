"""Encode shape features as an Enhanced SR (TID 1500) with one measurement group (TID 1411) per segment."""

from __future__ import annotations

import math

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from ctenrich import __version__
from ctenrich.codes.mappings import load_features
from ctenrich.encode.context import content_description, identify, read_source, series_description
from ctenrich.encode.files import ObjectTarget, write_object
from ctenrich.encode.seg import segment_code, tracking
from ctenrich.encode.sr_content import (
    CONTAINS,
    Algorithm,
    Observer,
    algorithm_items,
    code,
    container,
    finding_site,
    image,
    measurement,
    measurement_report,
    tracking_items,
    uidref,
)
from ctenrich.encode.sr_document import ENHANCED_SR, Document, sr_dataset
from ctenrich.errors import EncodingError
from ctenrich.reasons import Reason
from ctenrich.records import (
    EncodedObject,
    Issue,
    ObjectKind,
    Segment,
    SegmentMasks,
    SegmentShape,
    Severity,
    ShapeMeasurements,
    SortedSeries,
)
from ctenrich.settings import Settings
from ctenrich.uids import derive_uid
from ctenrich.workspace import Workspace

__all__ = ["SERIES_DESCRIPTION", "SERIES_NUMBER", "encode_shape_sr"]

SERIES_DESCRIPTION = "{title}_Measurements"
"""Pattern of the published objects; ``title`` is the series title of the product's kind."""

SERIES_NUMBER = 1001


def encode_shape_sr(
    shape: ShapeMeasurements,
    masks: SegmentMasks,
    seg: EncodedObject,
    series: SortedSeries,
    *,
    settings: Settings,
    workspace: Workspace,
) -> EncodedObject:
    """Write the SR of shape features.

    Each segment of the SEG has one group with tracking, finding, exactly one finding site, the referenced segment, the
    source series and its measurements; the group of a segment without voxels has Absent instead of measurements.

    Parameters
    ----------
    shape : ShapeMeasurements
        Features of the segments, in the units of mappings/features.csv.
    masks : SegmentMasks
        The masks that were measured.
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
        Record of the written file, with notes on omitted features.

    Raises
    ------
    EncodingError
        ENCODING if a feature has no code, a value is not finite, or segments and measurements do not match.
    """
    _check_measurements(shape, masks)
    source = read_source(series, workspace)
    made_of = (
        shape.sha256 or repr(shape.segments),
        " ".join(_algorithm_parameters(shape)),
        seg.sop_instance_uid,
        masks.sha256,
    )
    identity = identify("shape_sr", series, masks.product, settings.encode, *made_of)
    shapes = {item.number: item for item in shape.segments}
    algorithm = Algorithm(shape.algorithm_name, shape.algorithm_version, _algorithm_parameters(shape))
    groups = [_segment_group(s, shapes.get(s.number), seg, series, algorithm) for s in masks.segments]
    observer = Observer(
        derive_uid("device", shape.algorithm_name, shape.algorithm_version, __version__),
        shape.algorithm_name,
        shape.algorithm_version,
        __version__,
    )
    root = measurement_report(groups, observer, series)
    used = {load_features()[f].quantity.scheme for item in shape.segments for f in item.values}
    document = Document(
        ENHANCED_SR,
        series_description(SERIES_DESCRIPTION, masks.product, masks.model),
        content_description("Measurements", masks.product, masks.model),
        SERIES_NUMBER,
        frozenset(used),
        masks.model,
        (seg,),
    )
    dataset = sr_dataset(document, root, series, source, identity, settings.encode)
    issues = (*source.issues, *_omission_notes(shape, identity.sop_instance_uid))
    target = ObjectTarget(
        kind=ObjectKind.SHAPE_SR, series_instance_uid=series.series_instance_uid, product=masks.product
    )
    deflate = settings.encode.deflated_copy
    return write_object(dataset, target, workspace, issues, deflated_copy=deflate)


def _check_measurements(shape: ShapeMeasurements, masks: SegmentMasks) -> None:
    if shape.series_instance_uid != masks.series_instance_uid or shape.product != masks.product:
        raise EncodingError(Reason.ENCODING, "measurements and masks belong to different products")
    names = {s.number: s.name for s in masks.segments}
    features = load_features()
    for item in shape.segments:
        if names.get(item.number) != item.name:
            raise EncodingError(Reason.ENCODING, f"measurements of segment {item.number} are not of {item.name!r}")
        for feature, value in item.values.items():
            if feature not in features:
                raise EncodingError(Reason.ENCODING, f"mappings/features.csv has no row {feature!r}")
            if not math.isfinite(value):
                raise EncodingError(Reason.ENCODING, f"{feature} of {item.name} is not a finite number")


def _algorithm_parameters(shape: ShapeMeasurements) -> tuple[str, ...]:
    parameters = [f"engine={shape.engine}"]
    if shape.settings_sha256:
        parameters.append(f"settings_sha256={shape.settings_sha256}")
    if shape.radiomics_sha256:
        parameters.append(f"first order and textures: pyradiomics {shape.radiomics_version}")
        parameters.append(f"radiomics_settings_sha256={shape.radiomics_sha256}")
        parameters += shape.radiomics_parameters
    return tuple(parameters)


def _segment_group(
    segment: Segment, values: SegmentShape | None, seg: EncodedObject, series: SortedSeries, algorithm: Algorithm
) -> Dataset:
    """Build the measurement group of a segment (TID 1411)."""
    mapped = segment_code(segment)
    identifier, uid = tracking(seg.sop_instance_uid, segment.number)
    items = [
        *tracking_items(identifier, uid),
        code(CONTAINS, codes.DCM.Finding, mapped.finding),
        image(CONTAINS, codes.DCM.ReferencedSegment, seg.sop_class_uid, seg.sop_instance_uid, segment.number),
        uidref(CONTAINS, codes.DCM.SourceSeriesForSegmentation, series.series_instance_uid),
        finding_site(mapped.finding_site, mapped.finding_site_laterality),
    ]
    if segment.absent:
        items.append(code(CONTAINS, codes.DCM.PresenceOfProperty, codes.SCT.Absent))
    elif values is not None:
        features = load_features()
        ordered = [name for name in features if name in values.values]
        items += algorithm_items(algorithm)
        items += [measurement(features[n].quantity, values.values[n], features[n].unit) for n in ordered]
    return container(CONTAINS, codes.DCM.MeasurementGroup, items, "1411")


def _omission_notes(shape: ShapeMeasurements, subject: str) -> list[Issue]:
    """List omitted features with their reasons, and features that have no code."""
    notes = []
    for item in shape.segments:
        for reason in sorted(set(item.omitted.values())):
            features = sorted(f for f, r in item.omitted.items() if r == reason)
            message = f"{item.name}: {', '.join(features)} omitted: {reason}"
            notes.append(Issue("OMITTED_FEATURE", Severity.NOTE, subject, message, "ctenrich", __version__))
        coded = {load_features()[name].full_name for name in item.values}
        uncoded = [name for name in item.radiomics if name not in coded]
        if uncoded:
            message = f"{item.name}: {len(uncoded)} features of pyradiomics without a code are in the tables only"
            notes.append(Issue("UNCODED_FEATURES", Severity.NOTE, subject, message, "ctenrich", __version__))
    return notes
