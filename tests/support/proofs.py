"""Proofs of products as the stage makes them, from records in memory."""

from __future__ import annotations

from collections.abc import Sequence

from ctenrich.proof import (
    BodypartResult,
    SegmentationResult,
    prove,
    prove_landmarks_sr,
    prove_regions_sr,
    prove_seg,
    prove_shape_sr,
)
from ctenrich.records import (
    EncodedObject,
    Landmarks,
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
    """Prove SEG and shape SR."""
    result = SegmentationResult(masks=masks, shape=shape, volume=volume, series=series)
    provers = {"seg": prove_seg, "shape_sr": prove_shape_sr}
    return prove(result, objects, provers, settings=settings, workspace=workspace)


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
    """Prove landmarks SR and regions SR."""
    result = BodypartResult(scores=scores, landmarks=landmarks, regions=regions, series=series)
    provers = {"landmarks_sr": prove_landmarks_sr, "regions_sr": prove_regions_sr}
    return prove(result, objects, provers, settings=settings, workspace=workspace)
