"""The part of a volume that a feature network sees: a box around a structure, or the volume, on the network's grid.

Arrays are turned to the network's axes (RAS, LAS or LPS, by exchange and reversal of axes alone), so that a box
is one of the volume's own grid. Samples outside of the volume have a fixed value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.masks import Mask
from ctenrich.networks.intensities import Intensity, apply_intensities
from ctenrich.recipes.executor import closest_axes
from ctenrich.records import Box, Matrix4

if TYPE_CHECKING:
    from ctenrich.nnunet.preprocess import Axes

__all__ = ["CropRule", "Cropping", "NetworkInput", "Resampling", "VolumeInput"]

Vector = tuple[float, float, float]
Floats = NDArray[np.float32]


class Cropping(StrEnum):
    """Where the box is."""

    CENTROID = "centroid"
    """A box of fixed size in mm around the centroid of the structure."""
    BOUNDING_BOX = "bounding_box"
    """The bounding box of the structure with a margin, stretched to the network's input."""
    VOLUME = "volume"
    """The bounding box of all voxels above a threshold, stretched to the network's input; one vector per series."""


class Resampling(StrEnum):
    """How a box is stretched to the network's input."""

    LINEAR = "linear"
    """Trilinear; the outer faces of the box are those of the input."""
    AREA = "area"
    """Mean of the voxels that belong to each voxel of the input (adaptive average)."""


@dataclass(frozen=True, kw_only=True)
class CropRule:
    """How the input of a network is made from a volume."""

    rule: Cropping
    axes: str
    """Directions of growing x, y, z: RAS, LAS or LPS."""
    size: tuple[int, int, int]
    """(x, y, z) of the input, voxels."""
    spacing: Vector | None = None
    """(x, y, z), mm; only of `Cropping.CENTROID`."""
    margin: float = 0.0
    """mm on each side; only of `Cropping.BOUNDING_BOX`."""
    threshold: float | None = None
    """HU; only of `Cropping.VOLUME`. None: the whole volume."""
    resampling: Resampling = Resampling.LINEAR
    fill: float = -1024.0
    """HU outside of the volume."""
    intensities: tuple[Intensity, ...] = ()

    @property
    def needs_structure(self) -> bool:
        """Whether the box is that of a structure."""
        return self.rule is not Cropping.VOLUME

    def __str__(self) -> str:
        parts = [f"{self.rule} {'x'.join(map(str, self.size))} voxels", self.axes]
        if self.spacing is not None:
            parts.append(f"{'x'.join(f'{v:g}' for v in self.spacing)} mm")
        if self.rule is Cropping.BOUNDING_BOX:
            parts.append(f"margin {self.margin:g} mm")
        if self.threshold is not None:
            parts.append(f"above {self.threshold:g} HU")
        return ", ".join((*parts, str(self.resampling)))


@dataclass(frozen=True, kw_only=True)
class NetworkInput:
    """The input of a network for one structure."""

    data: Floats
    """[x, y, z], after the intensity steps."""
    outside: float
    """Share of its voxels that are outside of the volume."""


