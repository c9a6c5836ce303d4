"""Bring the voxels of an image to the grid of a CT series: by exchange and flips of axes, never by guess."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.errors import InputError
from ctenrich.geometry import affine_lps, match_array
from ctenrich.harmonise.images import MaskImage
from ctenrich.reasons import Reason
from ctenrich.records import SortedSeries

__all__ = ["OnGrid", "affine_of_series", "on_grid", "turned_to_grid"]

Floats = NDArray[np.float64]
_TOLERANCE = 0.01
"""mm by which the corners of an image and of the series may differ: affines are often stored in 32 bits."""
_SHARE = 1e-3
"""Share of the slice spacing that is allowed beyond it."""


@dataclass(frozen=True, kw_only=True)
class OnGrid:
    """Voxels on the grid of the series."""

    array: NDArray[np.unsignedinteger]
    """[k, j, i]; a view where the grids are equal."""
    resampled: str = ""
    """What was done, if the image has another grid."""
    lost: int = 0
    """Voxels of the image with a label whose centres are outside the CT."""


def affine_of_series(series: SortedSeries) -> Floats:
    """Affine of a series, (i, j, k, 1) -> mm, LPS; from the first slice to the last."""
    first, last = series.slices[0].position, series.slices[-1].position
    step = (np.array(last) - first) / max(len(series.slices) - 1, 1)
    return np.array(affine_lps(first, series.row_cosines, series.column_cosines, series.pixel_spacing, step.tolist()))


def on_grid(
    image: MaskImage, array: NDArray[np.unsignedinteger], series: SortedSeries, name: str, *, resample: bool = False
) -> OnGrid:
    """Bring an array of an image to the grid of a series.

    Parameters
    ----------
    image : MaskImage
        Its affine.
    array : array of uint8 or uint16, [k, j, i]
        Its voxels, or one layer of them.
    series : SortedSeries
        The CT.
    name : str
        Of the file, for messages.
    resample : bool
        Whether an image on another grid is resampled by the nearest voxel.

    Returns
    -------
    OnGrid

    Raises
    ------
    InputError
        OTHER_GRID, with sizes and distances, if the grids differ and `resample` is not set.
    """
    target, affine = affine_of_series(series), np.asarray(image.affine_lps)
    view, difference = turned_to_grid(array, affine, series)
    if view is not None:
        return OnGrid(array=view)
    if not resample:
        hint = "give the CT that the masks were made from, or --resample nearest"
        raise InputError(Reason.OTHER_GRID, f"{name} is on another grid than the CT: {difference}", hint)
    out = _nearest(array, affine, target, series.shape)
    return OnGrid(array=out, resampled=difference, lost=_outside(array, affine, target, series.shape))


def turned_to_grid(array: NDArray[Any], affine: Floats, series: SortedSeries) -> tuple[NDArray[Any] | None, str]:
    """Exchange and flip the axes of an array so that they are those of a series.

    Parameters
    ----------
    array : array, [k, j, i]
        Voxels of an image.
    affine : array, (4, 4)
        (i, j, k, 1) -> mm, LPS, of the image.
    series : SortedSeries
        The source of the image.

    Returns
    -------
    (array or None, str)
        A view, [k, j, i] of the series; None, and the difference in words, if the grids are not equal.
    """
    target = affine_of_series(series)
    try:
        view, turned = match_array(array.transpose(2, 1, 0), affine, target)
    except ValueError:
        return None, "its axes are oblique to those of the source"
    size, wanted = " x ".join(map(str, view.shape)), " x ".join(map(str, series.shape[::-1]))
    if view.shape != series.shape[::-1]:
        return None, f"{size} voxels, where the source has {wanted} (columns x rows x slices)"
    apart = _corner_difference(np.array(turned), target, view.shape)
    if apart > _TOLERANCE + _SHARE * series.slice_spacing:
        return None, f"the same number of voxels, but its corners are up to {apart:.3g} mm from those of the source"
    return view.transpose(2, 1, 0), ""


def _corner_difference(affine: Floats, target: Floats, shape: tuple[int, ...]) -> float:
    ends = [(0, n - 1) for n in shape]
    corners = np.array([[i, j, k, 1] for i in ends[0] for j in ends[1] for k in ends[2]])
    return float(np.linalg.norm((corners @ (affine - target).T)[:, :3], axis=1).max())


def _nearest(
    array: NDArray[np.unsignedinteger], affine: Floats, target: Floats, shape: tuple[int, int, int]
) -> NDArray[np.unsignedinteger]:
    """Value of the nearest voxel of the image at every voxel centre of the CT, slice by slice; 0 outside the image."""
    to_image = np.linalg.inv(affine) @ target
    size = np.array(array.shape[::-1])
    out = np.zeros(shape, array.dtype)
    j, i = np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij")
    plane = np.stack([i, j, np.zeros_like(i), np.ones_like(i)]).reshape(4, -1)
    for k in range(shape[0]):
        plane[2] = k
        index = np.floor((to_image @ plane)[:3] + 0.5).astype(np.int64)
        inside = ((index >= 0) & (index < size[:, None])).all(axis=0)
        x, y, z = index[:, inside]
        out[k].reshape(-1)[inside] = array[z, y, x]
    return out


def _outside(array: NDArray[np.unsignedinteger], affine: Floats, target: Floats, shape: tuple[int, int, int]) -> int:
    """Number of labelled voxels of the image whose centres are outside the CT."""
    k, j, i = np.nonzero(array)
    if k.size == 0:
        return 0
    index = (np.linalg.inv(target) @ affine @ np.stack([i, j, k, np.ones_like(i)]))[:3]
    size = np.array(shape[::-1])[:, None]
    return int(np.count_nonzero(~((index >= -0.5) & (index < size - 0.5)).all(axis=0)))
