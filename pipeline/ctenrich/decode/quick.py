"""Read what is wanted of a plain DICOM header at once; anything that is not plain is left to pydicom's reader."""

from __future__ import annotations

import struct
from typing import IO, cast

from pydicom.charset import default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement, empty_value_for_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag

__all__ = ["quick_elements", "quick_meta"]

_META = {b"\x10\x00": "TransferSyntaxUID", b"\x02\x00": "MediaStorageSOPClassUID"}
_BLOCK = 32 * 1024
_START = struct.Struct("<HH2sH")
_LENGTH = struct.Struct("<L")
_SHORT = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""VRs with a length of four bytes (PS3.5 7.1.2)."""
_SEQUENCE = b"SQ"
_UNDEFINED = 0xFFFFFFFF
_PIXEL_DATA = 0x7FE00010


def quick_meta(source: IO[bytes]) -> FileMetaDataset | None:
    """Transfer syntax and SOP class of plain file meta information; None (and nothing read) where it is not plain."""
    place = source.tell()
    start = source.read(12)
    if start[:8] == b"\x02\x00\x00\x00UL\x04\x00" and len(start) == 12:
        group = source.read(min(int.from_bytes(start[8:], "little"), 1 << 16))
        meta, at = FileMetaDataset(), 0
        while at + 8 <= len(group) and group[at : at + 2] == b"\x02\x00":
            number, long = group[at + 2 : at + 4], group[at + 4 : at + 6] in {b"OB", b"UN", b"OW", b"UT", b"SQ"}
            if long:
                size, at = int.from_bytes(group[at + 8 : at + 12], "little"), at + 12
            else:
                size, at = int.from_bytes(group[at + 6 : at + 8], "little"), at + 8
            if number in _META:
                setattr(meta, _META[number], str(group[at : at + size].strip(b" \0"), "ascii", "replace"))
            at += size
        if at == len(group) and "TransferSyntaxUID" in meta and source.read(2) != b"\x02\x00":
            source.seek(place + 12 + len(group))
            return meta
    source.seek(place)
    return None


def quick_elements(source: IO[bytes], wanted: frozenset[int], implicit: bool) -> tuple[Dataset, int, int] | None:
    """Wanted elements of a plain little endian data set, and offset and length of its pixel data.

    Plain is: everything before the pixel data within 32 KiB, in order, with VRs that exist. For whatever is not, the
    answer is None and nothing is read, so that pydicom decides what it is.
    """
    begin = source.tell()
    block = source.read(_BLOCK)
    found: dict[BaseTag, DataElement | RawDataElement] = {}
    at, last, end = 0, 0, len(block) - 12
    while at <= end:
        group, element, vr, length = _START.unpack_from(block, at)
        tag = group << 16 | element
        at += 8
        if implicit:
            (length,) = _LENGTH.unpack_from(block, at - 4)
            vr = _SEQUENCE if length == _UNDEFINED or (tag in wanted and dictionary_VR(tag) == "SQ") else b""
        elif vr in _LONG:
            (length,) = _LENGTH.unpack_from(block, at)
            at += 4
        elif vr not in _SHORT:
            break
        if tag <= last or tag > _PIXEL_DATA:
            break
        if tag == _PIXEL_DATA:
            data = Dataset(found)
            data.set_original_encoding(implicit, True, default_encoding)
            return data, begin + at, length
        last = tag
        if length == _UNDEFINED:
            at = _after_sequence(block, at, implicit) if vr == _SEQUENCE and tag not in wanted else 0
            if not at:
                break
            continue
        if tag in wanted:
            if vr == _SEQUENCE or at + length > len(block):
                break
            name = None if implicit else str(vr, "ascii")
            value = block[at : at + length] if length else cast(bytes, empty_value_for_VR(name, raw=True))
            key = BaseTag(tag)
            found[key] = RawDataElement(key, name, length, value, begin + at, implicit, True, True)
        at += length
    source.seek(begin)
    return None


def _after_sequence(block: bytes, at: int, implicit: bool) -> int:
    """Where a sequence of undefined length ends whose first item is at `at`; 0 where that is not plain to see."""
    depth = 1
    while at + 12 <= len(block):
        group, element, vr, length = _START.unpack_from(block, at)
        if group == 0xFFFE:
            (length,) = _LENGTH.unpack_from(block, at + 4)
            at += 8
            if element == 0xE0DD:
                depth -= 1
                if depth == 0:
                    return at
            elif element == 0xE000:
                at += length if length != _UNDEFINED else 0
            elif element != 0xE00D:
                return 0
            continue
        at += 8
        if implicit:
            (length,) = _LENGTH.unpack_from(block, at - 4)
        elif vr in _LONG:
            (length,) = _LENGTH.unpack_from(block, at)
            at += 4
        elif vr not in _SHORT:
            return 0
        if length != _UNDEFINED:
            at += length
        elif implicit or vr == _SEQUENCE:
            depth += 1
        else:
            return 0
    return 0
