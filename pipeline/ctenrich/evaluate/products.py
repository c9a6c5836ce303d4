"""Compare the masks of two products of a run, organ by organ: an expert with a model, or two models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ctenrich.codes.mappings import plain_name
from ctenrich.errors import UsageError, did_you_mean
from ctenrich.evaluate.overlap import compare_masks
from ctenrich.masks import full_mask
from ctenrich.reasons import Reason
from ctenrich.records import SegmentMasks, Severity
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace

__all__ = ["ProductOverlap", "compare_products"]


@dataclass(frozen=True, kw_only=True)
class ProductOverlap:
    """Agreement of the masks of one organ: the columns of the published table, with both definitions of HD95."""

    series_instance_uid: str
    study_instance_uid: str
    structure_name: str
    """Key of mappings/segments.csv; ``#2`` and so on for further ROIs of the reference with the same key."""
    reference: str
    """Key of the reference product, e.g. ``expert``."""
    model: str
    """Key of the other product."""
    dice_score: float | None
    """0 to 1; None only if both masks are empty."""
    hausdorff_distance: float | None
    """mm; None if one of the masks is empty, like the two below."""
    hausdorff_distance_95: float | None
    """mm, over surface voxels (the usual definition)."""
    hausdorff_distance_95_voxels: float | None
    """mm, over all voxels (as in the published table)."""


def compare_products(
    workspace: Workspace, *, reference: str = "expert", model: str | None = None
) -> tuple[ProductOverlap, ...]:
    """Compute Dice and Hausdorff distances of every organ that two products of a series have in common.

    Parameters
    ----------
    workspace : Workspace
        The run.
    reference : str
        Key of the reference product.
    model : str, optional
        Key of the product to compare; default: every other one.

    Returns
    -------
    tuple of ProductOverlap

    Raises
    ------
    UsageError
        NOT_FOUND if no series of the run has masks of the reference.
    """
    out: list[ProductOverlap] = []
    known = False
    names: set[str] = set()
    store = SeriesStore(workspace)
    for uid in store.series():
        found = (store.find(SegmentMasks, uid, product) for product in store.products(uid))
        masks = {str(m.product): m for m in found if m is not None}
        names.update(masks)
        first = masks.pop(reference, None)
        if first is None:
            continue
        known = True
        chosen = [m for name, m in sorted(masks.items()) if model in (None, name)]
        if chosen:
            out += _compare_segments(store, uid, first, chosen)
    if not known:
        raise UsageError(
            Reason.NOT_FOUND, f"no series of the run has masks of {reference[:80]!r}", _hint(reference, names)
        )
    return tuple(out)


def _hint(name: str, names: set[str]) -> str:
    return did_you_mean(name, names, f"the run has {', '.join(sorted(names)) or 'no masks'}")


def _compare_segments(
    store: SeriesStore, uid: str, first: SegmentMasks, others: list[SegmentMasks]
) -> Iterator[ProductOverlap]:
    workspace = store.workspace
    spacing = store.volume(uid).spacing
    study = store.sorted_series(uid).study_instance_uid
    for other in others:
        numbers = {s.name: s.number for s in other.segments}
        unsound = {issue.object for issue in (*first.issues, *other.issues) if issue.severity is Severity.ERROR}
        for segment in first.segments:
            number = numbers.get(segment.name, numbers.get(plain_name(segment.name)))
            if number is None or segment.name in unsound:
                continue
            expert = full_mask(first, segment.number, workspace)
            found = compare_masks(full_mask(other, number, workspace), expert, spacing)
            yield ProductOverlap(
                series_instance_uid=uid,
                study_instance_uid=study,
                structure_name=segment.name,
                reference=str(first.product),
                model=str(other.product),
                dice_score=found.dice,
                hausdorff_distance=found.hausdorff,
                hausdorff_distance_95=found.hausdorff_95_surface,
                hausdorff_distance_95_voxels=found.hausdorff_95_voxels,
            )
