"""Similarity of two masks of one grid: Dice coefficient, surfaces, distances from a surface, surface Dice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["dice", "dice_of_counts", "distance_from", "surface_dice", "surface_of"]

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]


def dice_of_counts(common: int, size: int, reference_size: int) -> float | None:
    """Dice coefficient from numbers of voxels; None if both masks are empty.

    Parameters
    ----------
    common : int
        Voxels in both masks.
    size, reference_size : int
        Voxels of each mask.

    Returns
    -------
    float or None
        2 |A and B| / (|A| + |B|), 0 to 1 (Dice, Ecology 26, 1945).
    """
    total = size + reference_size
    return 2 * common / total if total else None


def dice(mask: Mask, reference: Mask) -> float | None:
    """Dice coefficient of two masks; None if both are empty.

    Parameters
    ----------
    mask, reference : array of bool
        Of one shape, in any axis order.

    Returns
    -------
    float or None
        See `dice_of_counts`.
    """
    sizes = int(np.count_nonzero(mask)), int(np.count_nonzero(reference))
    return dice_of_counts(int(np.count_nonzero(mask & reference)), *sizes)


def surface_of(mask: Mask) -> Mask:
    """Voxels of a [k, j, i] mask that have a face neighbour outside it; beyond the array is outside."""
    from scipy.ndimage import binary_erosion

    return np.asarray(mask & ~binary_erosion(mask, border_value=0))


def distance_from(mask: Mask, spacing: Spacing) -> NDArray[np.float64]:
    """Distance of every voxel centre from the nearest voxel centre of a mask.

    Parameters
    ----------
    mask : array of bool, [k, j, i]
        At least one voxel.
    spacing : (float, float, float)
        mm, axes [k, j, i].

    Returns
    -------
    array of float64, [k, j, i]
        mm; exact, also for anisotropic spacing.
    """
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~mask, sampling=spacing))


def surface_dice(mask: Mask, reference: Mask, spacing: Spacing, tolerance: float) -> float | None:
    """Share of the surface voxels of both masks that have one of the other's within a tolerance.

    Parameters
    ----------
    mask, reference : array of bool, [k, j, i]
        On one grid.
    spacing : (float, float, float)
        mm, axes [k, j, i].
    tolerance : float
        mm.

    Returns
    -------
    float or None
        0 to 1; None if both masks are empty. (Nikolov et al., arXiv:1809.04430, on voxels instead of a mesh.)
    """
    surfaces = surface_of(mask), surface_of(reference)
    total = sum(int(np.count_nonzero(surface)) for surface in surfaces)
    if 0 in (int(np.count_nonzero(surface)) for surface in surfaces):
        return 0.0 if total else None
    near = 0
    for surface, other in (surfaces, surfaces[::-1]):
        near += int(np.count_nonzero(distance_from(other, spacing)[surface] <= tolerance))
    return near / total
