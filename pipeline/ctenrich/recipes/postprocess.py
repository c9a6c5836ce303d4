"""Rules that change a label map: components, masks and vertebrae. Components touch by faces."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "cut_to_mask",
    "grow_labels",
    "keep_band",
    "relabel_vertebrae",
    "remove_outside",
    "remove_small_components",
]

Labels = NDArray[np.unsignedinteger]
Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]


def _ndimage() -> Any:
    """Return scipy's module; it takes long to import, and few recipes have rules."""
    return import_module("scipy.ndimage")


def remove_small_components(labels: Labels, value: int, voxels: float) -> None:
    """Remove the components of a class that have at most so many voxels, in place.

    Parameters
    ----------
    labels : array, [z, y, x]
    value : int
        Label value of the class.
    voxels : float
    """
    components, count = _ndimage().label(labels == value)
    if count:
        small = np.bincount(components.ravel()) <= voxels
        small[0] = False
        labels[small[components]] = 0


def remove_outside(labels: Labels, mask: Mask, steps: int) -> None:
    """Remove all labels outside a mask that is dilated by so many steps of a cross of seven voxels, in place.

    Parameters
    ----------
    labels : array, [k, j, i]
    mask : array of bool, [k, j, i]
    steps : int
        0: dilated until nothing changes, which is the whole array unless the mask is empty (as scipy counts).
    """
    labels[~_ndimage().binary_dilation(mask, iterations=steps)] = 0


def keep_band(labels: Labels, mask: Mask, axis: int) -> Labels:
    """Keep the planes of an axis that the largest component of a mask has, from its first to its last.

    Parameters
    ----------
    labels : array, [k, j, i]
    mask : array of bool, [k, j, i]
    axis : int

    Returns
    -------
    array, [k, j, i]
        `labels` unchanged if the mask is empty.
    """
    components, count = _ndimage().label(mask)
    if not count:
        return labels
    largest = int(np.argmax(np.bincount(components.ravel())[1:])) + 1
    band = _ndimage().find_objects(components, max_label=largest)[largest - 1][axis]
    out = np.zeros_like(labels)
    np.moveaxis(out, axis, 0)[band] = np.moveaxis(labels, axis, 0)[band]
    return out


def _ellipsoid(spacing: Spacing, radius: float) -> Mask:
    """Structuring element [x, y, z] on a grid that starts at minus the radius; in single precision."""
    radii = [np.float32(radius) / np.float32(step) for step in spacing]
    grid = np.ogrid[tuple(slice(-r, r + np.float32(1)) for r in radii)]
    total = sum(axis * axis / (r * r) for axis, r in zip(grid, radii, strict=True))
    return np.asarray(total <= 1)


def grow_labels(labels: Labels, spacing: Spacing, radius: float) -> Labels:
    """Grow each label into the background, the smallest value first.

    Parameters
    ----------
    labels : array, [x, y, z]
    spacing : (x, y, z), mm
    radius : float
        mm.

    Returns
    -------
    array, [x, y, z]
    """
    element = _ellipsoid(spacing, radius)
    reach = [int(np.ceil(np.float32(radius) / np.float32(step))) for step in spacing]
    out = labels.copy()
    for value, box in enumerate(_ndimage().find_objects(labels), start=1):
        if box is None:
            continue
        wide = tuple(
            slice(max(part.start - r, 0), min(part.stop + r, n))
            for part, r, n in zip(box, reach, labels.shape, strict=True)
        )
        grown = _ndimage().binary_dilation(labels[wide] == value, structure=element)
        inside = out[wide]
        inside[(inside == 0) & grown] = value
    return out


def cut_to_mask(labels: Labels, mask: Mask, spacing: Spacing, radius: float) -> Labels:
    """Grow each label and keep what lies inside a mask.

    Parameters
    ----------
    labels : array, [x, y, z]
    mask : array of bool, [x, y, z]
    spacing : (x, y, z), mm
    radius : float
        mm.

    Returns
    -------
    array, [x, y, z]
    """
    out = grow_labels(labels, spacing, radius)
    out[~mask] = 0
    return out


def relabel_vertebrae(labels: Labels, ends: tuple[int, int], spacing: Spacing, radius: float) -> Labels:
    """Give each vertebral body one label, and grow all by a radius.

    Bodies do not touch in the ground truth. Where labels touch, the components (100 mm3 and more) are counted: from the
    lowest upwards, starting with the largest label found; or, if the first vertebra is there and the last is not, from
    the highest downwards.

    Parameters
    ----------
    labels : array, [x, y, z]
        z grows towards the head.
    ends : (int, int)
        Label values of the first (highest) and last vertebra.
    spacing : (x, y, z), mm
    radius : float
        mm.

    Returns
    -------
    array, [x, y, z]
    """
    if not _labels_touch(labels):
        return grow_labels(labels, spacing, radius)
    first, last = ends
    components, _ = _ndimage().label(labels > 0)
    volume = np.prod([np.float32(step) for step in spacing])
    large = np.bincount(components.ravel()) * volume >= 100
    large[0] = False
    numbers = np.flatnonzero(large)
    present = set(np.unique(labels[large[components]]).tolist()) - {0}
    out = np.zeros_like(labels)
    if not present:
        return out
    heights = _mean_heights(components, numbers)
    downwards = last not in present and first in present
    order = sorted(range(len(numbers)), key=lambda n: heights[n], reverse=downwards)
    values = range(first, last + 1) if downwards else range(max(present), first - 1, -1)
    table = np.zeros(len(large), labels.dtype)
    for n, value in zip(order, values, strict=False):  # components beyond the last vertebra are dropped
        table[numbers[n]] = value
    return grow_labels(table[components], spacing, radius)


def _mean_heights(components: NDArray[np.int32], numbers: Sequence[int] | NDArray[np.intp]) -> list[float]:
    centres = _ndimage().center_of_mass(components > 0, components, np.asarray(numbers))
    return [float(centre[2]) for centre in centres]


def _labels_touch(labels: Labels) -> bool:
    """Whether two different labels have a common face."""
    for axis in range(3):
        turned = np.moveaxis(labels, axis, 0)
        a, b = turned[1:], turned[:-1]
        if bool(((a > 0) & (b > 0) & (a != b)).any()):
            return True
    return False