class VolumeInput:
    """Makes inputs from one volume.

    Parameters
    ----------
    array : array of int16, [k, j, i]
        HU; may be mapped from a file.
    affine_lps : 4x4
        (i, j, k, 1) -> mm, LPS.
    spacing : (float, float, float)
        mm between voxels, axes [k, j, i].
    """

    def __init__(self, array: NDArray[Any], affine_lps: Matrix4, spacing: Vector) -> None:
        self._array = array
        self._affine = affine_lps
        self._spacing = spacing

    def of_structure(self, rule: CropRule, mask: Mask, box: Box) -> NetworkInput:
        """Make the input for a structure.

        Parameters
        ----------
        rule : CropRule
            `Cropping.CENTROID` or `Cropping.BOUNDING_BOX`.
        mask : array of bool
            Cropped to `box`, with at least one voxel.
        box : Box
            Of the volume.

        Returns
        -------
        NetworkInput
        """
        axes = closest_axes(self._affine, rule.axes)
        if rule.rule is Cropping.CENTROID:
            found = np.nonzero(mask)
            start = (box.k0, box.j0, box.i0)
            centre = [float(where.mean()) + first for where, first in zip(found, start, strict=True)]
            return self._around(rule, axes, centre)
        low = np.array([box.k0, box.j0, box.i0])
        high = np.array([box.k1, box.j1, box.i1])
        return self._stretched(rule, axes, *self._widened(low, high, rule.margin))

    def of_volume(self, rule: CropRule) -> NetworkInput:
        """Make the input for the whole volume, cropped to the voxels above the threshold.

        Parameters
        ----------
        rule : CropRule
            `Cropping.VOLUME`.

        Returns
        -------
        NetworkInput
        """
        axes = closest_axes(self._affine, rule.axes)
        low, high = np.zeros(3, int), np.array(self._array.shape)
        if rule.threshold is not None:
            found = self._above(rule.threshold)
            low, high = found if found is not None else (low, high)
        return self._stretched(rule, axes, low, high)

    def _above(self, threshold: float) -> tuple[NDArray[np.intp], NDArray[np.intp]] | None:
        """Bounding box of the voxels above a threshold, slice by slice; None if there is none."""
        shape = self._array.shape
        lines = [np.zeros(n, bool) for n in shape]
        for k in range(shape[0]):
            above = np.asarray(self._array[k]) > threshold
            lines[0][k] = above.any()
            lines[1] |= above.any(axis=1)
            lines[2] |= above.any(axis=0)
        if not lines[0].any():
            return None
        ends = [np.flatnonzero(line)[[0, -1]] for line in lines]
        return np.array([e[0] for e in ends]), np.array([e[1] + 1 for e in ends])

    def _widened(
        self, low: NDArray[np.intp], high: NDArray[np.intp], margin: float
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The box with a margin in mm, rounded up to whole voxels and clipped to the volume."""
        more = np.array([math.ceil(margin / side - 1e-9) for side in self._spacing])
        return np.maximum(low - more, 0), np.minimum(high + more, self._array.shape)

    def _stretched(self, rule: CropRule, axes: Axes, low: NDArray[np.intp], high: NDArray[np.intp]) -> NetworkInput:
        import torch  # heavy; a network is loaded anyway
        from torch.nn import functional as nnf

        part = np.asarray(self._array[low[0] : high[0], low[1] : high[1], low[2] : high[2]])
        turned = np.ascontiguousarray(axes.turn(part).transpose(2, 1, 0)).astype(np.float32)
        given = torch.from_numpy(turned)[None, None]
        if rule.resampling is Resampling.AREA:
            found = nnf.interpolate(given, size=rule.size, mode="area")
        else:
            found = nnf.interpolate(given, size=rule.size, mode="trilinear", align_corners=False)
        return NetworkInput(data=_with_intensities(found[0, 0].numpy(), rule), outside=0.0)

    def _around(self, rule: CropRule, axes: Axes, centre: list[float]) -> NetworkInput:
        """Sample a box around a voxel by linear interpolation along one axis after the other."""
        assert rule.spacing is not None
        shape = self._array.shape
        lines: list[NDArray[np.float64]] = []
        for axis in range(3):  # of the turned array, [z, y, x]
            source = axes.order[axis]
            middle = shape[source] - 1 - centre[source] if axis in axes.flips else centre[source]
            count = rule.size[2 - axis]
            step = rule.spacing[2 - axis] / self._spacing[source]
            lines.append(np.asarray(middle + (np.arange(count) - (count - 1) / 2) * step, np.float64))
        turned = axes.turn(self._array)
        inside = [(line >= 0) & (line <= n - 1) for line, n in zip(lines, turned.shape, strict=True)]
        share = 1 - math.prod(float(one.mean()) for one in inside)
        out = np.full([len(line) for line in lines], rule.fill, np.float32)
        if all(one.any() for one in inside):
            part = turned
            starts = []
            for axis, (line, one) in enumerate(zip(lines, inside, strict=True)):
                first, last = math.floor(line[one][0]), math.ceil(line[one][-1])
                part = part.take(range(first, last + 1), axis) if axis else part[first : last + 1]
                starts.append(first)
            values = np.asarray(part, np.float64)
            for axis, (line, one) in enumerate(zip(lines, inside, strict=True)):
                values = _interpolated(values, axis, line[one] - starts[axis])
            out[np.ix_(*inside)] = values
        return NetworkInput(data=_with_intensities(np.ascontiguousarray(out.transpose(2, 1, 0)), rule), outside=share)


def _interpolated(values: NDArray[np.float64], axis: int, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear interpolation along one axis at places between its first and last sample."""
    below = np.minimum(np.floor(places).astype(int), values.shape[axis] - 1)
    above = np.minimum(below + 1, values.shape[axis] - 1)
    shape = [1, 1, 1]
    shape[axis] = len(places)
    weight = (places - below).reshape(shape)
    found: NDArray[np.float64] = values.take(below, axis) * (1 - weight) + values.take(above, axis) * weight
    return found


def _with_intensities(data: Floats, rule: CropRule) -> Floats:
    import torch  # heavy; a network is loaded anyway

    found: Floats = apply_intensities(torch.from_numpy(np.ascontiguousarray(data)), rule.intensities).numpy()
    return found
