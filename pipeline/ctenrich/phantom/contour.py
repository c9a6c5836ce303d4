"""Trace the outlines of a mask as closed contours along pixel edges; the pixel centres inside are the mask."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["trace"]

Corners = npt.NDArray[np.float64]


def trace(mask: npt.NDArray[np.bool_]) -> list[Corners]:
    """Trace the outlines of a slice's mask.

    Parameters
    ----------
    mask : ndarray
        Bool, [row j, column i].

    Returns
    -------
    list of ndarray
        Contours of shape (n, 2) as (i, j) of pixel corners: pixel (i, j) spans i-0.5..i+0.5. None has a hole in it:
        a part with holes is cut in two through the hole, so that the union of the contours is the mask.
    """
    rows, columns = np.nonzero(mask)
    if not rows.size:
        return []
    j0, i0 = int(rows.min()), int(columns.min())
    part = mask[j0 : rows.max() + 1, i0 : columns.max() + 1]
    loops = _outline_loops(part)
    holes = [loop for loop in loops if _signed_area(loop) < 0]
    if holes:
        cut = int((holes[0][:, 0].min() + holes[0][:, 0].max()) // 2)
        left, right = part.copy(), part.copy()
        left[:, cut:], right[:, :cut] = False, False
        loops = trace(left) + trace(right)
        return [loop + np.array([i0, j0]) for loop in loops]
    return [loop - 0.5 + np.array([i0, j0]) for loop in loops]


def _outline_loops(mask: npt.NDArray[np.bool_]) -> list[Corners]:
    """Follow the pixel edges with the mask on the right hand (j grows downwards); corners are whole numbers."""
    padded = np.pad(mask, 1)
    inner = padded[1:-1, 1:-1]
    edges: dict[tuple[int, int], list[tuple[int, int]]] = {}
    sides = (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    )
    for neighbour, start, end in sides:
        for j, i in zip(*(a.tolist() for a in np.nonzero(inner & ~neighbour)), strict=True):
            edges.setdefault((i + start[0], j + start[1]), []).append((i + end[0], j + end[1]))
    loops = []
    while edges:
        first = next(iter(edges))
        loops.append(_follow_edges(edges, first))
    return loops


def _follow_edges(edges: dict[tuple[int, int], list[tuple[int, int]]], first: tuple[int, int]) -> Corners:
    path, here, heading = [first], first, (0, 0)
    while True:
        choices = edges[here]
        there = choices[0]
        if len(choices) > 1:
            right = (-heading[1], heading[0])
            there = next((c for c in choices if (c[0] - here[0], c[1] - here[1]) == right), choices[0])
        choices.remove(there)
        if not choices:
            del edges[here]
        turned = (there[0] - here[0], there[1] - here[1])
        if turned == heading:
            path.pop()
        path.append(there)
        here, heading = there, turned
        if here == first:
            return _close_loop(path)


def _close_loop(path: list[tuple[int, int]]) -> Corners:
    """Close the loop without repeating its first corner; drop the first corner if it is on a straight edge."""
    corners = np.array(path[:-1], dtype=np.float64)
    before, after = corners[0] - corners[-1], corners[1] - corners[0]
    return corners[1:] if np.all(np.sign(before) == np.sign(after)) else corners


def _signed_area(loop: Corners) -> float:
    x, y = loop[:, 0], loop[:, 1]
    return float(0.5 * np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))
