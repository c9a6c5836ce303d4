"""Read what is wanted of a plain DICOM header at once; anything that is not plain is left to pydicom's reader."""

from __future__ import annotations

import struct
from typing import IO, cast

from pydicom.charset import default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement, empty_value_for_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag

from ctenrich.dicom.elements import UNDEFINED, UnsupportedHeaderError, after_sequence, element_at

__all__ = ["fast_elements", "fast_meta"]

_META = {b"\x10\x00": "TransferSyntaxUID", b"\x02\x00": "MediaStorageSOPClassUID"}
_BLOCK = 32 * 1024
_PIXEL_DATA = 0x7FE00010


def fast_meta(source: IO[bytes]) -> FileMetaDataset | None:
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


def fast_elements(source: IO[bytes], wanted: frozenset[int], implicit: bool) -> tuple[Dataset, int, int] | None:
    """Wanted elements of a plain little endian data set, and offset and length of its pixel data.

    Plain is: everything before the pixel data within 32 KiB, in order, with VRs that exist. For whatever is not, the
    answer is None and nothing is read, so that pydicom decides what it is.
    """
    begin = source.tell()
    block = source.read(_BLOCK)
    try:
        found, at, length = _elements(block, begin, wanted, implicit)
    except (UnsupportedHeaderError, struct.error):
        source.seek(begin)
        return None
    data = Dataset(found)
    data.set_original_encoding(implicit, True, default_encoding)
    return data, begin + at, length


def _elements(
    block: bytes, begin: int, wanted: frozenset[int], implicit: bool
) -> tuple[dict[BaseTag, DataElement | RawDataElement], int, int]:
    """Wanted elements, and where in `block` the pixel data begin and how long they are."""
    found: dict[BaseTag, DataElement | RawDataElement] = {}
    at = last = 0
    while True:
        tag, vr, length, at = element_at(block, at, implicit)
        if tag <= last or tag > _PIXEL_DATA:
            raise UnsupportedHeaderError
        if tag == _PIXEL_DATA:
            return found, at, length
        last = tag
        sequence = vr == b"SQ" or (implicit and (length == UNDEFINED or (tag in wanted and dictionary_VR(tag) == "SQ")))
        if tag in wanted and (sequence or length == UNDEFINED or at + length > len(block)):
            raise UnsupportedHeaderError
        if length == UNDEFINED:
            if not sequence:
                raise UnsupportedHeaderError
            at = after_sequence(block, at, implicit)
            continue
        if tag in wanted:
            name = None if implicit else str(vr, "ascii")
            value = block[at : at + length] if length else cast(bytes, empty_value_for_VR(name, raw=True))
            key = BaseTag(tag)
            found[key] = RawDataElement(key, name, length, value, begin + at, implicit, True, True)
        at += length
