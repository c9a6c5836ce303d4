"""Positions, orientations and pixels of the frames of a multi-frame object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ctenrich.dicom.decoders import decoder_and_plugins
from ctenrich.errors import InputError, UnsafeInputError
from ctenrich.geometry import affine_lps, slice_normal
from ctenrich.reasons import Reason
from ctenrich.records import Matrix4, Vector

__all__ = ["Frame", "Grid", "frame_pixels", "grid_of_frames", "read_frames", "sideways_drift"]

_STEP_TOLERANCE = 0.1
"""How far a frame may be from its place on a regular grid, as a share of the spacing."""
_LARGEST_PLANE = 2**27
"""Pixels of a frame that are still decoded."""
_LARGEST_WHOLE = 2**35
"""Pixels of all frames together: a hundred segments of a thousand slices of 512 x 512, and some more."""
_LARGEST_GAP = 100
"""Empty slices for each slice with a frame, beyond which the frames are taken as separate planes."""


@dataclass(frozen=True)
class Grid:
    """A regular voxel grid."""

    shape: tuple[int, int, int]
    """(slices, rows, columns)."""
    affine_lps: Matrix4
    """(i, j, k, 1) -> mm, LPS."""
    spacing: Vector
    """(between slices, between rows, between columns), mm."""
    positions: tuple[Vector, ...]
    """Centre of the first pixel of each slice, mm, LPS."""


@dataclass(frozen=True)
class Frame:
    """One frame: its plane, and what it refers to."""

    index: int
    segment: int | None
    """Referenced Segment Number; None in a label map."""
    position: Vector
    orientation: tuple[float, ...]
    pixel_spacing: tuple[float, float]
    spacing_between: float | None
    thickness: float | None
    sources: tuple[str, ...]
    """SOP Instance UIDs that the frame was derived from."""


def read_frames(dataset: Dataset) -> tuple[Frame, ...]:
    """Frames of an enhanced multi-frame object (PS3.3 C.7.6.16), per-frame values before shared ones.

    Raises
    ------
    InputError
        MISSING_GEOMETRY if position, orientation or spacing of a frame is not stated.
    """
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    per_frame = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
    count = int(dataset.get("NumberOfFrames") or 1)
    if len(per_frame) != count:
        message = f"{count} frames, but {len(per_frame)} items of per-frame functional groups"
        raise InputError(Reason.MISSING_GEOMETRY, message)
    return tuple(_frame(index, item, shared) for index, item in enumerate(per_frame))


def _first(dataset: Dataset | None, keyword: str) -> Dataset | None:
    sequence = dataset.get(keyword) if dataset is not None else None
    return sequence[0] if sequence else None


def _functional_group(keyword: str, item: Dataset, shared: Dataset | None) -> Dataset | None:
    return _first(item, keyword) or _first(shared, keyword)


def _frame(index: int, item: Dataset, shared: Dataset | None) -> Frame:
    measures = _functional_group("PixelMeasuresSequence", item, shared)
    position = _functional_group("PlanePositionSequence", item, shared)
    orientation = _functional_group("PlaneOrientationSequence", item, shared)
    segment = _functional_group("SegmentIdentificationSequence", item, shared)
    try:
        assert measures is not None
        assert position is not None
        assert orientation is not None
        place = tuple(float(v) for v in position.ImagePositionPatient)
        turn = tuple(float(v) for v in orientation.ImageOrientationPatient)
        spacing = tuple(float(v) for v in measures.PixelSpacing)
        between, thick = measures.get("SpacingBetweenSlices"), measures.get("SliceThickness")
        assert (len(place), len(turn), len(spacing)) == (3, 6, 2)
    except (AssertionError, AttributeError, TypeError, ValueError) as error:
        message = f"frame {index + 1} has no position, orientation or pixel spacing"
        raise InputError(Reason.MISSING_GEOMETRY, message) from error
    return Frame(
        index,
        int(segment.ReferencedSegmentNumber) if segment is not None else None,
        (place[0], place[1], place[2]),
        turn,
        (spacing[0], spacing[1]),
        abs(float(between)) if between else None,
        abs(float(thick)) if thick else None,
        tuple(_sources(item, shared)),
    )


def _sources(item: Dataset, shared: Dataset | None) -> Iterator[str]:
    derivations = item.get("DerivationImageSequence") or (shared.get("DerivationImageSequence") if shared else None)
    for derivation in derivations or []:
        for source in derivation.get("SourceImageSequence") or []:
            if "ReferencedSOPInstanceUID" in source:
                yield str(source.ReferencedSOPInstanceUID)


# ---------------------------------------------------------------- grid


def grid_of_frames(frames: tuple[Frame, ...], rows: int, columns: int) -> tuple[Grid, tuple[int, ...], bool]:
    """Find the smallest regular grid that holds all frames.

    Positions that are a whole number of spacings apart leave empty slices between them. Where frames do not lie on one
    regular grid, every distinct position becomes a slice.

    Parameters
    ----------
    frames : tuple of Frame
        Positions, orientations and spacings in the patient coordinate system (LPS, mm).
    rows, columns : int
        Matrix of every frame.

    Returns
    -------
    (grid, indices, regular)
        The grid [k, j, i]; the slice index k of each frame; whether the frames lie on one regular grid.

    Raises
    ------
    InputError
        MULTI_ORIENTATION or MULTI_PIXEL_SPACING if the frames do not share one plane.
    """
    first = frames[0]
    for frame in frames:
        if not np.allclose(frame.orientation, first.orientation, atol=1e-4):
            raise InputError(Reason.MULTI_ORIENTATION, "the frames do not share one orientation")
        if not np.allclose(frame.pixel_spacing, first.pixel_spacing, rtol=1e-4):
            raise InputError(Reason.MULTI_PIXEL_SPACING, "the frames do not share one pixel spacing")
    normal = np.array(slice_normal(first.orientation[:3], first.orientation[3:]))
    distances = np.array([float(normal @ np.array(frame.position)) for frame in frames])
    levels = _levels(distances)
    step = _step(levels, first)
    places = (levels - levels[0]) / step
    regular = bool(np.all(np.abs(places - np.round(places)) <= _STEP_TOLERANCE))
    if places[-1] > _LARGEST_GAP * len(levels) + 1000:
        regular = False
    if regular:
        index_of_level = np.round(places).astype(int)
        # a stated spacing may be rounded: the extent is what counts
        if index_of_level[-1] > 0:
            step = float((levels[-1] - levels[0]) / index_of_level[-1])
    else:
        index_of_level = np.arange(len(levels))
    which = np.abs(distances[:, None] - levels[None, :]).argmin(axis=1)
    indices = tuple(int(index_of_level[w]) for w in which)
    origin = np.array(frames[int(np.argmin(distances))].position)
    count = int(index_of_level[-1]) + 1
    affine = affine_lps(origin.tolist(), first.orientation[:3], first.orientation[3:], first.pixel_spacing, step)
    starts = [origin + normal * step * k for k in range(count)]
    if not regular:
        starts = [np.array(frames[int(np.argmin(np.abs(distances - level)))].position) for level in levels]
    positions = tuple((float(p[0]), float(p[1]), float(p[2])) for p in starts)
    grid = Grid((count, rows, columns), affine, (step, *first.pixel_spacing), positions)
    return grid, indices, regular


def sideways_drift(frames: tuple[Frame, ...]) -> float:
    """Largest distance of a frame, in its plane, from the line along the normal through the first one, in mm."""
    first = frames[0]
    offsets = np.array([frame.position for frame in frames]) - np.array(first.position)
    normal = np.array(slice_normal(first.orientation[:3], first.orientation[3:]))
    within = offsets - np.outer(offsets @ normal, normal)
    return float(np.linalg.norm(within, axis=1).max())


def _levels(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distinct distances along the normal, growing; closer than 0.01 mm is the same slice."""
    ordered = np.sort(distances)
    keep = np.concatenate([[True], np.diff(ordered) > 0.01])
    levels: NDArray[np.float64] = ordered[keep]
    return levels


