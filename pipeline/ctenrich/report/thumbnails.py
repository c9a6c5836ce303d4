"""Draw small pictures of a series for the first page: a coronal one with all masks, and an axial one of a finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctenrich.codes.mappings import codes_of
from ctenrich.geometry import grid_match
from ctenrich.masks import crop_of
from ctenrich.records import SegmentMasks, Volume
from ctenrich.workspace import Workspace, load_array

__all__ = ["ThumbnailPlane", "coronal_plane", "segment_colour", "slice_plane", "thumbnail_webp"]

_WINDOW = (-160.0, 400.0)
"""Lowest value and width, HU: 40/400."""
_LONGEST = 150
"""Pixels of the longer side."""
_GREY = (150, 150, 150)


def segment_colour(segment: str) -> tuple[int, int, int]:
    """Colour of a segment, RGB, 0 to 255; grey for one without a row in mappings/segments.csv."""
    known = codes_of(segment)
    return known.colour if known else _GREY


class ThumbnailPlane(NamedTuple):
    """A plane of a volume in patient axes [z to the head, y to the back, x to the left]."""

    axis: int
    """0: axial, 1: coronal."""
    position: int


class _Turn(NamedTuple):
    """Exchange and flips of axes that bring an array [k, j, i] into patient axes."""

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def apply(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        view = array.transpose(self.axes)
        return view[tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flips)]


def _turn_of(volume: Volume) -> _Turn:
    axes, flips = grid_match(np.asarray(volume.affine_lps), volume.shape[::-1], np.eye(4))
    return _Turn((2 - axes[2], 2 - axes[1], 2 - axes[0]), (flips[2], flips[1], flips[0]))


def coronal_plane(volume: Volume, masks: Sequence[SegmentMasks]) -> ThumbnailPlane:
    """Choose the coronal plane that crosses the boxes of most segments; the middle one without segments.

    Parameters
    ----------
    volume : Volume
        The CT.
    masks : sequence of SegmentMasks
        Products on its grid.

    Returns
    -------
    ThumbnailPlane
    """
    turn = _turn_of(volume)
    axis = turn.axes[1]
    size = volume.shape[axis]
    crossed = np.zeros(size)
    for segment in (s for m in masks for s in m.segments if s.box is not None):
        box = segment.box
        assert box is not None
        low, high = ((box.k0, box.k1), (box.j0, box.j1), (box.i0, box.i1))[axis]
        crossed[low:high] += 1
    best = np.flatnonzero(crossed == crossed.max())
    index = int(best[best.size // 2])
    return ThumbnailPlane(1, size - 1 - index if turn.flips[1] else index)


def slice_plane(volume: Volume, slice_index: int) -> ThumbnailPlane | None:
    """Return the plane of a slice of the volume; None where its slices are not axial.

    Parameters
    ----------
    volume : Volume
        The CT.
    slice_index : int
        Index along the slice normal.
    """
    turn = _turn_of(volume)
    if turn.axes[0] != 0 or not 0 <= slice_index < volume.shape[0]:
        return None
    return ThumbnailPlane(0, volume.shape[0] - 1 - slice_index if turn.flips[0] else slice_index)


def thumbnail_webp(
    volume: Volume,
    masks: Sequence[SegmentMasks],
    plane: ThumbnailPlane,
    colours: Mapping[str, tuple[int, int, int]],
    workspace: Workspace,
) -> bytes:
    """Draw a plane in a soft tissue window (40/400 HU) with the masks in their colours.

    The head or the front is at the top, the patient's left is on the right of the picture.

    Parameters
    ----------
    volume : Volume
        The CT.
    masks : sequence of SegmentMasks
        Products whose segments are drawn, the first at the bottom.
    plane : ThumbnailPlane
        The plane.
    colours : mapping
        Name of a segment -> RGB, 0 to 255.
    workspace : Workspace
        The run's folder.

    Returns
    -------
    bytes
        A WebP file.
    """
    from PIL import Image

    turn = _turn_of(volume)
    array = load_array(workspace.resolve(volume.series_instance_uid, volume.array_path))
    cut = np.take(turn.apply(array), plane.position, axis=plane.axis)
    spacing = [volume.spacing[axis] for axis in turn.axes]
    rows, columns = (1, 2) if plane.axis == 0 else (0, 2)
    height, width = cut.shape[0] * spacing[rows], cut.shape[1] * spacing[columns]
    scale = _LONGEST / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    grey = (np.clip((cut.astype(np.float32) - _WINDOW[0]) / _WINDOW[1], 0, 1) * 255).astype(np.uint8)
    flip = plane.axis == 1  # z grows to the head
    picture = Image.fromarray(np.ascontiguousarray(grey[::-1] if flip else grey))
    canvas: NDArray[np.floating] = np.asarray(
        picture.resize(size, Image.Resampling.BILINEAR).convert("RGB"), np.float32
    )
    for product in masks:
        for segment in product.segments:
            inside = _mask_plane(product, segment.number, turn, plane, workspace)
            if inside is None:
                continue
            small = Image.fromarray(np.ascontiguousarray(inside[::-1] if flip else inside).astype(np.uint8) * 255)
            covered = np.asarray(small.resize(size, Image.Resampling.BOX), np.float32)[..., None] / 255
            colour = np.array(colours.get(segment.name, _GREY), np.float32)
            canvas = canvas * (1 - 0.55 * covered) + colour * (0.55 * covered)
    buffer = BytesIO()
    Image.fromarray(canvas.astype(np.uint8)).save(buffer, "WEBP", quality=62, method=4)
    return buffer.getvalue()


def _mask_plane(
    masks: SegmentMasks, number: int, turn: _Turn, plane: ThumbnailPlane, workspace: Workspace
) -> NDArray[np.bool_] | None:
    crop = crop_of(masks, number, workspace)
    if crop is None:
        return None
    mask, box = crop
    starts, ends = (box.k0, box.j0, box.i0), (box.k1, box.j1, box.i1)
    low = [
        masks.shape[axis] - ends[axis] if flip else starts[axis]
        for axis, flip in zip(turn.axes, turn.flips, strict=True)
    ]
    turned = turn.apply(mask)
    within = plane.position - low[plane.axis]
    if not 0 <= within < turned.shape[plane.axis]:
        return None
    shape = [masks.shape[axis] for axis in turn.axes]
    kept = [axis for axis in range(3) if axis != plane.axis]
    out = np.zeros([shape[axis] for axis in kept], bool)
    part = np.take(turned, within, axis=plane.axis)
    out[tuple(slice(low[a], low[a] + n) for a, n in zip(kept, part.shape, strict=True))] = part
    return out
