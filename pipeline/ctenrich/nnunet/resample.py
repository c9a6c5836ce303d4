"""Resampling as matrix products: the result of skimage's resize (mode edge, no anti-aliasing, clipped), faster.

Spline interpolation along one axis is linear: output = matrix x input. The matrix of an axis contains the prefilter,
the edge padding of 12 samples that scipy adds before it, and the four (cubic) or two (linear) weights. It is applied
axis by axis. Coordinates are those of pixel centres: ``(i + 0.5) * n_in / n_out - 0.5``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ctenrich.inference.threads import in_order
from ctenrich.nnunet.plans import Resampling, fail

if TYPE_CHECKING:
    import torch

__all__ = ["Planes", "axis_matrix", "nearest_index", "new_shape", "resample_image", "separate_axis"]

_PAD = 12
_BLOCK = 32
_NOTHING = 1e-18
"""A weight that double precision cannot see."""


def new_shape(shape: tuple[int, ...], spacing: tuple[float, ...], target: tuple[float, ...]) -> tuple[int, ...]:
    """Shape on the target grid, rounded as nnU-Net rounds it.

    Parameters
    ----------
    shape : (z, y, x)
        Of the array.
    spacing, target : (z, y, x), mm
        Of the array and of the target grid.

    Returns
    -------
    (z, y, x)
        At least 1 along each axis.
    """
    return tuple(max(1, round(old / new * n)) for old, new, n in zip(spacing, target, shape, strict=True))


def separate_axis(rule: Resampling, spacing: tuple[float, ...], target: tuple[float, ...]) -> int | None:
    """Axis whose slices are resampled one by one, by nnU-Net's rule of anisotropy.

    Parameters
    ----------
    rule : Resampling
    spacing, target : (z, y, x), mm
        Of the array and of the target grid.

    Returns
    -------
    int or None
        None if all three axes are resampled together.
    """
    force = rule.force_separate_z
    if force is False:
        return None
    if force or max(spacing) / min(spacing) > rule.threshold:
        chosen = spacing
    elif max(target) / min(target) > rule.threshold:
        chosen = target
    else:
        return None
    axes = [a for a, value in enumerate(chosen) if max(chosen) / value == 1]
    return axes[0] if len(axes) == 1 else None


@lru_cache(maxsize=64)
def axis_matrix(n_in: int, n_out: int, order: int) -> NDArray[np.float64]:
    """Matrix of an interpolation along one axis; edges are repeated.

    Parameters
    ----------
    n_in, n_out : int
        Samples of input and output.
    order : int
        0 (nearest), 1 (linear) or 3 (cubic B-spline).

    Returns
    -------
    array of float64, [n_out, n_in]

    Raises
    ------
    ModelError
        BAD_MODEL for another order.
    """
    if order == 0:
        out = np.zeros((n_out, n_in))
        out[np.arange(n_out), nearest_index(n_in, n_out)] = 1
        return out
    at = np.clip(
        (np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5, *((0, n_in - 1) if order == 1 else (-_PAD, n_in + _PAD))
    )
    floor = np.floor(at).astype(int)
    t = at - floor
    rows = np.arange(n_out)
    if order == 1:
        out = np.zeros((n_out, n_in))
        np.add.at(out, (rows, floor), 1 - t)
        np.add.at(out, (rows, np.minimum(floor + 1, n_in - 1)), t)
        return out
    if order != 3:
        fail(f"resampling of order {order} is not supported")
    from scipy import ndimage

    padded = np.pad(np.eye(n_in), ((_PAD, _PAD), (0, 0)), mode="edge")
    coefficients = ndimage.spline_filter1d(padded, order=3, axis=0, mode="nearest")
    taps = ((1 - t) ** 3 / 6, (4 - 6 * t**2 + 3 * t**3) / 6, (1 + 3 * t + 3 * t**2 - 3 * t**3) / 6, t**3 / 6)
    cubic = np.zeros((n_out, n_in))
    for offset, weight in zip(range(-1, 3), taps, strict=True):
        index = np.clip(floor + offset + _PAD, 0, n_in + 2 * _PAD - 1)
        cubic += weight[:, None] * coefficients[index]
    return cubic


def nearest_index(n_in: int, n_out: int) -> NDArray[np.int64]:
    """Index of the input sample that each output sample takes at order 0.

    Parameters
    ----------
    n_in, n_out : int
        Samples of input and output.

    Returns
    -------
    array of int64, [n_out]
    """
    at = np.clip((n_in / n_out) * (np.arange(n_out) + 0.5) - 0.5, 0, n_in - 1)
    index: NDArray[np.int64] = np.floor(at + 0.5).astype(np.int64).clip(0, n_in - 1)
    return index


class Planes(Protocol):
    """A volume [z, y, x] that is read plane by plane: an array, or an object that computes its planes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(z, y, x)."""

    def __getitem__(self, k: int, /) -> NDArray[Any]:
        """Plane k, [y, x], float32."""

    def min(self) -> Any:
        """Smallest value."""

    def max(self) -> Any:
        """Largest value."""


@dataclass(frozen=True)
class _Products:
    """How the matrix products of one volume are made."""

    order: int
    """Of the interpolation: 1 or 3."""
    device: torch.device
    workers: int
    """Planes at a time."""


def resample_image(
    image: Planes,
    shape: tuple[int, ...],
    rule: Resampling,
    separate: int | None,
    device: torch.device,
    workers: int = 1,
) -> torch.Tensor:
    """Resample a volume to another grid of the same extent.

    Parameters
    ----------
    image : Planes
        An array [z, y, x] of float32, or an object that returns such planes.
    shape : (z, y, x)
        Of the result.
    rule : Resampling
        Orders along the axes.
    separate : int or None
        Axis that is resampled with `rule.order_z` after its slices were resampled one by one.
    device : torch.device
        Where the products are made: float64 on a CPU, float32 elsewhere.
    workers : int
        Planes that are worked on at once; the result is the same.

    Returns
    -------
    tensor, [z, y, x], float32
        On `device`.

    Raises
    ------
    ModelError
        BAD_MODEL for an order that is not supported.
    """
    import torch

    if tuple(image.shape) == tuple(shape):
        return torch.stack([torch.from_numpy(np.ascontiguousarray(image[k])) for k in range(shape[0])]).to(device)
    how = _Products(rule.order, device, workers)
    if separate is None:
        limits = (float(image.min()), float(image.max()))
        out = _resample_all_axes(image, shape, how)
        return (out.clamp_(*limits) if rule.order > 1 else out).float()
    if separate != 0:
        whole = np.stack([image[k] for k in range(image.shape[0])])
        image = np.moveaxis(whole, separate, 0)
    target = (shape[separate], *(n for a, n in enumerate(shape) if a != separate))
    if rule.order_z != 0 and target[0] != image.shape[0]:
        fail(f"resampling slices with order {rule.order_z} is not supported")
    used, where = np.unique(nearest_index(image.shape[0], target[0]), return_inverse=True)
    planes = _resample_planes(image, used.tolist(), target[1:], how, clip=True)
    return planes[torch.from_numpy(where).to(device)].movedim(0, separate).contiguous()


def _resample_planes(
    image: Planes, which: Sequence[int], shape: tuple[int, ...], how: _Products, clip: bool = False
) -> torch.Tensor:
    """Resample the last two axes; with `clip`, each plane keeps to the range that it had and is in single precision."""
    import torch

    device, dtype = how.device, torch.float64 if how.device.type == "cpu" else torch.float32
    rows = torch.from_numpy(axis_matrix(image.shape[1], shape[0], how.order)).to(device, dtype)
    columns = torch.from_numpy(axis_matrix(image.shape[2], shape[1], how.order)).to(device, dtype).T.contiguous()
    out = torch.empty((len(which), *shape), dtype=torch.float32 if clip else dtype, device=device)
    same = tuple(image.shape[1:]) == tuple(shape)
    if _takes_blocks(device):
        for first in range(0, len(which), _BLOCK):
            block = _upload(np.stack([image[k] for k in which[first : first + _BLOCK]]), device, dtype)
            made = block if same else rows @ block @ columns
            low, high = block.amin((1, 2), keepdim=True), block.amax((1, 2), keepdim=True)
            out[first : first + len(block)] = torch.clamp(made, low, high) if clip else made
        return out

    def resample(n: int) -> None:
        here = torch.from_numpy(np.ascontiguousarray(image[which[n]])).to(device, dtype)
        made = here if same else rows @ here @ columns
        out[n] = made.clamp_(here.min(), here.max()) if clip else made

    deque(in_order(resample, range(len(which)), how.workers), maxlen=0)
    return out


def _takes_blocks(device: torch.device) -> bool:
    """Whether planes are copied to the device and resampled many at a time; a CPU takes them one by one."""
    return device.type != "cpu"


def _upload(planes: NDArray[Any], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Copy planes to a device; from pinned memory the copy runs beside the preparation of the next planes."""
    import torch

    host = torch.from_numpy(planes)
    if device.type == "cuda" and torch.cuda.is_available():
        host = host.pin_memory()
    return host.to(device, non_blocking=True).to(dtype)


def _resample_all_axes(image: Planes, shape: tuple[int, ...], how: _Products) -> torch.Tensor:
    """Resample all three axes, a block of planes at a time; a block reaches only the planes of the result near it."""
    import torch

    count = image.shape[0]
    if count == shape[0]:
        return _resample_planes(image, range(count), shape[1:], how)
    weights = axis_matrix(count, shape[0], how.order)
    out: torch.Tensor | None = None
    for first in range(0, count, _BLOCK):
        which = range(first, min(first + _BLOCK, count))
        planes = _resample_planes(image, which, shape[1:], how)
        out = torch.zeros(shape, dtype=planes.dtype, device=how.device) if out is None else out
        block = weights[:, first : which.stop]
        near = np.flatnonzero(np.abs(block).max(axis=1) > _NOTHING)
        if near.size:
            rows = slice(int(near[0]), int(near[-1]) + 1)
            part = torch.from_numpy(np.ascontiguousarray(block[rows])).to(planes)
            out[rows] += (part @ planes.reshape(len(which), -1)).reshape(-1, *shape[1:])
    assert out is not None
    return out
