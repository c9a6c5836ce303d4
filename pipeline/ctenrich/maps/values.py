"""Values of a map on the grid of its source, as they are to be stored: checked, and handed out slice by slice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.errors import InputError
from ctenrich.harmonise.grid import turned_to_grid
from ctenrich.harmonise.images import open_image
from ctenrich.reasons import Reason
from ctenrich.records import SortedSeries

__all__ = ["STORED_TYPES", "StoredValues", "values_of_image"]

STORED_TYPES = ("auto", "float32", "float64")
"""Pixels of a map: ``auto`` stores 8-bit and 16-bit integers as 16 bits with their mapping, floating point as it is."""
_WHOLE = (np.dtype(np.uint16), np.dtype(np.int16))


@dataclass(frozen=True, kw_only=True)
class StoredValues:
    """Values as they are to be stored; nothing is copied until a slice is asked for."""

    array: NDArray[Any] = field(repr=False)
    """[k, j, i] on the grid of the source; a view of what was read."""
    kind: np.dtype[Any]
    """uint16, int16, float32 or float64: type of the pixels."""
    slope: float = 1.0
    intercept: float = 0.0
    """Value = slope * pixel + intercept."""
    padding: float | None = None
    """Pixels of this value have no value; NaN is stored as it."""
    scale: tuple[float, float] = (1.0, 0.0)
    """Slope and intercept that are applied to `array` before it is stored as floating point."""

    def plane(self, k: int) -> NDArray[Any]:
        """Pixels of one slice, [j, i], of type `kind`."""
        plane = self.array[k]
        if self.scale != (1.0, 0.0):
            plane = plane.astype(np.float64) * self.scale[0] + self.scale[1]
        if self.padding is not None and plane.dtype.kind == "f":
            plane = np.where(np.isnan(plane), self.padding, plane)
        return np.ascontiguousarray(plane, self.kind)

    def planes(self) -> Iterator[NDArray[Any]]:
        """Pixels of all slices in turn."""
        return (self.plane(k) for k in range(self.array.shape[0]))

    def limits(self, name: str) -> tuple[float, float]:
        """Smallest and largest real world value, padding aside.

        Raises
        ------
        InputError
            BAD_MAP if a value is not finite, or there is none at all.
        """
        low, high, absent = np.inf, -np.inf, 0
        for plane in self.planes():
            inside = plane if self.padding is None else plane[plane != self.kind.type(self.padding)]
            absent += plane.size - inside.size
            if not inside.size:
                continue
            if self.kind.kind == "f" and not np.isfinite(inside).all():
                bad = int(np.count_nonzero(~np.isfinite(inside)))
                hint = "--padding VALUE stores NaN as that value, which the object then states to be none"
                raise InputError(Reason.BAD_MAP, f"{name} has {bad} voxels of a slice that are NaN or infinite", hint)
            low, high = min(low, float(inside.min())), max(high, float(inside.max()))
        if low > high:
            raise InputError(Reason.BAD_MAP, f"{name} has no voxel with a value: {absent} are padding")
        ends = sorted((low * self.slope + self.intercept, high * self.slope + self.intercept))
        return ends[0], ends[1]

    def sha256(self) -> str:
        """Hash of pixels, type and mapping."""
        digest = hashlib.sha256(repr((self.kind.name, self.slope, self.intercept, self.padding)).encode())
        for plane in self.planes():
            digest.update(plane.data)
        return digest.hexdigest()


def values_of_image(
    path: Path, series: SortedSeries, *, stored: str = "auto", padding: float | None = None
) -> StoredValues:
    """Read a NIfTI, NRRD or MetaImage volume on the grid of its source.

    The scaling of a NIfTI header becomes the mapping of the object where the file holds 8-bit or 16-bit integers: the
    integers are stored as they are, and the slope is not applied to them.

    Parameters
    ----------
    path : Path
        One volume.
    series : SortedSeries
        The source.
    stored : str
        One of `STORED_TYPES`.
    padding : float, optional
        Stored value of voxels without a value; NaN is stored as it.

    Returns
    -------
    StoredValues

    Raises
    ------
    InputError
        BAD_MAP for several volumes, colours, or a padding that the pixels cannot have; OTHER_GRID; MISSING_GEOMETRY,
        NOT_ORTHOGONAL and DECODE_ERROR as :func:`ctenrich.harmonise.images.open_image`.
    """
    try:
        image = open_image(path, scaled=False)
    except InputError as error:
        if error.reason is Reason.BAD_MASK:
            raise InputError(Reason.BAD_MAP, error.message) from error
        raise
    view, difference = turned_to_grid(image.array, np.asarray(image.affine_lps), series)
    if view is None:
        hint = "give the series that the map was made from, or resample the map to its grid"
        raise InputError(Reason.OTHER_GRID, f"{path.name} is on another grid than the source: {difference}", hint)
    scale = (image.slope, image.intercept)
    kind = _stored_type(view, scale, stored)
    if kind in _WHOLE:
        values = StoredValues(array=view, kind=kind, slope=scale[0], intercept=scale[1], padding=padding)
    else:
        values = StoredValues(array=view, kind=kind, padding=padding, scale=scale)
    if padding is not None and not _has_value(kind, padding):
        raise InputError(Reason.BAD_MAP, f"the padding {padding:g} is no value of {kind.name} pixels", "choose another")
    return values


def _stored_type(array: NDArray[Any], scale: tuple[float, float], stored: str) -> np.dtype[Any]:
    if stored != "auto":
        return np.dtype(stored)
    if array.dtype.kind == "f":
        single = array.dtype.itemsize <= 4 and scale == (1.0, 0.0)
        return np.dtype(np.float32 if single else np.float64)
    low, high = int(array.min()), int(array.max())
    for kind in (np.uint16, np.int16):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.dtype(kind)
    return np.dtype(np.float64)


def _has_value(kind: np.dtype[Any], value: float) -> bool:
    if kind.kind == "f":
        return bool(np.isfinite(value)) and abs(value) <= float(np.finfo(kind).max)
    return value == int(value) and np.iinfo(kind).min <= value <= np.iinfo(kind).max
