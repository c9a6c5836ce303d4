"""Rasterise closed planar contours on the grid of a series: even-odd at pixel centres, exact on edges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctenrich.contours.rtstruct import Contour
from ctenrich.records import SortedSeries

__all__ = ["SNAP", "Grid", "Rasterised", "fill_polygon", "grid_of", "rasterise", "snap"]

SNAP = 1e-6
"""Pixels. A coordinate this near to a pixel centre is on it: contours are written with a few decimals of a mm."""

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """Positions of the pixel centres of a sorted series, mm, LPS."""

    row: Points
    """Unit vector of growing column index."""
    column: Points
    """Unit vector of growing row index."""
    normal: Points
    """row x column: direction of growing slice index."""
    pixel_spacing: tuple[float, float]
    """(between rows, between columns), mm."""
    distances: Points
    """Place of every slice along the normal, mm, growing."""
    slice_spacing: float
    """mm, along the normal."""
    origins: Points
    """Centre of pixel (0, 0) of every slice, (slices, 3)."""
    shape: tuple[int, int, int]
    """(slices, rows, columns)."""


@dataclass(frozen=True)
class Rasterised:
    """A mask, and counts of the contours that could not be drawn."""

    mask: Mask
    """[slice k, row j, column i]."""
    drawn: int
    """Contours on a slice."""
    off_slice: int
    """Contours further than half a spacing from every slice."""
    tilted: int
    """Contours in no plane parallel to the slices."""


def grid_of(series: SortedSeries) -> Grid:
    """Grid of a sorted series."""
    row = np.asarray(series.row_cosines, np.float64)
    column = np.asarray(series.column_cosines, np.float64)
    normal = np.cross(row, column)
    origins = np.array([s.position for s in series.slices], np.float64)
    return Grid(
        row=row,
        column=column,
        normal=normal,
        pixel_spacing=series.pixel_spacing,
        distances=origins @ normal,
        slice_spacing=series.slice_spacing,
        origins=origins,
        shape=series.shape,
    )


def rasterise(contours: Iterable[Contour], grid: Grid) -> Rasterised:
    """Draw the contours of one ROI.

    A voxel belongs to the mask if its centre is inside a contour by the even-odd rule; a centre exactly on the contour
    is outside. Contours of one slice are united, except those of type CLOSEDPLANAR_XOR, which are combined by exclusive
    or (PS3.3 C.8.8.6.3). A contour goes to the nearest slice along the slice normal if that is not further than half
    the distance between slices; half way, to the lower one.

    Parameters
    ----------
    contours : iterable of Contour
        Closed planar contours, points in mm, LPS.
    grid : Grid
        The grid of the series: any orientation.

    Returns
    -------
    Rasterised
        Mask [k, j, i] and counts of the contours that were not drawn.
    """
    mask = np.zeros(grid.shape, bool)
    drawn = off_slice = tilted = 0
    reach = 0.5 * grid.slice_spacing * (1 + 1e-6)
    for contour in contours:
        heights = contour.points @ grid.normal
        if np.ptp(heights) > reach:
            tilted += 1
            continue
        away = np.abs(grid.distances - heights.mean())
        k = int(np.argmax(away <= away.min() + 1e-6 * grid.slice_spacing))
        if away[k] > reach:
            off_slice += 1
            continue
        relative = contour.points - grid.origins[k]
        across = relative @ grid.row / grid.pixel_spacing[1]
        down = relative @ grid.column / grid.pixel_spacing[0]
        fill_polygon(mask[k], across, down, exclusive=contour.exclusive)
        drawn += 1
    return Rasterised(mask, drawn, off_slice, tilted)


def fill_polygon(plane: Mask, across: Points, down: Points, *, exclusive: bool = False) -> None:
    """Add a polygon to one slice, in place.

    Parameters
    ----------
    plane : array, [row j, column i]
        The slice's mask.
    across, down : array, (n,)
        Column and row coordinates of the corners in pixels; pixel centres have integer coordinates. The last corner
        is joined to the first.
    exclusive : bool
        Combine by exclusive or instead of by union.
    """
    u, v = snap(across), snap(down)
    rows, columns = plane.shape
    j0, j1 = max(int(np.ceil(v.min())), 0), min(int(np.floor(v.max())), rows - 1)
    i0, i1 = max(int(np.ceil(u.min())), 0), min(int(np.floor(u.max())), columns - 1)
    if j0 > j1 or i0 > i1:
        return
    window = _even_odd_mask(u, v, (j0, j1, i0, i1))
    target = plane[j0 : j1 + 1, i0 : i1 + 1]
    if exclusive:
        target ^= window
    else:
        target |= window


def snap(values: Points) -> Points:
    """Move coordinates that are within SNAP of a pixel centre onto it."""
    whole = np.rint(values)
    return np.where(np.abs(values - whole) <= SNAP, whole, values)


def _even_odd_mask(u: Points, v: Points, window: tuple[int, int, int, int]) -> Mask:
    """Even-odd mask of a window [j0..j1, i0..i1]: a table of all crossings of edges with rows of pixel centres."""
    j0, j1, i0, i1 = window
    height, width = j1 - j0 + 1, i1 - i0 + 1
    u2, v2 = np.roll(u, -1), np.roll(v, -1)
    rising = v <= v2
    low_u, low_v = np.where(rising, u, u2), np.where(rising, v, v2)
    high_u, high_v = np.where(rising, u2, u), np.where(rising, v2, v)
    first = np.clip(np.ceil(low_v), j0, j1 + 1).astype(np.int64)
    last = np.clip(np.floor(high_v), j0 - 1, j1).astype(np.int64)
    count = np.where(high_v > low_v, np.maximum(last - first + 1, 0), 0)
    edge = np.repeat(np.arange(u.size), count)
    row = first[edge] + np.arange(edge.size) - np.repeat(np.cumsum(count) - count, count)
    share = (row - low_v[edge]) / (high_v[edge] - low_v[edge])
    x = snap(low_u[edge] + share * (high_u[edge] - low_u[edge]))
    # Half-open edges [low, high): a row through a corner is crossed once where the contour continues, not at all or
    # twice where it turns.
    counted = row < high_v[edge]
    at = np.clip(np.ceil(x[counted]) - i0, 0, width).astype(np.int64)
    toggles = np.bincount((row[counted] - j0) * (width + 1) + at, minlength=height * (width + 1))
    parity = np.cumsum(toggles.reshape(height, width + 1)[:, :width], axis=1, dtype=np.int64) & 1
    mask = parity.astype(bool)
    _clear_edges(mask, row - j0, x - i0)
    flat = np.flatnonzero((v == v2) & (v == np.rint(v)) & (v >= j0) & (v <= j1))
    for n in flat.tolist():
        left, right = sorted((u[n], u2[n]))
        ends = np.clip((np.ceil(left) - i0, np.floor(right) - i0 + 1), 0, width).astype(np.int64)
        mask[int(v[n]) - j0, ends[0] : ends[1]] = False
    return mask


def _clear_edges(mask: Mask, row: NDArray[np.int64], x: Points) -> None:
    """Remove pixel centres that are exactly on an edge from a mask."""
    on = (x == np.rint(x)) & (x >= 0) & (x <= mask.shape[1] - 1)
    mask[row[on], x[on].astype(np.int64)] = False
