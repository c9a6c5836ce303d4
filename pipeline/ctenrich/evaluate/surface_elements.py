"""Find the surface elements of a mask (marching cubes) and their areas, as Nikolov et al. define them.

Between every 2x2x2 voxels of which some are inside the mask and some are not there is a surface element, at the corner
where they meet. Its area is that of the triangles of marching cubes. Where the voxels leave several surfaces possible,
it is the one with the least area among the mirrored and inverted cases; these are the areas of the authors' own
table. (Nikolov et al., Deep learning to achieve clinically applicable segmentation of head and neck anatomy for
radiotherapy, arXiv:1809.04430.)
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ctenrich.shape.marching_cubes import cube_codes, cube_table

__all__ = ["element_areas", "surface_elements"]

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]


def surface_elements(padded: Mask, spacing: Spacing) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Find the surface elements of a mask.

    Parameters
    ----------
    padded : array of bool, [k, j, i]
        The mask, with at least one voxel outside it on every border.
    spacing : (float, float, float)
        mm, axes [k, j, i].

    Returns
    -------
    points : array of int, (n, 3)
        Index of the first of the eight voxels around each element, axes [k, j, i].
    areas : array of float64, (n,)
        mm2.
    """
    codes = cube_codes(padded.view(np.uint8))
    flat = np.flatnonzero((codes - np.uint8(1)) < 254)  # 0 wraps to 255: neither 0 nor 255 is a surface
    areas = element_areas(spacing)[codes.ravel()[flat]]
    return np.stack(np.unravel_index(flat, codes.shape), axis=1), areas


@lru_cache(maxsize=32)
def element_areas(spacing: Spacing) -> NDArray[np.float64]:
    """Area of each of the 256 cases of a 2x2x2 cube of voxels, mm2.

    Parameters
    ----------
    spacing : (float, float, float)
        mm, axes [k, j, i].

    Returns
    -------
    array of float64, (256,)
        Bit ``4 k + 2 j + i`` of a case is the voxel at (k, j, i).
    """
    table = cube_table()
    drawn = table.counts @ table.kind_areas(spacing)
    cases = np.arange(256)
    least = np.minimum(drawn, drawn[::-1])
    for axes in range(1, 8):
        mirrored = np.zeros(256, np.intp)
        for corner in range(8):
            mirrored |= (cases >> corner & 1) << (corner ^ axes)
        least = np.minimum(least, np.minimum(drawn[mirrored], drawn[255 - mirrored]))
    least.setflags(write=False)
    return np.asarray(least)
