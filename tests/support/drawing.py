"""An independent drawer of contours: every definition, pixel by pixel, in rational numbers."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np

Corner = tuple[float, float]


def exact_state(corners: Sequence[Sequence[Corner]], i: Fraction, j: Fraction) -> bool:
    """Even-odd of a point that is on no edge."""
    inside = False
    for polygon in corners:
        closed = [(Fraction(x), Fraction(y)) for x, y in [*polygon, polygon[0]]]
        for (x1, y1), (x2, y2) in pairwise(closed):
            if (y1 > j) != (y2 > j) and i < x1 + (j - y1) * (x2 - x1) / (y2 - y1):
                inside = not inside
    return inside


def exact_even_odd(shape: tuple[int, int], polygons: Sequence[Sequence[Corner]]) -> tuple[np.ndarray, np.ndarray]:
    """(inside, rim) of polygons together: a pixel centre on an edge is inside only if all around it is.

    Around a centre on an edge, points are tried between every two neighbouring directions in which edges leave it.
    """
    inside, rim = np.zeros(shape, bool), np.zeros(shape, bool)
    for j in range(shape[0]):
        for i in range(shape[1]):
            directions = _directions(polygons, Fraction(i), Fraction(j))
            if not directions:
                inside[j, i] = exact_state(polygons, Fraction(i), Fraction(j))
                continue
            states = {exact_state(polygons, i + dx, j + dy) for dx, dy in _between(directions)}
            rim[j, i] = len(states) == 2
            inside[j, i] = states == {True}
    return inside, rim


def _directions(polygons, i: Fraction, j: Fraction) -> list[tuple[Fraction, Fraction]]:
    found = []
    for polygon in polygons:
        closed = [(Fraction(x), Fraction(y)) for x, y in [*polygon, polygon[0]]]
        for (x1, y1), (x2, y2) in pairwise(closed):
            cross = (x2 - x1) * (j - y1) - (y2 - y1) * (i - x1)
            if cross == 0 and min(x1, x2) <= i <= max(x1, x2) and min(y1, y2) <= j <= max(y1, y2):
                found += [(x - i, y - j) for x, y in ((x1, y1), (x2, y2)) if (x, y) != (i, j)]
                if (x1, y1) == (x2, y2):
                    found.append((Fraction(1), Fraction(0)))
    return found


def _between(directions) -> list[tuple[Fraction, Fraction]]:
    """A tiny step into every sector between neighbouring directions."""
    angles = sorted({float(np.arctan2(float(y), float(x))) for x, y in directions})
    ends = [*angles[1:], angles[0] + 2 * np.pi]
    middles = [(a + b) / 2 for a, b in zip(angles, ends, strict=True) if b - a > 1e-9]
    middles = middles or [angles[0] + np.pi]
    tiny = Fraction(1, 10**7)
    return [(Fraction(float(np.cos(m))) * tiny, Fraction(float(np.sin(m))) * tiny) for m in middles]


def winding(shape: tuple[int, int], polygon: Sequence[Corner]) -> np.ndarray:
    """Pixel centres around which a simple polygon turns, by the sum of its angles; no centre may be on an edge."""
    points = np.asarray(polygon, float)
    j, i = np.indices(shape)
    seen = points[None, None] - np.stack((i, j), axis=-1)[:, :, None]
    angles = np.arctan2(seen[..., 1], seen[..., 0])
    turns = np.angle(np.exp(1j * (np.roll(angles, -1, axis=2) - angles))).sum(axis=2)
    return np.abs(turns) > np.pi


def trace_through_centres(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """Follow borders as OpenCV does: (column, row) of the outermost pixels, one by one, holes the other way round.

    Outer borders of 8-connected components run one way; the border of a hole runs through the mask's pixels that touch
    the hole, the other way.
    """
    from scipy import ndimage

    components, number = ndimage.label(mask, np.ones((3, 3)))
    loops = [_moore(components == n) for n in range(1, number + 1)]
    background, holes = ndimage.label(np.pad(~mask, 1, constant_values=True))
    outside = background[0, 0]
    for n in range(1, holes + 1):
        if n != outside:
            hole = (background == n)[1:-1, 1:-1]
            loops.append(_moore(ndimage.binary_dilation(hole))[::-1])
    return loops


def _moore(shape: np.ndarray) -> list[tuple[int, int]]:
    """Moore's tracing of the outer border of one 8-connected shape, with Jacob's criterion."""
    steps = [(0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1)]
    rows, columns = shape.shape
    j, i = (int(v[0]) for v in np.nonzero(shape))
    start, enter = (j, i), 0
    loop, first = [(i, j)], None
    while True:
        for turn in range(8):
            direction = (enter + turn) % 8
            dj, di = steps[direction]
            if 0 <= j + dj < rows and 0 <= i + di < columns and shape[j + dj, i + di]:
                break
        else:
            return loop
        if (j, i) == start and first == direction:
            return loop[:-1] if len(loop) > 1 else loop
        first = direction if first is None else first
        j, i = j + dj, i + di
        enter = (direction + 5) % 8 if direction % 2 else (direction + 6) % 8
        loop.append((i, j))
