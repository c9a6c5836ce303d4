"""DICOM file -> nested dictionary in the types of the Google Healthcare export (IDC's ``dicom_metadata``).

A reader of its own, because tables are rebuilt from thousands of objects: it walks the bytes once, keeps DS and IS as
text, takes the number of values from the dictionary and never touches pixel data.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from ctenrich.dicom.elements import LONG_VRS, NUMBER_FORMATS, UNDEFINED
from ctenrich.dicom.layouts import LayoutReader, Values
from ctenrich.errors import InputError
from ctenrich.reasons import Reason

__all__ = ["SEQUENCE_LIMIT", "Nested", "element_info", "media_class", "read_nested"]

Nested = dict[str, Any]

SEQUENCE_LIMIT = 1 << 20
"""The Healthcare export leaves out top-level sequences of more than about this many bytes."""

_DEPTH = 15
_PIXELS = 0x7FE00008
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_BINARY = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN", "UV", "SV", "OB or OW"))
_NUMBERS = {**NUMBER_FORMATS, "US or SS": "H", "US or OW": "H"}
_SINGLE_TEXT = frozenset(("LT", "ST", "UT", "UR"))
_LONG_TEXT = frozenset(("UC", "UR", "UT"))
"""Texts whose length has four bytes."""


@dataclass(frozen=True)
class ElementInfo:
    """Entry of one element in the data dictionary (PS3.6)."""

    keyword: str
    vr: str
    repeated: bool
    """Whether the export holds a list: value multiplicity other than 1."""


@dataclass(frozen=True)
class _ShortElement:
    """How the value of an element with a 16-bit length is read."""

    info: ElementInfo
    vr: str
    number: struct.Struct | None
    """Format of one number; None for texts and tags."""
    plain: bool
    """Whether the value is one text that needs no conversion."""


@cache
def element_info(tag: int) -> ElementInfo | None:
    """Dictionary entry of a standard element; None for private and unknown ones."""
    from pydicom.datadict import dictionary_keyword, dictionary_VM, dictionary_VR

    try:
        return ElementInfo(dictionary_keyword(tag), dictionary_VR(tag), dictionary_VM(tag) != "1")
    except KeyError:
        return None


def read_nested(path: Path, *, limit: int | None = None) -> Nested:
    """Read one DICOM file.

    Parameters
    ----------
    path : Path
        A DICOM file with a file meta group (PS3.10), any transfer syntax; pixel data is not looked at.
    limit : int, optional
        Leave out top-level sequences longer than this many bytes and name them under ``DroppedTags``.

    Returns
    -------
    dict
        Keyword -> value. One value: str, int, float, date, time, datetime, dict (names) or None; more values by the
        dictionary: a list; sequences: a list of dictionaries. Private elements are below ``OtherElements``.

    Raises
    ------
    InputError
        NOT_DICOM if there is no DICOM prefix, TRUNCATED if an element runs past the end of the file.
    """
    with path.open("rb") as handle:
        if path.stat().st_size < 140 or handle.read(132)[128:] != b"DICM":
            raise InputError(Reason.NOT_DICOM, f"{path.name} is not a DICOM file")
        with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _read_file(data, limit)
            except (struct.error, IndexError, zlib.error) as error:
                raise InputError(Reason.TRUNCATED, f"{path.name} ends inside an element") from error


def media_class(path: Path) -> str:
    """Media Storage SOP Class UID of a DICOM file, from its first kilobyte; empty if it is not there."""
    with path.open("rb") as handle:
        head = handle.read(1024)
    at = head.find(b"\x02\x00\x02\x00UI", 132)
    if head[128:132] != b"DICM" or at < 0:
        return ""
    length = struct.unpack_from("<H", head, at + 6)[0]
    return head[at + 8 : at + 8 + length].decode("latin-1").rstrip("\0 ")


def _read_file(data: Any, limit: int | None) -> Nested:
    meta_length = struct.unpack_from("<I", data, 140)[0]
    start = 144 + meta_length
    meta = _Reader(data, explicit=True).dataset(132, start, 0)
    out = {k: v for k, v in meta.items() if k not in ("FileMetaInformationVersion", "FileMetaInformationGroupLength")}
    syntax = str(out.get("TransferSyntaxUID") or "")
    if syntax == DeflatedExplicitVRLittleEndian:
        data, start = zlib.decompress(bytes(data[start:]), -zlib.MAX_WBITS), 0
    elif syntax == ExplicitVRBigEndian:
        data, start, syntax = _little(data), 0, ImplicitVRLittleEndian
    reader = _Reader(data, explicit=syntax != ImplicitVRLittleEndian, limit=limit)
    out.update(reader.dataset(start, len(data), 0))
    if reader.dropped:
        out["DroppedTags"] = reader.dropped
    return out


def _little(data: Any) -> bytes:
    """Big endian (retired) through pydicom into implicit little endian without a header."""
    import pydicom
    from pydicom.filewriter import write_dataset

    source = pydicom.dcmread(BytesIO(bytes(data)), stop_before_pixels=True)
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, True
    write_dataset(buffer, source)
    return bytes(buffer.getvalue())


@dataclass(frozen=True, slots=True)
class _Seen:
    """Items of sequences that were read before."""

    repeated: dict[bytes, Nested]
    """Short items by their bytes: codes are repeated in thousands of frames."""
    layouts: LayoutReader | None


class _Reader:
    """Walks one data set; positions are byte offsets into the file."""

    def __init__(self, data: Any, *, explicit: bool, limit: int | None = None) -> None:
        self.data = data
        self.explicit = explicit
        self.limit = limit
        self.dropped: list[Nested] = []
        self.decode: Callable[[bytes], str] = _decode_latin1
        self.short = _SHORT_ELEMENTS if explicit else {}
        self.seen: dict[tuple[int, Callable[[bytes], str]], _Seen] = {}
        """Items that were read, by their depth and character set."""

    def header(self, at: int) -> tuple[int, str, int, int]:
        """Tag, VR ('' if implicit), length and start of the value of the element at `at`."""
        group, element = struct.unpack_from("<HH", self.data, at)
        tag = group << 16 | element
        if not self.explicit or group == 0xFFFE:
            return tag, "", struct.unpack_from("<I", self.data, at + 4)[0], at + 8
        code = self.data[at + 4 : at + 6]
        vr = code.decode("latin-1")
        if code in LONG_VRS:
            return tag, vr, struct.unpack_from("<I", self.data, at + 8)[0], at + 12
        return tag, vr, struct.unpack_from("<H", self.data, at + 6)[0], at + 8

    def dataset(self, at: int, end: int, depth: int) -> Nested:
        out: Nested = {}
        data, short = self.data, self.short
        self.end = at
        while at + 8 <= end:
            known = short.get(data[at : at + 6])
            if known is None:
                at, is_last = self.element(out, at, depth)
                if is_last:
                    break
                continue
            start = at + 8
            at = start + data[at + 6] + (data[at + 7] << 8)
            if at > len(data):
                raise IndexError
            out[known.info.keyword] = self.short_value(known, data[start:at])
        self.end = at
        return out

    def element(self, out: Nested, at: int, depth: int) -> tuple[int, bool]:
        """Add the element at `at`; returns the position after it, and whether the data set ends before or with it."""
        tag, vr, length, start = self.header(at)
        if tag == _ITEM_END:
            return start, True
        if tag >= _PIXELS and tag < 0x7FE00020:
            return at, True
        info = element_info(tag)
        if vr in ("", "UN") and info is not None:
            vr = info.vr
        if vr == "SQ" or length == UNDEFINED:
            return self.sequence_element(out, tag, length, start, depth), False
        if start + length > len(self.data):
            raise IndexError
        if info is None:
            self.private(out, tag, vr, start, length)
        elif vr not in _BINARY:
            if self.explicit and start - at == 8 and vr in _SHORT_VRS and tag != _CHARACTER_SET:
                _SHORT_ELEMENTS[self.data[at : at + 6]] = _short_element(info, vr)
            out[info.keyword] = self.value(info, vr, self.data[start : start + length])
            if tag == _CHARACTER_SET:
                self.charset(out[info.keyword])
        return start + length, False

    def sequence_element(self, out: Nested, tag: int, length: int, start: int, depth: int) -> int:
        info = element_info(tag)
        wanted = info is not None and info.vr == "SQ" and depth < _DEPTH
        if length != UNDEFINED:
            if start + length > len(self.data):
                raise IndexError
            if depth == 0 and info is not None and self.limit is not None and length > self.limit:
                self.dropped.append({"TagName": info.keyword, "TagReference": f"({tag >> 16:04X},{tag & 0xFFFF:04X})"})
                return start + length
            if not wanted:
                return start + length
        items, at = self.items(start, length, depth)
        if wanted and info is not None:
            out[info.keyword] = items
        return at

    def items(self, at: int, length: int, depth: int) -> tuple[list[Nested], int]:
        end = len(self.data) if length == UNDEFINED else at + length
        items: list[Nested] = []
        seen = self.seen.get((depth, self.decode))
        if seen is None:
            seen = self.seen[depth, self.decode] = _Seen({}, self.layouts())
        repeated, layouts = seen.repeated, seen.layouts
        while at < end:
            group, element, size = _ITEM_HEADER.unpack_from(self.data, at)
            name = group << 16 | element
            at += 8
            if name == _SEQUENCE_END:
                return items, at
            if name != _ITEM:
                raise IndexError
            raw = self.data[at : at + size] if size <= _REPEATED and at + size <= len(self.data) else b""
            item = repeated.get(raw)
            if item is None and layouts is not None and _REPEATED < size <= length // _MANY and at + size <= end:
                item = layouts.read(self.data[at : at + size], depth + 1)
            if item is None:
                decode = self.decode
                item = self.dataset(at, len(self.data) if size == UNDEFINED else at + size, depth + 1)
                self.decode = decode
                if raw and self.end <= at + size:
                    repeated[raw] = item
            items.append(item)
            at = self.end if size == UNDEFINED else at + size
        return items, at

    def layouts(self) -> LayoutReader | None:
        """Reader of items by their layouts, with the present character set; None in implicit VR."""
        if not self.explicit:
            return None
        decode = self.decode

        @cache
        def values(head: bytes) -> tuple[str, Values] | None:
            known = self.short.get(head)
            if known is not None:
                return known.info.keyword, Values(partial(self.short_value, known))
            info, vr = element_info(_tag(head)), head[4:].decode("latin-1")
            if info is None or vr not in _LONG_TEXT:
                return None
            return info.keyword, Values(partial(self.value, info, vr))

        @cache
        def sequences(tag: bytes, depth: int) -> tuple[str, Callable[[bytes], list[Nested]]] | None:
            info = element_info(_tag(tag))
            if info is None or info.vr != "SQ" or depth >= _DEPTH:
                return None

            def read(raw: bytes) -> list[Nested]:
                reader = _Reader(raw, explicit=True)
                reader.decode = decode
                return reader.items(0, len(raw), depth)[0]

            return info.keyword, read

        return LayoutReader(values, sequences)

    def charset(self, names: list[str]) -> None:
        from pydicom.charset import convert_encodings, decode_bytes

        encodings = convert_encodings(names or [""])
        if encodings[0] in ("utf8", "utf-8", "UTF8"):
            self.decode = _decode_utf8
        else:
            self.decode = lambda raw: str(decode_bytes(raw, encodings, set()))

    def private(self, out: Nested, tag: int, vr: str, start: int, length: int) -> None:
        if tag >> 16 & 1 and vr not in _BINARY and vr not in _NUMBERS and tag & 0xFFFF:
            text = self.data[start : start + length].decode("latin-1").rstrip("\0 ")
            entry = {"Tag": f"Tag_{tag:08x}", "Data": text.split("\\") if text else []}
            out.setdefault("OtherElements", []).append(entry)

    def short_value(self, known: _ShortElement, raw: bytes) -> Any:
        """Value of an element that was met before: the same as `value` returns, by shorter ways where there are any."""
        if known.plain:
            text = self.decode(raw).rstrip("\0 ")
            return text.partition("\\")[0].strip() if text else None
        if known.number is not None and len(raw) == known.number.size and not known.info.repeated:
            return known.number.unpack(raw)[0]
        return self.value(known.info, known.vr, raw)

    def value(self, info: ElementInfo, vr: str, raw: bytes) -> Any:
        values: list[Any]
        if vr in _NUMBERS:
            values = list(struct.unpack(f"<{len(raw) // struct.calcsize(_NUMBERS[vr])}{_NUMBERS[vr]}", raw))
        elif vr == "AT":
            pairs = struct.unpack(f"<{len(raw) // 2}H", raw)
            values = [pairs[i] << 16 | pairs[i + 1] for i in range(0, len(pairs) - 1, 2)]
        else:
            text = self.decode(raw).rstrip("\0 ")
            if not text:
                return [] if info.repeated else None
            parts = [text] if vr in _SINGLE_TEXT else text.split("\\")
            convert = _TEXT.get(vr)
            values = [convert(p) for p in parts] if convert else [p.strip() for p in parts]
        if info.repeated:
            return values
        return values[0] if values else None


def _tag(raw: bytes) -> int:
    group, element = struct.unpack_from("<HH", raw)
    return int(group << 16 | element)


def _decode_latin1(raw: bytes) -> str:
    return raw.decode("latin-1")


def _decode_utf8(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _date(text: str) -> date | None:
    try:
        return datetime.strptime(text.strip().replace(".", ""), "%Y%m%d").date()
    except ValueError:
        return None


def _time(text: str) -> time | None:
    whole, _, fraction = text.strip().replace(":", "").partition(".")
    try:
        whole = whole.ljust(6, "0")
        return time(int(whole[:2]), int(whole[2:4]), min(int(whole[4:6]), 59), int(fraction[:6].ljust(6, "0") or 0))
    except ValueError:
        return None


def _datetime(text: str) -> datetime | None:
    from pydicom.valuerep import DT

    try:
        moment = DT(text.strip())
    except (ValueError, TypeError):
        return None
    plain = datetime(*moment.timetuple()[:6], moment.microsecond, tzinfo=moment.tzinfo or UTC)
    return plain.astimezone(UTC)


_NAME_PARTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")


def _name(text: str) -> Nested:
    groups = ([*text.split("="), "", "", ""])[:3]
    out: Nested = {}
    for key, group in zip(("Alphabetic", "Ideographic", "Phonetic"), groups, strict=True):
        parts = (group.split("^") + [""] * 5)[:5]
        out[key] = {name: part.strip() or None for name, part in zip(_NAME_PARTS, parts, strict=True)}
    return out


_TEXT: dict[str, Callable[[str], Any]] = {"DA": _date, "TM": _time, "DT": _datetime, "PN": _name}


_CHARACTER_SET = 0x00080005
_REPEATED = 256
"""Length in bytes of the longest item that is looked for among those that were read."""
_MANY = 32
"""Items that a sequence must have room for, so that layouts are looked for."""
_ITEM_HEADER = struct.Struct("<HHI")
_SHORT_VRS = frozenset(
    ("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH", "SL", "SS", "ST", "TM", "UI")
) | {"UL", "US"}
_SHORT_ELEMENTS: dict[bytes, _ShortElement] = {}
"""Tag and VR as in the file -> elements that were met; at most the data dictionary times the VRs."""


def _short_element(info: ElementInfo, vr: str) -> _ShortElement:
    number = struct.Struct(f"<{_NUMBERS[vr]}") if vr in _NUMBERS else None
    plain = number is None and vr != "AT" and not info.repeated and vr not in _TEXT and vr not in _SINGLE_TEXT
    return _ShortElement(info, vr, number, plain)
