"""Fill one or several polygons on a grid of pixel centres by the even-odd rule, exact on edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["SNAP", "Filled", "Polygon", "Window", "fill_polygon", "fill_polygons", "signed_area", "snap", "window_of"]

SNAP = 1e-6
"""Pixels. A coordinate this near to a pixel centre is on it: contours are written with a few decimals of a mm."""

_SAME_DIRECTION = 1e-4
"""Radians. Two edges that leave a pixel centre within this angle run along each other."""

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]


class Polygon(NamedTuple):
    """Corners in pixels; pixel centres have integer coordinates. The last corner is joined to the first."""

    across: Points
    """Column coordinates, (n,)."""
    down: Points
    """Row coordinates, (n,)."""


class Window(NamedTuple):
    """A part of a slice, ends excluded."""

    j0: int
    j1: int
    i0: int
    i1: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the window in a slice."""
        return slice(self.j0, self.j1), slice(self.i0, self.i1)

    def touches(self, shape: tuple[int, ...]) -> bool:
        """Whether the window reaches the border of a slice of (rows, columns)."""
        return self.j0 == 0 or self.i0 == 0 or self.j1 == shape[0] or self.i1 == shape[1]


class Filled(NamedTuple):
    """What polygons enclose, in a window."""

    inside: Mask
    """Pixel centres strictly inside."""
    rim: NDArray[np.intp] | None
    """Flat indices of the pixel centres that are on the boundary; None if there is none."""

    @property
    def closed(self) -> Mask:
        """Pixel centres inside or on the boundary."""
        if self.rim is None:
            return self.inside
        out = self.inside.copy()
        out.flat[self.rim] = True
        return out


class _Edges(NamedTuple):
    u1: Points
    v1: Points
    u2: Points
    v2: Points


def fill_polygons(polygons: Sequence[Polygon], window: Window, *, whole_edges: bool = False) -> Filled:
    """Fill polygons together by the even-odd rule.

    A pixel centre on the boundary is on the rim, not inside. Edges that run along each other an even number of times
    (the channel of a keyhole, the common edge of two neighbours) bound nothing: both sides of them are alike.

    Parameters
    ----------
    polygons : sequence of Polygon
        Coordinates that :func:`snap` was applied to.
    window : Window
        The part of the slice to fill.
    whole_edges : bool
        Whether every pixel centre on an edge is on the rim, also where edges run along each other: a boundary that was
        traced through the pixels of a mask runs there and back along parts that are one pixel wide.

    Returns
    -------
    Filled
        Arrays on the window, [row j, column i].
    """
    j0, j1, i0, i1 = window.j0, window.j1 - 1, window.i0, window.i1 - 1
    height, width = j1 - j0 + 1, i1 - i0 + 1
    edges = _edges_of(polygons)
    u, v, u2, v2 = edges
    rising = v <= v2
    low_u, low_v = np.where(rising, u, u2), np.where(rising, v, v2)
    high_u, high_v = np.where(rising, u2, u), np.where(rising, v2, v)
    # minimum and maximum: several times faster than np.clip for the few edges of a contour
    first = np.minimum(np.maximum(np.ceil(low_v), j0), j1 + 1).astype(np.int64)
    last = np.minimum(np.maximum(np.floor(high_v), j0 - 1), j1).astype(np.int64)
    count = np.where(high_v > low_v, np.maximum(last - first + 1, 0), 0)
    edge = np.arange(u.size).repeat(count)
    row = first[edge] + np.arange(edge.size) - (count.cumsum() - count)[edge]
    share = (row - low_v[edge]) / (high_v[edge] - low_v[edge])
    x = snap(low_u[edge] + share * (high_u[edge] - low_u[edge]))
    # Half-open edges [low, high): a row through a corner is crossed once where the contour continues, not at all or
    # twice where it turns.
    counted = row < high_v[edge]
    at = np.minimum(np.maximum(np.ceil(x[counted]) - i0, 0), width).astype(np.int64)
    toggles = np.bincount((row[counted] - j0) * (width + 1) + at, minlength=height * (width + 1))
    parity = toggles.reshape(height, width + 1)[:, :width].cumsum(axis=1, dtype=np.int64) & 1
    inside = parity.astype(bool)
    on = (x == np.rint(x)) & (x >= i0) & (x <= i1)
    on_row, on_column, on_edge = row[on], x[on].astype(np.int64), edge[on]
    for n in np.flatnonzero((v == v2) & (v == np.rint(v)) & (v >= j0) & (v <= j1)).tolist():
        left, right = sorted((u[n], u2[n]))
        columns = np.arange(max(int(np.ceil(left)), i0), min(int(np.floor(right)), i1) + 1)
        on_row = np.concatenate((on_row, np.full(columns.size, int(v[n]))))
        on_column = np.concatenate((on_column, columns))
        on_edge = np.concatenate((on_edge, np.full(columns.size, n)))
    if not on_edge.size:
        return Filled(inside, None)
    at = (on_row - j0) * width + on_column - i0
    rim = np.unique(at if whole_edges else at[_bounding(edges, on_row, on_column, on_edge)])
    inside.flat[rim] = False
    return Filled(inside, rim if rim.size else None)


