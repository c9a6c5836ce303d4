"""Where masks cannot be: air and bone against attenuation, left and right against the middle of the body.

Only what an anatomist would call impossible is found. A mirrored mask is found where its tissue tells (lungs hold air,
bones are dense) or its side does; one symmetric organ in the middle of the body tells nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctenrich.codes.mappings import plain_name
from ctenrich.geometry import grid_match
from ctenrich.harmonise.grid import affine_of_series
from ctenrich.records import Box, SortedSeries

__all__ = ["PlaceFinding", "find_misplaced"]

Mask = NDArray[np.bool_]
_STRIDE = 3.0
"""mm between the rows and columns that are looked at."""
_TISSUE, _AIR, _BONE = -300, -400, 120
"""HU above which a voxel is tissue, below which it is air (lung), above which it can be bone."""
_AIR_FILLED = ("lung", "lungs", "trachea")
_SOLID = (
    *("heart", "aorta", "esophagus", "liver", "spleen", "pancreas", "spinal_cord", "urinary_bladder", "prostate"),
    *("kidney", "vertebrae", "sacrum", "hip", "femur", "sternum", "brain", "adrenal_gland", "inferior_vena_cava"),
)
_BONES = ("vertebrae", "rib", "sacrum", "hip", "femur", "sternum", "scapula", "clavicula", "humerus", "skull")
_LEAST_AIR, _MOST_AIR = 0.4, 0.5
"""Share of voxels in air: at least of a lung, at most of a solid organ."""
_BETTER = 0.15
"""By how much a mirrored mask must fit better for the mask to be called mirrored."""
_SIDES: Mapping[str, float] = {"liver": -1.0, "gallbladder": -1.0, "spleen": 1.0, "stomach": 1.0}
"""Organs of one side: 1 is the left."""
_AWAY = 10.0
"""mm on the wrong side of the middle of the body from which a side is wrong."""
_PATIENT_AXES = ("left and right", "front and back", "head and feet")


@dataclass(frozen=True, kw_only=True)
class PlaceFinding:
    """One structure, or several, that cannot be where the masks put them."""

    rule: str
    """``place.mirrored``, ``place.attenuation`` or ``place.side``."""
    about: str
    """Name of a segment."""
    sentence: str


def find_misplaced(
    crops: Iterable[tuple[str, Mask, Box]], ct: NDArray[np.int16], series: SortedSeries
) -> tuple[PlaceFinding, ...]:
    """Find masks that cannot be right on this CT.

    Parameters
    ----------
    crops : iterable of (name, mask, box)
        Segments with a voxel: row of mappings/segments.csv, mask cropped to its box, [k, j, i].
    ct : array of int16, [k, j, i]
        Hounsfield units.
    series : SortedSeries
        Its geometry.

    Returns
    -------
    tuple of PlaceFinding
    """
    scene = _Scene.of(ct, series)
    organs = [organ for name, mask, box in crops if (organ := scene.organ(plain_name(name), mask, box)) is not None]
    mirrored = [
        *_mirrored(organs, scene, "lungs", _is_air_filled, _air),
        *_mirrored(organs, scene, "bones", _is_bone, _bone),
    ]
    return (*mirrored, *_attenuation(organs, scene), *_sides(organs, scene))


@dataclass(frozen=True)
class _Organ:
    """Voxels of one segment among those that are looked at."""

    name: str
    index: NDArray[np.int64]
    """(n, 3), [k, j, i] of the coarse grid."""
    hu: NDArray[np.int16]
    """Of these voxels."""
    x: float
    """Centre, mm, LPS: to the left."""


@dataclass(frozen=True)
class _Scene:
    """The CT, with every n-th row and column, and how its axes lie in the patient."""

    ct: NDArray[np.int16]
    stride: tuple[int, int, int]
    affine: NDArray[np.float64]
    axes: tuple[int, int, int]
    """Axis of the array [k, j, i] that is nearest to x, y, z of the patient."""

    @classmethod
    def of(cls, ct: NDArray[np.int16], series: SortedSeries) -> _Scene:
        spacing = (series.slice_spacing, *series.pixel_spacing)
        stride = tuple(max(1, int(_STRIDE / s)) for s in spacing)
        k, j, i = stride
        affine = affine_of_series(series)
        axes, _ = grid_match(affine, series.shape[::-1], np.eye(4))
        return cls(ct[::k, ::j, ::i], (k, j, i), affine, (2 - axes[0], 2 - axes[1], 2 - axes[2]))

    def organ(self, name: str, mask: Mask, box: Box) -> _Organ | None:
        """The voxels of a mask on the coarse grid; None if it has none there."""
        starts = (box.k0, box.j0, box.i0)
        offset = [-start % step for start, step in zip(starts, self.stride, strict=True)]
        part = mask[tuple(slice(o, None, s) for o, s in zip(offset, self.stride, strict=True))]
        found = np.argwhere(part)
        if not len(found):
            return None
        first = [(start + o) // s for start, o, s in zip(starts, offset, self.stride, strict=True)]
        index = found + np.array(first)
        return _Organ(name, index, self.values(index), float(self.to_patient(index.mean(axis=0))[0]))

    def to_patient(self, index: NDArray[np.float64]) -> NDArray[np.float64]:
        """Position, mm, LPS, of an index [k, j, i] of the coarse grid."""
        k, j, i = index * np.array(self.stride)
        return np.asarray((self.affine @ np.array([i, j, k, 1.0]))[:3])

    def values(self, index: NDArray[np.int64]) -> NDArray[np.int16]:
        """HU of voxels."""
        return np.asarray(self.ct[tuple(index.T)])

    def mirrored(self, index: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
        """Indices of the same voxels in the array with one axis reversed."""
        out = index.copy()
        out[:, axis] = self.ct.shape[axis] - 1 - out[:, axis]
        return out

    def middle(self, organ: _Organ) -> float | None:
        """X of the middle of the body, mm, LPS, at the height of an organ; None without a body around it."""
        axis = self.axes[2]
        heights = np.unique(organ.index[:, axis])[:: max(1, len(np.unique(organ.index[:, axis])) // 8)]
        tissue = np.take(self.ct, heights, axis=axis) > _TISSUE
        along = tuple(a for a in range(3) if a != self.axes[0])
        weight = tissue.sum(axis=along)
        if not weight.any():
            return None
        index = organ.index.mean(axis=0)
        index[self.axes[0]] = float(weight @ np.arange(len(weight)) / weight.sum())
        return float(self.to_patient(index)[0])


def _is_air_filled(name: str) -> bool:
    return name in _AIR_FILLED or (name.startswith("lung_") and "vessel" not in name and "nodule" not in name)


def _is_bone(name: str) -> bool:
    return name.startswith(_BONES)


def _air(hu: NDArray[np.int16]) -> float:
    return float(np.mean(hu < _AIR))


def _bone(hu: NDArray[np.int16]) -> float:
    return float(np.mean(hu > _BONE))


def _mirrored(
    organs: list[_Organ],
    scene: _Scene,
    what: str,
    belongs: Callable[[str], bool],
    share: Callable[[NDArray[np.int16]], float],
) -> Iterator[PlaceFinding]:
    """Lungs or bones that would be in air or bone if one axis of the masks were reversed."""
    chosen = [organ for organ in organs if belongs(organ.name)]
    if not chosen:
        return
    here = share(np.concatenate([organ.hu for organ in chosen]))
    if here + _BETTER >= 1:
        return  # no mask could fit so much better
    index = np.concatenate([organ.index for organ in chosen])
    for axis, between in zip(scene.axes, _PATIENT_AXES, strict=True):
        there = share(scene.values(scene.mirrored(index, axis)))
        if there > here + _BETTER:
            tissue = "air" if what == "lungs" else "bone"
            text = (
                f"{here:.0%} of the {what} are in {tissue}; with {between} exchanged {there:.0%} would be: "
                "the masks are mirrored"
            )
            yield PlaceFinding(rule="place.mirrored", about=chosen[0].name, sentence=text)


def _attenuation(organs: list[_Organ], scene: _Scene) -> Iterator[PlaceFinding]:
    for organ in organs:
        if not (_is_air_filled(organ.name) or organ.name.startswith(_SOLID)):
            continue
        air = _air(organ.hu)
        if (_is_air_filled(organ.name) and air < _LEAST_AIR) or (not _is_air_filled(organ.name) and air > _MOST_AIR):
            text = f"{organ.name}: {air:.0%} of it is in air: it is not where the CT shows it"
            yield PlaceFinding(rule="place.attenuation", about=organ.name, sentence=text)


def _sides(organs: list[_Organ], scene: _Scene) -> Iterator[PlaceFinding]:
    known = {organ.name: organ for organ in organs}
    for organ in organs:
        other = known.get(_other_side(organ.name)) if "left" in organ.name.split("_") else None
        if other is not None:
            if organ.x <= other.x:
                text = f"{organ.name}: its centre is {other.x - organ.x:.0f} mm to the right of {other.name}"
                yield PlaceFinding(rule="place.side", about=organ.name, sentence=text)
            continue
        words = organ.name.split("_")
        side = _SIDES.get(organ.name, 1.0 if "left" in words else -1.0 if "right" in words else 0.0)
        if not side or known.get(_other_side(organ.name)) is not None:
            continue
        middle = scene.middle(organ)
        if middle is not None and side * (organ.x - middle) < -_AWAY:
            wrong = "right" if side > 0 else "left"
            text = (
                f"{organ.name}: its centre is {abs(organ.x - middle):.0f} mm to the {wrong} of the middle of the body"
            )
            yield PlaceFinding(rule="place.side", about=organ.name, sentence=text)


def _other_side(name: str) -> str:
    swap = {"left": "right", "right": "left"}
    words = name.split("_")
    return "_".join(swap.get(word, word) for word in words) if swap.keys() & set(words) else ""
