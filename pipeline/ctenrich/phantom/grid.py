"""The sampling grid of a phantom: from voxel indices to patient space and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctenrich.phantom.options import PhantomOptions, Quirk

__all__ = ["Grid", "Region", "make_grid"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Region:
    """Part of a grid, with the patient coordinates of its voxels (mm, LPS).

    The coordinates broadcast against each other to the part's shape [k, j, i]; an axis along which a coordinate does
    not change has length 1, which keeps axis-aligned grids fast.
    """

    index: tuple[slice, slice, slice]
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.float32]
    z: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Grid:
    """Voxel centres at ``origin + i * along_row + j * along_column + offsets[k] * step`` (mm, LPS)."""

    origin: Floats
    along_row: Floats
    """Step of one column, mm."""
    along_column: Floats
    """Step of one row, mm."""
    step: Floats
    """Direction in which slices are stacked (unit vector; the slice normal unless the gantry is tilted)."""
    offsets: Floats
    """Place of every slice along `step`, mm."""
    shape: tuple[int, int, int]

    @property
    def positions(self) -> Floats:
        """Image Position (Patient) of every slice, shape (slices, 3)."""
        return np.asarray(self.origin + self.offsets[:, None] * self.step)

    @property
    def affine_lps(self) -> Floats:
        """(i, j, k, 1) -> mm, LPS, with the mean slice spacing."""
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 1], affine[:3, 3] = self.along_row, self.along_column, self.origin
        count = self.shape[0]
        mean = (self.offsets[-1] - self.offsets[0]) / (count - 1) if count > 1 else 1.0
        affine[:3, 2] = self.step * mean
        return affine

    def region(self, low: tuple[float, float, float], high: tuple[float, float, float]) -> Region | None:
        """Part of the grid that can reach into a box.

        Parameters
        ----------
        low, high : (x, y, z)
            Corners of the box, mm, LPS.

        Returns
        -------
        Region or None
            None if the box is outside the grid.
        """
        corners = np.array([[(low, high)[n >> d & 1][d] for d in range(3)] for n in range(8)]) - self.origin
        basis = np.stack([self.along_row, self.along_column, self.step], axis=1)
        indices = corners @ np.linalg.inv(basis).T
        least, most = indices.min(axis=0), indices.max(axis=0)
        ranges = [
            (int(np.searchsorted(self.offsets, least[2])), int(np.searchsorted(self.offsets, most[2], side="right"))),
            (max(0, int(np.ceil(least[1]))), min(self.shape[1], int(np.floor(most[1])) + 1)),
            (max(0, int(np.ceil(least[0]))), min(self.shape[2], int(np.floor(most[0])) + 1)),
        ]
        if any(start >= stop for start, stop in ranges):
            return None
        k, j, i = (slice(start, stop) for start, stop in ranges)
        return Region((k, j, i), *(self._coordinate(axis, k, j, i) for axis in range(3)))

    def whole(self) -> Region:
        """The whole grid."""
        k, j, i = (slice(0, n) for n in self.shape)
        return Region((k, j, i), *(self._coordinate(axis, k, j, i) for axis in range(3)))

    def _coordinate(self, axis: int, k: slice, j: slice, i: slice) -> npt.NDArray[np.float32]:
        total: Floats = np.full((1, 1, 1), float(self.origin[axis]))
        parts = (
            (self.step[axis], self.offsets[k].reshape(-1, 1, 1)),
            (self.along_column[axis], np.arange(j.start, j.stop).reshape(1, -1, 1)),
            (self.along_row[axis], np.arange(i.start, i.stop).reshape(1, 1, -1)),
        )
        for factor, values in parts:
            if factor != 0.0:
                total = total + factor * values
        return total.astype(np.float32)


def make_grid(options: PhantomOptions) -> Grid:
    """Make the grid of a series; it contains the quirks that move slices, so that the truth stays true."""
    row = np.asarray(options.row_cosines, dtype=float)
    column = np.asarray(options.column_cosines, dtype=float)
    step = np.cross(row, column)
    spacing = options.slice_spacing
    if options.gantry_tilt:
        angle = np.deg2rad(options.gantry_tilt)
        column = np.array([0.0, np.cos(angle), -np.sin(angle)])
        row, step = np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])
    if Quirk.LATERAL_DRIFT in options.quirks:
        sideways = step * spacing + row * 0.05
        step, spacing = sideways / np.linalg.norm(sideways), float(np.linalg.norm(sideways))
    offsets = _slice_offsets(options, spacing)
    along_row, along_column = row * options.pixel_spacing[1], column * options.pixel_spacing[0]
    middle = along_row * (options.columns - 1) / 2 + along_column * (options.rows - 1) / 2 + step * (offsets[-1] / 2)
    origin = np.round(np.asarray(options.centre, dtype=float) - middle, 6)
    return Grid(origin, along_row, along_column, step, offsets, (options.slices, options.rows, options.columns))


def _slice_offsets(options: PhantomOptions, spacing: float) -> Floats:
    regular: Floats = np.arange(options.slices, dtype=np.float64) * float(spacing)
    if Quirk.ALTERNATING_SPACING in options.quirks:
        regular[1::2] -= 0.25 * spacing
    if Quirk.POSITION_JITTER in options.quirks:
        jitter = np.random.default_rng([options.seed, 11]).uniform(-0.04, 0.04, options.slices)
        jitter[[0, -1]] = 0.0
        regular = regular + jitter
    return regular
