"""Sampling points of structures: refined pixels of a mask or of contours, on planes within every slice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctenrich.contours.raster import Grid, Rasterised, rasterise
from ctenrich.contours.rtstruct import Contour
from ctenrich.dose.grid import DoseSampler, Lattice
from ctenrich.dose.metrics import DoseSamples
from ctenrich.settings import Nesting

__all__ = [
    "Refinement",
    "Region",
    "SamplingRule",
    "SliceFaces",
    "divide_pixels",
    "planes_of",
    "refine_region",
    "region_of_contours",
    "region_of_mask",
    "sample_dose",
    "sorted_samples",
]

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SamplingRule:
    """How finely a structure is sampled."""

    step: float = 1.0
    """mm between sampling points, at most."""
    samples: int = 10_000
    """Sampling points of a structure, at least."""
    voxel_centres_above: float = 200.0
    """cm3 above which the centres of voxels suffice."""
    finest: int = 64
    """Parts into which a voxel is divided along an axis, at most."""


class Refinement(NamedTuple):
    """Parts into which a voxel is divided."""

    within_slice: int = 1
    """Along the normal."""
    rows: int = 1
    columns: int = 1

    @property
    def parts(self) -> int:
        """Sampling points of a voxel."""
        return self.within_slice * self.rows * self.columns


@dataclass(frozen=True, kw_only=True)
class Region:
    """A structure as masks of parallel slices."""

    row: Floats
    column: Floats
    normal: Floats
    heights: Floats
    """Coordinate of every slice along the normal, mm from the origin of the patient system."""
    above: Floats
    """mm that every slice reaches along the normal from its plane."""
    below: Floats
    """mm that every slice reaches against the normal."""
    lattice: Lattice
    """Centres of the pixels."""
    pixel: tuple[float, float]
    """(between rows, between columns), mm."""
    mask: Mask
    """[slice, row, column]."""
    boundary: tuple[float, float, float]
    """mm by which the boundary may be misplaced along (normal, column direction, row direction): half a step."""
    finer: Callable[[int, int], Region] | None = None
    """Draws the structure again with pixels divided into (rows, columns) parts; None for a mask of voxels."""

    @property
    def thickness(self) -> Floats:
        """Thickness of every slice, mm."""
        return self.above + self.below

    @property
    def volume(self) -> float:
        """mm3."""
        areas = np.count_nonzero(self.mask, axis=(1, 2)) * (self.pixel[0] * self.pixel[1])
        return float(areas @ self.thickness)


def region_of_mask(mask: Mask, grid: Grid) -> Region:
    """A mask of voxels as a region.

    Parameters
    ----------
    mask : array, [k, j, i]
        On the whole grid.
    grid : Grid
        Of the CT series.

    Returns
    -------
    Region
        Cropped to the mask with a margin of one pixel.
    """
    window = _window(mask)
    base = _grid_region(grid, window)
    half = 0.5 * grid.slice_spacing
    return replace(
        base,
        mask=mask[window],
        boundary=(half, 0.5 * grid.pixel_spacing[0], 0.5 * grid.pixel_spacing[1]),
    )


class SliceFaces(NamedTuple):
    """Where the slices of a grid end, where their planes are not equally spaced."""

    below: Floats
    """mm that every slice reaches against the normal."""
    above: Floats
    """mm that every slice reaches along the normal."""


def region_of_contours(
    contours: Sequence[Contour], grid: Grid, *, nesting: Nesting = "holes", faces: SliceFaces | None = None
) -> tuple[Region, Rasterised]:
    """Contours as a region: drawn on the pixels of a grid, each held over the whole thickness of its slice.

    Parameters
    ----------
    contours : sequence of Contour
        Of one ROI.
    grid : Grid
        Of the CT series.
    nesting : {"holes", "union", "xor"}
        As :func:`ctenrich.contours.rasterise`.
    faces : SliceFaces, optional
        Of all slices of the grid; None: half of the grid's slice spacing on either side.

    Returns
    -------
    Region
        With :attr:`Region.finer`, unless the contours were traced through pixel centres of the grid: then the mask is
        the structure.
    Rasterised
        The drawing on the grid itself.
    """
    drawn = rasterise(contours, grid, nesting=nesting)
    window = _window(drawn.mask)
    region = replace(_grid_region(grid, window), mask=drawn.mask[window])
    half = 0.5 * grid.slice_spacing
    ends: dict[str, Floats] = {}
    if faces is not None:
        ends = {"below": faces.below[window[0]], "above": faces.above[window[0]]}
        region = replace(region, **ends)  # type: ignore[arg-type]
        half = 0.5 * float(region.thickness.max(initial=0.0))
    if drawn.with_rim:
        return replace(region, boundary=(half, 0.5 * grid.pixel_spacing[0], 0.5 * grid.pixel_spacing[1])), drawn

    def finer(rows: int, columns: int) -> Region:
        part = _divided(grid, window, rows, columns)
        again = rasterise(contours, part, nesting=nesting)
        whole = (slice(None), slice(None), slice(None))
        return replace(_grid_region(part, whole), mask=again.mask, boundary=(half, *_half_pixel(part)), **ends)  # type: ignore[arg-type]

    return replace(region, finer=finer, boundary=(half, *_half_pixel(grid))), drawn


def refine_region(region: Region, rule: SamplingRule) -> tuple[Region, Refinement]:
    """Divide the voxels of a region as a rule asks.

    Parameters
    ----------
    region : Region
        On whole voxels.
    rule : SamplingRule

    Returns
    -------
    Region
        With divided pixels.
    Refinement
        Parts of a voxel; those along the normal are not yet in the region: :func:`sample_dose` makes them.
    """
    count = int(np.count_nonzero(region.mask))
    if region.volume > rule.voxel_centres_above * 1000 or not count:
        return region, Refinement()
    thickest = float(region.thickness.max())
    n, rows, columns = (
        min(max(1, math.ceil(size / rule.step - 1e-6)), rule.finest) for size in (thickest, *region.pixel)
    )
    while count * n * rows * columns < rule.samples and max(rows, columns, n) < rule.finest:
        steps = (thickest / n, region.pixel[0] / rows, region.pixel[1] / columns)
        largest = int(np.argmax(steps))
        n, rows, columns = n + (largest == 0), rows + (largest == 1), columns + (largest == 2)
    return divide_pixels(region, rows, columns), Refinement(n, rows, columns)


def divide_pixels(region: Region, rows: int, columns: int) -> Region:
    """Divide the pixels of a region: contours are drawn again, the voxels of a mask keep their shape.

    Parameters
    ----------
    region : Region
        On whole voxels, or made from such a one by this function.
    rows, columns : int
        Parts of a whole voxel.

    Returns
    -------
    Region
    """
    if (rows, columns) == (1, 1):
        return region
    if region.finer is not None:
        return replace(region.finer(rows, columns), finer=region.finer)
    pixel = region.pixel[0] / rows, region.pixel[1] / columns
    return replace(
        region,
        pixel=pixel,
        lattice=Lattice(
            _parts(region.lattice.along_rows, columns, pixel[1]), _parts(region.lattice.along_columns, rows, pixel[0])
        ),
        mask=region.mask.repeat(rows, axis=1).repeat(columns, axis=2),
    )


class PlaneOfSamples(NamedTuple):
    """The sampling points of one plane within a slice."""

    slice_index: int
    height: float
    part: float
    """mm along the normal that the plane stands for."""
    below: float
    above: float
    """mm from the plane to the faces of its slice."""


def planes_of(region: Region, within_slice: int) -> Iterator[PlaneOfSamples]:
    """Planes of sampling points: every slice divided into equal parts along the normal.

    Parameters
    ----------
    region : Region
    within_slice : int
        Parts of a slice.

    Yields
    ------
    PlaneOfSamples
    """
    for k in range(region.heights.size):
        low, part = region.heights[k] - region.below[k], region.thickness[k] / within_slice
        for n in range(within_slice):
            height = float(low + (n + 0.5) * part)
            faces = (height - float(low), float(region.heights[k] + region.above[k]) - height)
            yield PlaneOfSamples(k, height, float(part), *faces)


def sample_dose(region: Region, sampler: DoseSampler, within_slice: int, dtype: type = np.float64) -> DoseSamples:
    """Dose at the sampling points of a region.

    Parameters
    ----------
    region : Region
    sampler : DoseSampler
        Of planes with the region's orientation.
    within_slice : int
        Planes of sampling points in every slice.
    dtype : type
        Of the doses that are kept.

    Returns
    -------
    DoseSamples
        Sorted.
    """
    doses: list[NDArray[np.floating]] = []
    sizes: list[float] = []
    outside = 0.0
    area = region.pixel[0] * region.pixel[1]
    for plane in planes_of(region, within_slice):
        mask = region.mask[plane.slice_index]
        if not mask.any():
            continue
        found = sampler.plane(plane.height, region.lattice)[mask]
        known = found[~np.isnan(found)] if np.isnan(found).any() else found
        outside += (found.size - known.size) * area * plane.part
        doses.append(known.astype(dtype))
        sizes.append(area * plane.part)
    return sorted_samples(doses, [sizes], outside)[0]


def sorted_samples(
    doses: Sequence[NDArray[np.floating]], sizes: Sequence[Sequence[float]], outside: float
) -> tuple[DoseSamples, ...]:
    """Sort the doses of several planes, once for all weightings of the planes.

    Parameters
    ----------
    doses : sequence of array
        Of every plane.
    sizes : sequence of sequence of float
        Weightings: mm3 of a sample of every plane.
    outside : float
        mm3 without a dose.

    Returns
    -------
    tuple of DoseSamples
        One per weighting.
    """
    joined = np.concatenate(doses) if doses else np.zeros(0)
    counts = [one.size for one in doses]
    uniform = [_one_size(one, counts) for one in sizes]
    if all(size is not None for size in uniform):
        ordered = np.sort(joined)[::-1]
        return tuple(DoseSamples(ordered, size or 0.0, outside) for size in uniform)
    order = np.argsort(-joined, kind="stable")
    ordered = joined[order]
    out = []
    for size, one in zip(uniform, sizes, strict=True):
        volumes = size if size is not None else np.repeat(np.asarray(one, float), counts)[order]
        out.append(DoseSamples(ordered, volumes, outside))
    return tuple(out)


def _one_size(sizes: Sequence[float], counts: Sequence[int]) -> float | None:
    """Size of all samples; None where it differs between planes."""
    own = np.array([size for size, number in zip(sizes, counts, strict=True) if number])
    if not own.size:
        return 0.0
    return float(own.mean()) if np.ptp(own) <= 1e-9 * own.max() else None


def _half_pixel(grid: Grid) -> tuple[float, float]:
    return 0.5 * grid.pixel_spacing[0], 0.5 * grid.pixel_spacing[1]


def _window(mask: Mask) -> tuple[slice, slice, slice]:
    """Bounding box of a mask, one pixel wider in the slices."""
    out = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        found = np.flatnonzero(mask.any(axis=others))
        if not found.size:
            return slice(0, 0), slice(0, 0), slice(0, 0)
        margin = 1 if axis else 0
        out.append(slice(max(int(found[0]) - margin, 0), min(int(found[-1]) + 1 + margin, mask.shape[axis])))
    return out[0], out[1], out[2]


def _grid_region(grid: Grid, window: tuple[slice, slice, slice]) -> Region:
    """Slices and pixels of a window of a grid, without a mask."""
    slices, rows, columns = window
    origin = grid.origins[0] if len(grid.origins) else np.zeros(3)
    across: Floats = (
        float(origin @ grid.row) + grid.pixel_spacing[1] * np.arange(grid.shape[2], dtype=np.float64)[columns]
    )
    down: Floats = (
        float(origin @ grid.column) + grid.pixel_spacing[0] * np.arange(grid.shape[1], dtype=np.float64)[rows]
    )
    heights = grid.distances[slices]
    half = np.full(heights.size, 0.5 * grid.slice_spacing)
    return Region(
        row=grid.row,
        column=grid.column,
        normal=grid.normal,
        heights=heights,
        above=half,
        below=half,
        lattice=Lattice(across, down),
        pixel=grid.pixel_spacing,
        mask=np.zeros((heights.size, down.size, across.size), bool),
        boundary=(0.5 * grid.slice_spacing, *_half_pixel(grid)),
    )


def _divided(grid: Grid, window: tuple[slice, slice, slice], rows: int, columns: int) -> Grid:
    """The window of a grid with every pixel divided."""
    slices, window_rows, window_columns = window
    pixel = grid.pixel_spacing[0] / rows, grid.pixel_spacing[1] / columns
    corner = (
        (window_rows.start - 0.5) * grid.pixel_spacing[0] + 0.5 * pixel[0],
        (window_columns.start - 0.5) * grid.pixel_spacing[1] + 0.5 * pixel[1],
    )
    origins = grid.origins[slices] + corner[0] * grid.column + corner[1] * grid.row
    shape = (
        slices.stop - slices.start,
        (window_rows.stop - window_rows.start) * rows,
        (window_columns.stop - window_columns.start) * columns,
    )
    return replace(grid, pixel_spacing=pixel, distances=grid.distances[slices], origins=origins, shape=shape)


def _parts(places: Floats, count: int, size: float) -> Floats:
    within = (np.arange(count) - 0.5 * (count - 1)) * size
    return (places[:, None] + within).ravel()
