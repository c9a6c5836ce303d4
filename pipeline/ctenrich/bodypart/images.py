"""Resample the slices of a CT volume to the images of body part regression: two matrix products per slice.

The public model's preprocessing in training: HU clipped to -1000..1500 and mapped to -1..1; in-plane Gaussian (sigma =
0.2 / scale pixels, cut at 3 sigma, mirrored at the border), bilinear to 3.5 mm, padded with -1 or cropped about the
middle to 128 x 128; no resampling across slices. Blur, interpolation, crop and padding are linear, so they are one
matrix for each of the two axes.

Images have one of two orientations, see :class:`ImageAxes`; the affine decides which axis of the array is which, so the
same anatomy gives the same image for every order of rows and columns. Slices keep their index; nothing is reordered or
left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ctenrich.errors import GeometryError, InputError
from ctenrich.reasons import Reason
from ctenrich.records import Matrix4

__all__ = ["ImageAxes", "ImageMaker", "ImagePlan", "feet_to_head", "plan_images", "resampling_matrix"]

SIZE = 128
SPACING = 3.5
HU_RANGE = (-1000.0, 1500.0)
AIR = -900.0
"""A slice with nothing above this many HU at 3.5 mm shows no patient."""
_SIGMA = 0.8 * 0.25
_TRUNCATE = 3.0

Float = NDArray[np.float32]


class ImageAxes(StrEnum):
    """Orientation of the images that a network was trained with."""

    VIEWER = "viewer"
    """[growing to Posterior, growing to Left]: an axial slice as DICOM stores it and viewers show it."""
    NIFTI = "nifti"
    """[growing to Left, growing to Anterior]: as bpreg reads the files that dcm2niix writes."""


@dataclass(frozen=True)
class ImagePlan:
    """Matrices and orientation for the slices of one volume."""

    rows: Float
    """[128, n]: from the array's row axis j to 128 pixels."""
    columns: Float
    """[128, m]: from the array's column axis i to 128 pixels."""
    transposed: bool
    """Whether the images' first axis is the array's column axis."""


def feet_to_head(affine: Matrix4) -> bool:
    """Whether growing slice index means towards the head.

    Raises
    ------
    GeometryError
        ZERO_SPACING, or NOT_AXIAL if the slice axis is not mainly along the patient's long axis.
    """
    axes = np.asarray(affine, dtype=np.float64)[:3, :3]
    if not np.isfinite(axes).all() or (np.linalg.norm(axes, axis=0) == 0).any():
        raise GeometryError(Reason.ZERO_SPACING, "a spacing of the volume is zero")
    unit = np.abs(axes / np.linalg.norm(axes, axis=0))
    if int(np.argmax(unit[:, 2])) != 2 or int(np.argmax(unit[2])) != 2:
        raise GeometryError(Reason.NOT_AXIAL, "slice scores need slices across the long axis of the patient")
    return bool(axes[2, 2] > 0)


def plan_images(shape: tuple[int, int, int], affine: Matrix4, axes: ImageAxes = ImageAxes.VIEWER) -> ImagePlan:
    """Matrices for a volume of this shape and affine.

    Parameters
    ----------
    shape : (slices, rows, columns)
    affine : 4x4
        (i, j, k, 1) -> mm, LPS.
    axes : ImageAxes
        The orientation that the network expects.

    Returns
    -------
    ImagePlan

    Raises
    ------
    GeometryError
        ZERO_SPACING or NOT_AXIAL, see `feet_to_head`.
    """
    feet_to_head(affine)
    steps = np.asarray(affine, dtype=np.float64)[:2, :2]  # mm to Left and Posterior for one step of i and of j
    spacing = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :2], axis=0)
    columns, rows = (resampling_matrix(shape[2 - n], float(spacing[n])) for n in (0, 1))
    columns_run_left = bool(abs(steps[0, 0]) / spacing[0] >= abs(steps[0, 1]) / spacing[1])
    along_i, along_j = (steps[0, 0], steps[1, 1]) if columns_run_left else (steps[1, 0], steps[0, 1])
    # Does each axis of the array run in the direction of the image axis (Left; Posterior, or Anterior for NIFTI)?
    depth = 1 if axes is ImageAxes.VIEWER else -1
    if along_i * (1 if columns_run_left else depth) < 0:
        columns = columns[:, ::-1]
    if along_j * (depth if columns_run_left else 1) < 0:
        rows = rows[:, ::-1]
    transposed = columns_run_left is (axes is ImageAxes.NIFTI)
    return ImagePlan(np.ascontiguousarray(rows), np.ascontiguousarray(columns), transposed)


def resampling_matrix(length: int, spacing: float) -> Float:
    """Blur, interpolation to 3.5 mm, and crop or padding to 128, as one matrix.

    Parameters
    ----------
    length : int
        Number of pixels along the axis.
    spacing : float
        mm.

    Returns
    -------
    NDArray[np.float32]
        ``[128, length]``; padding rows are zero.

    Raises
    ------
    GeometryError
        ZERO_SPACING for a spacing that is not positive, or so small that the axis is under two pixels of 3.5 mm.
    """
    if not spacing > 0:
        raise GeometryError(Reason.ZERO_SPACING, "a pixel spacing of the volume is zero")
    target = int(length / (SPACING / spacing) + 0.5)
    if target < 2:
        raise GeometryError(Reason.ZERO_SPACING, f"the field of view is under {2 * SPACING:g} mm wide")
    small = _bilinear_matrix(length, target) @ _gaussian_matrix(length, _SIGMA / (target / length))
    if target > SIZE:
        start = (target - SIZE) // 2
        return small[start : start + SIZE].astype(np.float32)
    out = np.zeros((SIZE, length), np.float32)
    before = (SIZE - target) // 2
    out[before : before + target] = small
    return out


