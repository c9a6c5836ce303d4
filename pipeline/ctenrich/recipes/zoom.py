"""Corner-aligned resampling: the values of scipy's ``zoom`` of order 1 or 3, and nearest labels on the way back.

The first and the last voxel of each axis keep their places (nnU-Net keeps the borders of the voxels instead). An output
voxel is the sum of its eight neighbours, each multiplied by the weights of the first, second and third axis one after
the other, in double precision. The sums have that order here too, because they are truncated to whole Hounsfield units
afterwards: a sum that differs in its last bit from -1000 would be another number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctenrich.inference.threads import in_order

__all__ = ["nearest_indices", "planes_beyond", "zoom_cubic", "zoom_labels", "zoom_linear", "zoomed_shape"]

_BLOCK = 16
"""Output planes that one worker makes one after another, so that neighbours share the work on source planes."""
Spacing = tuple[float, float, float]
Shape = tuple[int, ...]
Doubles = NDArray[np.float64]


def zoomed_shape(shape: Shape, spacing: Spacing, target: Spacing) -> Shape:
    """Shape of an array after resampling, rounded as scipy does (halves to the even number).

    Parameters
    ----------
    shape : (z, y, x)
    spacing, target : (z, y, x), mm

    Returns
    -------
    (z, y, x)
        An axis can get the length 0.
    """
    return tuple(round(n * (old / new)) for n, old, new in zip(shape, spacing, target, strict=True))


@dataclass(frozen=True)
class _Axis:
    """Lower and upper neighbour of each output index, and their weights."""

    low: NDArray[np.intp]
    high: NDArray[np.intp]
    low_weight: Doubles
    high_weight: Doubles

    @property
    def sides(self) -> tuple[tuple[NDArray[np.intp], Doubles], ...]:
        return (self.low, self.low_weight), (self.high, self.high_weight)


def _coordinates(n_in: int, n_out: int) -> Doubles:
    """Input coordinate of each output index: multiples of one rounded step; the last may be just beyond n_in - 1."""
    step = (n_in - 1) / (n_out - 1) if n_out > 1 else 1.0
    return np.arange(n_out, dtype=np.float64) * step


def _axis(n_in: int, n_out: int) -> _Axis:
    at = _coordinates(n_in, n_out)
    low = np.floor(at).astype(np.intp)
    high_weight = at - low
    low_weight = 1.0 - high_weight
    return _Axis(low, np.minimum(low + 1, n_in - 1), low_weight, 1.0 - low_weight)


def zoom_linear(array: NDArray[np.signedinteger], shape: Shape, workers: int = 1) -> NDArray[np.int32]:
    """Resample an image linearly and truncate it to whole numbers.

    Parameters
    ----------
    array : array of int, [z, y, x]
        Any strides.
    shape : (z, y, x)
        Of the result.
    workers : int
        Blocks of planes that are worked on at once.

    Returns
    -------
    array of int32, [z, y, x]
        ``scipy.ndimage.zoom(array as float64 [x, y, z], order=1, mode="nearest").astype(int32)``, voxel for voxel.
    """
    out = np.empty(shape, np.int32)
    axes = tuple(_axis(n_in, n_out) for n_in, n_out in zip(array.shape, shape, strict=True))

    def make(block: Sequence[int]) -> None:
        planes = _PlaneTerms(array, axes[1], axes[2])
        for k in block:
            out[k] = planes.output(axes[0], k)

    blocks = [range(first, min(first + _BLOCK, shape[0])) for first in range(0, shape[0], _BLOCK)]
    deque(in_order(make, blocks, workers), maxlen=0)
    return out


class _PlaneTerms:
    """The four in-plane terms of source planes; those of the last two planes are kept."""

    def __init__(self, array: NDArray[np.signedinteger], rows: _Axis, columns: _Axis) -> None:
        self.array = array
        width = array.shape[2]
        self.neighbours = [
            (row[:, None] * width + column, column_weight, row_weight[:, None])
            for column, column_weight in columns.sides
            for row, row_weight in rows.sides
        ]
        """Place in the plane, weight of the column and of the row of each output pixel's four neighbours."""
        self.kept: dict[int, list[Doubles]] = {}

    def _terms(self, k: int) -> list[Doubles]:
        """In the order (x low, y low), (x low, y high), (x high, y low), (x high, y high)."""
        if k not in self.kept:
            plane = np.ascontiguousarray(self.array[k]).reshape(-1)
            out = []
            for place, column_weight, row_weight in self.neighbours:
                term = plane.take(place) * column_weight
                term *= row_weight
                out.append(term)
            self.kept = {n: terms for n, terms in self.kept.items() if n >= k - 1} | {k: out}
        return self.kept[k]

    def output(self, planes: _Axis, k: int) -> Doubles:
        """One output plane: the sum over x, then y, then z (fastest), from the left.

        A plane that lies on a source plane leaves out the products with 0: they change the sign of a zero at most,
        which no whole number has.
        """
        low = self._terms(int(planes.low[k]))
        low_weight, high_weight = planes.low_weight[k], planes.high_weight[k]
        total: Doubles = low[0] * low_weight
        if high_weight == 0:
            for a in low[1:]:
                total += a
            return total
        high = self._terms(int(planes.high[k]))
        total += high[0] * high_weight
        term = np.empty_like(total)
        for a, b in zip(low[1:], high[1:], strict=True):
            total += np.multiply(a, low_weight, out=term)
            total += np.multiply(b, high_weight, out=term)
        return total


