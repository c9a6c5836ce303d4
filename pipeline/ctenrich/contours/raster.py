"""Draw the contours of one ROI on the grid of a series, and report what could not be drawn as it was meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctenrich.contours.nesting import Outline, PlaneCounts, combine_outlines, outline_of, remove_copies
from ctenrich.contours.polygon import Polygon, Window, snap
from ctenrich.contours.rtstruct import Contour
from ctenrich.records import SortedSeries
from ctenrich.settings import Nesting

__all__ = ["Grid", "Rasterised", "grid_of", "rasterise"]

COPY_TOLERANCE = 0.01
"""mm by which equal points may differ: contours are written with two decimals or more."""
OFF_PLANE = 0.05
"""Share of the distance between slices by which a contour may miss its slice; below that, positions are rounded."""
ON_CENTRE = 0.02
"""Pixels by which a corner may miss the pixel centre through which it was traced: decimals of a mm."""
_UNIT_STEPS = 0.25
"""Share of the edges that are one pixel long in contours that were traced along pixel centres."""

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

    @property
    def voxel_volume(self) -> float:
        """mm3."""
        return self.pixel_spacing[0] * self.pixel_spacing[1] * self.slice_spacing


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Pixels of one slice that the rules of nesting do not agree about."""

    k: int
    window: Window
    mask: Mask


@dataclass(frozen=True, kw_only=True)
class Rasterised:
    """The mask of an ROI by one rule, the volumes by all, and counts of what is not as it should be."""

    mask: Mask
    """[slice k, row j, column i]."""
    drawn: int
    """Contours on a slice."""
    off_slice: int
    """Contours further than half a spacing from every slice."""
    tilted: int
    """Contours in no plane parallel to the slices."""
    voxels: dict[str, int] = field(default_factory=dict)
    """Rule (holes, union, xor) -> voxels."""
    differences: tuple[Difference, ...] = ()
    counts: PlaneCounts = field(default_factory=PlaneCounts)
    without_pixel: int = 0
    """Contours that enclose no pixel centre of their slice."""
    between_slices: int = 0
    """Contours that were drawn on a slice that they are not on."""
    furthest: float = 0.0
    """mm of the largest distance of a drawn contour from its slice."""
    beyond_image: int = 0
    """Contours that leave the image and were cut there."""
    slices: tuple[int, ...] = ()
    """Slices with a contour, growing."""
    on_centres: bool = False
    """Whether all contours run through pixel centres only, as boundaries traced by OpenCV do."""
    with_rim: bool = False
    """Whether pixel centres on the contours belong to the mask."""
    rim_voxels: int = 0
    """Voxels whose centres are on the contours, if all run through pixel centres."""

    @property
    def missing_slices(self) -> tuple[int, ...]:
        """Slices without a contour between the first and the last that have one."""
        if not self.slices:
            return ()
        return tuple(sorted(set(range(self.slices[0], self.slices[-1])) - set(self.slices)))


class _Placed(NamedTuple):
    """A contour on its slice."""

    k: int
    height: float
    """mm from the slice along the normal."""
    polygon: Polygon
    snapped: Polygon
    """Corners near pixel centres moved onto them."""
    exclusive: bool


class _Placement(NamedTuple):
    """The contours of an ROI on their slices."""

    placed: list[_Placed]
    off_slice: int = 0
    tilted: int = 0
    between: int = 0
    furthest: float = 0.0


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


