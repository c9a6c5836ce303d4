"""A dose on its grid, and trilinear interpolation of it on planes of any grid of sampling points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["DoseGrid", "DoseSampler", "Lattice"]

Floats = NDArray[np.float64]

_ALIGNED = 2e-5
"""Largest cosine between axes that count as orthogonal: 0.01 mm over half a metre."""
_EDGE = 1e-6
"""mm by which a point may be outside the outermost voxel centres."""


@dataclass(frozen=True, kw_only=True)
class DoseGrid:
    """Values of a dose at the centres of its voxels."""

    stored: NDArray[Any]
    """Stored values, [frame k, row j, column i]; frames are in the order of growing distance along the normal."""
    scaling: float
    """Dose = stored value x scaling (Dose Grid Scaling)."""
    origin: tuple[float, float, float]
    """Centre of the voxel (0, 0, 0), mm, LPS."""
    row: tuple[float, float, float]
    """Unit vector of growing column index."""
    column: tuple[float, float, float]
    """Unit vector of growing row index."""
    pixel_spacing: tuple[float, float]
    """(between rows, between columns), mm."""
    offsets: tuple[float, ...]
    """Distance of every frame from the first one along the normal (row x column), mm, growing."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(frames, rows, columns)."""
        k, j, i = self.stored.shape
        return k, j, i

    @cached_property
    def axes(self) -> Floats:
        """Unit vectors of growing frame, row and column index, as rows, (3, 3)."""
        row, column = np.asarray(self.row), np.asarray(self.column)
        return np.stack([np.cross(row, column), column, row])

    @cached_property
    def coordinates(self) -> tuple[Floats, Floats, Floats]:
        """Coordinates of frames, rows and columns along :attr:`axes`, mm from the origin of the patient system."""
        start = self.axes @ np.asarray(self.origin)
        _, rows, columns = self.shape
        return (
            start[0] + np.asarray(self.offsets),
            start[1] + self.pixel_spacing[0] * np.arange(rows),
            start[2] + self.pixel_spacing[1] * np.arange(columns),
        )

    @cached_property
    def maximum(self) -> float:
        """Largest dose of the grid."""
        return float(self.stored.max()) * self.scaling

    @property
    def regular(self) -> bool:
        """Whether the frames are equally spaced."""
        gaps = np.diff(self.offsets)
        return bool(gaps.size == 0 or np.ptp(gaps) <= 1e-3 * gaps.mean())

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Smallest distance of (frames, rows, columns), mm; 0 between the frames of a single-frame dose."""
        gaps = np.diff(self.offsets)
        return (float(gaps.min()) if gaps.size else 0.0, *self.pixel_spacing)

    def values(self) -> Floats:
        """Dose of every voxel, float64, [k, j, i]."""
        return self.stored.astype(np.float64) * self.scaling


class Lattice(NamedTuple):
    """Sampling points of one plane, on rows and columns."""

    along_rows: Floats
    """Coordinate of every column of points along the row direction, mm."""
    along_columns: Floats
    """Coordinate of every row of points along the column direction, mm."""


class _Axis(NamedTuple):
    """Weights of linear interpolation at the points of one axis."""

    lower: NDArray[np.intp]
    share: Floats
    """Of the upper neighbour."""
    inside: NDArray[np.bool_]


class DoseSampler:
    """Trilinear interpolation of a dose on planes with one orientation.

    A point outside the outermost voxel centres has no dose: it is NaN, never 0.

    Parameters
    ----------
    grid : DoseGrid
        At least two frames, rows and columns.
    row, column : (3,) array
        Unit vectors of growing column and row of the sampled planes (LPS).
    """

    def __init__(self, grid: DoseGrid, row: Floats, column: Floats) -> None:
        self._axes = np.stack([np.cross(row, column), np.asarray(column, float), np.asarray(row, float)])
        turn = self._axes @ grid.axes.T
        source = np.abs(turn).argmax(axis=1)
        rest = np.abs(turn).copy()
        rest[np.arange(3), source] = 0
        self._grid = grid
        self._aligned = bool(rest.max() <= _ALIGNED and len(set(source.tolist())) == 3)
        if not self._aligned:
            return
        values, places = np.transpose(grid.stored, source), []
        for axis, own in enumerate(source.tolist()):
            sign = 1.0 if turn[axis, own] > 0 else -1.0
            place = sign * grid.coordinates[own]
            if sign < 0:
                place, values = place[::-1], np.flip(values, axis)
            places.append(np.ascontiguousarray(place))
        self._values, self._places = values, places
        self._cached: tuple[Lattice, _Axis, _Axis] | None = None

    @property
    def resolution(self) -> float:
        """Gy between two stored values."""
        return self._grid.scaling if self._grid.stored.dtype.kind in "iu" else 0.0

    def plane(self, height: float, lattice: Lattice) -> Floats:
        """Dose at the points of one plane.

        Parameters
        ----------
        height : float
            Coordinate of the plane along the normal (row x column), mm from the origin of the patient system.
        lattice : Lattice
            Its points.

        Returns
        -------
        array, [row, column]
            Dose in the unit of the grid; NaN outside it.
        """
        if not self._aligned:
            return self._plane_of_oblique(height, lattice)
        if self._cached is None or self._cached[0] is not lattice:
            rows, columns = _axis(self._places[1], lattice.along_columns), _axis(self._places[2], lattice.along_rows)
            self._cached = (lattice, rows, columns)
        _, rows, columns = self._cached
        frame = _axis(self._places[0], np.array([height]))
        shape = (lattice.along_columns.size, lattice.along_rows.size)
        if not frame.inside[0]:
            return np.full(shape, np.nan)
        k, share = int(frame.lower[0]), float(frame.share[0])
        dose: Floats = self._values[k].astype(np.float64)
        if share:
            dose += share * (self._values[k + 1].astype(np.float64) - dose)
        dose *= self._grid.scaling
        lower = dose[rows.lower]
        dose = lower + rows.share[:, None] * (dose[rows.lower + 1] - lower)
        lower = dose[:, columns.lower]
        dose = lower + columns.share * (dose[:, columns.lower + 1] - lower)
        dose[~rows.inside] = np.nan
        dose[:, ~columns.inside] = np.nan
        return dose

    def _plane_of_oblique(self, height: float, lattice: Lattice) -> Floats:
        """The plane cuts the voxels at an angle: interpolate at every point in all three directions."""
        grid = self._grid
        across, down = np.meshgrid(lattice.along_rows, lattice.along_columns)
        points = height * self._axes[0] + down[..., None] * self._axes[1] + across[..., None] * self._axes[2]
        k, j, i = (_axis(place, points @ axis) for place, axis in zip(grid.coordinates, grid.axes, strict=True))
        total = np.zeros(across.shape)
        for dk in (0, 1):
            for dj in (0, 1):
                for di in (0, 1):
                    weight = _weight(k, dk) * _weight(j, dj) * _weight(i, di)
                    total += weight * grid.stored[k.lower + dk, j.lower + dj, i.lower + di]
        total *= grid.scaling
        total[~(k.inside & j.inside & i.inside)] = np.nan
        return total


def _axis(places: Floats, at: Floats) -> _Axis:
    """Neighbours and weights of points on an axis of growing positions, by position and not by index."""
    lower = np.clip(np.searchsorted(places, at, side="right") - 1, 0, places.size - 2)
    share = (at - places[lower]) / (places[lower + 1] - places[lower])
    inside = (at >= places[0] - _EDGE) & (at <= places[-1] + _EDGE)
    return _Axis(lower, np.clip(share, 0.0, 1.0), inside)


def _weight(axis: _Axis, upper: int) -> Floats:
    """Weight of the lower (0) or upper (1) neighbour."""
    weight: Floats = upper * axis.share + (1 - upper) * (1.0 - axis.share)
    return weight
