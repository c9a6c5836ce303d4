"""Reduce a volume and its masks to patient-oriented arrays of few bytes, from which the series page draws planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.masks import crop_of
from ctenrich.records import Box, Quantity, SegmentMasks, Volume
from ctenrich.report.pictures import patient_axes
from ctenrich.workspace import Workspace, load_array

__all__ = [
    "MOST_VOXELS",
    "LabelLayers",
    "PatientAxis",
    "Reduction",
    "ValueScale",
    "reduce_masks",
    "reduce_volume",
    "reduction_of",
    "scale_of",
]

MOST_VOXELS = 20_000_000
"""Voxels of a reduced volume: 300 slices of 256 x 256."""
_SIDE = 256
"""Rows and columns are not reduced below this number."""
_OBLIQUE = 0.26
"""Sine of 15 degrees: from here on, the end of an axis gets a second letter."""
_LETTERS = (("R", "L"), ("A", "P"), ("F", "H"))
"""Ends of the patient axes x, y, z (PS3.3 C.7.6.1.1.1; H and F as on most scanners)."""
_HU_LEVELS = ((-1024, 0), (-700, 44), (-200, 76), (300, 216), (1000, 243), (3000, 255))
"""HU and level: about 3.6 HU per level in soft tissue, 7 HU in lungs, more in bone and metal."""


@dataclass(frozen=True, kw_only=True)
class PatientAxis:
    """One axis of a reduced volume: which indices of the source array its samples are."""

    array_axis: int
    """Axis of the source array, [k, j, i]."""
    count: int
    first: int
    """Index in the source array of sample 0."""
    step: int
    """Difference of that index between neighbours; negative where the axis is reversed."""
    total: int
    """Number of indices of the source array."""
    spacing: float
    """mm between samples."""
    position: float
    """mm: projection of sample 0 on the axis, which grows to the left, to the back or to the head (LPS)."""
    position_step: float
    """mm from one sample to the next in the same projection."""
    ends: tuple[str, str]
    """Letters of the side of sample 0 and of the last sample, e.g. ``("H", "F")``; two letters if oblique."""

    @property
    def indices(self) -> NDArray[np.intp]:
        """Index in the source array of each sample."""
        return self.first + self.step * np.arange(self.count)

    def sample_of(self, index: float) -> float:
        """Sample, as a fraction, of an index of the source array."""
        return (index - self.first) / self.step


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """Axes of the reduced volume: from head to feet, from front to back, from the patient's right to left."""

    axes: tuple[PatientAxis, PatientAxis, PatientAxis]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Samples from head to feet, from front to back, from right to left."""
        z, y, x = (axis.count for axis in self.axes)
        return z, y, x

    @property
    def stack_axis(self) -> int:
        """Axis along which the slices were acquired: 0 for axial slices, 1 for coronal, 2 for sagittal ones."""
        return next(n for n, axis in enumerate(self.axes) if axis.array_axis == 0)

    def turn(self, array: NDArray[Any]) -> NDArray[Any]:
        """View of a sampled array [k, j, i] in the order and direction of the patient axes."""
        turned = array.transpose([axis.array_axis for axis in self.axes])
        return turned[tuple(slice(None, None, -1 if axis.step < 0 else 1) for axis in self.axes)]


def reduction_of(volume: Volume, *, most: int = MOST_VOXELS) -> Reduction:
    """Choose the samples of a volume that a page shows.

    Rows and columns are reduced by an integer factor until the volume has at most `most` voxels or 256 rows and
    columns; then slices are left out. The axes are the nearest patient axes of an oblique volume.

    Parameters
    ----------
    volume : Volume
        The CT.
    most : int
        Voxels of the reduced volume.

    Returns
    -------
    Reduction
    """
    factors = _factors(volume.shape, most)
    order, flips = patient_axes(volume)
    affine = np.asarray(volume.affine_lps)
    axes = []
    for patient in (2, 1, 0):
        array_axis, factor = order[patient], factors[order[patient]]
        total = volume.shape[array_axis]
        count = -(-(total - factor // 2) // factor)
        column = affine[:3, 2 - array_axis]
        growing = -column / np.linalg.norm(column) if flips[patient] else column / np.linalg.norm(column)
        backwards = flips[patient] != (patient == 2)  # the first axis runs from head to feet
        first, step = (factor // 2 + factor * (count - 1), -factor) if backwards else (factor // 2, factor)
        towards = (-1 if flips[patient] else 1) * volume.spacing[array_axis]
        letters = _letters(-growing), _letters(growing)
        axes.append(
            PatientAxis(
                array_axis=array_axis,
                count=count,
                first=first,
                step=step,
                total=total,
                spacing=factor * volume.spacing[array_axis],
                position=float(affine[:3, 3] @ growing) + first * towards,
                position_step=step * towards,
                ends=letters[::-1] if patient == 2 else letters,
            )
        )
    return Reduction(axes=(axes[0], axes[1], axes[2]))


def _factors(shape: tuple[int, int, int], most: int) -> tuple[int, int, int]:
    slices, rows, columns = shape
    plane = 1
    while slices * (rows // plane) * (columns // plane) > most and max(rows, columns) > _SIDE * plane:
        plane += 1
    kept = (rows // plane) * (columns // plane)
    return max(1, -(-slices * kept // most)), min(plane, rows), min(plane, columns)


def _letters(direction: NDArray[np.float64]) -> str:
    """Letters of the side to which a direction (LPS) points, the strongest first."""
    order = np.argsort(-np.abs(direction), kind="stable")
    kept = [n for rank, n in enumerate(order) if rank == 0 or abs(direction[n]) > _OBLIQUE]
    return "".join(_LETTERS[n][int(direction[n] > 0)] for n in kept)


# ---------------------------------------------------------------- values


@dataclass(frozen=True, kw_only=True)
class ValueScale:
    """How values become the 256 levels of the page's picture: linear between pairs of value and level."""

    knots: tuple[tuple[float, int], ...]
    unit: str

    @property
    def table(self) -> NDArray[np.uint8]:
        """Level of each int16 value, by its unsigned bits."""
        values = np.arange(1 << 16, dtype=np.uint16).view(np.int16)
        levels = np.interp(values, [v for v, _ in self.knots], [level for _, level in self.knots])
        return np.asarray(np.rint(levels), np.uint8)


