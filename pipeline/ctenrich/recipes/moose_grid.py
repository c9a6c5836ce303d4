"""Resampling and pieces as MOOSE makes them: ITK's B-spline block by block, networks piece by piece.

MOOSE cuts an image into equal blocks of at least 150 voxels where an axis can be divided so, and resamples each block
as an image of its own; the blocks of the result are put side by side. A network gets pieces of at most 350 voxels an
axis, each with 20 voxels of its neighbours, and each is normalised and padded on its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["in_pieces", "resample_blocks", "resample_labels"]

Spacing = tuple[float, float, float]
_BLOCK = 150
_PIECE = 350
_OVERLAP = 20


def _block_count(n: int) -> int:
    """Number of equal blocks of at least 150 voxels into which an axis is divided."""
    count = max(1, n // _BLOCK)
    while n % count:
        count -= 1
    return count


def resample_blocks(image: NDArray[Any], spacing: Spacing, target: Spacing) -> NDArray[np.float32]:
    """Resample an image with ITK's cubic B-spline, block by block.

    Parameters
    ----------
    image : array, [z, y, x]
    spacing, target : (z, y, x), mm

    Returns
    -------
    array of float32, [z, y, x]
        Voxels outside the image are 0.
    """
    sizes = [n // _block_count(n) for n in image.shape]
    made = [round(size * (old / new)) for size, old, new in zip(sizes, spacing, target, strict=True)]
    counts = [n // size for n, size in zip(image.shape, sizes, strict=True)]
    out = np.zeros([count * size for count, size in zip(counts, made, strict=True)], np.float32)
    for block in product(*(range(count) for count in counts)):
        source = tuple(slice(b * n, (b + 1) * n) for b, n in zip(block, sizes, strict=True))
        place = tuple(slice(b * n, (b + 1) * n) for b, n in zip(block, made, strict=True))
        out[place] = _resample_one(image[source], spacing, target, made)
    return out


def _resample_one(block: NDArray[Any], spacing: Spacing, target: Spacing, size: Sequence[int]) -> NDArray[Any]:
    double = np.ascontiguousarray(block, np.float64)
    return _itk_resample(double, spacing, target, size, order=3)


def _itk_resample(
    array: NDArray[Any], spacing: Spacing, target: Spacing, size: Sequence[int], *, order: int
) -> NDArray[Any]:
    """ITK's resampling to another grid with the same first voxel; order 3 (B-spline) or 0 (nearest), 0 outside."""
    sitk: Any = import_module("SimpleITK")  # it takes long to import, and has few types
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing[::-1])
    made = sitk.Resample(
        image,
        [int(n) for n in size[::-1]],
        sitk.Transform(),
        sitk.sitkBSpline if order else sitk.sitkNearestNeighbor,
        image.GetOrigin(),
        target[::-1],
        image.GetDirection(),
        0.0,
        image.GetPixelID(),
    )
    return np.asarray(sitk.GetArrayFromImage(made))


def resample_labels(
    labels: NDArray[np.unsignedinteger], spacing: Spacing, target: Spacing, shape: tuple[int, ...]
) -> NDArray[np.unsignedinteger]:
    """Resample a label map to another grid with the same first voxel, by its nearest voxels as ITK takes them.

    Parameters
    ----------
    labels : array, [z, y, x]
    spacing, target : (z, y, x), mm
    shape : (z, y, x)
        Of the result.

    Returns
    -------
    array, [z, y, x]
        Voxels outside the label map are 0.
    """
    return _itk_resample(labels, spacing, target, shape, order=0)


def _pieces(n: int) -> Iterator[tuple[slice, slice, slice]]:
    """Per piece of an axis: what is read, what of it is kept, and where that belongs."""
    count = max(1, math.ceil(n / _PIECE)) if n > 1 else 1
    start = 0
    for k in range(count):
        end = start + n // count + (1 if k < n % count else 0)
        first = max(0, start - _OVERLAP) if k else start
        last = min(n, end + _OVERLAP) if k < count - 1 else end
        yield slice(first, last), slice(start - first, end - first), slice(start, end)
        start = end


def in_pieces(
    image: NDArray[Any], make: Callable[[NDArray[Any]], NDArray[np.unsignedinteger]]
) -> NDArray[np.unsignedinteger]:
    """Segment an image piece by piece.

    Parameters
    ----------
    image : array, [z, y, x]
    make : callable
        Labels of one piece, on its grid.

    Returns
    -------
    array, [z, y, x]
    """
    axes = [list(_pieces(n)) for n in image.shape]
    out: NDArray[np.unsignedinteger] | None = None
    for piece in product(*axes):
        read, kept, place = (tuple(axis[part] for axis in piece) for part in range(3))
        labels = make(np.ascontiguousarray(image[read]))
        out = np.zeros(image.shape, labels.dtype) if out is None else out
        out[place] = labels[kept]
    assert out is not None
    return out