def rasterise(contours: Iterable[Contour], grid: Grid, *, nesting: Nesting = "holes") -> Rasterised:
    """Draw the contours of one ROI.

    A contour goes to the nearest slice along the slice normal if that is not further than half the distance between
    slices; half way, to the lower one. A voxel belongs to a contour if its centre is inside by the even-odd rule; a
    centre exactly on the contour is outside, unless the ROI was traced through pixel centres. Copies are removed, then
    the contours of each plane are combined by :func:`ctenrich.contours.nesting.combine_outlines`; planes that go to one
    slice are united.

    Parameters
    ----------
    contours : iterable of Contour
        Closed planar contours, points in mm, LPS.
    grid : Grid
        The grid of the series: any orientation.
    nesting : {"holes", "union", "xor"}
        Rule of the mask.

    Returns
    -------
    Rasterised
        Mask [k, j, i], volumes by every rule, and counts.
    """
    placement = _place(list(contours), grid)
    placed = placement.placed
    on_centres, with_rim = _traced_through_centres(placed)
    drawing = _Drawing(grid, nesting, on_centres, with_rim)
    for k, planes in _planes(placed, grid):
        drawing.draw_slice(k, planes)
    return Rasterised(
        mask=drawing.mask,
        drawn=len(placed),
        off_slice=placement.off_slice,
        tilted=placement.tilted,
        voxels=drawing.voxels,
        differences=tuple(drawing.differences),
        counts=drawing.counts,
        without_pixel=drawing.without_pixel,
        between_slices=placement.between,
        furthest=placement.furthest,
        beyond_image=drawing.beyond_image,
        slices=tuple(sorted({p.k for p in placed})),
        on_centres=on_centres,
        with_rim=with_rim,
        rim_voxels=drawing.rim_voxels,
    )


def _place(contours: Sequence[Contour], grid: Grid) -> _Placement:
    """Put every contour of an ROI on its slice; all corners together, since an ROI may have thousands of contours."""
    if not contours:
        return _Placement([])
    reach = 0.5 * grid.slice_spacing * (1 + 1e-6)
    sizes = np.array([len(contour.points) for contour in contours])
    ends = np.cumsum(sizes)
    starts = ends - sizes
    points = np.concatenate([contour.points for contour in contours])
    heights = points @ grid.normal
    low, high = np.minimum.reduceat(heights, starts), np.maximum.reduceat(heights, starts)
    middle = np.add.reduceat(heights, starts) / sizes
    away = np.abs(grid.distances - middle[:, None])
    nearest = np.argmax(away <= away.min(axis=1, keepdims=True) + 1e-6 * grid.slice_spacing, axis=1)
    tilted = high - low > reach
    kept = ~tilted & (away[np.arange(nearest.size), nearest] <= reach)
    own = grid.distances[nearest]
    miss = np.maximum(np.abs(low - own), np.abs(high - own))[kept]
    relative = points - np.repeat(grid.origins[nearest], sizes, axis=0)
    across = relative @ grid.row / grid.pixel_spacing[1]
    down = relative @ grid.column / grid.pixel_spacing[0]
    across_snapped, down_snapped = snap(across), snap(down)
    placed = []
    for n in np.flatnonzero(kept).tolist():
        part = slice(starts[n], ends[n])
        placed.append(
            _Placed(
                int(nearest[n]),
                float(middle[n] - own[n]),
                Polygon(across[part], down[part]),
                Polygon(across_snapped[part], down_snapped[part]),
                contours[n].exclusive,
            )
        )
    return _Placement(
        placed=placed,
        off_slice=int(np.count_nonzero(~kept & ~tilted)),
        tilted=int(np.count_nonzero(tilted)),
        between=int(np.count_nonzero(miss > OFF_PLANE * grid.slice_spacing)),
        furthest=float(miss.max(initial=0.0)),
    )


def _planes(placed: Sequence[_Placed], grid: Grid) -> Iterator[tuple[int, list[list[_Placed]]]]:
    """Contours by slice, and within a slice by plane."""
    tolerance = OFF_PLANE * grid.slice_spacing
    ordered = sorted(placed, key=lambda p: p.k)
    for k, group in groupby(ordered, key=lambda p: p.k):
        members = list(group)
        planes: list[list[_Placed]] = []
        for one in sorted(members, key=lambda p: p.height):
            if planes and one.height - planes[-1][0].height <= tolerance:
                planes[-1].append(one)
            else:
                planes.append([one])
        yield k, planes


