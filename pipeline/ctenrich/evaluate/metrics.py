"""Measure the agreement of a mask with a reference: overlap, surface distances, volume, centroid, added path length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctenrich.evaluate.surface_elements import surface_elements
from ctenrich.masks import bounding_box, dice_of_counts, distance_from

__all__ = ["TOLERANCES", "MaskMetrics", "measure_agreement"]

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]
Distances = NDArray[np.float64]
Spacing = tuple[float, float, float]

TOLERANCES = (1.0, 2.0, 3.0)
"""mm, of the surface Dice in the result tables."""

_MANY_POINTS = 400_000
"""From this number of voxels on, one distance transform is faster than a search for each of them."""


@dataclass(frozen=True, kw_only=True)
class MaskMetrics:
    """Agreement of a mask with a reference; None where a value is undefined because a mask is empty.

    A *surface voxel* is a voxel of the mask with a face neighbour outside it. Percentiles of surface distances are
    interpolated linearly, as MedPy and MONAI do.
    """

    dice: float | None
    """2 |A and B| / (|A| + |B|); None only if both masks are empty."""
    hausdorff: float | None
    """mm: the largest distance of a surface voxel of one mask from the nearest of the other, in both directions."""
    hausdorff_95_max: float | None
    """mm: the larger of the two directions' 95th percentiles of these distances (MONAI)."""
    hausdorff_95_pooled: float | None
    """mm: 95th percentile of these distances of both directions together (MedPy)."""
    hausdorff_95_voxels: float | None
    """mm: 95th percentile over *all* voxels of the distance from the other mask (0 inside it), larger of both
    directions, without interpolation (plastimatch; published tables of the study that this package repeats)."""
    mean_surface_distance: float | None
    """mm: mean of the two directions' mean distances of surface voxels (MASD; the ASSD pools the directions)."""
    surface_dice: dict[float, float | None] = field(default_factory=dict)
    """Tolerance in mm -> share of the area of both surfaces within it of the other one (Nikolov et al. 2018)."""
    volume: float
    """mL."""
    reference_volume: float
    """mL."""
    centroid_distance: float | None
    """mm between the centres of mass."""
    added_path_length: float
    """mm: length of the reference's contours that the mask's contours do not share; the number of contour pixels of the
    reference, slice by slice, that are no contour pixels of the mask, times the mean pixel spacing (Vaassen et al.,
    Phys Imaging Radiat Oncol 13, 2020). A contour pixel has an edge neighbour of its slice outside the mask."""

    @property
    def volume_difference(self) -> float:
        """Volume minus volume of the reference, mL."""
        return self.volume - self.reference_volume


def measure_agreement(
    mask: Mask, reference: Mask, spacing: Spacing, *, tolerances: Sequence[float] = TOLERANCES
) -> MaskMetrics:
    """Compare a mask with a reference.

    Only the box that contains both masks is looked at. Distances are between voxel centres (between surface elements
    for the surface Dice) and exact for anisotropic spacing.

    Parameters
    ----------
    mask, reference : array of bool, [k, j, i]
        On one grid.
    spacing : (float, float, float)
        mm, axes [k, j, i].
    tolerances : sequence of float
        mm, of the surface Dice.

    Returns
    -------
    MaskMetrics

    Raises
    ------
    ValueError
        If the masks have different shapes.
    """
    if mask.shape != reference.shape:
        raise ValueError("the masks are on different grids")
    boxes = [box for box in (bounding_box(mask), bounding_box(reference)) if box is not None]
    if not boxes:
        return _without_surfaces(None, dict.fromkeys(tolerances), _Sizes(0, 0, spacing))
    low = [min(getattr(b, f"{axis}0") for b in boxes) for axis in "kji"]
    high = [max(getattr(b, f"{axis}1") for b in boxes) for axis in "kji"]
    part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    one, two = (np.pad(m[part], 1) for m in (mask, reference))
    sizes = _Sizes(int(np.count_nonzero(one)), int(np.count_nonzero(two)), spacing)
    added = _added_path_length(one, two, spacing)
    if len(boxes) == 1:
        return _without_surfaces(0.0, dict.fromkeys(tolerances, 0.0), sizes, added)
    near = _surface_distances(one, two, spacing)
    return MaskMetrics(
        dice=dice_of_counts(int(np.count_nonzero(one & two)), sizes.voxels, sizes.reference_voxels),
        hausdorff=max(float(d.max()) for d in near),
        hausdorff_95_max=max(float(np.percentile(d, 95)) for d in near),
        hausdorff_95_pooled=float(np.percentile(np.concatenate(near), 95)),
        hausdorff_95_voxels=max(_voxel_percentile(one, two, spacing), _voxel_percentile(two, one, spacing)),
        mean_surface_distance=sum(float(d.mean()) for d in near) / 2,
        surface_dice=_surface_dice(one, two, spacing, tolerances),
        volume=sizes.volume,
        reference_volume=sizes.reference_volume,
        centroid_distance=float(np.linalg.norm((_centroid(one) - _centroid(two)) * spacing)),
        added_path_length=added,
    )