def scale_of(volume: Volume, workspace: Workspace) -> ValueScale:
    """Choose the levels of a volume: fixed for HU, else linear between its extremes.

    Parameters
    ----------
    volume : Volume
        The image.
    workspace : Workspace
        The run's folder.
    """
    if volume.quantity == Quantity.HU:
        return ValueScale(knots=_HU_LEVELS, unit="HU")
    array = load_array(workspace.resolve(volume.series_instance_uid, volume.array_path))
    low, high = float(array.min()), float(array.max())
    unit = "" if volume.quantity == Quantity.UNKNOWN else str(volume.quantity)
    return ValueScale(knots=((low, 0), (max(high, low + 1), 255)), unit=unit)


def reduce_volume(volume: Volume, reduction: Reduction, scale: ValueScale, workspace: Workspace) -> NDArray[np.uint8]:
    """Sample a volume; where rows and columns are left out, a sample is the weighted mean around its own index.

    Parameters
    ----------
    volume : Volume
        The image.
    reduction : Reduction
        Its samples.
    scale : ValueScale
        Its levels.
    workspace : Workspace
        The run's folder.

    Returns
    -------
    array of uint8
        Levels, [head to feet, front to back, right to left].
    """
    array = load_array(workspace.resolve(volume.series_instance_uid, volume.array_path))
    by_array = sorted(reduction.axes, key=lambda axis: axis.array_axis)
    slices, rows, columns = (np.sort(axis.indices) for axis in by_array)
    table = scale.table
    out = np.empty((slices.size, rows.size, columns.size), np.uint8)
    for n, k in enumerate(slices):
        plane = _smoothed(np.asarray(array[k]), rows, abs(by_array[1].step), 0)
        plane = _smoothed(plane, columns, abs(by_array[2].step), 1)
        out[n] = table[plane.astype(np.int16).view(np.uint16)]
    return np.ascontiguousarray(reduction.turn(out))


def _smoothed(plane: NDArray[Any], indices: NDArray[np.intp], factor: int, axis: int) -> NDArray[Any]:
    """Weighted means of `factor` neighbours, centred on the indices: (1 2 1) / 4 for 2, (1 1 1) / 3 for 3."""
    if factor == 1:
        return plane
    rows = np.moveaxis(plane, axis, 0)
    half, last = factor // 2, len(rows) - 1
    total = np.zeros((indices.size, rows.shape[1]), np.int32)
    for shift in range(-half, half + 1):
        weight = 1 if factor % 2 == 0 and abs(shift) == half else 2
        first, end = int(indices[0]) + shift, int(indices[-1]) + shift
        inside = first >= 0 and end <= last
        part = rows[first : end + 1 : factor] if inside else rows[np.clip(indices + shift, 0, last)]
        total += part if weight == 1 else np.left_shift(part, 1, dtype=np.int32)
    return np.moveaxis(total // (2 * factor), 0, axis)


# ---------------------------------------------------------------- masks


@dataclass(frozen=True, kw_only=True)
class LabelLayers:
    """Masks of one product on the reduced grid: as few label maps as hold them without overlap."""

    layers: tuple[NDArray[Any], ...]
    """uint8, or uint16 for more than 255 segments: position of the segment among the product's, from 1; 0 background.
    Axes [head to feet, front to back, right to left]."""
    places: tuple[tuple[int, tuple[int, int, int]] | None, ...]
    """Of each segment: its layer, and the sample on each axis of the plane with its largest area; None if no sample is
    inside it."""
    most: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]
    """Number of segments on each plane, by axis."""


