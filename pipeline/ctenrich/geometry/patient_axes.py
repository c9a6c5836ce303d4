"""Arrays in patient axes: z to the head, y to the back, x to the left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.geometry.stack import affine_lps, grid_match
from ctenrich.records import SortedSeries

__all__ = ["PatientAxes", "patient_axes", "patient_axes_of_series"]

Index = tuple[int, int, int]


@dataclass(frozen=True)
class PatientAxes:
    """Exchange and flips of axes that bring an array [k, j, i] into patient axes [z, y, x]."""

    axes: Index
    flips: tuple[bool, bool, bool]

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """View of an array in patient axes; copies nothing."""
        view = array.transpose(self.axes)
        return view[tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flips)]

    def exchange(self, values: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        """Sizes or spacings of the axes [k, j, i], in the order [z, y, x]."""
        a, b, c = (values[axis] for axis in self.axes)
        return a, b, c


def patient_axes(affine: NDArray[np.float64], shape: Index) -> PatientAxes:
    """Find the axes of the patient in a volume; those of an oblique one are the nearest.

    Parameters
    ----------
    affine : array, (4, 4)
        (i, j, k, 1) -> mm, LPS.
    shape : (int, int, int)
        [k, j, i].
    """
    axes, flips = grid_match(affine, shape[::-1], np.eye(4))
    return PatientAxes((2 - axes[2], 2 - axes[1], 2 - axes[0]), (flips[2], flips[1], flips[0]))


def patient_axes_of_series(series: SortedSeries) -> PatientAxes:
    """Find the axes of the patient in the volume of a series, whose slices are in the order of its volume."""
    step = (np.array(series.slices[-1].position) - series.slices[0].position) / max(len(series.slices) - 1, 1)
    if not step.any():
        step = np.cross(series.row_cosines, series.column_cosines)
    first = series.slices[0].position
    affine = affine_lps(first, series.row_cosines, series.column_cosines, series.pixel_spacing, step.tolist())
    return patient_axes(np.array(affine), series.shape)
