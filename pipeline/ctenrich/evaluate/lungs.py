"""Compare lung landmarks with where the masks of a product (an expert's) begin and end."""

from __future__ import annotations

import numpy as np

from ctenrich.errors import UsageError
from ctenrich.evaluate.landmarks import LungEnd, compare_lung_extents
from ctenrich.masks import full_mask
from ctenrich.reasons import Reason
from ctenrich.records import Landmarks, SegmentMasks, SortedSeries
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace

__all__ = ["compare_with_masks", "lung_extent"]


def lung_extent(masks: SegmentMasks, series: SortedSeries, workspace: Workspace) -> dict[str, float]:
    """Where the lungs of a product begin and end: lung_start and lung_end -> z of the slice, mm, LPS.

    Every segment with ``lung`` in its name counts, as in the published comparison; empty without a voxel of one.
    """
    inside = np.zeros(masks.shape[0], bool)
    for segment in masks.segments:
        if "lung" in segment.name and not segment.absent:
            inside |= full_mask(masks, segment.number, workspace).any(axis=(1, 2))
    heights = [series.slices[k].position[2] for k in np.nonzero(inside)[0]]
    return {"lung_start": min(heights), "lung_end": max(heights)} if heights else {}


def compare_with_masks(workspace: Workspace, *, reference: str = "expert") -> tuple[LungEnd, ...]:
    """Both ends of the lungs in every series of a run that has landmarks and lungs drawn by the reference product.

    Parameters
    ----------
    reference : str
        Product whose masks are compared with.

    Raises
    ------
    UsageError
        NOT_FOUND if no series has masks of the reference.
    """
    out: list[LungEnd] = []
    known = False
    store = SeriesStore(workspace)
    for uid in store.series():
        products = {str(product): product for product in store.products(uid)}
        masks = store.find(SegmentMasks, uid, products[reference]) if reference in products else None
        if masks is None:
            continue
        known = True
        series = store.sorted_series(uid)
        extent = {uid: lung_extent(masks, series, workspace)}
        found = (store.find(Landmarks, uid, product) for product in products.values())
        for landmarks in filter(None, found):
            out += compare_lung_extents(landmarks, series, extent)
    if not known:
        raise UsageError(Reason.NOT_FOUND, f"no series of the run has masks of {reference[:80]!r}")
    return tuple(out)
