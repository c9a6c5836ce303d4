"""Trace the pixels of a mask along their edges: contours that enclose exactly these pixels.

The corners of a contour are corners of pixels, so that no pixel centre lies on it and every rule of filling gives the
same mask. Pixels that touch at a corner only belong to two contours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["Outline", "join_holes", "trace_mask"]

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Outline:
    """One connected region of a slice."""

    outer: Points
    """(n, 2): column and row in pixels, pixel centres at whole numbers; closed, the first point is not repeated."""
    holes: tuple[Points, ...] = ()
    """Contours of its holes."""


def trace_mask(mask: NDArray[np.bool_]) -> list[Outline]:
    """Trace the connected regions of a mask.

    Parameters
    ----------
    mask : ndarray of bool
        Axes [row, column].

    Returns
    -------
    list of Outline
        Regions whose pixels are connected by edges, in the order of their first pixel.
    """
    if not mask.any():
        return []
    labels, number = ndimage.label(mask)
    found: list[list[Points]] = [[] for _ in range(number)]
    for loop in _loops(np.pad(mask, 1)):
        found[_region(loop, labels) - 1].append(loop - 0.5)
    out = []
    for loops in found:
        loops.sort(key=lambda one: -abs(_area(one)))
        out.append(Outline(loops[0], tuple(loops[1:])))
    return out


def _loops(padded: NDArray[np.bool_]) -> list[Points]:
    """Closed chains of pixel corners, (column, row) of the mask before padding, corners at whole numbers."""
    a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    total = a.astype(np.int8) + b + c + d
    crossed = (total == 2) & (a == d)  # two pixels that touch at this corner only: two corners of contours
    rows, columns = np.nonzero((total % 2 == 1) | crossed)
    twice = crossed[rows, columns]
    rows, columns = np.repeat(rows, 1 + twice), np.repeat(columns, 1 + twice)
    across = _partners(np.lexsort((columns, rows)))
    down = _partners(np.lexsort((rows, columns)))
    _uncross(padded, rows, columns, across, down)
    return _chains(rows, columns, across, down)


def _partners(order: NDArray[np.intp]) -> NDArray[np.intp]:
    """Corner at the other end of the edge of each corner: neighbours in the order belong together in pairs."""
    partners = np.empty_like(order)
    partners[order[0::2]], partners[order[1::2]] = order[1::2], order[0::2]
    return partners


def _uncross(
    padded: NDArray[np.bool_],
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    across: NDArray[np.intp],
    down: NDArray[np.intp],
) -> None:
    """Give each of two corners at one place the vertical edge of its own pixel."""
    same = np.flatnonzero((rows[1:] == rows[:-1]) & (columns[1:] == columns[:-1]))
    for first in same:
        second = first + 1
        row, column = rows[first], columns[first]
        left = first if columns[across[first]] < column else second  # has the edge that runs to the left
        upper = first if rows[down[first]] < row else second  # has the edge that runs up
        if padded[row, column] != (left == upper):  # upper left pixel set: its two edges belong together
            one, other = int(down[first]), int(down[second])
            down[first], down[second] = other, one
            down[other], down[one] = first, second


def _chains(
    rows: NDArray[np.intp], columns: NDArray[np.intp], across: NDArray[np.intp], down: NDArray[np.intp]
) -> list[Points]:
    out = []
    unused = np.ones(rows.size, bool)
    next_across, next_down = across.tolist(), down.tolist()
    for start in range(rows.size):
        if not unused[start]:
            continue
        chain = []
        at = start
        while True:
            other = next_across[at]
            chain += [at, other]
            at = next_down[other]
            if at == start:
                break
        unused[chain] = False
        out.append(np.stack([columns[chain], rows[chain]], axis=1).astype(np.float64))
    return out


def _region(loop: Points, labels: NDArray[np.int32]) -> int:
    """Label of the region that a loop bounds: of the pixel above or below its first edge."""
    column = int(min(loop[0, 0], loop[1, 0]))
    row = int(loop[0, 1])
    below = labels[row, column] if row < labels.shape[0] else 0
    return int(below or labels[row - 1, column])


def _area(loop: Points) -> float:
    x, y = loop[:, 0], loop[:, 1]
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def join_holes(outline: Outline) -> Points:
    """Join a region and its holes to one contour, by channels without width (keyholes).

    Parameters
    ----------
    outline : Outline
        As traced: with corners on the edges of pixels.

    Returns
    -------
    ndarray
        (n, 2), like `Outline.outer`. Each channel runs along a row of pixel edges, so that it crosses no pixel centre.
    """
    merged = outline.outer
    for hole in sorted(outline.holes, key=lambda one: (one[:, 0].min(), one[:, 1].min())):
        start = int(np.lexsort((hole[:, 1], hole[:, 0]))[0])
        around = np.roll(hole, -start, axis=0)
        at, point = _left_of(merged, around[0])
        channel = np.concatenate([point[None], around, around[:1], point[None]])
        merged = np.concatenate([merged[: at + 1], channel, merged[at + 1 :]])
    return merged


def _left_of(loop: Points, point: Points) -> tuple[int, Points]:
    """The nearest place of a loop to the left of a point: number of the edge, and the place on it."""
    following = np.roll(loop, -1, axis=0)
    low, high = np.minimum(loop[:, 1], following[:, 1]), np.maximum(loop[:, 1], following[:, 1])
    vertical = (loop[:, 0] == following[:, 0]) & (loop[:, 0] <= point[0]) & (low <= point[1]) & (high >= point[1])
    places = np.flatnonzero(vertical)
    at = int(places[np.argmax(loop[places, 0])])
    return at, np.array([loop[at, 0], point[1]])