def fill_polygon(plane: Mask, across: Points, down: Points) -> None:
    """Add a polygon to one slice, in place.

    Parameters
    ----------
    plane : array, [row j, column i]
        The slice's mask.
    across, down : array, (n,)
        Column and row coordinates of the corners in pixels; pixel centres have integer coordinates. The last corner
        is joined to the first.
    """
    polygon = Polygon(snap(across), snap(down))
    window = window_of(polygon, plane.shape)
    if window is not None:
        plane[window.slices] |= fill_polygons([polygon], window).inside


def window_of(polygon: Polygon, shape: tuple[int, ...]) -> Window | None:
    """Smallest window with every pixel centre that a polygon may enclose; None if there is none in the slice.

    Parameters
    ----------
    polygon : Polygon
    shape : tuple of int
        (rows, columns) of the slice.
    """
    u, v = polygon
    j0, j1 = max(int(np.ceil(v.min())), 0), min(int(np.floor(v.max())) + 1, shape[0])
    i0, i1 = max(int(np.ceil(u.min())), 0), min(int(np.floor(u.max())) + 1, shape[1])
    return Window(j0, j1, i0, i1) if j0 < j1 and i0 < i1 else None


def snap(values: Points) -> Points:
    """Move coordinates that are within SNAP of a pixel centre onto it."""
    whole = np.rint(values)
    return np.where(np.abs(values - whole) <= SNAP, whole, values)


def signed_area(polygon: Polygon) -> float:
    """Area in square pixels; the sign is that of the direction, positive from the column axis to the row axis."""
    u, v = polygon.across - polygon.across[0], polygon.down - polygon.down[0]
    return float(0.5 * (np.dot(u[:-1], v[1:]) - np.dot(v[:-1], u[1:]) + u[-1] * v[0] - v[-1] * u[0]))


def _edges_of(polygons: Sequence[Polygon]) -> _Edges:
    if len(polygons) == 1:
        u, v = polygons[0]
        return _Edges(u, v, np.concatenate((u[1:], u[:1])), np.concatenate((v[1:], v[:1])))
    parts = [_edges_of([polygon]) for polygon in polygons]
    return _Edges(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _bounding(
    edges: _Edges, row: NDArray[np.int64], column: NDArray[np.int64], edge: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether the pixel centre of each hit (row, column, edge through it) has an inside and an outside next to it.

    An edge leaves the centre in one direction (the centre is one of its ends) or in two. Around the centre, inside and
    outside change at every direction in which an odd number of edges leaves.
    """
    angle = np.arctan2(edges.v2[edge] - edges.v1[edge], edges.u2[edge] - edges.u1[edge])
    forward = ~((edges.u2[edge] == column) & (edges.v2[edge] == row))
    backward = ~((edges.u1[edge] == column) & (edges.v1[edge] == row))
    centre = row * (int(column.max()) + 1) + column
    hit = np.concatenate((centre[forward], centre[backward]))
    # The axes and diagonals, along which most edges run, are kept away from the ends of the range of angles.
    direction = np.mod(np.concatenate((angle[forward], angle[backward] + np.pi)) + 0.1234, 2 * np.pi)
    if not hit.size:
        return np.zeros(edge.size, bool)
    order = np.lexsort((direction, hit))
    hit, direction = hit[order], direction[order]
    starts = np.flatnonzero(np.concatenate(([True], (np.diff(hit) != 0) | (np.diff(direction) > _SAME_DIRECTION))))
    odd = np.diff(np.append(starts, hit.size)) % 2 == 1
    found: NDArray[np.bool_] = np.isin(centre, hit[starts[odd]])
    return found
