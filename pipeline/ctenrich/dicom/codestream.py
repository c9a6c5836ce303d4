"""Check a compressed frame before it is decoded: that it is whole and has the matrix of the DICOM header."""

from __future__ import annotations

import struct
from typing import NamedTuple

from pydicom.uid import RLELossless

from ctenrich.errors import InputError, UnsafeInputError
from ctenrich.reasons import Reason

__all__ = ["Matrix", "check_frame", "encapsulated", "fragments", "frame_matrix", "single_frame"]

_ITEM = b"\xfe\xff\x00\xe0"
_END = b"\xfe\xff\xdd\xe0"
_RLE_RATIO = 64
"""PackBits gives at most 128 bytes for 2."""
_MOST_TILES = 4096
"""Tiles of a JPEG 2000 code stream; a decoder allocates memory for each, even for empty ones."""


class Matrix(NamedTuple):
    """Size that a code stream states in its own header."""

    rows: int
    columns: int
    components: int
    tiles: int = 1


def single_frame(value: bytes) -> bytes:
    """Join the fragments of the only frame of encapsulated pixel data (PS3.5 A.4).

    Parameters
    ----------
    value : bytes
        Value of Pixel Data, with its sequence delimitation item.

    Returns
    -------
    bytes
        The compressed frame.

    Raises
    ------
    InputError
        TRUNCATED if an item is cut off or the sequence has no end, DECODE_ERROR if there is no item.
    """
    frame = b"".join(fragments(value))
    if not frame:
        raise InputError(Reason.TRUNCATED, "a slice has no compressed pixel data")
    return frame


def fragments(value: bytes, *, delimited: bool = True) -> list[bytes]:
    """Split encapsulated pixel data into fragments; offset tables are not needed for that, and not trusted.

    Parameters
    ----------
    value : bytes
        Value of Pixel Data.
    delimited : bool
        Whether the value ends with a sequence delimitation item; pydicom's values do not.

    Returns
    -------
    list of bytes
        Fragments without the basic offset table.

    Raises
    ------
    InputError
        TRUNCATED if an item is cut off or the sequence has no end, DECODE_ERROR if there is no item.
    """
    parts: list[bytes] = []
    place = 0
    while True:
        if place == len(value) and not delimited:
            break
        if place + 8 > len(value):
            raise InputError(Reason.TRUNCATED, "a slice's compressed pixel data have no end")
        tag, length = value[place : place + 4], struct.unpack_from("<L", value, place + 4)[0]
        place += 8
        if tag == _END:
            break
        if tag != _ITEM:
            raise InputError(Reason.DECODE_ERROR, "a slice's compressed pixel data are not a sequence of items")
        if place + length > len(value):
            raise InputError(Reason.TRUNCATED, "a slice's compressed pixel data are cut off")
        parts.append(value[place : place + length])
        place += length
    return parts[1:]


def encapsulated(frame: bytes) -> bytes:
    """The value of Pixel Data with an empty offset table and `frame` as its only fragment."""
    frame += b"\x00" * (len(frame) % 2)
    return _ITEM + struct.pack("<L", 0) + _ITEM + struct.pack("<L", len(frame)) + frame + _END + struct.pack("<L", 0)


