"""Masks as arrays: read and write label maps and cropped masks, and compare two masks of one grid."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.records import Box, Segment, SegmentMasks
from ctenrich.workspace import Workspace, load_array, save_array

__all__ = [
    "LabelStatistics",
    "bounding_box",
    "crop_of",
    "dice",
    "dice_of_counts",
    "distance_from",
    "full_mask",
    "has_arrays",
    "label_statistics",
    "masks_from_label_map",
    "masks_from_segments",
    "masks_sha256",
    "surface_dice",
    "surface_of",
]

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]
_SLAB = 1 << 20
"""Voxels that are looked at together: what is made of them fits into the cache of a processor."""


def bounding_box(mask: NDArray[Any]) -> Box | None:
    """Smallest box that contains all true voxels of a [k, j, i] array; None if there is none."""
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    if slices.size == 0:
        return None
    below = np.asarray(mask[slices[0] : slices[-1] + 1].any(axis=0))
    hits = (slices, np.flatnonzero(below.any(axis=1)), np.flatnonzero(below.any(axis=0)))
    return Box(*(end for h in hits for end in (int(h[0]), int(h[-1]) + 1)))


def crop_of(masks: SegmentMasks, number: int, workspace: Workspace) -> tuple[Mask, Box] | None:
    """Load the mask of a segment, cropped to its bounding box.

    Parameters
    ----------
    masks : SegmentMasks
    number : int
        Segment number.
    workspace : Workspace

    Returns
    -------
    (array of bool [k, j, i], Box) or None
        None if the segment is absent.
    """
    segment = next(s for s in masks.segments if s.number == number)
    if segment.box is None:
        return None
    b = segment.box
    uid = masks.series_instance_uid
    if segment.mask_path is not None:
        return load_array(workspace.resolve(uid, segment.mask_path)).astype(bool), b
    assert masks.label_map_path is not None
    labels = load_array(workspace.resolve(uid, masks.label_map_path))
    return np.asarray(labels[b.k0 : b.k1, b.j0 : b.j1, b.i0 : b.i1] == number), b


def full_mask(masks: SegmentMasks, number: int, workspace: Workspace) -> Mask:
    """Load the mask of a segment on the whole grid.

    Parameters
    ----------
    masks : SegmentMasks
    number : int
        Segment number.
    workspace : Workspace

    Returns
    -------
    array of bool, [k, j, i]
    """
    out = np.zeros(masks.shape, bool)
    crop = crop_of(masks, number, workspace)
    if crop is not None:
        part, b = crop
        out[b.k0 : b.k1, b.j0 : b.j1, b.i0 : b.i1] = part
    return out


def has_arrays(masks: SegmentMasks, workspace: Workspace) -> bool:
    """Whether the arrays of masks are on the disk.

    Parameters
    ----------
    masks : SegmentMasks
    workspace : Workspace
    """
    paths = [masks.label_map_path, *(s.mask_path for s in masks.segments)]
    return all(workspace.resolve(masks.series_instance_uid, path).is_file() for path in paths if path is not None)


def masks_sha256(masks: SegmentMasks, workspace: Workspace) -> str:
    """Compute the hash of masks again from their files; see :attr:`ctenrich.records.SegmentMasks.sha256`.

    Parameters
    ----------
    masks : SegmentMasks
        The masks.
    workspace : Workspace
        Folder of the run.
    """
    found = ((s, crop_of(masks, s.number, workspace)) for s in masks.segments if s.box is not None)
    return _masks_sha256(masks.segments, ((s, crop[0]) for s, crop in found if crop is not None))


def masks_from_label_map(
    labels: NDArray[Any],
    names: Sequence[tuple[int, str, str]],
    template: SegmentMasks,
    path: Path,
    workspace: Workspace,
    statistics: LabelStatistics | None = None,
) -> SegmentMasks:
    """Save a label map and describe it.

    Parameters
    ----------
    labels : array, [k, j, i]
        Label values; every value but 0 must be a number in `names`.
    names : sequence of (number, name, source label)
        All segments, absent ones too.
    template : SegmentMasks
        Carries product, series, model and shape; its segments, paths and hash are replaced.
    path : Path
        The ``.npy`` to write, in the series' folder.
    workspace : Workspace
    statistics : LabelStatistics, optional
        Of `labels`, where they are known.

    Returns
    -------
    SegmentMasks

    Raises
    ------
    ValueError
        A label value has no name.
    """
    top = max(number for number, _, _ in names)
    kind = np.dtype(np.uint8 if top < 256 else np.uint16)
    if labels.dtype != kind and labels.size and not 0 <= labels.min() <= labels.max() <= top:
        raise ValueError(f"label values from {labels.min()} to {labels.max()}: names are for 1 to {top}")
    labels = np.ascontiguousarray(labels, kind)
    found = statistics or label_statistics(labels)
    unknown = set(found.boxes) - {n for n, _, _ in names}
    if unknown:
        raise ValueError(f"label values without a name: {sorted(unknown)}")
    segments = tuple(
        Segment(
            number,
            name,
            source,
            int(found.counts[number]) if number in found.boxes else 0,
            found.boxes.get(number),
        )
        for number, name, source in sorted(names)
    )
    save_array(path, labels)
    relative = workspace.relative(template.series_instance_uid, path)
    crops = ((s, labels[_box_slices(s.box)] == s.number) for s in segments if s.box is not None)
    return replace(template, segments=segments, label_map_path=relative, sha256=_masks_sha256(segments, crops))


def masks_from_segments(
    parts: Iterable[tuple[int, str, str, Mask]], template: SegmentMasks, folder: Path, workspace: Workspace
) -> SegmentMasks:
    """Save masks that may overlap, one cropped file per segment, and describe them.

    Parameters
    ----------
    parts : iterable of (number, name, source label, mask)
        Masks on the whole grid, [k, j, i]; an empty mask makes an absent segment.
    template : SegmentMasks
        Carries product, series, model and shape; its segments, paths and hash are replaced.
    folder : Path
        For the files, in the series' folder.
    workspace : Workspace

    Returns
    -------
    SegmentMasks
    """
    segments: list[Segment] = []
    crops: list[tuple[Segment, Mask]] = []
    for number, name, source, mask in parts:
        box = bounding_box(mask)
        if box is None:
            segments.append(Segment(number, name, source, 0))
            continue
        crop = np.ascontiguousarray(mask[_box_slices(box)])
        path = folder / f"segment_{number:03d}.npy"
        save_array(path, crop.astype(np.uint8))
        relative = workspace.relative(template.series_instance_uid, path)
        segment = Segment(number, name, source, int(np.count_nonzero(crop)), box, relative)
        segments.append(segment)
        crops.append((segment, crop))
    crops.sort(key=lambda item: item[0].number)
    ordered = tuple(sorted(segments, key=lambda s: s.number))
    return replace(template, segments=ordered, label_map_path=None, sha256=_masks_sha256(ordered, crops))


@dataclass(frozen=True)
class LabelStatistics:
    """Voxels and bounding boxes of the values of a label map."""

    counts: NDArray[np.int64]
    """Voxels of each value, from 0."""
    boxes: dict[int, Box]
    """Bounding box of each value but 0 that has a voxel."""

    def renumbered(self, table: NDArray[np.unsignedinteger]) -> LabelStatistics:
        """Statistics of ``table[labels]``; values that become 0 are background, no two others become the same."""
        counts = np.zeros(max(int(table.max(initial=0)) + 1, 1), np.int64)
        np.add.at(counts, table[: len(self.counts)], self.counts[: len(table)])
        boxes = {int(table[value]): box for value, box in self.boxes.items() if table[value]}
        return LabelStatistics(counts, boxes)


def label_statistics(labels: NDArray[np.unsignedinteger]) -> LabelStatistics:
    """Count the voxels of each label value and find their bounding boxes, in one pass and bounded memory.

    Label maps are mostly runs of one value along a row: ends of runs are found voxel by voxel, all else run by run.

    Parameters
    ----------
    labels : array of uint8 or uint16, [k, j, i]

    Returns
    -------
    LabelStatistics
    """
    flips = [axis for axis in range(3) if labels.strides[axis] < 0]  # an array is read fastest in its own order
    labels = np.flip(labels, tuple(flips))
    size = 1 << (8 * labels.dtype.itemsize)
    counts = np.zeros(size, np.int64)
    low, high = np.full((3, size), np.iinfo(np.int64).max), np.full((3, size), -1)
    planes, rows, columns = labels.shape
    step = max(1, _SLAB // max(rows * columns, 1))
    for k in range(0, planes if rows * columns else 0, step):
        part = np.ascontiguousarray(labels[k : k + step])
        values, starts, ends = _runs(part)
        if values.size == 0:
            continue
        first = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
        found = values[first]
        counts[found] += np.add.reduceat(ends - starts, first)
        row = starts // columns
        i, k_of, j = starts - row * columns, row // rows + k, row % rows
        for axis, (begin, last) in enumerate(((k_of, k_of), (j, j), (i, i + ends - starts - 1))):
            low[axis, found] = np.minimum(low[axis, found], np.minimum.reduceat(begin, first))
            high[axis, found] = np.maximum(high[axis, found], np.maximum.reduceat(last, first))
    counts[0] = labels.size - counts.sum()
    for axis in flips:
        low[axis], high[axis] = labels.shape[axis] - 1 - high[axis], labels.shape[axis] - 1 - low[axis]
    present = [value for value in np.flatnonzero(counts).tolist() if value]
    ends = np.stack([low, high + 1], axis=1)  # axis, begin and end, value
    boxes = {value: Box(*ends[:, :, value].ravel().tolist()) for value in present}
    return LabelStatistics(counts, boxes)


def _runs(
    part: NDArray[np.unsignedinteger],
) -> tuple[NDArray[np.unsignedinteger], NDArray[np.int64], NDArray[np.int64]]:
    """Value, start and end of each run along the rows of a contiguous array that is not background, by value."""
    lines = part.reshape(-1, part.shape[-1])
    begins = np.empty(lines.shape, bool)
    begins[:, 0] = True
    np.not_equal(lines[:, 1:], lines[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    values, ends = part.reshape(-1)[starts], np.append(starts[1:], part.size)
    inside = np.flatnonzero(values)
    order = inside[np.argsort(values[inside], kind="stable")]
    return values[order], starts[order], ends[order]


def _box_slices(box: Box | None) -> tuple[slice, slice, slice]:
    assert box is not None
    return slice(box.k0, box.k1), slice(box.j0, box.j1), slice(box.i0, box.i1)


def _masks_sha256(segments: Sequence[Segment], crops: Iterable[tuple[Segment, Mask]]) -> str:
    digest = hashlib.sha256()
    for s in segments:
        digest.update(f"{s.number}|{s.name}|{s.voxels}|{s.box}\n".encode())
    for s, crop in crops:
        digest.update(f"{s.number}:".encode() + np.packbits(crop).tobytes())
    return digest.hexdigest()


# ---------------------------------------------------------------- similarity


def dice_of_counts(common: int, size: int, reference_size: int) -> float | None:
    """Dice coefficient from numbers of voxels; None if both masks are empty.

    Parameters
    ----------
    common : int
        Voxels in both masks.
    size, reference_size : int
        Voxels of each mask.

    Returns
    -------
    float or None
        2 |A and B| / (|A| + |B|), 0 to 1 (Dice, Ecology 26, 1945).
    """
    total = size + reference_size
    return 2 * common / total if total else None


def dice(mask: Mask, reference: Mask) -> float | None:
    """Dice coefficient of two masks; None if both are empty.

    Parameters
    ----------
    mask, reference : array of bool
        Of one shape, in any axis order.

    Returns
    -------
    float or None
        See `dice_of_counts`.
    """
    sizes = int(np.count_nonzero(mask)), int(np.count_nonzero(reference))
    return dice_of_counts(int(np.count_nonzero(mask & reference)), *sizes)


def surface_of(mask: Mask) -> Mask:
    """Voxels of a [k, j, i] mask that have a face neighbour outside it; beyond the array is outside."""
    from scipy.ndimage import binary_erosion

    return np.asarray(mask & ~binary_erosion(mask, border_value=0))


def distance_from(mask: Mask, spacing: Spacing) -> NDArray[np.float64]:
    """Distance of every voxel centre from the nearest voxel centre of a mask.

    Parameters
    ----------
    mask : array of bool, [k, j, i]
        At least one voxel.
    spacing : (float, float, float)
        mm, axes [k, j, i].

    Returns
    -------
    array of float64, [k, j, i]
        mm; exact, also for anisotropic spacing.
    """
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~mask, sampling=spacing))


def surface_dice(mask: Mask, reference: Mask, spacing: Spacing, tolerance: float) -> float | None:
    """Share of the surface voxels of both masks that have one of the other's within a tolerance.

    Parameters
    ----------
    mask, reference : array of bool, [k, j, i]
        On one grid.
    spacing : (float, float, float)
        mm, axes [k, j, i].
    tolerance : float
        mm.

    Returns
    -------
    float or None
        0 to 1; None if both masks are empty. (Nikolov et al., arXiv:1809.04430, on voxels instead of a mesh.)
    """
    surfaces = surface_of(mask), surface_of(reference)
    total = sum(int(np.count_nonzero(surface)) for surface in surfaces)
    if 0 in (int(np.count_nonzero(surface)) for surface in surfaces):
        return 0.0 if total else None
    near = 0
    for surface, other in (surfaces, surfaces[::-1]):
        near += int(np.count_nonzero(distance_from(other, spacing)[surface] <= tolerance))
    return near / total
