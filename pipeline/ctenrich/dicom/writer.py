"""A dataset -> its bytes in Explicit VR Little Endian (PS3.5 A.2), as pydicom writes them, but in one pass.

A SEG or a report holds thousands of small elements. pydicom's writer looks through the whole rest of the tree for
ambiguous value representations at every level, and opens a buffer for every element; that was half of the time that an
object took. Here plain texts, numbers, byte strings and sequences are put together directly, and an item that stands in
many sequences (a code, a plane position) is encoded once. Whatever else there is - names, texts beyond ASCII,
encapsulated pixel data, values too long for their representation - goes through pydicom's own `write_data_element`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import correct_ambiguous_vr_element, write_data_element
from pydicom.valuerep import AMBIGUOUS_VR

from ctenrich.dicom.elements import LONG_VRS, NUMBER_FORMATS

__all__ = ["explicit_parts"]

SPECIFIC_CHARACTER_SET = 0x00080005
SEQUENCE_ITEM = b"\xfe\xff\x00\xe0"
SHORT_HEADER, LONG_HEADER, LENGTH = struct.Struct("<HH2sH"), struct.Struct("<HH2s2xI"), struct.Struct("<I")
LONGEST_SHORT = 0xFFFF
"""Bytes that a value can have whose length is a 16-bit number (PS3.5 7.1.2)."""

TEXTS = frozenset({"AE", "AS", "CS", "DA", "DT", "LO", "LT", "SH", "ST", "TM", "UC", "UI", "UR", "UT"})
NUMBER_TEXTS = frozenset({"DS", "IS"})
BYTES = frozenset({"OB", "OW"})


def explicit_parts(dataset: Dataset) -> list[bytes]:
    """The bytes of a dataset without file meta information, in parts to be joined.

    Parameters
    ----------
    dataset : Dataset
        Not changed, but for representations that depend on other elements (Pixel Data: OB or OW), which are settled.

    Returns
    -------
    list of bytes
        In parts, so that large pixel data are not copied.
    """
    return _Encoder(dataset).parts(dataset, "ISO_IR 6")


class _Encoder:
    """Encodes the items of one tree, each once."""

    def __init__(self, root: Dataset) -> None:
        self.root = root
        self.items: dict[int, bytes] = {}  # by identity: the tree is alive and stays as it is meanwhile

    def parts(self, dataset: Dataset, character_set: Any) -> list[bytes]:
        """All elements of a dataset in the order of their tags; an item has its parent's character set."""
        out: list[bytes] = []
        for stored in sorted(dataset.values(), key=_number):
            element = dataset[stored.tag] if isinstance(stored, RawDataElement) else stored
            if element.VR in AMBIGUOUS_VR:
                correct_ambiguous_vr_element(element, dataset, True, [dataset, self.root])
            if _number(element) == SPECIFIC_CHARACTER_SET:
                character_set = element.value
            value = self.value(element, character_set)
            if value is None:
                out.append(_by_pydicom(element, character_set))
                continue
            out.append(_header(element, len(value) + len(value) % 2))
            out.append(value)
            if len(value) % 2:
                out.append(b"\0" if element.VR == "UI" or element.VR in BYTES else b" ")
        return out

    def value(self, element: DataElement, character_set: Any) -> bytes | None:
        """Encoded value without padding; None if pydicom is to write the element."""
        vr, value = element.VR, element.value
        if element.is_undefined_length:
            return None
        if vr == "SQ":
            if any(item.is_undefined_length_sequence_item for item in value):
                return None
            return b"".join([self.item(item, character_set) for item in value])
        if vr in TEXTS:
            encoded = _texts(value)
        elif vr in NUMBER_TEXTS:
            encoded = _number_texts(value)
        elif vr in NUMBER_FORMATS:
            encoded = _numbers(value, NUMBER_FORMATS[vr])
        elif vr in BYTES:
            encoded = value if isinstance(value, bytes) else None
        else:
            return None
        if encoded is not None and len(encoded) >= LONGEST_SHORT and vr.encode() not in LONG_VRS:
            return None
        return encoded

    def item(self, item: Dataset, character_set: Any) -> bytes:
        """An item of a sequence with its tag and length (PS3.5 7.5)."""
        encoded = self.items.get(id(item))
        if encoded is None:
            body = b"".join(self.parts(item, character_set))
            encoded = SEQUENCE_ITEM + LENGTH.pack(len(body)) + body
            self.items[id(item)] = encoded
        return encoded


def _number(element: DataElement | RawDataElement) -> int:
    return int(element.tag)


def _header(element: DataElement, length: int) -> bytes:
    tag, vr = int(element.tag), element.VR.encode()
    header = LONG_HEADER if vr in LONG_VRS else SHORT_HEADER
    return header.pack(tag >> 16, tag & 0xFFFF, vr, length)


def _many(value: Any) -> list[Any]:
    """The values of an element of any multiplicity."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return [] if value is None else [value]
    return list(value)


def _texts(value: Any) -> bytes | None:
    if not isinstance(value, str):
        values = _many(value)
        if not all(isinstance(part, str) for part in values):
            return None
        value = "\\".join(values)
    return value.encode("ascii") if value.isascii() else None


def _number_texts(value: Any) -> bytes:
    return "\\".join([str(part) for part in _many(value)]).encode("ascii")


def _numbers(value: Any, code: str) -> bytes | None:
    values = _many(value)
    if any(isinstance(part, (str, bytes)) for part in values):
        return None
    return struct.pack(f"<{len(values)}{code}", *values)


def _by_pydicom(element: DataElement, character_set: Any) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, element, character_set)
    return buffer.getvalue()
