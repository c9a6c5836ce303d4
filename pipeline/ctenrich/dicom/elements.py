"""Value representations and element headers of little endian data sets (PS3.5 section 7), read from their own bytes."""

from __future__ import annotations

import struct

__all__ = [
    "LONG_VRS",
    "NUMBER_FORMATS",
    "SHORT_VRS",
    "UNDEFINED",
    "UnsupportedHeaderError",
    "after_sequence",
    "element_at",
]

UNDEFINED = 0xFFFFFFFF
"""Length of a value that ends with a delimiter."""
SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
"""Value representations whose explicit length has two bytes (PS3.5 7.1.2)."""
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Value representations whose explicit length has four bytes, after two reserved ones."""
NUMBER_FORMATS = {"FD": "d", "FL": "f", "SL": "i", "SS": "h", "UL": "I", "US": "H"}
"""Binary numbers: value representation -> format character of `struct`."""

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_EXPLICIT, _IMPLICIT, _LENGTH = struct.Struct("<HH2sH"), struct.Struct("<HHL"), struct.Struct("<L")


class UnsupportedHeaderError(Exception):
    """The bytes are outside the part of the standard that the fast reader covers; pydicom has to read them."""


def element_at(data: bytes, at: int, implicit: bool) -> tuple[int, bytes, int, int]:
    """Header of the element at an offset.

    Parameters
    ----------
    data : bytes
        Little endian data set.
    at : int
        Offset of the element's tag.
    implicit : bool
        Implicit VR instead of explicit VR.

    Returns
    -------
    tuple
        (tag, VR, length of the value in bytes or `UNDEFINED`, offset of the value); the VR is empty in implicit VR.
        A plain tuple, because this is the innermost loop of every reader.

    Raises
    ------
    UnsupportedHeaderError
        The VR does not exist.
    struct.error
        `data` ends inside the header.
    """
    if implicit:
        group, number, length = _IMPLICIT.unpack_from(data, at)
        return group << 16 | number, b"", length, at + 8
    group, number, vr, length = _EXPLICIT.unpack_from(data, at)
    if vr in SHORT_VRS:
        return group << 16 | number, vr, length, at + 8
    if vr not in LONG_VRS:
        raise UnsupportedHeaderError
    return group << 16 | number, vr, _LENGTH.unpack_from(data, at + 8)[0], at + 12


def after_sequence(data: bytes, at: int, implicit: bool) -> int:
    """Offset behind a sequence of undefined length (PS3.5 7.5.2).

    Parameters
    ----------
    data : bytes
        Little endian data set.
    at : int
        Offset of the first item.
    implicit : bool
        Implicit VR instead of explicit VR.

    Returns
    -------
    int
        Offset of the first byte behind the sequence's delimiter.

    Raises
    ------
    UnsupportedHeaderError, struct.error
        The bytes from `at` on are not one whole sequence.
    """
    depth = [False]
    while depth:
        group, number, length = _IMPLICIT.unpack_from(data, at)
        tag = group << 16 | number
        inside = depth[-1]
        if tag == (_ITEM_END if inside else _SEQUENCE_END):
            depth.pop()
            at += 8
        elif not inside:
            if tag != _ITEM:
                raise UnsupportedHeaderError
            at += 8 if length == UNDEFINED else 8 + int(length)
            if length == UNDEFINED:
                depth.append(True)
        else:
            _, vr, length, at = element_at(data, at, implicit)
            if length != UNDEFINED:
                at += length
            elif vr in (b"SQ", b""):
                depth.append(False)
            else:
                raise UnsupportedHeaderError
        if at > len(data):
            raise UnsupportedHeaderError
    return at
