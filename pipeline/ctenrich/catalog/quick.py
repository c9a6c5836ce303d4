"""The plain case of a header, read straight from its bytes: what is the least out of the ordinary is left to pydicom.

Most files of a crawl are little endian, not deflated, with a short header whose wanted values are numbers and ASCII
text. `fast_header_row` reads those in a fraction of the time that pydicom's objects take, and returns None for all
others (a wanted sequence, another character set, a value of another type, a file that was cut short), which are then
read by `ctenrich.catalog.headers` with pydicom. Both give the same row; a test compares them.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from ctenrich.catalog.schema import COLUMNS, FILE_META, Column
from ctenrich.dicom.datetimes import parse_temporal
from ctenrich.dicom.elements import UNDEFINED, UnsupportedHeaderError, after_sequence, element_at
from ctenrich.dicom.sop_classes import MEDIA_STORAGE_DIRECTORY

__all__ = ["HEAD", "PLAIN_VRS", "fast_header_row"]

HEAD = 64 * 1024
"""Bytes of a file that are looked at here."""
PLAIN_VRS = frozenset({"AE", "AS", "CS", "DS", "IS", "UI"})
"""Text in the default character set: taken as the bytes say."""

_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
_PIXELS = 0x7FE00008
_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)


def fast_header_row(head: bytes, size: int) -> dict[str, Any] | None:
    """The values of a file's header by column, as `ctenrich.catalog.headers.read_header` gives them.

    Parameters
    ----------
    head : bytes
        The first `HEAD` bytes of the file.
    size : int
        Bytes of the whole file.

    Returns
    -------
    dict or None
        None where the file is not the plain case.
    """
    try:
        return _row(head, size)
    except (UnsupportedHeaderError, struct.error):
        return None


def _row(head: bytes, size: int) -> dict[str, Any]:
    if head[128:132] != b"DICM":
        raise UnsupportedHeaderError
    wanted, row = _wanted(), dict(_empty())
    at = _meta(head, wanted, row)
    syntax = row["TransferSyntaxUID"]
    if (
        not syntax
        or syntax in {ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}
        or row["MediaStorageSOPClassUID"] == MEDIA_STORAGE_DIRECTORY
    ):
        raise UnsupportedHeaderError
    implicit = syntax == ImplicitVRLittleEndian
    while True:
        start = at
        tag, vr, length, at = element_at(head, at, implicit)
        if tag >= _PIXELS:
            known = tag in _PIXEL_TAGS and length != UNDEFINED
            if known and at + length > size:
                raise UnsupportedHeaderError
            return _checked(row)
        if tag < 0x00080000:
            raise UnsupportedHeaderError
        if length == UNDEFINED:
            if (tag in wanted) or vr not in (b"SQ", b""):
                raise UnsupportedHeaderError
            at = after_sequence(head, at, implicit)
            continue
        end = at + length
        if end > len(head) or end <= start:
            raise UnsupportedHeaderError
        column = wanted.get(tag)
        if column is not None and length and column.name not in FILE_META:
            row[column.name] = _value(column, vr, head[at:end])
        at = end


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    if not row["SOPClassUID"] or not row["Modality"]:
        raise UnsupportedHeaderError
    return row


def _meta(head: bytes, wanted: dict[int, Column], row: dict[str, Any]) -> int:
    """Read group 2; where it ends."""
    at = 132
    while head[at : at + 2] == b"\x02\x00":
        tag, vr, length, value = element_at(head, at, implicit=False)
        if length == UNDEFINED or value + length > len(head):
            raise UnsupportedHeaderError
        column = wanted.get(tag)
        if column is not None and length:
            row[column.name] = _value(column, vr, head[value : value + length])
        at = value + length
    return at


def _value(column: Column, vr: bytes, raw: bytes) -> Any:
    empty: Any = [] if column.repeated else None
    if column.vr == "PN":
        return empty
    values = _values(column, vr, raw)
    if column.repeated:
        return values
    return ("\\".join(values) if column.type == "STRING" else values[0]) if values else None


def _values(column: Column, vr: bytes, raw: bytes) -> list[Any]:
    if column.vr in PLAIN_VRS:
        text = raw.decode("latin-1").strip(" \x00")
        return [part.strip(" \x00") for part in text.split("\\")] if text else []
    kind = vr.decode("latin-1") or column.vr
    if kind != column.vr and not (column.vr == "US or SS" and kind in {"US", "SS"}):
        raise UnsupportedHeaderError
    if kind in _NUMBERS:
        code = _NUMBERS[kind]
        count, rest = divmod(len(raw), struct.calcsize("<" + code))
        if rest:
            raise UnsupportedHeaderError
        return list(struct.unpack(f"<{count}{code}", raw))
    if not raw.isascii() or b"\x1b" in raw:
        raise UnsupportedHeaderError
    text = raw.decode("ascii").strip(" \x00")
    if not text:
        return []
    if kind in {"LO", "SH"}:
        return [part.strip(" \x00") for part in text.split("\\")]
    if kind in {"ST", "LT"}:
        return [text]
    if kind in {"DA", "TM", "DT"}:
        parsed = parse_temporal(kind, text)
        if parsed is None:
            raise UnsupportedHeaderError
        return [parsed]
    raise UnsupportedHeaderError


@lru_cache(maxsize=1)
def _empty() -> dict[str, Any]:
    return {column.name: [] if column.repeated else None for column in COLUMNS if column.vr}


@lru_cache(maxsize=1)
def _wanted() -> dict[int, Column]:
    """Columns by tag."""
    from pydicom.datadict import tag_for_keyword

    tags = ((tag_for_keyword(column.name), column) for column in COLUMNS if column.vr)
    return {int(tag): column for tag, column in tags if tag is not None}
