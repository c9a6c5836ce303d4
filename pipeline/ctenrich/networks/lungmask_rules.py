"""Preprocessing and post-processing of lungmask, with its results voxel for voxel.

Hofmanninger et al., Eur Radiol Exp 4:50 (2020), doi:10.1186/s41747-020-00173-2; rules of lungmask 0.2.20. Every slice
is cropped to the body and resized to 256 x 256 pixels. Of the label map of a volume, small components go to the
neighbour with which they share most voxels, the largest component of each class stays, and its holes are filled.

One difference is left: fill_voids 2.1.2, which lungmask uses, takes some openings at the first row of the first slice
for holes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["SIZE", "SliceBox", "clean_labels", "fuse", "resize_labels", "resize_slice"]

Labels = NDArray[np.uint8]
Slices3 = tuple[slice, slice, slice]

SIZE = 256
"""Rows and columns that the network sees."""
_LOWEST, _HIGHEST = -1024, 600
"""HU to which a slice is clipped."""
_BODY_SIZE = 128
_BODY_THRESHOLD = -500
_SMALLEST = 3
"""Voxels from which a small component goes to a neighbour."""
_EVERY_NEIGHBOUR_2D = np.ones((3, 3), bool)
_EVERY_NEIGHBOUR_3D = np.ones((3, 3, 3), bool)


@dataclass(frozen=True, kw_only=True)
class SliceBox:
    """Part of a slice that the network sees: half-open ranges of rows and columns."""

    row0: int
    row1: int
    column0: int
    column1: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.row1 - self.row0, self.column1 - self.column0


def _label_in_raster_order(mask: NDArray[np.bool_], structure: NDArray[np.bool_] | None) -> NDArray[np.int32]:
    """Components of a mask, numbered from 1 by their first voxel in the order of memory."""
    labels, count = ndimage.label(mask, structure)
    values, first = np.unique(labels, return_index=True)
    inside = values > 0
    table = np.zeros(count + 1, np.int32)
    table[values[inside][np.argsort(first[inside], kind="stable")]] = np.arange(1, count + 1)
    return np.asarray(table[labels])


def _body_mask(plane: NDArray[np.number]) -> NDArray[np.bool_]:
    """Mask of the body on a slice: the largest object above -500 HU, found on 128 x 128 pixels."""
    small = ndimage.zoom(plane, _BODY_SIZE / np.asarray(plane.shape), order=0)
    mask = ndimage.binary_closing(small > _BODY_THRESHOLD)
    mask = ndimage.binary_fill_holes(mask, structure=_EVERY_NEIGHBOUR_2D)
    mask = ndimage.binary_erosion(mask, iterations=2)
    objects = _label_in_raster_order(mask, None)
    sizes = np.bincount(objects.ravel())[1:]
    if sizes.size:
        mask = ndimage.binary_dilation(objects == np.argmax(sizes) + 1, iterations=2)
    return np.asarray(ndimage.zoom(mask, np.asarray(plane.shape) / _BODY_SIZE, order=0))


def resize_slice(plane: NDArray[np.number]) -> tuple[NDArray[np.number], SliceBox]:
    """Clip a slice to -1024 to 600 HU, crop it to the body and resize it by linear interpolation.

    Parameters
    ----------
    plane : array, [row, column], HU
        Rows run to the back of the patient and columns to the left.

    Returns
    -------
    array, [256, 256], of the type of `plane`
    SliceBox
        The part of the slice that it shows.
    """
    clipped = np.clip(plane, _LOWEST, _HIGHEST)
    objects = _label_in_raster_order(_body_mask(clipped), _EVERY_NEIGHBOUR_2D)
    found = ndimage.find_objects(objects, max_label=1)
    rows, columns = found[0] if found and found[0] is not None else (slice(0, plane.shape[0]), slice(0, plane.shape[1]))
    box = SliceBox(row0=rows.start, row1=rows.stop, column0=columns.start, column1=columns.stop)
    part = clipped[rows, columns]
    return ndimage.zoom(part, np.asarray([SIZE, SIZE]) / np.asarray(part.shape), order=1), box


def resize_labels(labels: Labels, box: SliceBox, shape: tuple[int, int]) -> Labels:
    """Put the labels of a slice back where they were, by the nearest neighbour.

    Parameters
    ----------
    labels : array, [256, 256]
    box : SliceBox
        As `resize_slice` returned it.
    shape : (int, int)
        Rows and columns of the slice.

    Returns
    -------
    array, [row, column]
    """
    out = np.zeros(shape, np.uint8)
    resized = ndimage.zoom(labels, np.asarray(box.shape) / np.asarray(labels.shape), order=0)
    out[box.row0 : box.row1, box.column0 : box.column1] = resized
    return out


# ---------------------------------------------------------------- components


class _Regions:
    """The components of all classes of a label map: number, class, voxels and box of each, as they are merged.

    Parameters
    ----------
    labels : array, [k, j, i]
        Label values, 0 background.
    """

    def __init__(self, labels: Labels) -> None:
        self.map = _components_of_classes(labels)
        self.sizes = np.bincount(self.map.ravel())
        self.sizes[0] = 0
        first = np.unique(self.map, return_index=True)
        self.classes = np.zeros(len(self.sizes), np.int64)
        self.classes[first[0]] = labels.ravel()[first[1]]
        self.boxes: list[Slices3] = [(slice(0, 0),) * 3, *ndimage.find_objects(self.map)]
        self.order = (np.argsort(self.sizes[1:], kind="stable") + 1).tolist()

    def neighbour(self, number: int, spare: Sequence[int]) -> int:
        """Component with which most of the voxels around another one are shared; the component itself if none is.

        lungmask compares the *number* of the neighbour with the spared *classes*, so that the components with these
        numbers receive nothing.
        """
        around = _grown(self.boxes[number], 2, self.map.shape)
        part = self.map[around]
        near = part[ndimage.binary_dilation(part == number)]
        values, counts = np.unique(near, return_counts=True)
        taken = (values != 0) & (values != number) & ~np.isin(values, spare)
        return int(values[taken][np.argmax(counts[taken])]) if taken.any() else number

    def merge(self, number: int, into: int) -> None:
        """Give the voxels of a component to another one."""
        part = self.map[self.boxes[number]]
        part[part == number] = into
        pairs = zip(self.boxes[number], self.boxes[into], strict=True)
        a, b, c = (slice(min(p.start, q.start), max(p.stop, q.stop)) for p, q in pairs)
        self.boxes[into] = (a, b, c)


def _components_of_classes(labels: Labels) -> NDArray[np.int32]:
    """Components of equal labels (26 neighbours), numbered from 1 by their first voxel in the order of memory."""
    out = np.zeros(labels.shape, np.int32)
    count = 0
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None:
            found, more = ndimage.label(labels[box] == value, _EVERY_NEIGHBOUR_3D)
            out[box] += np.where(found > 0, found + count, 0).astype(np.int32)
            count += more
    values, first = np.unique(out, return_index=True)
    inside = values > 0
    table = np.zeros(count + 1, np.int32)
    table[values[inside][np.argsort(first[inside], kind="stable")]] = np.arange(1, count + 1)
    return np.asarray(table[out])


def _grown(box: Slices3, margin: int, shape: tuple[int, ...]) -> Slices3:
    ends = (slice(max(s.start - margin, 0), min(s.stop + margin, n)) for s, n in zip(box, shape, strict=True))
    a, b, c = ends
    return a, b, c


def clean_labels(labels: Labels, spare: Sequence[int] = ()) -> Labels:
    """Merge small components into neighbours, keep the largest component of each class, and fill its holes.

    Parameters
    ----------
    labels : array, [k, j, i]
        At least two slices.
    spare : sequence of int
        Classes all of whose components go to neighbours.

    Returns
    -------
    array, [k, j, i]
    """
    regions = _Regions(labels)
    largest = np.zeros(256, np.int64)  # voxels of the largest component of each class
    kept_class = np.zeros(len(regions.sizes), np.uint8)  # component -> its class in the answer
    for number in regions.order:
        value = regions.classes[number]
        if regions.sizes[number] > largest[value]:
            largest[value] = regions.sizes[number]
            kept_class[number] = value
    for number in regions.order:
        value, size = regions.classes[number], regions.sizes[number]
        if (size < largest[value] or value in spare) and size >= _SMALLEST:
            other = regions.neighbour(number, spare)
            if other == number:
                continue
            regions.merge(number, other)
            if regions.sizes[other] == largest[regions.classes[other]]:
                largest[regions.classes[other]] += size
            regions.sizes[other] += size
    mapped = kept_class[regions.map]
    mapped[np.isin(mapped, spare)] = 0
    out = np.zeros(labels.shape, np.uint8)
    for value in np.unique(mapped)[1:]:
        box, mask = _largest_filled(mapped == value)
        out[box][mask] = value
    return out


def _largest_filled(mask: NDArray[np.bool_]) -> tuple[Slices3, NDArray[np.bool_]]:
    """Box of the largest component of a mask, and the component in this box with its holes filled."""
    objects = _label_in_raster_order(mask, _EVERY_NEIGHBOUR_3D)
    number = int(np.argsort(np.bincount(objects.ravel())[1:])[-1]) + 1
    box = ndimage.find_objects(objects)[number - 1]
    inside = objects[box] == number
    outside, _ = ndimage.label(np.pad(~inside, 1, constant_values=True))
    return box, (outside != outside[0, 0, 0])[1:-1, 1:-1, 1:-1]


def fuse(labels: Labels, lungs: Labels) -> Labels:
    """Fill a label map of lobes from a label map of lungs, and remove from it what is outside the lungs.

    Parameters
    ----------
    labels : array, [k, j, i]
        Lobes.
    lungs : array, [k, j, i]
        Lungs, on the same grid.

    Returns
    -------
    array, [k, j, i]
        Lobes.
    """
    spare = int(labels.max()) + 1
    joined = np.where((labels == 0) & (lungs > 0), spare, labels).astype(np.uint8)
    joined[lungs == 0] = 0
    return clean_labels(joined, (spare,))
