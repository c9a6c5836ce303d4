"""Encode body regions as a Comprehensive 3D SR (TID 1500) with one measurement group (TID 1501) per slice."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from ctenrich.codes.mappings import RegionCode, load_regions
from ctenrich.encode.context import content_description, identify, read_source, series_description
from ctenrich.encode.files import ObjectTarget, write_object
from ctenrich.encode.landmarks_sr import bodypart_algorithm, bodypart_observer, check_slices, units
from ctenrich.encode.sr_content import (
    CONTAINS,
    algorithm_items,
    concept,
    container,
    finding_site,
    image,
    measurement,
    measurement_report,
    tracking_items,
)
from ctenrich.encode.sr_document import COMPREHENSIVE_3D_SR, Document, sr_dataset
from ctenrich.errors import EncodingError
from ctenrich.reasons import Reason
from ctenrich.records import EncodedObject, ObjectKind, Regions, SliceRegions, SliceScores, SortedSeries
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace

__all__ = ["SERIES_NUMBER", "encode_regions_sr"]

SERIES_NUMBER = 100
DESCRIPTION = "BPR region annotations"


def encode_regions_sr(
    regions: Regions,
    scores: SliceScores,
    series: SortedSeries,
    *,
    settings: Settings,
    workspace: Workspace,
) -> EncodedObject:
    """Write the regions SR: one measurement group per slice, with a finding site for each region of the slice.

    Parameters
    ----------
    regions : Regions
        The regions of every slice.
    scores : SliceScores
        The slice scores that they were derived from.
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
        ENCODING if the slices are not those of the series, or mappings/regions.csv has no row for a region.
    """
    check_slices([(item.slice_index, item.sop_instance_uid) for item in regions.slices], series)
    mapped = load_regions()
    unknown = sorted({name for item in regions.slices for name in item.regions} - mapped.keys())
    if unknown:
        raise EncodingError(Reason.ENCODING, f"mappings/regions.csv has no row {unknown[0]!r}")
    source = read_source(series, workspace)
    identity = identify(
        "regions_sr", series, regions.product, settings.encode, scores.sha256, scores.model.sha256, repr(regions.slices)
    )
    algorithm = algorithm_items(bodypart_algorithm(scores))
    groups = [
        _slice_group(item, mapped, series, identity.uid("tracking", str(item.slice_index)), algorithm)
        for item in regions.slices
    ]
    root = measurement_report(groups, bodypart_observer("BodyPartRegression", scores), series)
    document = Document(
        COMPREHENSIVE_3D_SR,
        series_description(DESCRIPTION, regions.product, scores.model, names_model=False),
        content_description("Body regions", regions.product, scores.model),
        SERIES_NUMBER,
        frozenset({"99CTENRICH"}),
        scores.model,
    )
    dataset = sr_dataset(document, root, series, source, identity, settings.encode)
    target = ObjectTarget(
        kind=ObjectKind.REGIONS_SR, series_instance_uid=series.series_instance_uid, product=regions.product
    )
    deflate = settings.encode.deflated_copy
    return write_object(dataset, target, workspace, source.issues, deflated_copy=deflate)


def _slice_group(
    item: SliceRegions, mapped: dict[str, RegionCode], series: SortedSeries, uid: str, algorithm: list[Dataset]
) -> Dataset:
    """Build the measurement group of a slice (TID 1501); the items of the algorithm are shared by all groups."""
    source = series.slices[item.slice_index]
    items = [
        *tracking_items(f"Annotations group {item.slice_index + 1}", uid),
        *(finding_site(mapped[name].site) for name in item.regions),
        *algorithm,
        image(CONTAINS, codes.DCM.SourceOfMeasurement, source.sop_class_uid, source.sop_instance_uid),
    ]
    if item.score is not None:
        items.append(measurement(concept("slice_score"), item.score, units()[0]))
    return container(CONTAINS, codes.DCM.MeasurementGroup, items, "1501")
