"""Preprocess a CT volume for a network: canonical axes, crop, normalisation, resampling, grids of the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.errors import InputError
from ctenrich.nnunet.plans import ModelPlan, Normalisation
from ctenrich.nnunet.resample import Planes, new_shape, resample_image, separate_axis
from ctenrich.reasons import Reason
from ctenrich.records import Matrix4

if TYPE_CHECKING:
    import torch

__all__ = ["Axes", "Grids", "canonical_axes", "nonzero_box", "to_network"]

Ranges = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Axes:
    """Exchange and flips of axes that turn an array [k, j, i] into [z, y, x]."""

    order: tuple[int, int, int]
    """Array axis that becomes z, y and x."""
    flips: tuple[int, ...]
    """Axes of the turned array that are flipped."""

    def turn(self, array: NDArray[Any]) -> NDArray[Any]:
        """View of [k, j, i] as [z, y, x]."""
        return np.flip(np.transpose(array, self.order), self.flips)

    def turn_channels(self, array: NDArray[Any]) -> NDArray[Any]:
        """View of [channel, k, j, i] as [channel, z, y, x]."""
        turned = np.transpose(array, (0, *(a + 1 for a in self.order)))
        return np.flip(turned, tuple(a + 1 for a in self.flips))

    def back(self, array: NDArray[Any]) -> NDArray[Any]:
        """View of [z, y, x] as [k, j, i]."""
        return np.transpose(np.flip(array, self.flips), np.argsort(self.order))


def canonical_axes(affine_lps: Matrix4, towards: str = "LPS") -> Axes:
    """Exchange and flips that turn an array to the axes that models were trained on.

    Parameters
    ----------
    affine_lps : 4x4
        (i, j, k, 1) -> mm, LPS.
    towards : str
        Directions of growing x, y, z: ``LPS`` is what SimpleITK reads from an axial DICOM series, ``LAS`` what it reads
        from dcm2niix's file of the same series.

    Returns
    -------
    Axes

    Notes
    -----
    Oblique series take the nearest axes; nothing is resampled.
    """
    columns = np.asarray(affine_lps, float)[:3, :3]
    directions = columns / np.linalg.norm(columns, axis=0)
    chosen: dict[int, int] = {}
    for _ in range(3):
        free = [
            (abs(directions[world, index]), world, index)
            for world in range(3)
            for index in range(3)
            if world not in chosen and index not in chosen.values()
        ]
        _, world, index = max(free, key=lambda item: (round(item[0], 9), -item[1], -item[2]))
        chosen[world] = index
    signs = [1 if letter in "LPS" else -1 for letter in towards]
    flips = tuple(axis for axis, world in enumerate((2, 1, 0)) if directions[world, chosen[world]] * signs[world] < 0)
    return Axes((2 - chosen[2], 2 - chosen[1], 2 - chosen[0]), flips)


@dataclass(frozen=True)
class Grids:
    """Source grid, cropped box and network's grid of one volume."""

    shape: tuple[int, ...]
    """Of the transposed source array."""
    box: Ranges
    """Part that is not all zero; the network sees only this."""
    spacing: tuple[float, ...]
    """Of the transposed source array, mm."""
    target: tuple[float, ...]
    """Of the network's grid, mm."""

    @property
    def cropped(self) -> tuple[int, ...]:
        """Shape of the box."""
        return tuple(b - a for a, b in self.box)

    def back_axis(self, plan: ModelPlan) -> int | None:
        """Axis that is resampled on its own on the way back; None if there is none.

        v1 looks at the source's spacing first, and takes the axis of the network's spacing as one of the source's.
        """
        if plan.version == 2:
            return separate_axis(plan.logits, self.target, self.spacing)
        own = separate_axis(plan.logits, self.spacing, self.spacing)
        if own is not None or plan.logits.force_separate_z is not None:
            return own
        if max(self.spacing) / min(self.spacing) > plan.logits.threshold:
            return None
        other = separate_axis(plan.logits, self.target, self.target)
        return None if other is None else plan.transpose.index(other)


