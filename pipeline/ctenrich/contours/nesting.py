"""Combine the contours of one plane: copies removed, then holes, union or exclusive or."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ctenrich.contours.polygon import Filled, Polygon, Window, fill_polygons, signed_area, window_of
from ctenrich.settings import Nesting

__all__ = ["Outline", "PlaneCounts", "PlaneMasks", "combine_outlines", "outline_of", "remove_copies"]

Mask = NDArray[np.bool_]


_LARGEST = 1_000_000
"""Pairs of a point and an edge that are looked at together: bounds the memory."""


@dataclass(frozen=True)
class Outline:
    """One contour on the pixels of its slice."""

    polygon: Polygon
    window: Window
    filled: Filled
    exclusive: bool
    """Whether its type is CLOSEDPLANAR_XOR."""
    with_rim: bool
    """Whether pixel centres on the contour belong to what it encloses."""

    @cached_property
    def area(self) -> float:
        """Square pixels, signed by direction."""
        return signed_area(self.polygon)

    @cached_property
    def count(self) -> int:
        """Pixels that belong to the contour where it is filled."""
        return int(np.count_nonzero(self.solid))

    @property
    def solid(self) -> Mask:
        """Pixels that belong to the contour where it is filled."""
        return self.filled.closed if self.with_rim else self.filled.inside

    @property
    def hole(self) -> Mask:
        """Pixels that do not belong to what surrounds the contour where it is a hole."""
        return self.filled.inside if self.with_rim else self.filled.closed


@dataclass
class PlaneCounts:
    """Counts of the contours of an ROI, by what was done with them."""

    copies: int = 0
    """Removed: another contour of the plane has the same points or the same pixels."""
    opposed_copies: int = 0
    """Of them: same pixels, other points, and running the other way (a ring without a pixel centre)."""
    holes: int = 0
    """Wholly inside another that runs the other way round."""
    same_way: int = 0
    """Wholly inside another that runs the same way round."""
    mixed_planes: int = 0
    """Planes with contours of both types, CLOSED_PLANAR and CLOSEDPLANAR_XOR."""


@dataclass(frozen=True, kw_only=True)
class PlaneMasks:
    """The pixels of a plane by each rule, on one window."""

    window: Window
    holes: Mask
    union: Mask
    xor: Mask

    def by(self, nesting: Nesting) -> Mask:
        """Mask by one rule."""
        return {"holes": self.holes, "union": self.union, "xor": self.xor}[nesting]


@dataclass
class _Node:
    """A contour among those that contain it."""

    outline: Outline
    hole: bool = False
    children: list[_Node] = field(default_factory=list)


def outline_of(
    polygon: Polygon, shape: tuple[int, ...], *, exclusive: bool = False, with_rim: bool = False
) -> Outline | None:
    """Fill one contour.

    Parameters
    ----------
    polygon : Polygon
        Corners in pixels, snapped to pixel centres.
    shape : tuple of int
        (rows, columns) of the slice.
    exclusive : bool
        Whether the contour's type is CLOSEDPLANAR_XOR.
    with_rim : bool
        Whether pixel centres on the contour belong to it.

    Returns
    -------
    Outline or None
        None if the contour encloses no pixel centre of the slice.
    """
    window = window_of(polygon, shape)
    if window is None:
        return None
    filled = fill_polygons([polygon], window, whole_edges=with_rim)
    outline = Outline(polygon, window, filled, exclusive, with_rim)
    return outline if outline.count else None


def remove_copies(outlines: Sequence[Outline], tolerance: float, counts: PlaneCounts) -> list[Outline]:
    """Remove contours that repeat another one: the same points up to start and direction, or the same pixels.

    Parameters
    ----------
    outlines : sequence of Outline
        Contours of one plane.
    tolerance : float
        Pixels by which equal points may differ.
    counts : PlaneCounts
        Updated.

    Returns
    -------
    list of Outline
    """
    kept: list[Outline] = []
    seen: dict[tuple[Window, bytes], Outline] = {}
    for outline in outlines:
        key = (outline.window, outline.solid.tobytes())
        same = seen.get(key)
        if same is None:
            seen[key] = outline
            same = next((other for other in kept if _same_points(outline, other, tolerance)), None)
        elif outline.area * same.area < 0 and not _same_points(outline, same, tolerance):
            counts.opposed_copies += 1
        if same is None:
            kept.append(outline)
        else:
            counts.copies += 1
    return kept


def _same_points(one: Outline, other: Outline, tolerance: float) -> bool:
    """Whether two contours have the same corners up to start and direction."""
    size = one.polygon.across.size
    if size != other.polygon.across.size or abs(abs(one.area) - abs(other.area)) > size * tolerance * 1e3:
        return False
    a = one.polygon.across + 1j * one.polygon.down
    b = other.polygon.across + 1j * other.polygon.down
    for turned in (b, b[::-1]):
        for start in np.flatnonzero(np.abs(turned - a[0]) <= tolerance).tolist():
            if (np.abs(np.roll(turned, -start) - a) <= tolerance).all():
                return True
    return False


def combine_outlines(outlines: Sequence[Outline], tolerance: float, counts: PlaneCounts) -> PlaneMasks:
    """Combine the contours of one plane, by each rule.

    ``holes``: a contour wholly inside another that runs the other way round is a hole in it; one that runs the same way
    is filled; contours that overlap in part are united. A contour inside a hole that runs the other way than the hole
    is filled again. ``xor``: even-odd of all edges together. Where a contour is of type CLOSEDPLANAR_XOR, all of its
    plane are combined by exclusive or, whatever the rule (PS3.3 C.8.8.6.3: an ROI has either all or none of that type).

    Parameters
    ----------
    outlines : sequence of Outline
        Contours of one plane, copies removed; not empty.
    tolerance : float
        Pixels by which a contour may leave another that contains it.
    counts : PlaneCounts
        Updated.

    Returns
    -------
    PlaneMasks
    """
    if len(outlines) == 1:
        solid = outlines[0].solid
        return PlaneMasks(window=outlines[0].window, holes=solid, union=solid, xor=solid)
    window = Window(
        min(o.window.j0 for o in outlines),
        max(o.window.j1 for o in outlines),
        min(o.window.i0 for o in outlines),
        max(o.window.i1 for o in outlines),
    )
    union = np.zeros((window.j1 - window.j0, window.i1 - window.i0), bool)
    total = 0
    for outline in outlines:
        union[_within(window, outline)] |= outline.solid
        total += outline.count
    exclusive = sum(o.exclusive for o in outlines)
    counts.mixed_planes += 0 < exclusive < len(outlines)
    if total == int(np.count_nonzero(union)):
        return PlaneMasks(window=window, holes=union, union=union, xor=union)
    if exclusive:
        xor = _even_odd(outlines, window)
        return PlaneMasks(window=window, holes=xor, union=xor, xor=xor)
    before = counts.same_way
    roots = _forest(outlines, tolerance, counts)
    holes = np.zeros_like(union)
    for root in roots:
        holes |= _region(root, window)
    nested_only = counts.same_way == before and _balance(roots) == int(np.count_nonzero(holes))
    xor = holes if nested_only else _even_odd(outlines, window)
    return PlaneMasks(window=window, holes=holes, union=union, xor=xor)


def _even_odd(outlines: Sequence[Outline], window: Window) -> Mask:
    """Exclusive or of all contours: even-odd of all edges together."""
    xor = fill_polygons([o.polygon for o in outlines], window).inside
    for outline in outlines:
        if outline.with_rim:
            part = xor[_within(window, outline)]
            part[outline.filled.closed & ~outline.filled.inside] = True
    return xor


def _balance(nodes: Sequence[_Node]) -> int:
    """Pixels of all filled contours less those of all holes: the number of the mask if nothing overlaps in part."""
    total = 0
    for node in nodes:
        outline = node.outline
        total += -int(np.count_nonzero(outline.hole)) if node.hole else outline.count
        total += _balance(node.children)
    return total


def _within(window: Window, outline: Outline) -> tuple[slice, slice]:
    w = outline.window
    return slice(w.j0 - window.j0, w.j1 - window.j0), slice(w.i0 - window.i0, w.i1 - window.i0)


def _forest(outlines: Sequence[Outline], tolerance: float, counts: PlaneCounts) -> list[_Node]:
    """Order the contours by containment: each below the smallest that contains it."""
    nodes = [_Node(o) for o in sorted(outlines, key=lambda o: -abs(o.area))]
    roots: list[_Node] = []
    for n, node in enumerate(nodes):
        parent = next((p for p in reversed(nodes[:n]) if _is_inside(node.outline, p.outline, tolerance)), None)
        if parent is None:
            roots.append(node)
            continue
        opposed = node.outline.area * parent.outline.area < 0
        node.hole = parent.hole ^ opposed
        if not opposed:
            counts.same_way += 1
        elif node.hole:
            counts.holes += 1
        parent.children.append(node)
    return roots


def _region(node: _Node, window: Window) -> Mask:
    """Pixels of a contour without its holes; of a hole, without the islands in it."""
    out = np.zeros((window.j1 - window.j0, window.i1 - window.i0), bool)
    out[_within(window, node.outline)] = node.outline.hole if node.hole else node.outline.solid
    alike: list[_Node] = []
    rest = list(node.children)
    while rest:
        child = rest.pop()
        if child.hole == node.hole:
            alike.append(child)
            rest += child.children  # what is cut out of it is cut out of this one, too
        else:
            out &= ~_region(child, window)
    for child in alike:
        out |= _region(child, window)
    return out


# ---------------------------------------------------------------- containment


def _is_inside(inner: Outline, outer: Outline, tolerance: float) -> bool:
    """Whether a contour lies wholly inside another; touching from inside counts."""
    a, b = inner.polygon, outer.polygon
    if (
        a.across.min() < b.across.min() - tolerance
        or a.across.max() > b.across.max() + tolerance
        or a.down.min() < b.down.min() - tolerance
        or a.down.max() > b.down.max() + tolerance
    ):
        return False
    if not _covers(outer, inner):
        return False
    return _points_inside(a, outer, tolerance) and not _reaches_into(b, inner, tolerance)


def _covers(outer: Outline, inner: Outline) -> bool:
    w, v = outer.window, inner.window
    if v.j0 < w.j0 or v.j1 > w.j1 or v.i0 < w.i0 or v.i1 > w.i1:
        return False
    part = outer.filled.closed[v.j0 - w.j0 : v.j1 - w.j0, v.i0 - w.i0 : v.i1 - w.i0]
    return not bool((inner.filled.inside & ~part).any())


def _points_inside(points: Polygon, outline: Outline, tolerance: float) -> bool:
    """Whether all corners, and the middles of all edges, are inside a contour or on it."""
    u = np.concatenate((points.across, 0.5 * (points.across + np.roll(points.across, -1))))
    v = np.concatenate((points.down, 0.5 * (points.down + np.roll(points.down, -1))))
    doubtful = ~_surrounded(u, v, outline)
    if not doubtful.any():
        return True
    inside, near = _locate(u[doubtful], v[doubtful], outline.polygon, tolerance)
    return bool((inside | near).all())


def _reaches_into(points: Polygon, outline: Outline, tolerance: float) -> bool:
    """Whether a corner is strictly inside a contour."""
    w = outline.window
    u, v = points
    close = (u > w.i0 - 1) & (u < w.i1) & (v > w.j0 - 1) & (v < w.j1)
    if not close.any():
        return False
    inside, near = _locate(u[close], v[close], outline.polygon, tolerance)
    return bool((inside & ~near).any())


def _surrounded(u: NDArray[np.float64], v: NDArray[np.float64], outline: Outline) -> Mask:
    """Whether the four pixel centres around each point are strictly inside a contour."""
    w = outline.window
    padded = np.zeros((w.j1 - w.j0 + 2, w.i1 - w.i0 + 2), bool)
    padded[1:-1, 1:-1] = outline.filled.inside
    j0, i0 = (np.floor(x).astype(np.int64) - start + 1 for x, start in ((v, w.j0), (u, w.i0)))
    j0, i0 = np.clip(j0, 0, padded.shape[0] - 2), np.clip(i0, 0, padded.shape[1] - 2)
    found: Mask = padded[j0, i0] & padded[j0 + 1, i0] & padded[j0, i0 + 1] & padded[j0 + 1, i0 + 1]
    return found


def _locate(u: NDArray[np.float64], v: NDArray[np.float64], polygon: Polygon, tolerance: float) -> tuple[Mask, Mask]:
    """Whether each point is inside a polygon (even-odd), and whether it is within a tolerance of its edges."""
    block = max(1, _LARGEST // polygon.across.size)
    if u.size > block:
        parts = [_locate(u[n : n + block], v[n : n + block], polygon, tolerance) for n in range(0, u.size, block)]
        return np.concatenate([inside for inside, _ in parts]), np.concatenate([near for _, near in parts])
    x1, y1 = polygon
    dx, dy = np.roll(x1, -1) - x1, np.roll(y1, -1) - y1
    rx, ry = u[:, None] - x1, v[:, None] - y1
    crossing = (ry < 0) != (ry < dy)
    with np.errstate(divide="ignore", invalid="ignore"):
        left = crossing & (rx < ry * dx / dy)
    inside: Mask = (np.count_nonzero(left, axis=1) & 1).astype(bool)
    length = dx * dx + dy * dy
    t = np.clip((rx * dx + ry * dy) / np.where(length > 0, length, 1), 0, 1)
    close: Mask = (rx - t * dx) ** 2 + (ry - t * dy) ** 2 <= tolerance * tolerance
    near: Mask = np.asarray(close.any(axis=1))
    return inside, near
