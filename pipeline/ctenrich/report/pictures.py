"""Draw three planes of a CT volume as small pictures, and masks as transparent pictures of equal size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.masks import crop_of
from ctenrich.records import SegmentMasks, Volume
from ctenrich.workspace import Workspace, load_array

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PLANES", "Plane", "View", "choose_view", "overlay_png", "patient_axes", "picture_webp", "plane_of"]

PLANES = ("axial", "coronal", "sagittal")
_WINDOW = (40.0, 400.0)
"""Centre and width, HU: soft tissue that still shows the lungs' outline."""
_LONGEST = 360
_Colour = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class View:
    """Layout of a volume for display: patient axes and the position of the three cuts.

    ``axes[p]`` is the array axis that runs along patient axis p (0 left, 1 posterior, 2 superior), ``flip[p]`` whether
    its index decreases along that direction. A volume whose axes are oblique is shown along its nearest patient axes.
    """

    axes: tuple[int, int, int]
    flip: tuple[bool, bool, bool]
    cut: tuple[int, int, int]
    """Index of the shown plane on each patient axis, in array indices."""
    spacing: tuple[float, float, float]
    """mm along each patient axis."""
    shape: tuple[int, int, int]
    """Number of voxels along each patient axis."""


@dataclass(frozen=True, kw_only=True)
class Plane:
    """One cut of a view, in display order: rows from top to bottom, columns from left to right."""

    name: str
    fixed: int
    """Patient axis that the plane is normal to."""
    down: int
    right: int
    width: int
    height: int
    """Pixels of the picture; its pixels are square."""


def choose_view(volume: Volume, masks: Sequence[SegmentMasks]) -> View:
    """Choose cuts through the centre of the segments, or of the volume if there are none.

    Parameters
    ----------
    volume : Volume
        The CT.
    masks : sequence of SegmentMasks
        Products on its grid.

    Returns
    -------
    View
    """
    axes, flip = patient_axes(volume)
    centre = _centre(volume.shape, masks)
    spacing = volume.spacing
    return View(
        axes=axes,
        flip=flip,
        cut=(centre[axes[0]], centre[axes[1]], centre[axes[2]]),
        spacing=(spacing[axes[0]], spacing[axes[1]], spacing[axes[2]]),
        shape=(volume.shape[axes[0]], volume.shape[axes[1]], volume.shape[axes[2]]),
    )