def nonzero_box(array: NDArray[Any]) -> Ranges:
    """Smallest box that contains all values other than 0; the whole array if there are none."""
    first, second, third = (np.zeros(n, bool) for n in array.shape)
    for k in range(array.shape[0]):
        plane = array[k] != 0
        rows = plane.any(axis=1)
        if rows.any():
            first[k] = True
            second |= rows
            third |= plane.any(axis=0)
    if not first.any():
        first[:], second[:], third[:] = True, True, True
    ends = [np.flatnonzero(hits) for hits in (first, second, third)]
    return tuple((int(e[0]), int(e[-1]) + 1) for e in ends)  # type: ignore[return-value]


class _CtPlanes:
    """The planes of an integer array, clipped and normalised one by one, in single precision as nnU-Net does."""

    def __init__(self, array: NDArray[Any], how: Normalisation) -> None:
        self.array = array
        self.how = how
        self.shape = array.shape

    def _normalise(self, values: NDArray[Any]) -> NDArray[np.float32]:
        out = values.astype(np.float32)
        if self.how.scheme == "ct":
            np.clip(out, self.how.lower, self.how.upper, out=out)
            out -= self.how.mean
            out /= max(self.how.std, 1e-8)
        return out

    def __getitem__(self, k: int, /) -> NDArray[np.float32]:
        return self._normalise(self.array[k])

    def min(self) -> float:
        return float(self._normalise(np.asarray([self.array.min()]))[0])

    def max(self) -> float:
        return float(self._normalise(np.asarray([self.array.max()]))[0])


def _normalised_planes(array: NDArray[Any], how: Normalisation) -> Planes:
    if how.scheme in {"ct", "none"}:
        return _CtPlanes(array, how)
    image = array.astype(np.float32)
    if how.scheme == "zscore":
        mean, std = image.mean(), image.std()
        image -= mean
        image /= max(std, 1e-8)
    else:
        image -= image.min()
        image /= np.clip(image.max(), 1e-8, None)
    return image


def to_network(
    array: NDArray[Any], spacing: tuple[float, ...], plan: ModelPlan, device: torch.device, workers: int = 1
) -> tuple[torch.Tensor, Grids]:
    """Resample and normalise a CT for the network.

    Parameters
    ----------
    array : array, [z, y, x], HU
        On canonical axes.
    spacing : (z, y, x), mm
    plan : ModelPlan
    device : torch.device
        Where the tensor is made.
    workers : int
        Planes that are worked on at once.

    Returns
    -------
    tensor, [z, y, x], float32
        Axes transposed as the plan says.
    Grids
        The grids that `ctenrich.nnunet.postprocess.to_source` needs for the way back.

    Raises
    ------
    InputError
        HU_RANGE if values are not numbers.
    """
    if array.dtype.kind == "f" and not all(bool(np.isfinite(array[k]).all()) for k in range(array.shape[0])):
        raise InputError(Reason.HU_RANGE, "the volume contains values that are not numbers")
    turned = np.transpose(array, plan.transpose)
    turned_spacing = tuple(float(spacing[a]) for a in plan.transpose)
    box = nonzero_box(turned)
    target = plan.spacing if len(plan.spacing) == 3 else (turned_spacing[0], *plan.spacing)
    grids = Grids(turned.shape, box, turned_spacing, target)
    crop = turned[tuple(slice(a, b) for a, b in box)]
    shape = new_shape(grids.cropped, turned_spacing, target)
    separate = separate_axis(plan.data, turned_spacing, target)
    if plan.version == 1:
        data = resample_image(_CtPlanes(crop, Normalisation("none")), shape, plan.data, separate, device, workers)
        return _normalise_resampled(data, plan.normalisation), grids
    return resample_image(
        _normalised_planes(crop, plan.normalisation), shape, plan.data, separate, device, workers
    ), grids


def _normalise_resampled(data: torch.Tensor, how: Normalisation) -> torch.Tensor:
    """Normalise after resampling, as v1 does."""
    if how.scheme == "ct":
        return ((data.double().clamp(how.lower, how.upper) - how.mean) / how.std).float()
    if how.scheme == "zscore":
        return (data - data.mean()) / (data.std(correction=0) + 1e-8)
    return data
