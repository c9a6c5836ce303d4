"""Restrict segmentation to the slices between two landmarks of body part regression, with a margin.

Off unless ``[segment] crop`` names two landmarks. Masks stay on the grid of the whole series; voxels outside the crop
are background. A series without reliable landmarks is segmented as a whole.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ctenrich.bodypart.crop_hint import crop_hint
from ctenrich.codes.mappings import load_landmarks
from ctenrich.errors import UsageError
from ctenrich.geometry import as_matrix4
from ctenrich.masks import masks_from_label_map
from ctenrich.reasons import Reason
from ctenrich.records import Box, Issue, SegmentMasks, Severity, SliceScores, SortedSeries, Volume
from ctenrich.workspace import load_array, save_array

if TYPE_CHECKING:
    from ctenrich.inference.segmenter import Segmenter
    from ctenrich.settings import Settings
    from ctenrich.stages.stage import StageContext
    from ctenrich.workspace import Workspace

__all__ = ["check_crop", "crop_ends", "segment_cropped"]


def crop_ends(text: str) -> tuple[str, str]:
    """Parse ``LOW..HIGH``, two landmarks in any order, to (nearer the feet, nearer the head).

    Raises
    ------
    UsageError
        BAD_SETTINGS if the text does not name two different landmarks.
    """
    known = load_landmarks()
    names = [name.strip() for name in text.split("..")]
    if len(names) != 2 or not set(names) <= set(known) or names[0] == names[1]:
        hint = "two names of mappings/landmarks.csv with two dots between them: lung_start..lung_end"
        raise UsageError(Reason.BAD_SETTINGS, f"segment.crop: {text!r} does not name two landmarks", hint)
    low, high = sorted(names, key=lambda name: known[name].score_mean)
    return low, high


def check_crop(settings: Settings, *, with_bodypart: bool) -> None:
    """Refuse a crop that is not possible, before any work starts.

    Parameters
    ----------
    settings : Settings
        ``settings.segment``: crop, probabilities.
    with_bodypart : bool
        Whether the run has body part regression; without it there are no landmarks.

    Raises
    ------
    UsageError
        BAD_SETTINGS if the landmarks are unknown, or the crop cannot be combined with the other settings of the run.
    """
    if not settings.segment.crop:
        return
    crop_ends(settings.segment.crop)
    if settings.segment.probabilities:
        message = "segment.crop cannot be combined with segment.probabilities"
        raise UsageError(Reason.BAD_SETTINGS, message, "remove one of them")
    if not with_bodypart:
        raise UsageError(Reason.BAD_SETTINGS, "segment.crop needs a body part model", "add --bodypart MODEL")


def segment_cropped(
    segmenter: Segmenter,
    volume: Volume,
    series: SortedSeries,
    scores: SliceScores | None,
    *,
    context: StageContext,
) -> SegmentMasks:
    """Segment the slices between the landmarks of ``segment.crop``, or all slices if the landmarks are unknown.

    Parameters
    ----------
    segmenter : Segmenter
        The segmenter; it receives a volume of the cropped slices.
    volume : Volume
        The whole volume, HU, [k, j, i].
    series : SortedSeries
        The source series.
    scores : SliceScores or None
        Slice scores of the run's body part model; None if it could not score the series.
    context : StageContext
        Of the product; ``context.settings.segment.crop`` names the landmarks.

    Returns
    -------
    SegmentMasks
        On the grid of `volume`, with a note ``cropped`` or ``not_cropped``.

    Raises
    ------
    UsageError
        BAD_SETTINGS if ``segment.crop`` does not name two landmarks.
    """
    common: dict[str, Any] = {
        "settings": context.settings, "workspace": context.workspace, "progress": context.progress,
    }  # fmt: skip
    low, high = crop_ends(context.settings.segment.crop)
    box = crop_hint(scores, volume.shape, low=low, high=high) if scores is not None else None
    if box is None:
        masks = segmenter.segment({"CT": volume}, series, **common)
        return _with_note(
            masks, "not_cropped", f"the places of {low} and {high} are not known: all slices were segmented"
        )
    whole = _segment_box(segmenter, volume, series, box, common)
    seen = f"slices {box.k0} to {box.k1 - 1} of {volume.shape[0]}"
    return _with_note(whole, "cropped", f"the network saw {seen} only ({low} to {high}, and a margin)")


def _with_note(masks: SegmentMasks, rule: str, message: str) -> SegmentMasks:
    return replace(masks, issues=(*masks.issues, Issue(rule, Severity.NOTE, masks.series_instance_uid, message)))


def _segment_box(
    segmenter: Segmenter, volume: Volume, series: SortedSeries, box: Box, common: dict[str, Any]
) -> SegmentMasks:
    workspace: Workspace = common["workspace"]
    uid = volume.series_instance_uid
    folder = workspace.product_dir(uid, segmenter.product) / "masks"
    part = folder / "crop.npy"
    save_array(part, load_array(workspace.resolve(uid, volume.array_path))[box.k0 : box.k1])
    affine = np.array(volume.affine_lps, dtype=np.float64)
    affine[:3, 3] += box.k0 * affine[:3, 2]
    shape = (box.k1 - box.k0, *volume.shape[1:])
    cut = replace(volume, array_path=workspace.relative(uid, part), shape=shape, affine_lps=as_matrix4(affine))
    try:
        masks = segmenter.segment({"CT": cut}, series, **common)
    finally:
        part.unlink()
    assert masks.label_map_path is not None
    found = workspace.resolve(uid, masks.label_map_path)
    inside = load_array(found)
    labels = np.zeros(volume.shape, inside.dtype)
    labels[box.k0 : box.k1] = inside
    names = [(s.number, s.name, s.source_label) for s in masks.segments]
    return masks_from_label_map(labels, names, replace(masks, shape=volume.shape), found, workspace)
