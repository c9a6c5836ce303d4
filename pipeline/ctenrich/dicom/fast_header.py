"""Parse common DICOM headers directly from their bytes; decline everything else, so that pydicom reads it.

Covered are files in implicit or explicit VR little endian whose elements before the pixel data come in ascending order,
have existing VRs and fit into the first `HEAD` bytes. Wanted sequences are not covered. For everything else the answer
is None. A differential test holds both readers to the same answer.
"""

from __future__ import annotations

import struct
from collections.abc import Set
from typing import IO, NamedTuple, cast

from pydicom.charset import default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement, empty_value_for_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from ctenrich.dicom.elements import UNDEFINED, UnsupportedHeaderError, after_sequence, element_at
from ctenrich.dicom.sop_classes import MEDIA_STORAGE_DIRECTORY

__all__ = ["HEAD", "fast_elements", "fast_header", "fast_meta"]

HEAD = 64 * 1024
"""Bytes of a file that are looked at."""

_META_GROUP = b"\x02\x00"
_META_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"
_MEDIA_CLASS, _SYNTAX = 0x00020002, 0x00020010
_FIRST_TAG, _CHARACTER_SET = 0x00080000, 0x00080005
_FLOAT_PIXELS, _DOUBLE_PIXELS, _PIXEL_DATA = 0x7FE00008, 0x7FE00009, 0x7FE00010


Places = dict[int, tuple[bytes, int, int]]
"""Tag -> (VR, empty in implicit VR; offset of the value; its length)."""


class _Scan(NamedTuple):
    """Wanted elements of a data set and the header of the element that ended the scan."""

    found: Places
    tag: int
    start: int
    length: int


def fast_header(head: bytes, size: int, wanted: Set[int]) -> Places | None:
    """Wanted elements of a Part 10 file, from its first bytes.

    Parameters
    ----------
    head : bytes
        The first `HEAD` bytes of the file, or all of them.
    size : int
        Bytes of the whole file; pixel data that would end behind it are declined.
    wanted : set of int
        Tags of the data set.

    Returns
    -------
    dict or None
        Places of the values in `head`: those of `wanted`, and all of group 2. None if the file is not covered (see the
        module), or is a DICOMDIR.
    """
    if head[128:132] != b"DICM":
        return None
    try:
        meta, at = _meta_places(head, 132)
        syntax = _meta_text(head, meta, _SYNTAX)
        if not syntax or syntax in {ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}:
            return None
        if _meta_text(head, meta, _MEDIA_CLASS) == MEDIA_STORAGE_DIRECTORY:
            return None
        scan = _scan(head, at, wanted, syntax == ImplicitVRLittleEndian)
    except (UnsupportedHeaderError, struct.error):
        return None
    is_pixels = scan.tag in {_FLOAT_PIXELS, _DOUBLE_PIXELS, _PIXEL_DATA} and scan.length != UNDEFINED
    if is_pixels and scan.start + scan.length > size:
        return None
    return meta | scan.found


def fast_meta(source: IO[bytes]) -> FileMetaDataset | None:
    """Transfer syntax and media storage SOP class of file meta information.

    Returns None, and leaves the position of `source` as it was, where the group is not covered.
    """
    place = source.tell()
    start = source.read(12)
    if start[:8] == _META_LENGTH and len(start) == 12:
        group = source.read(min(int.from_bytes(start[8:], "little"), HEAD))
        try:
            places, end = _meta_places(group, 0)
        except (UnsupportedHeaderError, struct.error):
            places, end = {}, -1
        if end == len(group) and _SYNTAX in places and source.read(2) != _META_GROUP:
            source.seek(place + 12 + len(group))
            meta = FileMetaDataset()
            meta.TransferSyntaxUID = cast(UID, _meta_text(group, places, _SYNTAX))
            if _MEDIA_CLASS in places:
                meta.MediaStorageSOPClassUID = cast(UID, _meta_text(group, places, _MEDIA_CLASS))
            return meta
    source.seek(place)
    return None


def fast_elements(source: IO[bytes], wanted: frozenset[int], implicit: bool) -> tuple[Dataset, int, int] | None:
    """Wanted elements of a little endian data set, and offset and length of its pixel data.

    Parameters
    ----------
    source : binary file
        Positioned at the first element of the data set.
    wanted : frozenset of int
        Tags.
    implicit : bool
        Implicit VR instead of explicit VR.

    Returns
    -------
    tuple or None
        (data set, offset of the pixel data in `source`, their length); None, with the position of `source` as it was,
        where the data set is not covered.
    """
    begin = source.tell()
    block = source.read(HEAD)
    try:
        scan = _scan(block, 0, wanted, implicit)
    except (UnsupportedHeaderError, struct.error):
        scan = None
    if scan is None or scan.tag != _PIXEL_DATA:
        source.seek(begin)
        return None
    found: dict[BaseTag, DataElement | RawDataElement] = {}
    for tag, (vr, start, length) in scan.found.items():
        name = None if implicit else str(vr, "ascii")
        value = block[start : start + length] if length else cast(bytes, empty_value_for_VR(name, raw=True))
        key = BaseTag(tag)
        found[key] = RawDataElement(key, name, length, value, begin + start, implicit, True, True)
    data = Dataset(found)
    data.set_original_encoding(implicit, True, default_encoding)
    return data, begin + scan.start, scan.length


def _meta_places(data: bytes, at: int) -> tuple[Places, int]:
    """Elements of group 2 from an offset on, and where they end."""
    found: Places = {}
    while data[at : at + 2] == _META_GROUP:
        tag, vr, length, start = element_at(data, at, False)
        at = start + length
        if length == UNDEFINED or at > len(data):
            raise UnsupportedHeaderError
        found[tag] = vr, start, length
    return found, at


def _meta_text(data: bytes, places: Places, tag: int) -> str:
    _, start, length = places.get(tag, (b"", 0, 0))
    return str(data[start : start + length].strip(b" \0"), "ascii", "replace")


def _scan(block: bytes, at: int, wanted: Set[int], implicit: bool) -> _Scan:
    """Find the wanted elements before the pixel data.

    Raises
    ------
    UnsupportedHeaderError, struct.error
        The data set is not covered.
    """
    found: Places = {}
    last = _FIRST_TAG - 1
    while True:
        tag, vr, length, at = element_at(block, at, implicit)
        if tag <= last:
            raise UnsupportedHeaderError
        if tag >= _FLOAT_PIXELS:
            return _Scan(found, tag, at, length)
        last = tag
        if tag == _CHARACTER_SET and (length > len(block) or b"\0" in block[at : at + length].rstrip(b"\0")):
            raise UnsupportedHeaderError  # pydicom refuses such a name
        if tag in wanted:
            is_sequence = vr == b"SQ" or (implicit and dictionary_VR(tag) == "SQ")
            if is_sequence or length == UNDEFINED or at + length > len(block):
                raise UnsupportedHeaderError
            found[tag] = vr, at, length
        elif length == UNDEFINED:
            if vr not in (b"SQ", b""):
                raise UnsupportedHeaderError
            at = after_sequence(block, at, implicit)
            continue
        at += length