def _gaussian_matrix(length: int, sigma: float) -> NDArray[np.float64]:
    radius = int(_TRUNCATE * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    out = np.zeros((length, length))
    rows = np.arange(length)
    for offset, weight in zip(offsets, weights, strict=True):
        period = (rows + offset) % (2 * length)
        np.add.at(out, (rows, np.where(period < length, period, 2 * length - 1 - period)), weight)
    return out


def _bilinear_matrix(length: int, target: int) -> NDArray[np.float64]:
    centres = (np.arange(target) + 0.5) * (length / target) - 0.5
    low = np.floor(centres)
    share = centres - low
    rows = np.arange(target)
    out = np.zeros((target, length))
    np.add.at(out, (rows, np.clip(low, 0, length - 1).astype(int)), 1 - share)
    np.add.at(out, (rows, np.clip(low + 1, 0, length - 1).astype(int)), share)
    return out


class ImageMaker:
    """Makes the images of any slices of one volume; several threads may use it at the same time.

    Products are torch's, whose number of threads can be set for each of the caller's threads: the products are too
    small to be split.

    Parameters
    ----------
    array : NDArray
        [k, j, i], HU; only the requested slices of a memory-mapped array are read.
    plan : ImagePlan
    """

    def __init__(self, array: NDArray[Any], plan: ImagePlan) -> None:
        self._array = array
        self._transposed = plan.transposed
        self._rows, self._columns = _diagonal_blocks(plan.rows), _diagonal_blocks(plan.columns)
        low, high = HU_RANGE
        # (HU - low) * 2 / (high - low) is in 0..2, so that padding is 0 until 1 is subtracted at the end. The offset
        # is subtracted after the products: a row of a matrix sums up to 1, or to 0 where it is padding.
        self._scale = np.float32(2 / (high - low))
        sums = np.outer(plan.rows.sum(axis=1), plan.columns.sum(axis=1))
        self._offset = np.float32(low) * sums.astype(np.float32)
        self._inside = _inside(plan)

    def images(self, start: int, stop: int) -> tuple[Float, NDArray[np.bool_]]:
        """Images of consecutive slices, and which of them show no patient.

        Parameters
        ----------
        start, stop : int
            Slice indices; `stop` is exclusive.

        Returns
        -------
        images : NDArray[np.float32]
            ``[slice, 128, 128]``, -1..1.
        empty : NDArray[np.bool_]
            ``[slice]``: air only, or a single value.

        Raises
        ------
        InputError
            HU_RANGE if a value is not a number.
        """
        part = np.asarray(self._array[start:stop])
        if part.dtype.kind == "f" and not np.isfinite(part).all():
            raise InputError(Reason.HU_RANGE, "the volume contains values that are not numbers")
        low, high = (part.dtype.type(value) for value in HU_RANGE)
        images = np.zeros((len(part), SIZE, SIZE), np.float32)
        half = torch.zeros(SIZE, part.shape[2])
        for plane, image in zip(part, torch.from_numpy(images), strict=True):
            values = torch.from_numpy(np.clip(plane, low, high).astype(np.float32))
            for out, used, block in self._rows:
                torch.mm(block, values[used], out=half[out])
            for out, used, block in self._columns:
                image[:, out] = half[:, used] @ block.T
        images -= self._offset
        images *= self._scale
        shown = images[:, self._inside[0], self._inside[1]]
        air = (AIR - HU_RANGE[0]) * self._scale
        empty = (shown.max(axis=(1, 2)) < air) | (np.ptp(shown, axis=(1, 2)) < 1e-4)
        images -= np.float32(1)
        return np.ascontiguousarray(images.transpose(0, 2, 1)) if self._transposed else images, empty


def _diagonal_blocks(matrix: Float, height: int = 16) -> list[tuple[slice, slice, torch.Tensor]]:
    """Cut a resampling matrix into blocks along its diagonal; everything else is zero.

    Returns
    -------
    list of (slice, slice, Tensor)
        Rows of the result, input that they need, and the block; rows that are padding have none.
    """
    found = []
    for start in range(0, len(matrix), height):
        used = np.flatnonzero(matrix[start : start + height].any(axis=0))
        if used.size:
            span = slice(int(used[0]), int(used[-1]) + 1)
            rows = slice(start, min(start + height, len(matrix)))
            found.append((rows, span, torch.from_numpy(np.ascontiguousarray(matrix[rows, span]))))
    return found


def _inside(plan: ImagePlan) -> tuple[slice, slice]:
    """The part of an image that is not padding, as (rows, columns) of the array."""
    spans = []
    for matrix in (plan.rows, plan.columns):
        rows = np.flatnonzero(matrix.any(axis=1))
        spans.append(slice(int(rows[0]), int(rows[-1]) + 1))
    return spans[0], spans[1]
