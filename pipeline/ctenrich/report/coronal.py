"""Draw a coronal picture of a series with its landmarks as lines and its regions as bands: a PNG for documents.

The head is up, the patient's left is on the right. Pixels are square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.errors import GeometryError
from ctenrich.reasons import Reason
from ctenrich.records import Landmarks, Regions, Volume
from ctenrich.workspace import Workspace, load_array

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

__all__ = ["Coronal", "coronal_picture", "coronal_png"]

_WINDOW = (40.0, 400.0)
_LABELS = 74
_BAND = 16
_COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#9c755f")
_LINE = (255, 214, 64)


@dataclass(frozen=True, kw_only=True)
class Coronal:
    """A coronal plane with the geometry needed to draw on it."""

    pixels: NDArray[np.uint8]
    """[row, column], grey values; row 0 is nearest to the head, column 0 is the patient's right."""
    pixel_size: float
    """mm."""
    head_first: bool
    """Whether the slice index falls from top to bottom of the picture."""
    slices: int
    slice_spacing: float

    def row_of(self, position: float) -> float:
        """Picture row of a position along the slice normal (mm from the first slice)."""
        from_top = (self.slices - 1) * self.slice_spacing - position if self.head_first else position
        return (from_top + self.slice_spacing / 2) / self.pixel_size - 0.5


def coronal_picture(volume: Volume, workspace: Workspace, *, height: int = 420) -> Coronal:
    """Cut a coronal plane through the middle of the body in the middle slice.

    Parameters
    ----------
    volume : Volume
        The CT.
    workspace : Workspace
        The run's folder.
    height : int
        Rows of the picture.

    Returns
    -------
    Coronal

    Raises
    ------
    GeometryError
        NOT_AXIAL if the slices do not lie across the long axis of the patient.
    """
    axes = np.asarray(volume.affine_lps)[:3, :3]
    unit = axes / np.linalg.norm(axes, axis=0)
    if int(np.argmax(np.abs(unit[:, 2]))) != 2:
        raise GeometryError(Reason.NOT_AXIAL, "a coronal picture needs slices across the long axis of the patient")
    array = load_array(workspace.resolve(volume.series_instance_uid, volume.array_path))
    depth_axis = 1 if abs(unit[1, 1]) >= abs(unit[1, 0]) else 2
    body = np.asarray(array[len(array) // 2]) > -300
    shown = np.flatnonzero(body.any(axis=1 if depth_axis == 1 else 0))
    middle = int(shown[[0, -1]].mean()) if shown.size else array.shape[depth_axis] // 2
    plane = np.asarray(array[:, middle] if depth_axis == 1 else array[:, :, middle])
    across = 0 if depth_axis == 1 else 1  # column of the affine that runs across the picture
    spacing = volume.spacing[2 if depth_axis == 1 else 1]
    head_first = bool(unit[2, 2] > 0)
    if head_first:
        plane = plane[::-1]
    if unit[0, across] < 0:
        plane = plane[:, ::-1]
    return _scaled(plane, (volume.spacing[0], spacing), height, head_first)


def _scaled(plane: NDArray[Any], spacing: tuple[float, float], height: int, head_first: bool) -> Coronal:
    from PIL import Image

    low = _WINDOW[0] - _WINDOW[1] / 2
    grey = np.clip((plane.astype(np.float32) - low) / _WINDOW[1] * 255, 0, 255).astype(np.uint8)
    size = len(plane) * spacing[0] / height
    width = max(1, round(plane.shape[1] * spacing[1] / size))
    image = Image.fromarray(np.ascontiguousarray(grey)).resize((width, height), Image.Resampling.BILINEAR)
    return Coronal(
        pixels=np.asarray(image), pixel_size=size, head_first=head_first, slices=len(plane), slice_spacing=spacing[0]
    )


def coronal_png(
    volume: Volume, landmarks: Landmarks, regions: Regions, *, workspace: Workspace, height: int = 420
) -> bytes:
    """Draw the coronal plane as PNG: a named line for each landmark found, a band for each region.

    The same input gives the same bytes.

    Parameters
    ----------
    volume : Volume
        The CT.
    landmarks : Landmarks
        Of the same series.
    regions : Regions
        Of the same series.
    workspace : Workspace
        The run's folder.
    height : int
        Rows of the picture.

    Returns
    -------
    bytes
        A PNG file.

    Raises
    ------
    GeometryError
        NOT_AXIAL, see `coronal_picture`.
    """
    from PIL import Image, ImageDraw

    coronal = coronal_picture(volume, workspace, height=height)
    names = list(dict.fromkeys(name for item in regions.slices for name in item.regions))
    width = coronal.pixels.shape[1]
    total = width + _LABELS + _BAND * len(names) + 4
    image = Image.new("RGB", (total, height), (0, 0, 0))
    image.paste(Image.fromarray(coronal.pixels).convert("RGB"), (0, 0))
    draw = ImageDraw.Draw(image)
    _draw_lines(draw, coronal, landmarks, width, height)
    for number, name in enumerate(names):
        inside = [item.slice_index for item in regions.slices if name in item.regions]
        _draw_band(draw, coronal, inside, width + _LABELS + _BAND * number, _COLOURS[number % len(_COLOURS)])
        label = Image.new("L", (90, 12), 0)
        ImageDraw.Draw(label).text((1, 0), name, fill=255)
        turned = label.rotate(90, expand=True)
        rows = [coronal.row_of(k * coronal.slice_spacing) for k in inside]
        place = min(max(round(sum(rows) / len(rows)) - 45, 0), max(height - 90, 0))
        image.paste((255, 255, 255), (width + _LABELS + _BAND * number, place), turned)
    out = BytesIO()
    image.save(out, format="PNG", optimize=True)
    return out.getvalue()


def _draw_lines(draw: ImageDraw, coronal: Coronal, landmarks: Landmarks, width: int, height: int) -> None:
    found = [(i.name, coronal.row_of(i.position)) for i in landmarks.items if i.position is not None]
    found.sort(key=lambda item: item[1])
    for (name, row), place in zip(found, _spread_labels([row for _, row in found], 10.0, height), strict=True):
        draw.line([(0, round(row)), (width - 1, round(row))], fill=_LINE)
        draw.line([(width, round(row)), (width + 8, round(place))], fill=_LINE)
        draw.text((width + 10, round(place) - 6), name, fill=(255, 255, 255))


def _spread_labels(rows: Sequence[float], least: float, height: int) -> list[float]:
    """Positions for labels, in order, at least `least` apart as far as they fit."""
    out: list[float] = []
    for row in rows:
        out.append(max(row, out[-1] + least) if out else max(row, 6.0))
    limit = height - 6.0
    for n in range(len(out) - 1, -1, -1):
        out[n] = min(out[n], limit)
        limit = out[n] - least
    return out


def _draw_band(draw: ImageDraw, coronal: Coronal, inside: Sequence[int], left: int, colour: str) -> None:
    half = coronal.slice_spacing / 2
    for k in inside:
        ends = sorted(coronal.row_of(k * coronal.slice_spacing + side) for side in (-half, half))
        draw.rectangle([(left, round(ends[0])), (left + _BAND - 4, round(ends[1]))], fill=colour)
