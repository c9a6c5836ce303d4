"""One product of one series as the checks see it: masks and CT in patient axes, landmarks, facts of the header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ctenrich.lungs import LungWitness, find_lungs
from ctenrich.masks import bounding_box
from ctenrich.records import DoseCheck

__all__ = ["OrganMask", "QualityCase", "organ_mask"]

Mask = NDArray[np.bool_]
Index = tuple[int, int, int]
Spacing = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class OrganMask:
    """Mask of one organ in patient axes: z to the head, y to the back, x to the left."""

    name: str
    mask: Mask = field(repr=False)
    """Cropped to its bounding box, [z, y, x]; not empty."""
    start: Index
    """Index of the first voxel of the box in the volume."""
    shape: Index
    """Of the volume."""
    spacing: Spacing
    """mm, axes [z, y, x]."""

    @cached_property
    def voxels(self) -> int:
        """Number of voxels."""
        return int(np.count_nonzero(self.mask))

    @property
    def volume(self) -> float:
        """Volume, mL."""
        return self.voxels * float(np.prod(self.spacing)) / 1000

    @cached_property
    def centre(self) -> NDArray[np.float64]:
        """Centre of mass, mm from the first voxel of the volume, axes [z, y, x]."""
        sums = self.mask.sum(axis=(1, 2)), (plane := self.mask.sum(axis=0)).sum(axis=1), plane.sum(axis=0)
        index = [np.arange(s.size) @ s / s.sum() + first for s, first in zip(sums, self.start, strict=True)]
        return np.array(index) * self.spacing

    @property
    def extent(self) -> NDArray[np.float64]:
        """Sides of the bounding box, mm, axes [z, y, x]."""
        return np.array(self.mask.shape) * self.spacing

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """Bounding box in the volume."""
        a, b, c = (slice(first, first + size) for first, size in zip(self.start, self.mask.shape, strict=True))
        return a, b, c

    @property
    def at_bottom(self) -> bool:
        """Whether it reaches the lowest slice."""
        return self.start[0] == 0

    @property
    def at_top(self) -> bool:
        """Whether it reaches the highest slice."""
        return bool(self.start[0] + self.mask.shape[0] == self.shape[0])

    @property
    def at_edge(self) -> bool:
        """Whether it touches any border of the volume."""
        return any(
            first == 0 or first + size == whole
            for first, size, whole in zip(self.start, self.mask.shape, self.shape, strict=True)
        )


@dataclass(frozen=True, kw_only=True)
class QualityCase:
    """Everything that is known about one product of one series."""

    series_instance_uid: str
    product: str
    shape: Index
    spacing: Spacing
    ct: NDArray[np.int16] | None = field(repr=False, default=None)
    """HU, [z, y, x] in patient axes; None if the volume is not in HU or not there."""
    organs: Mapping[str, OrganMask] = field(repr=False, default_factory=dict)
    """Organs with a voxel."""
    empty: frozenset[str] = frozenset()
    """Organs that were looked for and have no voxel."""
    others: Mapping[str, Mapping[str, OrganMask]] = field(repr=False, default_factory=dict)
    """Other products of the series -> their organs."""
    dose_checks: tuple[DoseCheck, ...] = ()
    """Findings about the doses; those of the treatment as a whole with one of its products."""
    mean_doses: Mapping[str, float] = field(default_factory=dict)
    """Organ -> mean dose, Gy."""
    agreement: Mapping[str, float] = field(default_factory=dict)
    """Organ -> mean Dice of each fold's result with the ensemble's."""
    scores: tuple[float | None, ...] = ()
    """Slice scores from feet to head; empty without body part regression."""
    lung_landmarks: Mapping[str, float] = field(default_factory=dict)
    """``lung_start``, ``lung_end`` -> mm above the lowest slice."""
    body_parts: tuple[str, ...] = ()
    """Regions that body part regression found, e.g. CHEST; empty without it."""
    spacing_valid: bool | None = None
    order_reversed: bool | None = None
    sex: str | None = None
    body_part_examined: str | None = None
    upside_down: bool = False
    """Whether the source volume runs from head to feet: slice index of the volume = last index minus z."""

    @cached_property
    def lungs(self) -> LungWitness | None:
        """Lungs by threshold; None without a CT in HU."""
        return None if self.ct is None else find_lungs(self.ct, self.spacing)

    def slice_of(self, z: float) -> int:
        """Slice index of the source volume for an index along z."""
        index = int(np.clip(round(z), 0, self.shape[0] - 1))
        return self.shape[0] - 1 - index if self.upside_down else index

    def with_organs(self, organs: Mapping[str, OrganMask], empty: Sequence[str] = ()) -> QualityCase:
        """The same series with other masks; the lungs by threshold are not computed again.

        Parameters
        ----------
        organs : mapping of str to OrganMask
        empty : sequence of str
            Organs without a voxel.
        """
        other = replace(self, organs=organs, empty=frozenset(empty))
        if "lungs" in self.__dict__:
            other.__dict__["lungs"] = self.lungs
        return other


def organ_mask(name: str, mask: Mask, spacing: Spacing) -> OrganMask | None:
    """Crop a mask of a whole volume in patient axes.

    Parameters
    ----------
    name : str
    mask : array of bool, [z, y, x]
    spacing : (float, float, float)
        mm, axes [z, y, x].

    Returns
    -------
    OrganMask or None
        None if it is empty.
    """
    box = bounding_box(mask)
    if box is None:
        return None
    crop = np.ascontiguousarray(mask[box.k0 : box.k1, box.j0 : box.j1, box.i0 : box.i1])
    shape = (mask.shape[0], mask.shape[1], mask.shape[2])
    return OrganMask(name=name, mask=crop, start=(box.k0, box.j0, box.i0), shape=shape, spacing=spacing)