class _Sizes(NamedTuple):
    voxels: int
    reference_voxels: int
    spacing: Spacing

    @property
    def volume(self) -> float:
        return self.voxels * float(np.prod(self.spacing)) / 1000

    @property
    def reference_volume(self) -> float:
        return self.reference_voxels * float(np.prod(self.spacing)) / 1000


def _without_surfaces(
    dice: float | None, surface_dice: dict[float, float | None], sizes: _Sizes, added: float = 0.0
) -> MaskMetrics:
    """Metrics of a pair of which at least one mask is empty."""
    return MaskMetrics(
        dice=dice,
        hausdorff=None,
        hausdorff_95_max=None,
        hausdorff_95_pooled=None,
        hausdorff_95_voxels=None,
        mean_surface_distance=None,
        surface_dice=surface_dice,
        volume=sizes.volume,
        reference_volume=sizes.reference_volume,
        centroid_distance=None,
        added_path_length=added,
    )


def _surface(padded: Mask) -> Mask:
    """Surface voxels of a mask that has a border of voxels outside it."""
    inner = padded.copy()
    for axis in range(3):
        moved, source = np.moveaxis(inner, axis, 0), np.moveaxis(padded, axis, 0)
        moved[1:-1] &= source[:-2]
        moved[1:-1] &= source[2:]
    return np.asarray(padded & ~inner)


def _surface_distances(one: Mask, two: Mask, spacing: Spacing) -> tuple[Distances, Distances]:
    """Distances of the surface voxels of each mask from the nearest surface voxel of the other."""
    surfaces = _surface(one), _surface(two)
    first, second = (np.argwhere(s) * np.array(spacing) for s in surfaces)
    shared = surfaces[0] & surfaces[1]
    return _nearest(first, second, shared[surfaces[0]]), _nearest(second, first, shared[surfaces[1]])


def _nearest(points: Points, others: Points, shared: NDArray[np.bool_], limit: float = np.inf) -> Distances:
    """Distance of each point from the nearest of the others; 0 for those that are known to be among them."""
    from scipy.spatial import cKDTree

    out = np.zeros(len(points))
    away = ~shared
    if away.any():
        tree = cKDTree(others, balanced_tree=False, compact_nodes=False)
        out[away] = tree.query(points[away], distance_upper_bound=limit)[0]
    return out


def _voxel_percentile(one: Mask, two: Mask, spacing: Spacing, share: float = 0.95) -> float:
    """Smallest distance from the other mask that at least 95 % of the voxels of a mask do not exceed."""
    outside = one & ~two
    total, away = int(np.count_nonzero(one)), int(np.count_nonzero(outside))
    rank = max(int(np.ceil(share * total)) - 1, 0) - (total - away)
    if rank < 0:
        return 0.0
    if away > _MANY_POINTS:
        distances = distance_from(two, spacing)[outside]
    else:
        points, others = (np.argwhere(m) * np.array(spacing) for m in (outside, _surface(two)))
        distances = _nearest(points, others, np.zeros(len(points), bool))
    return float(np.partition(distances, rank)[rank])


def _surface_dice(one: Mask, two: Mask, spacing: Spacing, tolerances: Sequence[float]) -> dict[float, float | None]:
    if not tolerances:
        return {}
    found = [surface_elements(m, spacing) for m in (one, two)]
    keys = [np.ravel_multi_index(tuple(points.T), one.shape) for points, _ in found]
    places = [points * np.array(spacing) for points, _ in found]
    limit = max(tolerances) * (1 + 1e-9) + 1e-9
    near = (
        _nearest(places[0], places[1], np.isin(keys[0], keys[1], assume_unique=True), limit),
        _nearest(places[1], places[0], np.isin(keys[1], keys[0], assume_unique=True), limit),
    )
    areas = [area for _, area in found]
    total = float(areas[0].sum() + areas[1].sum())
    return {t: sum(float(a[d <= t].sum()) for a, d in zip(areas, near, strict=True)) / total for t in tolerances}


def _centroid(mask: Mask) -> NDArray[np.float64]:
    sums = mask.sum(axis=(1, 2)), (plane := mask.sum(axis=0)).sum(axis=1), plane.sum(axis=0)
    return np.array([np.arange(s.size) @ s / s.sum() for s in sums])


def _added_path_length(one: Mask, two: Mask, spacing: Spacing) -> float:
    added = np.count_nonzero(_contour(two) & ~_contour(one))
    return float(added * (spacing[1] + spacing[2]) / 2)


def _contour(padded: Mask) -> Mask:
    """Contour pixels of each slice of a mask that has a border of pixels outside it."""
    inner = padded[:, :-2, 1:-1] & padded[:, 2:, 1:-1] & padded[:, 1:-1, :-2] & padded[:, 1:-1, 2:]
    out = padded.copy()
    out[:, 1:-1, 1:-1] &= ~inner
    return out
