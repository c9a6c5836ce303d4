"""Compare lung landmarks with the extent of the lung masks of a product, such as an expert's."""

from __future__ import annotations

import numpy as np

from ctenrich.codes.mappings import GENERAL
from ctenrich.errors import UsageError, did_you_mean
from ctenrich.evaluate.landmarks import LungEnd, compare_lung_extents
from ctenrich.masks import full_mask
from ctenrich.reasons import Reason
from ctenrich.records import Landmarks, SegmentMasks, SortedSeries
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace

__all__ = ["compare_with_masks", "lung_extent"]


def lung_extent(masks: SegmentMasks, series: SortedSeries, workspace: Workspace) -> dict[str, float]:
    """Measure the extent of the lungs of a product.

    Every segment with ``lung`` in its name counts, as in the published comparison.

    Parameters
    ----------
    masks : SegmentMasks
        The product.
    series : SortedSeries
        Its series.
    workspace : Workspace
        The run's folder.

    Returns
    -------
    dict
        ``lung_start`` and ``lung_end`` -> z of the slice, mm, LPS; empty without a voxel of lung.
    """
    inside = np.zeros(masks.shape[0], bool)
    for segment in masks.segments:
        if "lung" in segment.name and not segment.name.startswith(f"{GENERAL}:") and not segment.absent:
            inside |= full_mask(masks, segment.number, workspace).any(axis=(1, 2))
    heights = [series.slices[k].position[2] for k in np.nonzero(inside)[0]]
    return {"lung_start": min(heights), "lung_end": max(heights)} if heights else {}


def compare_with_masks(workspace: Workspace, *, reference: str = "expert") -> tuple[LungEnd, ...]:
    """Compare both ends of the lungs in every series that has landmarks and lung masks of the reference.

    Parameters
    ----------
    workspace : Workspace
        The run.
    reference : str
        Key of the product whose masks are the reference.

    Returns
    -------
    tuple of LungEnd

    Raises
    ------
    UsageError
        NOT_FOUND if no series has masks of the reference.
    """
    out: list[LungEnd] = []
    known = False
    names: set[str] = set()
    store = SeriesStore(workspace)
    for uid in store.series():
        products = {str(product): product for product in store.products(uid)}
        names.update(products)
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
        hint = did_you_mean(reference, names, f"the run has {', '.join(sorted(names)) or 'no product'}")
        raise UsageError(Reason.NOT_FOUND, f"no series of the run has masks of {reference[:80]!r}", hint)
    return tuple(out)
