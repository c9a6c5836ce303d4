"""Step over the elements of a little endian data set in its own bytes (PS3.5 section 7), making no objects of them."""

from __future__ import annotations

import struct

__all__ = ["UNDEFINED", "UnsupportedHeaderError", "after_sequence", "element_at"]

UNDEFINED = 0xFFFFFFFF
"""Length of a value that ends with a delimiter."""

_SHORT = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
"""VRs with a length of two bytes."""
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_EXPLICIT, _IMPLICIT, _LENGTH = struct.Struct("<HH2sH"), struct.Struct("<HHL"), struct.Struct("<L")


class UnsupportedHeaderError(Exception):
    """Something that is not plain: a reader that knows everything has to look at it."""


def element_at(data: bytes, at: int, implicit: bool) -> tuple[int, bytes, int, int]:
    """(tag, VR, length of the value, where it begins) of the element at `at`; the VR is empty where it is implicit.

    Raises
    ------
    UnsupportedHeaderError
        A VR that does not exist.
    struct.error
        `data` ends in the middle of it.
    """
    if implicit:
        group, number, length = _IMPLICIT.unpack_from(data, at)
        return group << 16 | number, b"", length, at + 8
    group, number, vr, length = _EXPLICIT.unpack_from(data, at)
    if vr in _SHORT:
        return group << 16 | number, vr, length, at + 8
    if vr not in _LONG:
        raise UnsupportedHeaderError
    return group << 16 | number, vr, _LENGTH.unpack_from(data, at + 8)[0], at + 12


def after_sequence(data: bytes, at: int, implicit: bool) -> int:
    """Where a sequence of undefined length ends whose first item is at `at` (PS3.5 7.5.2).

    Raises
    ------
    UnsupportedHeaderError, struct.error
        What is there is not a whole sequence.
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
