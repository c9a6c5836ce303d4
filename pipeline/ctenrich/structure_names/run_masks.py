"""Compare the ROIs that experts drew in a run with the organs of its other products."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctenrich.masks import crop_of, full_mask
from ctenrich.records import ProductKind, SegmentMasks
from ctenrich.series_store import SeriesStore
from ctenrich.structure_names.evidence import OrganEvidence, Overlap, find_evidence
from ctenrich.structure_names.lung_evidence import LEFT_LUNG, RIGHT_LUNG, find_lung_sides
from ctenrich.structure_names.treated_side import find_treated_side, midline_of
from ctenrich.workspace import Workspace, load_array

__all__ = ["RoiEvidence", "evidence_of_run"]


@dataclass(frozen=True, kw_only=True)
class RoiEvidence:
    """Where one ROI of one structure set is."""

    series_instance_uid: str
    name: str
    """ROI Name."""
    voxels: int
    evidence: OrganEvidence


def evidence_of_run(root: Path) -> Iterator[RoiEvidence]:
    """Compare every ROI of a run's product ``expert`` with the organs of its other products.

    Parameters
    ----------
    root : Path
        Folder of a run with masks of ``expert`` (``--roi ".*"`` draws all ROIs). In series whose other products have no
        lungs, those that a threshold finds in the CT are compared.

    Yields
    ------
    RoiEvidence
        Series by series; one without anything to compare is left out.
    """
    workspace = Workspace(root)
    store = SeriesStore(workspace)
    for uid in store.series():
        products = list(store.products(uid))
        experts = [product for product in products if product.kind == ProductKind.EXPERT]
        found = [store.find(SegmentMasks, uid, product) for product in products if product not in experts]
        others = [masks for masks in found if masks is not None]
        drawn = store.find(SegmentMasks, uid, experts[0]) if experts else None
        if drawn is None:
            continue
        lungs = None if _have_lungs(others) else find_lung_sides(store, uid)
        if not others and lungs is None:
            continue
        series = store.sorted_series(uid)
        step = series.row_cosines[0] * series.pixel_spacing[1]
        organs = _Organs(others, workspace)
        found_middle = lungs.middle if lungs is not None else None
        middle = midline_of(others, series.columns) if found_middle is None else found_middle
        treated = find_treated_side(store, uid, products).side.value
        for segment in drawn.segments:
            if segment.absent:
                continue
            roi = full_mask(drawn, segment.number, workspace)
            overlaps = organs.overlaps(roi) | (lungs.overlaps(roi) if lungs is not None else {})
            evidence = find_evidence(roi, overlaps, column_step=step, middle=middle)
            if evidence is not None:
                yield RoiEvidence(
                    series_instance_uid=uid,
                    name=segment.source_label,
                    voxels=segment.voxels,
                    evidence=replace(evidence, treated=treated),
                )


def _have_lungs(products: Iterable[SegmentMasks]) -> bool:
    return any(segment.name in (LEFT_LUNG, RIGHT_LUNG) for masks in products for segment in masks.segments)


class _Organs:
    """The organs of the products of a series; of label maps, only the map is in memory."""

    def __init__(self, products: list[SegmentMasks], workspace: Workspace) -> None:
        self._products = products
        self._workspace = workspace
        self._maps: dict[int, NDArray[np.integer]] = {}
        for place, masks in enumerate(products):
            if masks.label_map_path is not None:
                self._maps[place] = load_array(workspace.resolve(masks.series_instance_uid, masks.label_map_path))

    def overlaps(self, roi: NDArray[np.bool_]) -> dict[str, Overlap]:
        found: dict[str, Overlap] = {}
        for place, masks in enumerate(self._products):
            labels = self._maps.get(place)
            counts = np.bincount(labels[roi].astype(np.int64)) if labels is not None else None
            for segment in masks.segments:
                if segment.absent:
                    continue
                if counts is not None:
                    shared = int(counts[segment.number]) if segment.number < counts.size else 0
                else:
                    shared = self._shared(masks, segment.number, roi)
                found[segment.name] = Overlap(shared, segment.voxels)
        return found

    def _shared(self, masks: SegmentMasks, number: int, roi: NDArray[np.bool_]) -> int:
        cropped = crop_of(masks, number, self._workspace)
        if cropped is None:
            return 0
        crop, box = cropped
        inside = roi[box.k0 : box.k1, box.j0 : box.j1, box.i0 : box.i1]
        return int(np.count_nonzero(inside & crop.astype(bool)))
