"""Write the data of the interactive picture of a series: slices and masks in script files, and a still picture.

A page that was opened from disk may neither fetch files nor read back the pixels of an image file, but it may run
scripts of its folder. So the slices travel as JPEG pictures and the masks as compressed label maps, both as text in
script files.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.codes.mappings import codes_of
from ctenrich.records import Landmarks, Quantity, Regions, SegmentMasks, Volume
from ctenrich.report.reduction import (
    LabelLayers,
    Reduction,
    ValueScale,
    reduce_masks,
    reduce_volume,
    reduction_of,
    scale_of,
)
from ctenrich.report.systems import body_system
from ctenrich.workspace import Workspace, write_bytes

__all__ = ["Pictures", "WorkingPicture", "colour_of", "working_picture"]

Row = dict[str, Any]

_GREY = (150, 150, 150)
_FORMAT = "1"
"""Changed when the contents of the files change for the same volume and masks."""
_CHUNK = 1 << 20
"""Pixels of one JPEG picture, which holds several slices one below the other."""
_QUALITIES = (88, 80, 70, 60, 50, 40)
_MOST_BYTES = 3_100_000
"""JPEG data of a series: 4.2 MB as text, so that a page stays below 6 MB."""
_WINDOW = (40.0, 400.0)
_LONGEST = 360


@dataclass(frozen=True)
class Pictures:
    """Keeps pictures in files named by a hash of their contents, so that a second report draws only what changed."""

    folder: Path
    prefix: str
    """Path from the page to the folder."""
    workspace: Workspace

    def file(self, name: str, draw: Callable[[], bytes]) -> str:
        """Address of a file, which is written if it is not in the folder.

        Parameters
        ----------
        name : str
            File name.
        draw : callable
            Returns the contents of the file.
        """
        self._kept(name, draw)
        return f"{self.prefix}{name}"

    def value(self, name: str, make: Callable[[], Any]) -> Any:
        """Value that is computed, and kept as JSON, if it is not in the folder.

        Parameters
        ----------
        name : str
            File name.
        make : callable
            Returns the value.
        """
        return json.loads(self._kept(name, lambda: json.dumps(make()).encode()).read_bytes())

    def _kept(self, name: str, draw: Callable[[], bytes]) -> Path:
        path = self.folder / name
        if not path.is_file():
            write_bytes(path, draw())
        return path


def colour_of(segment: str) -> tuple[int, int, int]:
    """Display colour of a segment, RGB 0..255; grey if it has no code."""
    known = codes_of(segment)
    return known.colour if known else _GREY


@dataclass(frozen=True, kw_only=True)
class WorkingPicture:
    """The picture of a series as the template needs it."""

    meta: Row
    """Everything but pixels, for the script: geometry, files, segments, landmarks, regions."""
    stills: tuple[Row, ...]
    """The three planes for readers without JavaScript: size in mm, address of CT and overlay, text alternative."""


@dataclass(frozen=True)
class _Source:
    """Loads the reduced arrays of a series when the first file needs them."""

    volume: Volume
    masks: tuple[SegmentMasks, ...]
    workspace: Workspace

    @cached_property
    def reduction(self) -> Reduction:
        return reduction_of(self.volume)

    @cached_property
    def scale(self) -> ValueScale:
        return scale_of(self.volume, self.workspace)

    @cached_property
    def levels(self) -> NDArray[np.uint8]:
        return reduce_volume(self.volume, self.reduction, self.scale, self.workspace)

    @cached_property
    def labels(self) -> tuple[LabelLayers, ...]:
        return tuple(reduce_masks(m, self.reduction, self.workspace) for m in self.masks)


def working_picture(
    volume: Volume,
    masks: Mapping[str, SegmentMasks],
    anatomy: Mapping[str, tuple[Landmarks | None, Regions | None]],
    pictures: Pictures,
) -> WorkingPicture:
    """Write the files of a series' picture that are not there yet, and describe it.

    Parameters
    ----------
    volume : Volume
        The CT.
    masks : mapping
        Key of a product -> its masks.
    anatomy : mapping
        Key of a product of body part regression -> its landmarks and regions.
    pictures : Pictures
        Keeps the files.

    Returns
    -------
    WorkingPicture
    """
    source = _Source(volume, tuple(masks.values()), pictures.workspace)
    key = _content_key("volume", _FORMAT, volume.sha256, volume.affine_lps)
    facts = pictures.value(f"{key}.json", lambda: {"knots": source.scale.knots, "unit": source.scale.unit})
    products, layers = [], []
    for number, (name, one) in enumerate(masks.items()):
        label_key = _content_key("labels", _FORMAT, one.sha256, volume.affine_lps, volume.shape)

        def described(number: int = number) -> Row:
            found = source.labels[number]
            return {"places": found.places, "most": [most.tolist() for most in found.most]}

        def scripted(number: int = number, key: str = label_key) -> bytes:
            return _script(key, [_text(zlib.compress(layer.tobytes(), 2)) for layer in source.labels[number].layers])

        found = pictures.value(f"{label_key}.json", described)
        layers.append(found)
        products.append(
            {
                "name": name,
                "key": label_key,
                "file": pictures.file(f"{label_key}.js", scripted),
                "wide": len(one.segments) > 255,
                "segments": _segments(one, found["places"], volume),
            }
        )
    start = _start(layers, source.reduction.shape)
    meta = {
        "key": key,
        "file": pictures.file(f"{key}.js", lambda: _script(key, _slices_text(source.levels))),
        **facts,
        "hu": volume.quantity == Quantity.HU,
        "stack": source.reduction.stack_axis,
        "axes": [asdict(axis) for axis in source.reduction.axes],
        "chunk": _chunk(source.reduction.shape),
        "start": start,
        "products": products,
        **_marks(anatomy, source.reduction),
    }
    return WorkingPicture(meta=meta, stills=_stills(source, start, pictures))


def _segments(masks: SegmentMasks, places: Sequence[Any], volume: Volume) -> list[Row]:
    millilitres = float(np.prod(volume.spacing)) / 1e3
    return [
        {
            "name": segment.name,
            "system": body_system(segment.name),
            "colour": "#{:02x}{:02x}{:02x}".format(*colour_of(segment.name)),
            "ml": round(segment.voxels * millilitres, 3),
            "layer": place[0] if place else None,
            "at": place[1] if place else None,
        }
        for segment, place in zip(masks.segments, places, strict=True)
    ]


def _start(layers: Sequence[Row], shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Plane with most segments over all products on each axis (the middle one of equals); the middle without masks."""
    out = []
    for axis, count in enumerate(shape):
        total = sum((np.array(found["most"][axis]) for found in layers), np.zeros(count, int))
        best = np.flatnonzero(total == total.max()) if total.any() else np.arange(count)
        out.append(int(best[len(best) // 2]))
    return tuple(out)


def _marks(anatomy: Mapping[str, tuple[Landmarks | None, Regions | None]], reduction: Reduction) -> Row:
    """Landmarks and regions of every scorer on the axis of the slices, as fractions of a sample."""
    axis = reduction.axes[reduction.stack_axis]
    landmarks: list[Row] = []
    regions: list[Row] = []
    for product, (marks, parts) in anatomy.items():
        landmarks += [
            {"name": item.name, "at": axis.sample_of(item.slice_index), "product": product}
            for item in (marks.items if marks else ())
            if item.slice_index is not None
        ]
        slices = parts.slices if parts else ()
        for name in dict.fromkeys(name for part in slices for name in part.regions):
            inside = [part.slice_index for part in slices if name in part.regions]
            ranges = [sorted((axis.sample_of(a - 0.5), axis.sample_of(b + 0.5))) for a, b in _runs(inside)]
            regions.append({"name": name, "ranges": ranges, "product": product})
    return {"landmarks": landmarks, "regions": regions}


def _runs(indices: Sequence[int]) -> list[tuple[int, int]]:
    """First and last index of each run of consecutive indices."""
    out: list[tuple[int, int]] = []
    for index in sorted(indices):
        if out and index == out[-1][1] + 1:
            out[-1] = (out[-1][0], index)
        else:
            out.append((index, index))
    return out


# ---------------------------------------------------------------- files


def _content_key(*parts: object) -> str:
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:24]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _script(key: str, parts: Sequence[str]) -> bytes:
    """Script that hands its texts to the page; base64 and hexadecimal need no escapes."""
    return f"ctenrichPicture({json.dumps(key)},{json.dumps(list(parts))});\n".encode()


def _chunk(shape: tuple[int, int, int]) -> int:
    """Planes of one JPEG picture."""
    return max(1, min(shape[0], _CHUNK // (_padded(shape[1]) * shape[2])))


def _padded(rows: int) -> int:
    """Rows of a plane in the JPEG picture: whole blocks of 8, so that no block holds two planes."""
    return -(-rows // 8) * 8


def _slices_text(levels: NDArray[np.uint8]) -> list[str]:
    from PIL import Image

    chunk, rows = _chunk(levels.shape), _padded(levels.shape[1])
    padded = np.pad(levels, ((0, 0), (0, rows - levels.shape[1]), (0, 0)), mode="edge")
    sheets = [padded[n : n + chunk].reshape(-1, levels.shape[2]) for n in range(0, len(levels), chunk)]
    for quality in _QUALITIES:
        files = []
        for sheet in sheets:
            buffer = BytesIO()
            Image.fromarray(sheet).save(buffer, "JPEG", quality=quality)
            files.append(buffer.getvalue())
        if sum(map(len, files)) <= _MOST_BYTES:
            break
    return [_text(file) for file in files]


# ---------------------------------------------------------------- still pictures


def _stills(source: _Source, start: Sequence[int], pictures: Pictures) -> tuple[Row, ...]:
    """The three planes with the masks of the product with the most segments."""
    best = max(range(len(source.masks)), key=lambda n: _present(source.masks[n]), default=None)
    return tuple(_still(source, cut, best, pictures) for cut in _cuts(source.reduction, start))


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """One plane of the reduced volume, and the picture of it."""

    name: str
    fixed: int
    """Axis across the plane."""
    index: int
    down: int
    right: int
    mm: tuple[float, float]
    """Width and height."""
    size: tuple[int, int]
    """Width and height in pixels."""


def _cuts(reduction: Reduction, start: Sequence[int]) -> list[_Cut]:
    out = []
    for fixed, name in enumerate(("axial", "coronal", "sagittal")):
        down, right = (axis for axis in range(3) if axis != fixed)
        width, height = (reduction.axes[a].count * reduction.axes[a].spacing for a in (right, down))
        scale = _LONGEST / max(width, height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        out.append(
            _Cut(name=name, fixed=fixed, index=start[fixed], down=down, right=right, mm=(width, height), size=size)
        )
    return out


def _still(source: _Source, cut: _Cut, best: int | None, pictures: Pictures) -> Row:
    axes = source.reduction.axes
    place = (_FORMAT, source.volume.sha256, source.volume.affine_lps, cut.name, cut.index)
    name = _content_key("still", *place) + ".webp"
    still = {
        "name": cut.name,
        "fixed": cut.fixed,
        "mm": cut.mm,
        "letters": (*axes[cut.right].ends, *axes[cut.down].ends),
        "picture": pictures.file(name, lambda: _still_webp(source, cut)),
        "overlay": "",
        "product": "",
    }
    if best is not None:
        masks = source.masks[best]
        colours = [colour_of(s.name) for s in masks.segments]
        name = _content_key("overlay", *place, masks.sha256, colours) + ".png"
        still["overlay"] = pictures.file(name, lambda: _overlay_png(source.labels[best], cut, colours))
        still["product"] = str(masks.product)
    return still


def _present(masks: SegmentMasks) -> int:
    return sum(1 for segment in masks.segments if not segment.absent)


def _still_webp(source: _Source, cut: _Cut) -> bytes:
    from PIL import Image

    plane = np.take(source.levels, cut.index, axis=cut.fixed)
    values, levels = zip(*source.scale.knots, strict=True)
    shown = np.interp(np.arange(256), levels, values)
    low, width = (_WINDOW[0] - _WINDOW[1] / 2, _WINDOW[1]) if source.volume.quantity == Quantity.HU else (
        values[0], values[-1] - values[0]
    )  # fmt: skip
    table = np.clip((shown - low) / width * 255, 0, 255).astype(np.uint8)
    buffer = BytesIO()
    image = Image.fromarray(np.ascontiguousarray(table[plane])).resize(cut.size, Image.Resampling.BILINEAR)
    image.save(buffer, "WEBP", quality=82, method=2)
    return buffer.getvalue()


def _overlay_png(labels: LabelLayers, cut: _Cut, colours: Sequence[tuple[int, int, int]]) -> bytes:
    from PIL import Image

    canvas = np.zeros((cut.size[1], cut.size[0], 4), np.uint8)
    table = np.array([(0, 0, 0, 0), *((*colour, 90) for colour in colours)], np.uint8)
    for layer in labels.layers:
        plane = np.ascontiguousarray(np.take(layer, cut.index, axis=cut.fixed)).astype(np.int32)
        shown = np.asarray(Image.fromarray(plane).resize(cut.size, Image.Resampling.NEAREST))
        inside = shown > 0
        edge = inside & (_border(shown))
        canvas[inside] = table[shown[inside]]
        canvas[edge, 3] = 255
    buffer = BytesIO()
    Image.fromarray(canvas).save(buffer, "PNG")
    return buffer.getvalue()


def _border(labels: NDArray[Any]) -> NDArray[np.bool_]:
    padded = np.pad(labels, 1)
    inner = padded[1:-1, 1:-1]
    around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.asarray(np.logical_or.reduce([other != inner for other in around]), bool)
