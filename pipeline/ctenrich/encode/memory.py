"""Estimate whether a SEG fits into a worker's memory, before large arrays are allocated."""

from __future__ import annotations

from ctenrich.errors import EncodingError
from ctenrich.reasons import Reason
from ctenrich.records import SegmentMasks
from ctenrich.settings import Settings

__all__ = ["LARGEST_PIXEL_DATA", "check_array", "check_frames", "check_label_map", "frames_at_most"]

LARGEST_PIXEL_DATA = 2**32 - 2
"""Largest length of native pixel data in bytes: an even 32-bit number (PS3.5 7.1.2, PS3.5 A.2)."""
FRAME_ITEM = 10_000
"""Most bytes that the functional groups of a frame take while an object is built and written (measured)."""
COPIES = 3
"""Copies of the pixel data while a SEG is written: by frame, joined, and in the bytes of the file (measured)."""


def frames_at_most(masks: SegmentMasks) -> int:
    """Return the largest number of frames that a SEG of `masks` can have: the slices of all bounding boxes."""
    return sum(s.box.k1 - s.box.k0 for s in masks.segments if s.box is not None)


def check_frames(masks: SegmentMasks, settings: Settings) -> None:
    """Refuse masks whose frames do not fit into memory or into one DICOM object.

    Parameters
    ----------
    masks : SegmentMasks
        Only shape and bounding boxes are used; no array is read.
    settings : Settings
        ``encode.seg_type`` and ``run.memory_limit`` (bytes; 0: 80 % of the machine's memory).

    Raises
    ------
    EncodingError
        OUT_OF_MEMORY, or ENCODING if the pixel data would exceed the length that DICOM can express.
    """
    _, rows, columns = masks.shape
    kind = settings.encode.seg_type
    if kind == "LABELMAP":
        check_label_map(masks.shape, settings, segments=len(masks.segments))
        return
    frames = frames_at_most(masks)
    pixel_data = -(-frames * rows * columns * (8 if kind == "FRACTIONAL" else 1) // 8)
    if pixel_data > LARGEST_PIXEL_DATA:
        message = f"up to {frames} frames of {rows} x {columns} would need {_gib(pixel_data)} of pixel data; DICOM's"
        message += f" limit is {_gib(LARGEST_PIXEL_DATA)}"
        raise EncodingError(Reason.ENCODING, message, "set [encode] seg_type = 'LABELMAP', or segment less at a time")
    check_array(COPIES * pixel_data + FRAME_ITEM * frames, f"up to {frames} frames of {rows} x {columns}", settings)


def check_label_map(shape: tuple[int, int, int], settings: Settings, *, segments: int = 1) -> None:
    """Refuse a volume whose label map SEG would not fit into memory; it has all voxels, whatever was found.

    Parameters
    ----------
    shape : tuple of int
        (slices, rows, columns).
    settings : Settings
        ``encode.seg_type`` (other types are not checked) and ``run.memory_limit``.
    segments : int
        Number of segments, if it is known.

    Raises
    ------
    EncodingError
        OUT_OF_MEMORY.
    """
    if settings.encode.seg_type == "LABELMAP":
        slices, rows, columns = shape
        check_array(2 * (1 if segments < 256 else 2) * slices * rows * columns, "the label map", settings)


def check_array(size: int, what: str, settings: Settings) -> None:
    """Refuse an array that takes more memory than a worker may use.

    Parameters
    ----------
    size : int
        Bytes.
    what : str
        Name of the array in the message.
    settings : Settings
        ``run.memory_limit``.

    Raises
    ------
    EncodingError
        OUT_OF_MEMORY.
    """
    limit = settings.run.worker_memory()
    if size > limit:
        message = f"{what} of the SEG would take {_gib(size)} of memory; the limit is {_gib(limit)}"
        raise EncodingError(Reason.OUT_OF_MEMORY, message, "raise [run] memory_limit, or use a larger machine")


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"
