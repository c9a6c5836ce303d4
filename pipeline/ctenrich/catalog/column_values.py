"""Values of the catalog's columns read from the bytes of a common header.

Numbers, ASCII text, dates and times of a header that `ctenrich.dicom.fast_header` covers are converted here; for
everything else (another character set, a value of another type) the answer is None, and `ctenrich.catalog.headers`
reads the file with pydicom. Both give the same row; a test compares them.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

from pydicom.datadict import tag_for_keyword

from ctenrich.catalog.schema import COLUMNS, Column
from ctenrich.dicom.datetimes import parse_temporal
from ctenrich.dicom.elements import NUMBER_FORMATS, UnsupportedHeaderError
from ctenrich.dicom.fast_header import fast_header

__all__ = ["PLAIN_VRS", "TOLERATED", "columns_by_tag", "fast_header_row"]

TOLERATED = "PatientBirthDate"
"""A date that is often given in part (195000) or as zeros: a value that is no date counts as absent."""

PLAIN_VRS = frozenset({"AE", "AS", "CS", "DS", "IS", "UI"})
"""Text in the default character repertoire: its bytes are its characters."""


def fast_header_row(head: bytes, size: int) -> dict[str, Any] | None:
    """Values of a file's header by column, as `ctenrich.catalog.headers.read_header` gives them.

    Parameters
    ----------
    head : bytes
        The first `ctenrich.dicom.fast_header.HEAD` bytes of the file.
    size : int
        Bytes of the whole file.

    Returns
    -------
    dict or None
        None where the header or one of its values is not covered.
    """
    columns = columns_by_tag()
    places = fast_header(head, size, columns.keys())
    if places is None:
        return None
    row = dict(_empty_row())
    try:
        for tag, (vr, start, length) in places.items():
            column = columns.get(tag)
            if column is not None and length:
                row[column.name] = _column_value(column, vr, head[start : start + length])
    except (UnsupportedHeaderError, struct.error):
        return None
    return row if row["SOPClassUID"] and row["Modality"] else None


def _column_value(column: Column, vr: bytes, content: bytes) -> Any:
    if column.vr == "PN":
        return [] if column.repeated else None
    if column.name == TOLERATED:
        parsed = parse_temporal("DA", content.decode("latin-1").strip(" \x00"))
        return parsed if vr in {b"DA", b""} else None
    values = _element_values(column, vr, content)
    if column.repeated:
        return values
    return ("\\".join(values) if column.type == "STRING" else values[0]) if values else None


def _element_values(column: Column, vr: bytes, content: bytes) -> list[Any]:
    if column.vr in PLAIN_VRS:
        text = content.decode("latin-1").strip(" \x00")
        if not text.isprintable():
            raise UnsupportedHeaderError
        return [part.strip(" \x00") for part in text.split("\\")] if text else []
    kind = vr.decode("latin-1") or column.vr
    if kind != column.vr and not (column.vr == "US or SS" and kind in {"US", "SS"}):
        raise UnsupportedHeaderError
    if kind in NUMBER_FORMATS:
        count, rest = divmod(len(content), struct.calcsize(f"<{NUMBER_FORMATS[kind]}"))
        if rest:
            raise UnsupportedHeaderError
        return list(struct.unpack(f"<{count}{NUMBER_FORMATS[kind]}", content))
    return _text_values(kind, content)


def _text_values(kind: str, content: bytes) -> list[Any]:
    if not content.isascii() or b"\x1b" in content:
        raise UnsupportedHeaderError
    text = content.decode("ascii").strip(" \x00")
    if not text:
        return []
    if kind in {"LO", "SH"}:
        return [part.strip(" \x00") for part in text.split("\\")]
    if kind in {"ST", "LT"}:
        return [text]
    if kind in {"DA", "TM", "DT"}:
        parsed = parse_temporal(kind, text)
        if parsed is not None:
            return [parsed]
    raise UnsupportedHeaderError


@lru_cache(maxsize=1)
def _empty_row() -> dict[str, Any]:
    return {column.name: [] if column.repeated else None for column in COLUMNS if column.vr}


@lru_cache(maxsize=1)
def columns_by_tag() -> dict[int, Column]:
    """Columns that hold a DICOM attribute, by its tag."""
    tags = ((tag_for_keyword(column.name), column) for column in COLUMNS if column.vr)
    return {int(tag): column for tag, column in tags if tag is not None}