class _Drawing:
    """The mask of an ROI while its slices are drawn."""

    def __init__(self, grid: Grid, nesting: Nesting, on_centres: bool, with_rim: bool) -> None:
        self.mask = np.zeros(grid.shape, bool)
        self.voxels = {"holes": 0, "union": 0, "xor": 0}
        self.differences: list[Difference] = []
        self.counts = PlaneCounts()
        self.without_pixel = 0
        self.rim_voxels = 0
        self.beyond_image = 0
        self._nesting = nesting
        self._on_centres, self._with_rim = on_centres, with_rim
        self._tolerance = COPY_TOLERANCE / min(grid.pixel_spacing)

    def draw_slice(self, k: int, planes: list[list[_Placed]]) -> None:
        """Draw all contours of a slice."""
        plane = self.mask[k]
        parts = [part for members in planes if (part := self._outlines(members, plane.shape))]
        if len(parts) == 1 and len(parts[0]) == 1:  # most slices: one contour, no rule needed
            (outline,) = parts[0]
            plane[outline.window.slices] = outline.solid
            for rule in self.voxels:
                self.voxels[rule] += outline.count
            return
        found = [combine_outlines(part, self._tolerance, self.counts) for part in parts]
        if not found:
            return
        window = Window(
            min(f.window.j0 for f in found),
            max(f.window.j1 for f in found),
            min(f.window.i0 for f in found),
            max(f.window.i1 for f in found),
        )
        masks = {rule: np.zeros((window.j1 - window.j0, window.i1 - window.i0), bool) for rule in self.voxels}
        for f in found:
            w = f.window
            for rule, mask in (("holes", f.holes), ("union", f.union), ("xor", f.xor)):
                masks[rule][w.j0 - window.j0 : w.j1 - window.j0, w.i0 - window.i0 : w.i1 - window.i0] |= mask
        for rule, mask in masks.items():
            self.voxels[rule] += int(np.count_nonzero(mask))
        plane[window.slices] = masks[self._nesting]
        differs = masks["union"] & ~(masks["holes"] & masks["xor"])
        if differs.any():
            self.differences.append(Difference(k=k, window=window, mask=differs))

    def _outlines(self, members: list[_Placed], shape: tuple[int, ...]) -> list[Outline]:
        outlines: list[Outline] = []
        for one in members:
            polygon = Polygon(*map(np.rint, one.polygon)) if self._on_centres else one.snapped
            outline = outline_of(polygon, shape, exclusive=one.exclusive, with_rim=self._with_rim)
            if outline is None or outline.window.touches(shape):
                self.beyond_image += _leaves_image(one.polygon, shape)
            if outline is None:
                self.without_pixel += 1
                continue
            if self._on_centres and outline.filled.rim is not None:
                self.rim_voxels += outline.filled.rim.size
            outlines.append(outline)
        return remove_copies(outlines, self._tolerance, self.counts) if len(outlines) > 1 else outlines


def _leaves_image(polygon: Polygon, shape: tuple[int, ...]) -> bool:
    u, v = polygon
    return bool(u.min() < -0.5 or v.min() < -0.5 or u.max() > shape[1] - 0.5 or v.max() > shape[0] - 0.5)


def _traced_through_centres(placed: Sequence[_Placed]) -> tuple[bool, bool]:
    """Whether all corners of an ROI are pixel centres, and whether its contours were traced from a mask along them.

    OpenCV (and what builds on it, e.g. rt-utils) runs from pixel centre to pixel centre along rows, columns and
    diagonals, through the outermost pixels of the mask. A polygon whose corners happen to be centres has no steps
    of one pixel.
    """
    if not placed:
        return False, False
    edges = steps = 0
    straight = True
    for one in placed:
        u, v = one.polygon
        wu, wv = np.rint(u), np.rint(v)
        if abs(u[0] - wu[0]) > ON_CENTRE or np.abs(u - wu).max() > ON_CENTRE or np.abs(v - wv).max() > ON_CENTRE:
            return False, False
        du, dv = np.abs(np.roll(wu, -1) - wu), np.abs(np.roll(wv, -1) - wv)
        straight = straight and bool(((du == 0) | (dv == 0) | (du == dv)).all())
        edges += u.size
        steps += int(np.count_nonzero(np.maximum(du, dv) == 1))
    return True, straight and steps >= _UNIT_STEPS * edges
