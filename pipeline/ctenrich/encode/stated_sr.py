"""Encode measurements of another program as an Enhanced SR (TID 1500), one group (TID 1411) per measured segment."""

from __future__ import annotations

import json
from dataclasses import asdict

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from ctenrich import __version__
from ctenrich.codes.mappings import Code
from ctenrich.encode.context import content_description, identify, read_source, series_description
from ctenrich.encode.files import ObjectTarget, write_object
from ctenrich.encode.seg import segment_code, tracking
from ctenrich.encode.sr_content import (
    CONTAINS,
    MODIFIER,
    Algorithm,
    Observer,
    algorithm_items,
    code,
    container,
    finding_site,
    image,
    measurement_report,
    num,
    tracking_items,
    uidref,
)
from ctenrich.encode.sr_document import ENHANCED_SR, Document, sr_dataset
from ctenrich.errors import EncodingError
from ctenrich.reasons import Reason
from ctenrich.records import (
    EncodedObject,
    ObjectKind,
    SegmentMasks,
    SortedSeries,
    StatedGroup,
    StatedMeasurements,
    StatedValue,
)
from ctenrich.settings import Settings
from ctenrich.uids import derive_uid
from ctenrich.workspace import Workspace

__all__ = ["SERIES_DESCRIPTION", "SERIES_NUMBER", "encode_stated_sr"]

SERIES_DESCRIPTION = "{title}_Stated_Measurements"
"""Pattern; ``title`` is the series title of the product's kind."""
SERIES_NUMBER = 1002


def encode_stated_sr(
    stated: StatedMeasurements,
    masks: SegmentMasks,
    seg: EncodedObject,
    series: SortedSeries,
    *,
    settings: Settings,
    workspace: Workspace,
) -> EncodedObject:
    """Write the SR of measurements that another program stated; nothing is computed here.

    Each measured segment has one group with tracking, finding, finding site, the referenced segment of the SEG, the
    program as its algorithm, and the values with their own codes.

    Parameters
    ----------
    stated : StatedMeasurements
        The measurements.
    masks : SegmentMasks
        The segments that they are about.
    seg : EncodedObject
        The SEG of these masks.
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
        ENCODING if measurements and masks belong to different products.
    """
    names = {s.number: s.name for s in masks.segments}
    if stated.product != masks.product or any(names.get(g.number) != g.name for g in stated.groups):
        raise EncodingError(Reason.ENCODING, "measurements and masks belong to different products")
    source = read_source(series, workspace)
    made_of = (json.dumps(asdict(stated), sort_keys=True), seg.sop_instance_uid, masks.sha256)
    identity = identify("stated_sr", series, masks.product, settings.encode, *made_of)
    files = tuple(f"{name} sha256={sha256}" for name, sha256 in stated.files.items())
    algorithm = Algorithm(stated.algorithm_name, stated.algorithm_version or "unknown", files)
    groups = [_stated_group(g, masks, seg, series, algorithm) for g in stated.groups if g.values]
    observer = Observer(derive_uid("device", "stated", __version__), "ctenrich harmonise", "harmonise", __version__)
    document = Document(
        ENHANCED_SR,
        series_description(SERIES_DESCRIPTION, masks.product, masks.model),
        content_description("Measurements", masks.product, masks.model),
        SERIES_NUMBER,
        frozenset(v.quantity[1] for g in stated.groups for v in g.values),
        masks.model,
        (seg,),
    )
    dataset = sr_dataset(
        document, measurement_report(groups, observer, series), series, source, identity, settings.encode
    )
    uid = series.series_instance_uid
    target = ObjectTarget(kind=ObjectKind.STATED_SR, series_instance_uid=uid, product=masks.product)
    return write_object(dataset, target, workspace, source.issues, deflated_copy=settings.encode.deflated_copy)


def _stated_group(
    group: StatedGroup, masks: SegmentMasks, seg: EncodedObject, series: SortedSeries, algorithm: Algorithm
) -> Dataset:
    segment = next(s for s in masks.segments if s.number == group.number)
    mapped = segment_code(segment)
    identifier, uid = tracking(seg.sop_instance_uid, group.number)
    items = [
        *tracking_items(identifier, uid),
        code(CONTAINS, codes.DCM.Finding, mapped.finding),
        image(CONTAINS, codes.DCM.ReferencedSegment, seg.sop_class_uid, seg.sop_instance_uid, group.number),
        uidref(CONTAINS, codes.DCM.SourceSeriesForSegmentation, series.series_instance_uid),
        finding_site(mapped.finding_site, mapped.finding_site_laterality),
        *algorithm_items(algorithm),
        *(_stated_item(value) for value in group.values),
    ]
    return container(CONTAINS, codes.DCM.MeasurementGroup, items, "1411")


def _stated_item(value: StatedValue) -> Dataset:
    derived = [code(MODIFIER, codes.DCM.Derivation, Code(*value.derivation))] if value.derivation else []
    return num(CONTAINS, Code(*value.quantity), value.value, Code(*value.unit), derived)
