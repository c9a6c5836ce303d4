"""Layouts of items that a sequence repeats: frames of a SEG, measurement groups of an SR.

Items of one length mostly have the same elements with values of the same lengths. The headers of one item are then
found once; the others are cut at the same places, and their headers compared as bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ctenrich.dicom.elements import LONG_VRS

__all__ = ["AlikeItem", "ItemLayout", "LayoutReader", "Values"]

_LONGEST = 1 << 16
"""Length in bytes of the longest item that a layout is made for."""
_SEVERAL = 4
"""Layouts that are looked for among items of one length."""
_CODE_VALUE = b"\x08\x00\x00\x01"
_ITEM = b"\xfe\xff\x00\xe0"
_LENGTH = struct.Struct("<I")
_SHORT_LENGTH = struct.Struct("<H")


class Values(dict[bytes, Any]):
    """Values by their bytes; each is read when it is asked for the first time.

    Parameters
    ----------
    read : callable
        Bytes of a value -> the value.
    """

    def __init__(self, read: Callable[[bytes], Any]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, raw: bytes) -> Any:
        value = self[raw] = self._read(raw)
        return value


class _OtherKeywordsError(Exception):
    """A code has other elements than the code in its place that the layout was made from."""


class _Codes(Values):
    """Sequences of one code by their bytes, all with the same keywords."""

    def __init__(self, read: Callable[[bytes], list[dict[str, Any]]], first: bytes) -> None:
        super().__init__(read)
        self._keywords = self._read(first)[0].keys()

    def __missing__(self, raw: bytes) -> Any:
        value = self._read(raw)
        if len(value) != 1 or value[0].keys() != self._keywords:
            raise _OtherKeywordsError
        self[raw] = value
        return value


class AlikeItem(dict[str, Any]):
    """Keyword -> value of an item; all items of one layout have the same keywords at every level."""

    __slots__ = ("layout",)
    layout: ItemLayout


@dataclass(frozen=True, slots=True)
class _Item:
    """Elements of one item: the keyword of each, and which piece of the item its value is."""

    fields: tuple[tuple[str, int, Values], ...]
    sequences: tuple[tuple[str, tuple[_Item, ...]], ...]

    def read(self, pieces: tuple[bytes, ...], out: dict[str, Any]) -> dict[str, Any]:
        for keyword, place, values in self.fields:
            out[keyword] = values[pieces[place]]
        for keyword, items in self.sequences:
            out[keyword] = [item.read(pieces, {}) for item in items]
        return out


@dataclass(frozen=True, slots=True, eq=False)
class ItemLayout:
    """Headers of an item and places of its values."""

    cut: struct.Struct
    headers: tuple[bytes, ...]
    item: _Item

    def read(self, raw: bytes) -> AlikeItem | None:
        """Keyword -> value of an item of the same length; None if its headers or keywords are others.

        Parameters
        ----------
        raw : bytes
            Content of the item.
        """
        pieces = self.cut.unpack(raw)
        if pieces[::2] != self.headers:
            return None
        out = AlikeItem()
        out.layout = self
        try:
            self.item.read(pieces, out)
        except _OtherKeywordsError:
            return None
        return out


class LayoutReader:
    """Reads items whose layout is known, and finds the layout when a length is met again.

    Parameters
    ----------
    values : callable
        Tag and VR of an element as in the file -> (keyword, its values); None for an element that needs more than its
        bytes to be read, so that no layout is made.
    sequences : callable
        Tag of a sequence as in the file, and its depth -> (keyword, function that reads its items); None as before.
    """

    def __init__(
        self,
        values: Callable[[bytes], tuple[str, Values] | None],
        sequences: Callable[[bytes, int], tuple[str, Callable[[bytes], list[dict[str, Any]]]] | None],
    ) -> None:
        self._values = values
        self._sequences = sequences
        self._known: dict[int, list[ItemLayout | None]] = {}

    def read(self, raw: bytes, depth: int) -> AlikeItem | None:
        """Read an item; None if that has to be done element by element.

        Parameters
        ----------
        raw : bytes
            Content of an item of defined length.
        depth : int
            Depth of the item's elements.
        """
        known = self._known.get(len(raw))
        if known is None:
            self._known[len(raw)] = []
            return None
        for layout in known:
            found = layout.read(raw) if layout is not None else None
            if found is not None:
                return found
        if len(known) >= _SEVERAL or len(raw) > _LONGEST:
            return None
        made = self._layout(raw, depth)
        known.append(made)
        return made.read(raw) if made is not None else None

    def _layout(self, raw: bytes, depth: int) -> ItemLayout | None:
        places: list[tuple[int, int]] = []
        item = self._item(raw, 0, len(raw), depth, places)
        if item is None:
            return None
        lengths, headers, at = [], [], 0
        for start, end in places:
            lengths += [start - at, end - start]
            headers.append(raw[at:start])
            at = end
        lengths.append(len(raw) - at)
        headers.append(raw[at:])
        return ItemLayout(struct.Struct("".join(f"{length}s" for length in lengths)), tuple(headers), item)

    def _item(self, raw: bytes, at: int, end: int, depth: int, places: list[tuple[int, int]]) -> _Item | None:
        fields: list[tuple[str, int, Values]] = []
        sequences: list[tuple[str, tuple[_Item, ...]]] = []
        while at + 8 <= end:
            vr = raw[at + 4 : at + 6]
            is_long = vr in LONG_VRS
            start = at + 12 if is_long else at + 8
            if start > end:
                return None
            stop = start + (_LENGTH.unpack_from(raw, at + 8) if is_long else _SHORT_LENGTH.unpack_from(raw, at + 6))[0]
            if stop > end:
                return None
            if vr != b"SQ":
                value = self._values(raw[at : at + 6])
                if value is None:
                    return None
                fields.append((value[0], 2 * len(places) + 1, value[1]))
                places.append((start, stop))
                at = stop
                continue
            sequence = self._sequences(raw[at : at + 4], depth)
            if sequence is None:
                return None
            keyword, read = sequence
            if _is_code(raw, start, stop):
                fields.append((keyword, 2 * len(places) + 1, _Codes(read, raw[start:stop])))
                places.append((start, stop))
            else:
                items = self._items(raw, start, stop, depth, places)
                if items is None:
                    return None
                sequences.append((keyword, items))
            at = stop
        return _Item(tuple(fields), tuple(sequences)) if at == end else None

    def _items(
        self, raw: bytes, at: int, end: int, depth: int, places: list[tuple[int, int]]
    ) -> tuple[_Item, ...] | None:
        items = []
        while at + 8 <= end:
            size = _LENGTH.unpack_from(raw, at + 4)[0]
            if raw[at : at + 4] != _ITEM or at + 8 + size > end:
                return None
            item = self._item(raw, at + 8, at + 8 + size, depth + 1, places)
            if item is None:
                return None
            items.append(item)
            at += 8 + size
        return tuple(items) if at == end else None


def _is_code(raw: bytes, at: int, end: int) -> bool:
    """Whether a sequence is one code: few codes are used many times."""
    return (
        end - at >= 16
        and raw[at : at + 4] == _ITEM
        and at + 8 + _LENGTH.unpack_from(raw, at + 4)[0] == end
        and raw[at + 8 : at + 12] == _CODE_VALUE
    )
