"""Masks of a product as arrays: the one module that reads and writes label maps and cropped masks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.records import Box, Segment, SegmentMasks
from ctenrich.workspace import Workspace, load_array, save_array

__all__ = ["bounding_box", "crop_of", "full_mask", "label_boxes", "masks_from_label_map", "masks_from_segments"]

Mask = NDArray[np.bool_]


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


def masks_from_label_map(
    labels: NDArray[Any],
    names: Sequence[tuple[int, str, str]],
    template: SegmentMasks,
    path: Path,
    workspace: Workspace,
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

    Returns
    -------
    SegmentMasks

    Raises
    ------
    ValueError
        A label value has no name.
    """
    top = max(number for number, _, _ in names)
    labels = np.ascontiguousarray(labels, np.uint8 if top < 256 else np.uint16)
    counts = np.bincount(labels.ravel(), minlength=top + 1)
    unknown = set(np.flatnonzero(counts).tolist()) - {0} - {n for n, _, _ in names}
    if unknown:
        raise ValueError(f"label values without a name: {sorted(unknown)}")
    boxes = label_boxes(labels, top)
    segments = tuple(
        Segment(number, name, source, int(counts[number]), boxes[number]) for number, name, source in sorted(names)
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


def label_boxes(labels: NDArray[Any], top: int) -> list[Box | None]:
    """Bounding box of each label value, slice by slice in bounded memory.

    Parameters
    ----------
    labels : array, [k, j, i]
    top : int
        Largest label value.

    Returns
    -------
    list of (Box or None)
        By label value, 0 to `top`; None for a value that does not occur.
    """
    k_hit = np.zeros((top + 1, labels.shape[0]), bool)
    j_hit = np.zeros((top + 1, labels.shape[1]), bool)
    i_hit = np.zeros((top + 1, labels.shape[2]), bool)
    for k, plane in enumerate(labels):
        for value in np.flatnonzero(np.bincount(plane.ravel(), minlength=top + 1)).tolist():
            here = plane == value
            k_hit[value, k] = True
            j_hit[value] |= here.any(axis=1)
            i_hit[value] |= here.any(axis=0)
    out: list[Box | None] = []
    for value in range(top + 1):
        if not k_hit[value].any():
            out.append(None)
            continue
        ends = [(int(h[0]), int(h[-1]) + 1) for h in (np.flatnonzero(hit[value]) for hit in (k_hit, j_hit, i_hit))]
        out.append(Box(*ends[0], *ends[1], *ends[2]))
    return out


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