def _step(levels: NDArray[np.float64], frame: Frame) -> float:
    gap = float(np.diff(levels).min()) if len(levels) > 1 else None
    stated = frame.spacing_between
    if stated and (gap is None or abs(gap / stated - round(gap / stated)) <= _STEP_TOLERANCE):
        return stated
    return gap or frame.thickness or 1.0


# ---------------------------------------------------------------- pixels


def frame_pixels(dataset: Dataset) -> Iterator[NDArray[Any]]:
    """Stored values of each frame in order, [j, i]; bits are unpacked frame by frame in bounded memory.

    Raises
    ------
    InputError
        TRUNCATED if there are fewer bytes than frames, DECODE_ERROR if a codec fails.
    UnsafeInputError
        DECOMPRESSION_BOMB if one frame, or all frames together, have more pixels than anybody needs.
    """
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    count = int(dataset.get("NumberOfFrames") or 1)
    if "PixelData" not in dataset:
        raise InputError(Reason.TRUNCATED, "the object has no pixel data")
    if rows * columns > _LARGEST_PLANE:
        raise UnsafeInputError(Reason.DECOMPRESSION_BOMB, f"a frame has {rows} x {columns} pixels")
    if rows * columns * count > _LARGEST_WHOLE:
        raise UnsafeInputError(Reason.DECOMPRESSION_BOMB, f"{count} frames have {rows * columns * count} pixels")
    native = not dataset.file_meta.TransferSyntaxUID.is_encapsulated
    if native and int(dataset.BitsAllocated) == 1:
        yield from _bits(dataset.PixelData, rows, columns, count)
        return
    if native and len(dataset.PixelData) < rows * columns * count * int(dataset.BitsAllocated) // 8:
        raise InputError(Reason.TRUNCATED, "the pixel data are shorter than the frames need")
    from pydicom.pixels.utils import iter_pixels

    plugin = ""
    try:
        if not native:
            plugin = decoder_and_plugins(dataset.file_meta.TransferSyntaxUID)[1][0]
        yield from iter_pixels(dataset, raw=True, decoding_plugin=plugin)
    except InputError:
        raise
    except Exception as error:  # codecs raise many kinds for broken streams
        raise InputError(Reason.DECODE_ERROR, f"a frame could not be decoded ({type(error).__name__})") from error


def _bits(data: bytes, rows: int, columns: int, count: int) -> Iterator[NDArray[np.uint8]]:
    size = rows * columns
    if len(data) * 8 < size * count:
        raise InputError(Reason.TRUNCATED, "the pixel data are shorter than the frames need")
    packed = np.frombuffer(data, np.uint8)
    for index in range(count):
        start = index * size
        part = packed[start // 8 : (start + size + 7) // 8]
        bits = np.unpackbits(part, bitorder="little")[start % 8 : start % 8 + size]
        yield bits.reshape(rows, columns)
