"""Lungs found by threshold: evidence for names in series where no product has lungs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ctenrich.geometry.patient_axes import PatientAxes, patient_axes_of_series
from ctenrich.lungs import LungWitness, find_lungs
from ctenrich.records import Quantity, SortedSeries, Volume
from ctenrich.series_store import SeriesStore
from ctenrich.structure_names.evidence import Overlap
from ctenrich.workspace import load_array

__all__ = ["LEFT_LUNG", "RIGHT_LUNG", "LungSides", "find_lung_sides", "split_lungs"]

LEFT_LUNG, RIGHT_LUNG = "lung_left", "lung_right"
_LEAST_ML = 200.0
"""A smaller part is no lung that could be compared."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class LungSides:
    """Left and right lung by threshold, divided at the middle of the body."""

    axes: PatientAxes
    lungs: LungWitness = field(repr=False)
    sides: Mapping[str, Mask] = field(repr=False)
    """``lung_left``, ``lung_right`` -> mask on the grid of `lungs`."""
    middle: float | None
    """Column of the volume at the middle of the body; None where x does not run along the columns."""

    def overlaps(self, roi: Mask) -> dict[str, Overlap]:
        """Voxels that the lungs share with an ROI, estimated on the coarser grid.

        Parameters
        ----------
        roi : ndarray of bool
            Axes [slice, row, column].
        """
        inside = self.lungs.coarse(self.axes.apply(roi))
        scale = self.lungs.stride[0] * self.lungs.stride[1]
        return {
            name: Overlap(scale * int(np.count_nonzero(mask & inside)), scale * int(np.count_nonzero(mask)))
            for name, mask in self.sides.items()
        }


def find_lung_sides(store: SeriesStore, uid: str) -> LungSides | None:
    """Find the lungs of a series in its CT, without a network.

    Parameters
    ----------
    store : SeriesStore
        The run.
    uid : str
        Series Instance UID.

    Returns
    -------
    LungSides or None
        None if the volume is not in HU or no longer on the disk, or if it shows no lungs.
    """
    series, volume = store.find_valid(SortedSeries, uid), store.find_valid(Volume, uid)
    if series is None or volume is None or volume.quantity != Quantity.HU:
        return None
    path = store.workspace.resolve(uid, volume.array_path)
    if not path.is_file():
        return None
    axes = patient_axes_of_series(series)
    spacing = axes.exchange((series.slice_spacing, *series.pixel_spacing))
    return split_lungs(find_lungs(axes.apply(load_array(path)), spacing), axes, series.columns)


def split_lungs(lungs: LungWitness, axes: PatientAxes, columns: int) -> LungSides | None:
    """Divide lungs at the middle of the body.

    Parameters
    ----------
    lungs : LungWitness
        Lungs of a volume.
    axes : PatientAxes
        Of the volume.
    columns : int
        Columns of the volume.

    Returns
    -------
    LungSides or None
        None without lungs.
    """
    if lungs.middle is None:
        return None
    x = lungs.middle / lungs.spacing[2]
    left = np.arange(lungs.mask.shape[2]) > x  # x grows to the patient's left
    voxel = float(np.prod(lungs.spacing)) / 1000
    halves = {LEFT_LUNG: lungs.mask & left, RIGHT_LUNG: lungs.mask & ~left}
    sides = {name: mask for name, mask in halves.items() if np.count_nonzero(mask) * voxel >= _LEAST_ML}
    if not sides:
        return None
    column = x * lungs.stride[1]
    middle = (columns - 1 - column if axes.flips[2] else column) if axes.axes[2] == 2 else None
    return LungSides(axes=axes, lungs=lungs, sides=sides, middle=middle)
