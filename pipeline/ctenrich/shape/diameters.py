"""Largest distances between vertices of a surface, equal to comparing all pairs but without comparing all pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["largest_distance", "millimetres", "outermost_vertices", "plane_diameters"]

Points = NDArray[np.float64]
Lattice = NDArray[np.int32]
_FEW = 200
_BRUTE = 600
_STEPS = 24
_ANGLES = np.arange(_STEPS) * (np.pi / _STEPS)
_VIEWS = np.array([np.cos(_ANGLES), np.sin(_ANGLES)])
_PRODUCTS_AT_ONCE = 2**20


def outermost_vertices(padded: NDArray[np.uint8], line: int) -> Lattice:
    """Surface vertices that come first or last on their lattice line along axis `line`.

    Parameters
    ----------
    padded : array of zeros and ones, [k, j, i]
        With a margin of zeros.
    line : int
        0, 1 or 2.

    Returns
    -------
    array of int32, (n, 3), axes [k, j, i]
        In half voxels of the padded mask. A vertex is the middle between two neighbours of which one is inside.

    Notes
    -----
    A vertex between two others of its line is nearer to any point than one of them is, so that no longest distance ends
    there: the omitted vertices cannot matter, neither in space nor in a plane that contains the line. A ragged mask has
    millions of vertices, and few of them are outermost.
    """
    parts = []
    for axis in range(3):
        before = [slice(None)] * 3
        after = [slice(None)] * 3
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        change = padded[tuple(before)] != padded[tuple(after)]
        hit = change.any(axis=line)
        ends = (change.argmax(axis=line)[hit], change.shape[line] - 1 - np.flip(change, line).argmax(axis=line)[hit])
        for along in ends:
            at = np.insert(np.argwhere(hit), line, along, axis=1).astype(np.int32) * 2
            at[:, axis] += 1
            parts.append(at)
    return np.concatenate(parts)


def largest_distance(points: Points) -> float:
    """Largest distance between two of (n, 3) points; 0 for fewer than two.

    Exact: points that cannot be an end of the longest line are removed first, by the triangle inequality, and by the
    convex hull where many remain; then all pairs are compared.
    """
    if len(points) > _FEW:
        points = _diameter_candidates(points)
    if len(points) > _BRUTE:
        points = _hull_vertices(points)
    return float(np.sqrt(_largest_square(points)))


def plane_diameters(
    along_i: Lattice, along_j: Lattice, spacing: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Largest distances between two vertices within one plane of the grid.

    Only the few planes whose widths, seen from 24 directions, allow the largest distance are searched closely.

    Parameters
    ----------
    along_i, along_j : array of int32, (n, 3)
        From `outermost_vertices` with lines along axis 2 and 1.
    spacing : (float, float, float)
        mm, axes [k, j, i].

    Returns
    -------
    (float, float, float)
        mm; the two vertices share their coordinate along axis 0, 1 and 2.
    """
    points = millimetres(along_i, spacing)
    return (
        _plane_diameter(along_i, points, 0),
        _plane_diameter(along_i, points, 1),
        _plane_diameter(along_j, millimetres(along_j, spacing), 2),
    )


def millimetres(vertices: Lattice, spacing: tuple[float, float, float]) -> Points:
    """Convert half voxels to mm; rounded as index times spacing.

    Parameters
    ----------
    vertices : array of int32, (n, 3)
        Half voxels.
    spacing : (float, float, float)
        mm, axes [k, j, i].

    Returns
    -------
    array of float64, (n, 3)
    """
    return np.asarray(vertices * 0.5 * np.asarray(spacing))


def _plane_diameter(vertices: Lattice, points: Points, axis: int) -> float:
    order = np.argsort(vertices[:, axis].astype(np.int16), kind="stable")
    points = points[order]
    starts, plane = _equal_runs(vertices[order, axis])
    seen = np.ascontiguousarray(np.delete(points, axis, axis=1)) @ _VIEWS
    widths = (np.maximum.reduceat(seen, starts) - np.minimum.reduceat(seen, starts)).max(axis=1)
    enough = widths.max() * (1 - 1e-9)
    # No chord is longer than the widest view from directions half a step away from it.
    wide = np.flatnonzero((widths >= enough * np.cos(np.pi / (2 * _STEPS)))[plane])
    points = points[wide]
    starts, plane = _equal_runs(plane[wide])
    centres = (np.maximum.reduceat(points, starts) + np.minimum.reduceat(points, starts)) / 2
    radius = np.linalg.norm(points - centres[plane], axis=1)
    # |p - q| <= |p - centre| + |q - centre|
    far = np.flatnonzero(radius + np.maximum.reduceat(radius, starts)[plane] >= enough)
    return max(largest_distance(part) for part in np.split(points[far], _equal_runs(plane[far])[0][1:]))


def _equal_runs(values: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where runs of equal values begin, and the number of the run that each element belongs to."""
    new = np.append(True, values[1:] != values[:-1])
    return np.flatnonzero(new), np.cumsum(new) - 1


def _diameter_candidates(points: Points) -> Points:
    """Points that may be an end of the longest line."""
    for _ in range(2):
        if len(points) <= 8:
            break
        step = max(1, _PRODUCTS_AT_ONCE // len(points))
        # einsum: the threads of a product so small would wait for each other
        seen = (np.einsum("dk,nk->dn", _DIRECTIONS[n : n + step], points) for n in range(0, len(_DIRECTIONS), step))
        low, high = np.concatenate([(part.argmin(axis=1), part.argmax(axis=1)) for part in seen], axis=1)
        lengths = np.linalg.norm(points[high] - points[low], axis=1)
        best = int(lengths.argmax())
        centre = (points[high[best]] + points[low[best]]) / 2
        radius = np.linalg.norm(points - centre, axis=1)
        # |p - q| <= |p - centre| + |q - centre|
        points = points[radius >= lengths[best] * (1 - 1e-9) - radius.max()]
    return points


def _hull_vertices(points: Points) -> Points:
    from scipy.spatial import ConvexHull, QhullError

    try:
        return np.asarray(points[ConvexHull(points).vertices])
    except QhullError:
        return points


def _largest_square(points: Points) -> float:
    best = 0.0
    columns = np.ascontiguousarray(points.T)
    for start in range(0, len(points), 256):
        k, j, i = ((c[start : start + 256, None] - c[None, start:]) ** 2 for c in columns)
        k += j
        k += i
        best = max(best, float(k.max(initial=0.0)))
    return best


def _half_sphere_directions() -> Points:
    """Directions over half a sphere: those of all small lattice vectors."""
    vectors = [(k, j, i) for k in range(3) for j in range(-2, 3) for i in range(-2, 3) if (k, j, i) > (0, 0, 0)]
    array = np.array(vectors, np.float64)
    return np.asarray(array / np.linalg.norm(array, axis=1, keepdims=True))


_DIRECTIONS = _half_sphere_directions()
