"""Count the elements of sequences of explicit length, which pydicom parses later, unseen by the bounded reader."""

from __future__ import annotations

import struct

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from ctenrich.dicom.elements import LONG_VRS
from ctenrich.dicom.streams import BoundedReader

__all__ = ["cost_of_elements", "count_nested"]

_ITEM = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
_SEQUENCES = frozenset({None, "SQ", "UN"})
_UNDEFINED, _ITEM_GROUP = 0xFFFFFFFF, 0xFFFE
_COST_OF_ITEM = 4
"""An element costs 1: pydicom takes four times as long for an item."""


def count_nested(reader: BoundedReader, dataset: Dataset) -> None:
    """Count the elements of all sequences that are not parsed yet against the budget of the file.

    Parameters
    ----------
    reader : BoundedReader
        Holds the budget.
    dataset : Dataset
        As pydicom read it: sequences of explicit length are still bytes.

    Raises
    ------
    UnsafeInputError
        DECOMPRESSION_BOMB if there are more elements than the file may have.
    """
    waiting = [dataset]
    while waiting:
        for element in waiting.pop()._dict.values():
            if isinstance(element, RawDataElement):
                if element.VR in _SEQUENCES and isinstance(element.value, bytes) and element.value[:4] in _ITEM:
                    implicit, little = element.is_implicit_VR, element.is_little_endian
                    reader.count_nested(cost_of_elements(element.value, implicit, little, reader.nested_left + 1))
            elif isinstance(element.value, Sequence):
                waiting.extend(element.value)


def cost_of_elements(content: bytes, implicit: bool, little: bool, most: int) -> int:
    """Sum up the cost of the elements and items in the value of a sequence, nested ones too (PS3.5 7.5).

    Parameters
    ----------
    content : bytes
        Value of the sequence.
    implicit : bool
        Whether the VR is implicit.
    little : bool
        Whether the byte order is little endian.
    most : int
        Where counting ends.

    Returns
    -------
    int
        At most `most`. Content that cannot be parsed ends the sum: pydicom does not read on there either.
    """
    order = "<" if little else ">"
    header, length16, length32 = (struct.Struct(order + form).unpack_from for form in ("HH", "H", "L"))
    place, cost, end = 0, 0, len(content) - 8
    while place <= end and cost < most:
        group, _ = header(content, place)
        if group == _ITEM_GROUP:  # an item or a delimiter: its content follows
            place += 8
            cost += _COST_OF_ITEM
            continue
        cost += 1
        vr = content[place + 4 : place + 6]
        if implicit:
            size, start = length32(content, place + 4)[0], place + 8
        elif vr in LONG_VRS:
            if place + 12 > len(content):
                break
            size, start = length32(content, place + 8)[0], place + 12
        else:
            size, start = length16(content, place + 6)[0], place + 8
        inside = size == _UNDEFINED or vr == b"SQ" or content[start : start + 4] in _ITEM
        place = start if inside else start + size
    return min(cost, most)