def reduce_masks(masks: SegmentMasks, reduction: Reduction, workspace: Workspace) -> LabelLayers:
    """Sample the masks of a product.

    Parameters
    ----------
    masks : SegmentMasks
        Masks on the grid of the volume.
    reduction : Reduction
        Samples of the volume.
    workspace : Workspace
        The run's folder.

    Returns
    -------
    LabelLayers
    """
    kind = np.uint8 if len(masks.segments) < 256 else np.uint16
    if masks.label_map_path is not None:
        sampled = [_sampled_labels(masks, reduction, workspace, kind)]
        layer_of = dict.fromkeys(range(len(masks.segments)), 0)
    else:
        sampled, layer_of = _sampled_crops(masks, reduction, workspace, kind)
    layers = tuple(np.ascontiguousarray(reduction.turn(layer)) for layer in sampled)
    counts = _areas(layers, reduction.shape, len(masks.segments) + 1)
    places: list[tuple[int, tuple[int, int, int]] | None] = []
    for ordinal in range(len(masks.segments)):
        z, y, x = (found[:, ordinal + 1] for found in counts)
        at = int(z.argmax()), int(y.argmax()), int(x.argmax())
        places.append((layer_of.get(ordinal, 0), at) if z.any() else None)
    present = [np.count_nonzero(found[:, 1:], axis=1) for found in counts]
    return LabelLayers(layers=layers, places=tuple(places), most=(present[0], present[1], present[2]))


def _samples(reduction: Reduction) -> tuple[NDArray[np.intp], ...]:
    """Growing indices of the samples, by axis of the source array."""
    return tuple(np.sort(axis.indices) for axis in sorted(reduction.axes, key=lambda axis: axis.array_axis))


def _sampled_labels(masks: SegmentMasks, reduction: Reduction, workspace: Workspace, kind: Any) -> NDArray[Any]:
    assert masks.label_map_path is not None
    labels = load_array(workspace.resolve(masks.series_instance_uid, masks.label_map_path))
    part = tuple(slice(int(i[0]), int(i[-1]) + 1, int(i[1] - i[0]) if i.size > 1 else 1) for i in _samples(reduction))
    sampled = np.ascontiguousarray(labels[part])
    if all(segment.number == ordinal for ordinal, segment in enumerate(masks.segments, 1)):
        return sampled.astype(kind, copy=False)
    table = np.zeros(max(256, 1 + max((s.number for s in masks.segments), default=0)), kind)
    for ordinal, segment in enumerate(masks.segments, 1):
        table[segment.number] = ordinal
    return np.asarray(table[sampled])


def _sampled_crops(
    masks: SegmentMasks, reduction: Reduction, workspace: Workspace, kind: Any
) -> tuple[list[NDArray[Any]], dict[int, int]]:
    samples = _samples(reduction)
    layers: list[NDArray[Any]] = []
    layer_of: dict[int, int] = {}
    for ordinal, segment in enumerate(masks.segments):
        crop = crop_of(masks, segment.number, workspace)
        if crop is None:
            continue
        inside = _crop_samples(crop[1], samples)
        where = tuple(np.flatnonzero(hit) for hit in inside)
        if any(w.size == 0 for w in where):
            continue
        starts = (crop[1].k0, crop[1].j0, crop[1].i0)
        mask = crop[0][np.ix_(*(s[w] - start for s, w, start in zip(samples, where, starts, strict=True)))]
        box = tuple(slice(int(w[0]), int(w[-1]) + 1) for w in where)
        number = next((n for n, layer in enumerate(layers) if not layer[box][mask].any()), len(layers))
        if number == len(layers):
            layers.append(np.zeros([s.size for s in samples], kind))
        layers[number][box][mask] = ordinal + 1
        layer_of[ordinal] = number
    return layers, layer_of


def _crop_samples(box: Box, samples: Sequence[NDArray[np.intp]]) -> list[NDArray[np.bool_]]:
    ends = ((box.k0, box.k1), (box.j0, box.j1), (box.i0, box.i1))
    return [(s >= low) & (s < high) for s, (low, high) in zip(samples, ends, strict=True)]


def _areas(layers: Sequence[NDArray[Any]], shape: tuple[int, int, int], values: int) -> list[NDArray[np.intp]]:
    """Samples of each label on each plane: for every axis an array [plane, label]."""
    counts = [np.zeros(n * values, np.intp) for n in shape]
    for layer in layers:
        for z, plane in enumerate(layer):
            inside = np.flatnonzero(plane)
            if not inside.size:
                continue
            labels = plane.ravel()[inside].astype(np.intp)
            counts[0][z * values : (z + 1) * values] += np.bincount(labels, minlength=values)
            for axis, places in ((1, inside // shape[2]), (2, inside % shape[2])):
                found = np.bincount(places * values + labels)
                counts[axis][: found.size] += found
    return [found.reshape(-1, values) for found in counts]