def check_frame(frame: bytes, transfer_syntax: str, rows: int, columns: int, size: int) -> None:
    """Refuse a frame whose own header states another matrix than the DICOM header, or that cannot fill it.

    Parameters
    ----------
    frame : bytes
        One compressed frame.
    transfer_syntax : str
        Transfer Syntax UID of the file.
    rows, columns : int
        Matrix that the DICOM header states.
    size : int
        Bytes of the decoded frame.

    Raises
    ------
    UnsafeInputError
        DECOMPRESSION_BOMB: the frame's own header asks for another, larger matrix.
    InputError
        DECODE_ERROR: another matrix that is not larger, or no frame of this kind. TRUNCATED: too short for RLE.

    Notes
    -----
    More than one component, or more tiles than a slice needs, are a DECOMPRESSION_BOMB too: the memory and the time
    that a decoder takes grow with them, while the matrix stays as it is.
    """
    if transfer_syntax == RLELossless:
        if len(frame) < 64 or (len(frame) - 64) * _RLE_RATIO < size:
            raise InputError(Reason.TRUNCATED, "a slice's RLE pixel data are too short for its matrix")
        _check_rle(frame, rows, columns)
        return
    found = frame_matrix(frame)
    if found is None:
        raise InputError(Reason.DECODE_ERROR, "a slice's compressed pixel data have no readable header")
    if found[:2] != (rows, columns):
        message = f"a slice's compressed pixel data are {found[0]} x {found[1]}, its header says {rows} x {columns}"
        if found[0] * found[1] > rows * columns:
            raise UnsafeInputError(Reason.DECOMPRESSION_BOMB, message)
        raise InputError(Reason.DECODE_ERROR, message)
    if found.components != 1 or found.tiles > _MOST_TILES:
        message = f"a slice's compressed pixel data claim {found.components} components in {found.tiles} tiles"
        raise UnsafeInputError(Reason.DECOMPRESSION_BOMB, message)


def _check_rle(frame: bytes, rows: int, columns: int) -> None:
    """Refuse a frame whose segments unpack to a row or more than the matrix; a few bytes of padding are accepted.

    An RLE frame does not state its matrix (PS3.5 Annex G), and decoders cut off what is too much.
    """
    count, *offsets = struct.unpack("<16L", frame[:64])
    starts = offsets[: min(count, 15)]
    for start, end in zip(starts, [*starts[1:], len(frame)], strict=True):
        length = _unpacked_length(frame, start, end)
        if length >= (rows + 1) * columns:
            message = f"a segment of a slice's RLE pixel data has {length} bytes where its matrix has {rows * columns}"
            raise InputError(Reason.DECODE_ERROR, message)


def _unpacked_length(frame: bytes, start: int, end: int) -> int:
    """Number of bytes that an RLE segment unpacks to (PS3.5 G.3.1)."""
    total, at, end = 0, start, min(end, len(frame))
    while at < end:
        code = frame[at]
        if code < 128:
            total += min(code + 1, max(0, end - at - 1))
            at += code + 2
        else:
            total += 257 - code if code > 128 and at + 1 < end else 0
            at += 2 if code > 128 else 1
    return total


def frame_matrix(frame: bytes) -> Matrix | None:
    """Matrix in the header of a JPEG, JPEG-LS or JPEG 2000 code stream; None if it has no such header."""
    if frame.startswith(b"\x00\x00\x00\x0cjP  "):
        start = frame.find(b"\xff\x4f\xff\x51")
        return None if start < 0 else _size_of_jpeg2000(frame, start)
    if frame.startswith(b"\xff\x4f\xff\x51"):
        return _size_of_jpeg2000(frame, 0)
    return _size_of_jpeg(frame) if frame.startswith(b"\xff\xd8") else None


def _size_of_jpeg2000(frame: bytes, start: int) -> Matrix | None:
    """SIZ marker (ISO/IEC 15444-1 A.5.1)."""
    if len(frame) < start + 42:
        return None
    width, height, left, top, wide, high, first, above = struct.unpack_from(">8L", frame, start + 8)
    if not wide or not high:
        return None
    tiles = -(-(width - first) // wide) * -(-(height - above) // high)
    return Matrix(height - top, width - left, struct.unpack_from(">H", frame, start + 40)[0], tiles)


def _size_of_jpeg(frame: bytes) -> Matrix | None:
    """Start of frame marker (ISO/IEC 10918-1 B.2.2; 14495-1 for JPEG-LS)."""
    place = 2
    while place + 10 <= len(frame):
        if frame[place] != 0xFF:
            return None
        marker = frame[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}):
            return Matrix(*struct.unpack_from(">2HB", frame, place + 5))
        place += 2 + int(struct.unpack_from(">H", frame, place + 2)[0])
    return None
