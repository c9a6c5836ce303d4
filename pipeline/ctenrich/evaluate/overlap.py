"""Measure the agreement of two masks on one grid: Dice, Hausdorff distances, surface Dice, volume, centre."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.masks import bounding_box, dice, distance_from, surface_of

__all__ = ["Mask", "Overlap", "compare_masks"]

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Agreement of a mask with a reference; None where a value is undefined because a mask is empty."""

    dice: float | None
    """2 |A and B| / (|A| + |B|); None only if both are empty."""
    hausdorff: float | None
    """mm: the largest distance of a voxel of one mask from the other mask, in both directions."""
    hausdorff_95_surface: float | None
    """mm: 95th percentile of the distances of *surface* voxels from the other surface, larger of both directions."""
    hausdorff_95_voxels: float | None
    """mm: 95th percentile over *all* voxels of the distance from the other mask (0 inside), larger of both directions.

    Published tables made with plastimatch hold this one: it is 0 if 95 % of the voxels lie inside the other mask."""
    mean_surface_distance: float | None
    """mm: mean of the two mean distances between the surfaces."""
    surface_dice: float | None
    """Share of surface voxels of both masks within the tolerance of the other surface."""
    tolerance: float
    """mm, of `surface_dice`."""
    volume_difference: float
    """mm3: the mask minus the reference."""
    centre_shift: float | None
    """mm: distance between the centres of mass."""


def compare_masks(mask: Mask, reference: Mask, spacing: Spacing, *, tolerance: float = 3.0) -> Overlap:
    """Compare a mask with a reference.

    A surface voxel is a voxel of the mask with a face neighbour outside it (or outside the image). Distances are
    between voxel centres, exact for anisotropic spacing. The 95th percentile is the smallest distance that at least
    95 % of the distances do not exceed.

    Parameters
    ----------
    mask, reference : array of bool, [k, j, i]
        On one grid.
    spacing : (float, float, float)
        mm, axes [k, j, i].
    tolerance : float
        mm, of the surface Dice (Nikolov et al. 2018, on voxel centres).

    Returns
    -------
    Overlap

    Raises
    ------
    ValueError
        If the masks have different shapes.
    """
    if mask.shape != reference.shape:
        raise ValueError("the masks are on different grids")
    voxel = float(np.prod(spacing))
    sizes = int(np.count_nonzero(mask)), int(np.count_nonzero(reference))
    difference = (sizes[0] - sizes[1]) * voxel
    box = bounding_box(mask | reference)
    if box is None or 0 in sizes:
        value = None if box is None else 0.0
        return Overlap(
            dice=value,
            hausdorff=None,
            hausdorff_95_surface=None,
            hausdorff_95_voxels=None,
            mean_surface_distance=None,
            surface_dice=None,
            tolerance=tolerance,
            volume_difference=difference,
            centre_shift=None,
        )
    part = (slice(box.k0, box.k1), slice(box.j0, box.j1), slice(box.i0, box.i1))
    a, b = mask[part], reference[part]
    surface_a, surface_b = surface_of(a), surface_of(b)
    far = distance_from(b, spacing)[a], distance_from(a, spacing)[b]
    near = distance_from(surface_b, spacing)[surface_a], distance_from(surface_a, spacing)[surface_b]
    within = sum(int(np.count_nonzero(d <= tolerance)) for d in near)
    return Overlap(
        dice=dice(a, b),
        hausdorff=max(float(d.max()) for d in far),
        hausdorff_95_surface=max(_percentile(d) for d in near),
        hausdorff_95_voxels=max(_percentile(d) for d in far),
        mean_surface_distance=sum(float(d.mean()) for d in near) / 2,
        surface_dice=within / sum(d.size for d in near),
        tolerance=tolerance,
        volume_difference=difference,
        centre_shift=float(np.linalg.norm((_centre(a) - _centre(b)) * spacing)),
    )


def _percentile(distances: NDArray[np.float64], share: float = 0.95) -> float:
    rank = max(int(np.ceil(share * distances.size)) - 1, 0)
    return float(np.partition(distances, rank)[rank])


def _centre(mask: Mask) -> NDArray[Any]:
    return np.array([index.mean() for index in np.nonzero(mask)])