def patient_axes(volume: Volume) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Array axis nearest to each patient axis (left, posterior, superior), and whether its index falls along it."""
    directions = np.asarray(volume.affine_lps)[:3, :3]
    directions = directions / np.linalg.norm(directions, axis=0)
    axes, flip, used = [0, 0, 0], [False] * 3, set()
    for patient in (2, 1, 0):
        strength = [-1.0 if voxel in used else abs(directions[patient, voxel]) for voxel in range(3)]
        voxel = int(np.argmax(strength))
        used.add(voxel)
        axes[patient] = 2 - voxel
        flip[patient] = bool(directions[patient, voxel] < 0)
    return (axes[0], axes[1], axes[2]), (flip[0], flip[1], flip[2])


def _centre(shape: Sequence[int], masks: Sequence[SegmentMasks]) -> tuple[int, int, int]:
    boxes = [(s.voxels, s.box) for m in masks for s in m.segments if s.box is not None]
    if not boxes:
        return shape[0] // 2, shape[1] // 2, shape[2] // 2
    total = sum(v for v, _ in boxes)
    sums = [sum(v * (lo + hi) / 2 for v, (lo, hi) in ((v, _box_range(b, a)) for v, b in boxes)) for a in range(3)]
    k, j, i = (min(int(s / total), n - 1) for s, n in zip(sums, shape, strict=True))
    return k, j, i


def _box_range(box: Any, axis: int) -> tuple[int, int]:
    ends: tuple[int, int] = ((box.k0, box.k1), (box.j0, box.j1), (box.i0, box.i1))[axis]
    return ends


def plane_of(view: View, name: str) -> Plane:
    """Lay out one plane: axial as seen from the feet, coronal from the front, sagittal from the left.

    Parameters
    ----------
    view : View
        Layout of the volume.
    name : str
        One of :data:`PLANES`.

    Returns
    -------
    Plane
    """
    fixed, down, right = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}[name]
    height = view.shape[down] * view.spacing[down]
    width = view.shape[right] * view.spacing[right]
    scale = _LONGEST / max(height, width)
    return Plane(
        name=name,
        fixed=fixed,
        down=down,
        right=right,
        width=max(1, round(width * scale)),
        height=max(1, round(height * scale)),
    )


def picture_webp(volume: Volume, view: View, name: str, workspace: Workspace) -> bytes:
    """Draw a plane of the CT in a soft tissue window (40/400 HU).

    Parameters
    ----------
    volume : Volume
        The CT.
    view : View
        Its layout.
    name : str
        One of :data:`PLANES`.
    workspace : Workspace
        The run's folder.

    Returns
    -------
    bytes
        A WebP file.
    """
    array = load_array(workspace.resolve(volume.series_instance_uid, volume.array_path))
    plane = plane_of(view, name)
    values = _to_display(np.asarray(_cut_plane(array, view, plane), np.float32), view, plane)
    low = _WINDOW[0] - _WINDOW[1] / 2
    grey = (np.clip((values - low) / _WINDOW[1], 0, 1) * 255).astype(np.uint8)
    return _encode_picture(_resized(grey, plane, smooth=True), "WEBP", quality=82, method=4)


def overlay_png(
    masks: SegmentMasks, colours: Mapping[int, _Colour], view: View, name: str, workspace: Workspace
) -> bytes:
    """Draw the masks of one product on a plane: filled lightly, outlined in full colour.

    Parameters
    ----------
    masks : SegmentMasks
        The masks.
    colours : mapping
        Segment number -> RGB, 0..255.
    view : View
        Layout of the CT.
    name : str
        One of :data:`PLANES`.
    workspace : Workspace
        The run's folder.

    Returns
    -------
    bytes
        A palette PNG with transparency, of the size of the CT's picture.
    """
    from PIL import Image

    plane = plane_of(view, name)
    canvas = np.zeros((plane.height, plane.width), np.uint8)
    palette, alpha = [0, 0, 0], [0]
    for index, segment in enumerate(masks.segments):
        inside = _mask_plane(masks, segment.number, view, plane, workspace)
        palette += [*colours[segment.number], *colours[segment.number]]
        alpha += [90, 255]
        if inside is None or index > 120:
            continue
        big = np.asarray(_resized(inside.astype(np.uint8) * 255, plane, smooth=False)) > 127
        edge = big & ~_eroded(big)
        canvas[big & ~edge & ((canvas == 0) | (canvas % 2 == 1))] = 2 * index + 1
        canvas[edge] = 2 * index + 2
    image = Image.fromarray(canvas)
    image.putpalette(palette)
    return _encode_picture(image, "PNG", optimize=True, transparency=bytes(alpha))


def _mask_plane(
    masks: SegmentMasks, number: int, view: View, plane: Plane, workspace: Workspace
) -> NDArray[np.bool_] | None:
    crop = crop_of(masks, number, workspace)
    if crop is None:
        return None
    part, box = crop
    axis = view.axes[plane.fixed]
    low, high = _box_range(box, axis)
    if not low <= view.cut[plane.fixed] < high:
        return None
    out = np.zeros([n for a, n in enumerate(masks.shape) if a != axis], bool)
    kept = [slice(*_box_range(box, a)) for a in range(3) if a != axis]
    out[kept[0], kept[1]] = np.take(part, view.cut[plane.fixed] - low, axis=axis)
    return np.asarray(_to_display(out, view, plane), bool)


def _cut_plane(array: NDArray[Any], view: View, plane: Plane) -> NDArray[Any]:
    where: list[Any] = [slice(None)] * 3
    where[view.axes[plane.fixed]] = view.cut[plane.fixed]
    return np.asarray(array[tuple(where)])


def _to_display(cut: NDArray[Any], view: View, plane: Plane) -> NDArray[Any]:
    """A cut (array axes in order) as rows from the top and columns from the left of the picture."""
    if view.axes[plane.down] > view.axes[plane.right]:
        cut = cut.T
    up = plane.down == 2
    if view.flip[plane.down] != up:
        cut = cut[::-1]
    if view.flip[plane.right]:
        cut = cut[:, ::-1]
    return cut


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(mask, 1)
    return mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]


def _resized(grey: NDArray[np.uint8], plane: Plane, *, smooth: bool) -> Image:
    from PIL import Image

    method = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return Image.fromarray(np.ascontiguousarray(grey)).resize((plane.width, plane.height), method)


def _encode_picture(image: Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
