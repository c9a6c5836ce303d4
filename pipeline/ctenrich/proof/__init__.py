"""Proof that written objects say what was computed: they are read again by a path of their own and compared.

Nothing here uses highdicom, the decoders or the geometry of the other stages: objects and source slices are parsed
with pydicom alone, and places are worked out from the numbers that stand in the files.
"""

from __future__ import annotations

from collections.abc import Sequence

from ctenrich.proof.bodypart import landmark_checks, region_checks
from ctenrich.proof.checks import ObjectFile, Report, open_objects
from ctenrich.proof.segmentation import segmentation_checks
from ctenrich.proof.shape import shape_checks
from ctenrich.proof.source import SourceSlices, read_source, source_checks, tolerance
from ctenrich.records import (
    EncodedObject,
    Landmarks,
    ObjectKind,
    Proof,
    Regions,
    SegmentMasks,
    ShapeMeasurements,
    SliceScores,
    SortedSeries,
    Volume,
)
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace

__all__ = ["prove_bodypart", "prove_segmentation"]


def prove_segmentation(
    masks: SegmentMasks,
    shape: ShapeMeasurements,
    volume: Volume,
    series: SortedSeries,
    objects: Sequence[EncodedObject],
    *,
    settings: Settings,
    workspace: Workspace,
) -> Proof:
    """Prove the SEG and the shape SR of a product.

    Checks: the source slices are there, in order, and on the grid of the volume; each file is the one that was
    written; the SEG equals the masks voxel for voxel on the CT grid, with the codes of the segments; each centroid in
    mm from the SEG's own positions equals the one from the volume's affine (0.01 mm); every reference exists and names
    the slice that the frame lies on; frame of reference and study are equal; the SR's numbers, units, segments and
    places equal the computed ones; volumes agree.

    Returns
    -------
    Proof
        All checks, passed or not; never raises because of what is in a file.
    """
    report = Report(str(masks.product))
    source = read_source(series, workspace)
    source_checks(report, source, series, volume, settings.geometry)
    files = open_objects(report, objects, (ObjectKind.SEG, ObjectKind.SHAPE_SR), series, workspace)
    report.hashes["masks"] = masks.sha256
    report.hashes["volume"] = volume.sha256
    voxels: dict[int, tuple[int, float]] = {}
    seg = files.get(ObjectKind.SEG)
    if seg is not None:
        with report.guard("seg.read"):
            voxels, apart = segmentation_checks(report, seg, masks, volume, source, workspace)
            text = f"from the SEG's positions and from the affine: {apart:.6f} mm apart at most"
            report.add("seg.centroids", apart < tolerance(series, settings.geometry), text)
    sr = files.get(ObjectKind.SHAPE_SR)
    if sr is not None and seg is not None:
        with report.guard("shape_sr.read"):
            shape_checks(report, sr, seg, shape, voxels, source)
    return report.proof()


def prove_bodypart(
    scores: SliceScores,
    landmarks: Landmarks,
    regions: Regions,
    series: SortedSeries,
    objects: Sequence[EncodedObject],
    *,
    settings: Settings,
    workspace: Workspace,
) -> Proof:
    """Prove the landmark and region SRs of a product.

    Checks: the source slices are there and in order; the scores belong to them; each file is the one that was written;
    every landmark and every region stands on its own slice, with its code and numbers, and nothing else does; every
    reference exists.
    """
    report = Report(str(scores.product))
    source = read_source(series, workspace)
    source_checks(report, source, series, None, settings.geometry)
    _score_checks(report, scores, source)
    files = open_objects(report, objects, (ObjectKind.LANDMARKS_SR, ObjectKind.REGIONS_SR), series, workspace)
    report.hashes["scores"] = scores.sha256
    _guarded(
        report, files.get(ObjectKind.LANDMARKS_SR), "landmarks_sr.read", landmark_checks, landmarks, scores, source
    )
    _guarded(report, files.get(ObjectKind.REGIONS_SR), "regions_sr.read", region_checks, regions, scores, source)
    return report.proof()


def _guarded(report: Report, file: ObjectFile | None, name: str, check, *args) -> None:  # type: ignore[no-untyped-def]
    if file is not None:
        with report.guard(name):
            check(report, file, *args)


def _score_checks(report: Report, scores: SliceScores, source: SourceSlices) -> None:
    same = scores.sop_instance_uids == source.uids_in_order()
    report.add("scores.slices", same, "the scores name the slices of the series in their order")
    heights = source.heights()
    worst = max((abs(z - h) for z, h in zip(scores.z, heights, strict=False)), default=0.0)
    fits = len(scores.z) == len(heights) and worst < 0.01
    report.add("scores.z", fits, f"{len(scores.z)} places along the normal, largest difference {worst:.6f} mm")
