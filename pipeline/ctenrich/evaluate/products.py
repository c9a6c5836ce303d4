"""Compare the masks of two products over a run, organ by organ: an expert with a model, or two models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ctenrich.errors import UsageError
from ctenrich.evaluate.overlap import compare_masks
from ctenrich.masks import full_mask
from ctenrich.reasons import Reason
from ctenrich.records import SegmentMasks
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace

__all__ = ["ProductOverlap", "compare_products"]


@dataclass(frozen=True)
class ProductOverlap:
    """How alike the masks of one organ are; the columns of the published table, and the mask's two HD95."""

    series_instance_uid: str
    study_instance_uid: str
    structure_name: str
    """Key of mappings/segments.csv."""
    reference: str
    """Product that is compared with, e.g. ``expert``."""
    model: str
    """The other product."""
    dice_score: float | None
    """0 to 1; None only if both masks are empty."""
    hausdorff_distance: float | None
    """mm; None if one of the masks is empty, as the two that follow."""
    hausdorff_distance_95: float | None
    """mm, over surface voxels (the usual definition)."""
    hausdorff_distance_95_voxels: float | None
    """mm, over all voxels (what the published table holds)."""


def compare_products(
    workspace: Workspace, *, reference: str = "expert", model: str | None = None
) -> tuple[ProductOverlap, ...]:
    """Dice and Hausdorff distances of every organ that two products of a series both looked for.

    Parameters
    ----------
    reference : str
        Product to compare with.
    model : str, optional
        The other product; default: every other one.

    Raises
    ------
    UsageError
        NOT_FOUND if no series of the run has masks of the reference.
    """
    out: list[ProductOverlap] = []
    known = False
    store = SeriesStore(workspace)
    for uid in store.series():
        found = (store.find(SegmentMasks, uid, product) for product in store.products(uid))
        masks = {str(m.product): m for m in found if m is not None}
        first = masks.pop(reference, None)
        if first is None:
            continue
        known = True
        chosen = [m for name, m in sorted(masks.items()) if model in (None, name)]
        if chosen:
            out += _compare_segments(store, uid, first, chosen)
    if not known:
        raise UsageError(Reason.NOT_FOUND, f"no series of the run has masks of {reference[:80]!r}")
    return tuple(out)


def _compare_segments(
    store: SeriesStore, uid: str, first: SegmentMasks, others: list[SegmentMasks]
) -> Iterator[ProductOverlap]:
    workspace = store.workspace
    spacing = store.volume(uid).spacing
    study = store.sorted_series(uid).study_instance_uid
    for other in others:
        numbers = {s.name: s.number for s in other.segments}
        for segment in first.segments:
            if segment.name not in numbers:
                continue
            expert = full_mask(first, segment.number, workspace)
            found = compare_masks(full_mask(other, numbers[segment.name], workspace), expert, spacing)
            yield ProductOverlap(
                uid, study, segment.name, str(first.product), str(other.product), found.dice, found.hausdorff,
                found.hausdorff_95_surface, found.hausdorff_95_voxels,
            )  # fmt: skip