def zoom_cubic(array: NDArray[np.signedinteger], spacing: Spacing, target: Spacing) -> NDArray[np.int32]:
    """Resample an image with cubic splines and truncate it to whole numbers.

    The splines are scipy's own: their recursive filter runs along x, y and z one after the other, in double precision,
    and has no shorter way that gives the same bits.

    Parameters
    ----------
    array : array of int, [z, y, x]
    spacing, target : (z, y, x), mm

    Returns
    -------
    array of int32, [z, y, x]
        ``scipy.ndimage.zoom(array as float64 [x, y, z], order=3).astype(int32)``; 0 where rounding puts the last
        coordinate of an axis beyond the last voxel.
    """
    from scipy import ndimage  # takes long to import; version 1 of TotalSegmentator alone needs it

    turned = array.transpose(2, 1, 0).astype(np.float64)
    zoom = [old / new for old, new in zip(spacing[::-1], target[::-1], strict=True)]
    return np.asarray(ndimage.zoom(turned, zoom, order=3)).astype(np.int32).transpose(2, 1, 0)


def nearest_indices(n_in: int, n_out: int) -> NDArray[np.intp]:
    """Input index that each output index takes: the nearest of a corner-aligned axis, the upper one of two.

    Parameters
    ----------
    n_in, n_out : int
        Lengths of the axis.

    Returns
    -------
    array of int
    """
    return np.minimum(np.floor(_coordinates(n_in, n_out) + 0.5).astype(np.intp), n_in - 1)


def planes_beyond(n_in: int, n_out: int) -> NDArray[np.intp]:
    """Output indices whose coordinate is beyond the last voxel by rounding; at most the last one.

    Parameters
    ----------
    n_in, n_out : int
        Lengths of the axis.

    Returns
    -------
    array of int
    """
    return np.flatnonzero(_coordinates(n_in, n_out) > n_in - 1)


def zoom_labels(
    labels: NDArray[np.unsignedinteger], shape: Shape, *, constant: bool = False
) -> NDArray[np.unsignedinteger]:
    """Resample a label map to another shape by its nearest voxels.

    Parameters
    ----------
    labels : array, [z, y, x]
    shape : (z, y, x)
    constant : bool
        Whether voxels whose coordinate is rounded to a value beyond the last voxel are 0.

    Returns
    -------
    array, [z, y, x]
        ``scipy.ndimage.zoom(labels, order=0, mode="nearest")`` (or ``"constant"``) to that shape, voxel for voxel.
    """
    planes, rows, columns = (nearest_indices(n_in, n_out) for n_in, n_out in zip(labels.shape, shape, strict=True))
    small = np.take(labels, columns, axis=2) if shape[2] < labels.shape[2] else labels
    out = np.empty(shape, labels.dtype)
    last, made = -1, None
    for k, source in enumerate(planes.tolist()):
        if made is None or source != last:
            made = (small[source] if small is not labels else labels[source].take(columns, axis=1)).take(rows, axis=0)
            last = source
        out[k] = made
    for axis, (n_in, n_out) in enumerate(zip(labels.shape, shape, strict=True)):
        np.moveaxis(out, axis, 0)[planes_beyond(n_in, n_out) if constant else []] = 0
    return out
