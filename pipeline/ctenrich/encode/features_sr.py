"""Encode the identity of feature vectors as an Enhanced SR (TID 1500): one group (TID 1411 or 1501) per vector."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from ctenrich import __version__
from ctenrich.codes.mappings import Code, load_dose_metrics, load_features
from ctenrich.encode.context import content_description, identify, read_source, series_description
from ctenrich.encode.files import ObjectTarget, write_object
from ctenrich.encode.seg import segment_code, tracking
from ctenrich.encode.sr_content import (
    CONTAINS,
    Algorithm,
    Observer,
    algorithm_items,
    code,
    concept,
    container,
    finding_site,
    image,
    measurement,
    measurement_report,
    text,
    tracking_items,
    uidref,
)
from ctenrich.encode.sr_document import ENHANCED_SR, Document, sr_dataset
from ctenrich.errors import EncodingError
from ctenrich.reasons import Reason
from ctenrich.records import (
    EncodedObject,
    FeatureVector,
    FeatureVectors,
    ModelVectors,
    ObjectKind,
    SegmentMasks,
    SortedSeries,
)
from ctenrich.settings import Settings
from ctenrich.uids import derive_uid
from ctenrich.workspace import Workspace

__all__ = ["SERIES_DESCRIPTION", "SERIES_NUMBER", "TABLE", "encode_features_sr"]

SERIES_DESCRIPTION = "{title}_Deep_Features"
"""Pattern; ``title`` is the series title of the product's kind."""
SERIES_NUMBER = 1003
TABLE = "deep_features"
"""Table of the run with the values of the vectors."""
_NAME = "ctenrich features"
_SCHEME = "ctenrich: feature vectors of networks"


def encode_features_sr(
    found: FeatureVectors,
    masks: SegmentMasks,
    seg: EncodedObject,
    series: SortedSeries,
    *,
    settings: Settings,
    workspace: Workspace,
) -> EncodedObject:
    """Write the SR of feature vectors.

    Each vector has one group. That of a segment (TID 1411) has tracking, finding, finding site and referenced segment
    as in the shape SR; that of the whole volume (TID 1501) has the slices as Source of Measurement. Both have the
    network as algorithm with the hash of network and rules, the rule of its input, the number of values, the norm, the
    share of the input outside of the volume, and the hashes of vector and input. The values are in the table that the
    group names, not in the SR.

    Parameters
    ----------
    found : FeatureVectors
        With at least one vector.
    masks : SegmentMasks
        The segments that the vectors are about.
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
        Record of the written file.

    Raises
    ------
    EncodingError
        ENCODING if vectors and masks belong to different products, or a number is not finite.
    """
    _check_vectors(found, masks)
    source = read_source(series, workspace)
    made_of = json.dumps([asdict(model) for model in found.models], sort_keys=True)
    identity = identify(
        "features_sr", series, masks.product, settings.encode, made_of, found.volume_sha256, seg.sop_instance_uid
    )
    groups = [
        _segment_group(model, one, masks, seg, series)
        if one.number is not None
        else _volume_group(model, one, series, identity.uid("tracking", model.spec, model.model.sha256))
        for model in found.models
        for one in model.vectors
    ]
    observer = Observer(derive_uid("device", _NAME, __version__), _NAME, __version__, __version__)
    document = Document(
        ENHANCED_SR,
        series_description(SERIES_DESCRIPTION, masks.product, masks.model),
        content_description("Deep features", masks.product, masks.model),
        SERIES_NUMBER,
        frozenset({"99CTENRICH"}),
        masks.model,
        (seg,),
    )
    root = measurement_report(groups, observer, series)
    dataset = sr_dataset(document, root, series, source, identity, settings.encode)
    dataset.CodingSchemeIdentificationSequence[0].CodingSchemeName = _SCHEME
    uid = series.series_instance_uid
    target = ObjectTarget(kind=ObjectKind.FEATURES_SR, series_instance_uid=uid, product=masks.product)
    return write_object(dataset, target, workspace, source.issues, deflated_copy=settings.encode.deflated_copy)


def _check_vectors(found: FeatureVectors, masks: SegmentMasks) -> None:
    names = {s.number: s.name for s in masks.segments if not s.absent}
    if found.product != masks.product or found.series_instance_uid != masks.series_instance_uid:
        raise EncodingError(Reason.ENCODING, "feature vectors and masks belong to different products")
    for one in (v for model in found.models for v in model.vectors):
        if one.number is not None and names.get(one.number) != one.name:
            raise EncodingError(Reason.ENCODING, f"the vector of segment {one.number} is not of {one.name!r}")
        if not (math.isfinite(one.norm) and math.isfinite(one.outside)):
            raise EncodingError(Reason.ENCODING, f"a number of the vector of {one.name or 'the volume'} is not finite")


def _segment_group(
    model: ModelVectors, one: FeatureVector, masks: SegmentMasks, seg: EncodedObject, series: SortedSeries
) -> Dataset:
    """Build the group of a segment (TID 1411)."""
    segment = next(s for s in masks.segments if s.number == one.number)
    mapped = segment_code(segment)
    items = [
        *tracking_items(*tracking(seg.sop_instance_uid, segment.number)),
        code(CONTAINS, codes.DCM.Finding, mapped.finding),
        image(CONTAINS, codes.DCM.ReferencedSegment, seg.sop_class_uid, seg.sop_instance_uid, segment.number),
        uidref(CONTAINS, codes.DCM.SourceSeriesForSegmentation, series.series_instance_uid),
        finding_site(mapped.finding_site, mapped.finding_site_laterality),
        *algorithm_items(_algorithm(model)),
        *_values(model, one),
    ]
    return container(CONTAINS, codes.DCM.MeasurementGroup, items, "1411")


def _volume_group(model: ModelVectors, one: FeatureVector, series: SortedSeries, uid: str) -> Dataset:
    """Build the group of the whole volume (TID 1501)."""
    items = [
        *tracking_items(f"Feature vector of the volume by {model.model.name}", uid),
        *algorithm_items(_algorithm(model)),
        *(image(CONTAINS, codes.DCM.SourceOfMeasurement, s.sop_class_uid, s.sop_instance_uid) for s in series.slices),
        *_values(model, one),
    ]
    return container(CONTAINS, codes.DCM.MeasurementGroup, items, "1501")


def _algorithm(model: ModelVectors) -> Algorithm:
    info = model.model
    parameters = [f"features={model.spec}", f"model_sha256={info.sha256}"]
    parameters += [f"licence={info.licence}"] if info.licence else []
    parameters += [f"citation={info.citation}"] if info.citation else []
    return Algorithm(info.name, info.version or "unknown", (*parameters, "research only"))


def _values(model: ModelVectors, one: FeatureVector) -> list[Dataset]:
    no_unit, percent = _units()
    return [
        measurement(concept("feature_length"), float(model.length), no_unit),
        measurement(concept("feature_norm"), one.norm, no_unit),
        measurement(concept("feature_outside"), 100 * one.outside, percent),
        text(CONTAINS, concept("feature_crop"), model.crop),
        text(CONTAINS, concept("feature_sha256"), one.sha256),
        text(CONTAINS, concept("feature_input"), one.input_sha256),
        text(CONTAINS, concept("feature_table"), TABLE),
    ]


def _units() -> tuple[Code, Code]:
    """No units, and percent, as the mappings define them."""
    return load_features()["Sphericity"].unit, load_dose_metrics()["coverage"].unit
