"""A sampling grid for contours that come without images: their own planes, and pixels of a stated size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctenrich.contours.raster import Grid
from ctenrich.contours.rtstruct import Contour, Roi
from ctenrich.dose.sampling import SliceFaces
from ctenrich.errors import InputError
from ctenrich.reasons import Reason

__all__ = ["ContourGrid", "ContourPlanes", "contour_grid", "find_contour_planes"]

Floats = NDArray[np.float64]

_FLAT = 0.05
"""mm by which the points of a contour may leave its plane."""
_SAME = 0.01
"""mm within which two heights are one plane."""
_OFF_CORNERS = 0.381966
"""Place of the pixel centres between two multiples of the pixel, as a share of it."""
_SKIPPED = 1.5
"""Multiple of the common distance between planes beyond which a plane is missing between two."""


class ContourPlanes(NamedTuple):
    """Orientation of all contours of a structure set, and the distance between their planes."""

    row: Floats
    column: Floats
    normal: Floats
    spacing: float
    """Most common distance between neighbouring planes, mm."""


class ContourGrid(NamedTuple):
    """A grid on which the contours of one ROI are drawn."""

    grid: Grid
    faces: SliceFaces
    skipped: int
    """Gaps between its planes in which at least one plane is missing."""


def find_contour_planes(rois: Iterable[Roi]) -> ContourPlanes:
    """Find the orientation of the contours of a structure set and the distance between their planes.

    Parameters
    ----------
    rois : iterable of Roi

    Returns
    -------
    ContourPlanes
        Transverse where the contours are; otherwise the plane of the contour with the most points.

    Raises
    ------
    InputError
        MISSING_GEOMETRY where all contours are on one plane, so that no thickness is known.
    """
    own = [[contour for contour in roi.contours if len(contour.points) > 2] for roi in rois]
    contours = [contour for one in own for contour in one]
    if not contours:
        raise InputError(Reason.EMPTY_STRUCTURE, "the structure set has no closed contours")
    row, column = _orientation(contours)
    normal = np.cross(row, column)
    gaps: Counter[float] = Counter()
    for one in own:
        heights = _distinct([float((contour.points @ normal).mean()) for contour in one])
        gaps.update(np.round(np.diff(heights), 2).tolist())
    if not gaps:
        heights = _distinct([float((contour.points @ normal).mean()) for contour in contours])
        gaps.update(np.round(np.diff(heights), 2).tolist())
    if not gaps:
        text = "all contours are on one plane: their thickness is not known without the images"
        raise InputError(Reason.MISSING_GEOMETRY, text)
    most = max(gaps.values())
    return ContourPlanes(row, column, normal, min(gap for gap, number in gaps.items() if number == most))


def contour_grid(contours: Sequence[Contour], planes: ContourPlanes, pixel: float) -> ContourGrid:
    """Grid of the planes of one ROI.

    A plane reaches half way to its neighbours; at its ends, and beside a missing plane, half of the common distance.

    Parameters
    ----------
    contours : sequence of Contour
        At least one.
    planes : ContourPlanes
    pixel : float
        mm between pixel centres. They are at no round coordinate, because corners of contours are: a centre on a
        contour would be outside, and the structure too small.

    Returns
    -------
    ContourGrid
    """
    points = np.concatenate([contour.points for contour in contours])
    heights = np.array(_distinct([float((contour.points @ planes.normal).mean()) for contour in contours]))
    gaps = np.diff(heights)
    half = np.where(gaps <= _SKIPPED * planes.spacing, 0.5 * gaps, 0.5 * planes.spacing)
    end = np.array([0.5 * planes.spacing])
    faces = SliceFaces(np.concatenate([end, half]), np.concatenate([half, end]))
    across, down = points @ planes.row, points @ planes.column
    first = [pixel * (np.floor(values.min() / pixel) - 1 + _OFF_CORNERS) for values in (across, down)]
    count = [
        int(np.ceil((values.max() - start) / pixel)) + 2 for values, start in zip((across, down), first, strict=True)
    ]
    origins = heights[:, None] * planes.normal + first[0] * planes.row + first[1] * planes.column
    grid = Grid(
        row=planes.row,
        column=planes.column,
        normal=planes.normal,
        pixel_spacing=(pixel, pixel),
        distances=heights,
        slice_spacing=planes.spacing,
        origins=origins,
        shape=(heights.size, count[1], count[0]),
    )
    return ContourGrid(grid, faces, int(np.count_nonzero(gaps > _SKIPPED * planes.spacing)))


def _orientation(contours: Sequence[Contour]) -> tuple[Floats, Floats]:
    candidates = [np.eye(3)[axis] for axis in (2, 1, 0)]
    flat = [sum(np.ptp(contour.points @ normal) <= _FLAT for contour in contours) for normal in candidates]
    best = int(np.argmax(flat))
    if flat[best] >= 0.5 * len(contours):
        row, column = {0: ((1, 0, 0), (0, 1, 0)), 1: ((1, 0, 0), (0, 0, -1)), 2: ((0, 1, 0), (0, 0, -1))}[best]
        return np.array(row, float), np.array(column, float)
    points = max((contour.points for contour in contours), key=len)
    _, _, axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    return axes[0], axes[1]


def _distinct(heights: Sequence[float]) -> list[float]:
    """Heights in growing order, equal ones once."""
    out: list[float] = []
    for height in sorted(heights):
        if not out or height - out[-1] > _SAME:
            out.append(height)
    return out
