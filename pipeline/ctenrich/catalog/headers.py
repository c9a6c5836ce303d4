"""Read the header of one DICOM file into one row of `dicom_all`, in bounded memory for any file."""

from __future__ import annotations

import io
import os
import re
import struct
import warnings
import zlib
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.charset import convert_encodings
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ctenrich.catalog.column_values import PLAIN_VRS, TOLERATED, columns_by_tag, fast_header_row
from ctenrich.catalog.schema import COLUMNS, FILE_META, Column
from ctenrich.dicom.datetimes import parse_temporal
from ctenrich.dicom.fast_header import HEAD
from ctenrich.dicom.reader import DataSetStart, find_data_set, typed_cause
from ctenrich.dicom.sop_classes import MEDIA_STORAGE_DIRECTORY
from ctenrich.dicom.streams import BoundedReader
from ctenrich.reasons import Reason

__all__ = ["FileHeader", "read_header"]

_LARGEST_HEADER = 64 * 1024**2
"""Bytes of header that are looked at; what comes before the pixels of a slice is a few thousand."""
_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_DICOM = tuple(column for column in COLUMNS if column.vr)
_IDENTIFIERS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


@dataclass(frozen=True)
class FileHeader:
    """Row and faults of one file."""

    row: dict[str, Any] | None
    """Values by column; None if the file holds no DICOM instance."""
    faults: tuple[tuple[Reason, str], ...] = ()
    """What is wrong with it: reason and a sentence without values."""
    withheld: dict[str, Any] | None = None
    """Values of an instance that the catalog cannot keep (its file has no usable name)."""


def read_header(path: Path) -> FileHeader:
    """Read the attributes that the catalog keeps; whatever is wrong with the file is a fault, never an exception.

    Files are recognised by :func:`ctenrich.dicom.reader.find_data_set`, as in the stage sort. Pixel data are not read,
    but their length is held against the size of the file, so that a file that was cut short is known. A deflated file
    is inflated to 64 MB at most.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with path.open("rb") as handle:
                size = os.fstat(handle.fileno()).st_size
                row = fast_header_row(handle.read(HEAD), size)
                if row is not None:
                    return FileHeader(row, _identifier_faults(row))
                handle.seek(0)
                return _read_by_pydicom(handle, size)
        except Exception as error:  # noqa: BLE001  pydicom and codecs of text raise many kinds for broken files
            typed = typed_cause(error)
            if typed is not None:
                return FileHeader(None, ((typed.reason, typed.message),))
            return FileHeader(None, ((_reason_of(error), f"the header cannot be read ({type(error).__name__})"),))


def _reason_of(error: BaseException) -> Reason:
    if isinstance(error, EOFError):
        return Reason.TRUNCATED
    return Reason.IO_ERROR if isinstance(error, OSError) else Reason.DECODE_ERROR


def _read_by_pydicom(handle: BinaryIO, size: int) -> FileHeader:
    faults: list[tuple[Reason, str]] = []
    start = find_data_set(handle)
    if str(start.meta.get("MediaStorageSOPClassUID", "")) == MEDIA_STORAGE_DIRECTORY:
        return FileHeader(None)
    end = _Stop()
    if start.syntax == DeflatedExplicitVRLittleEndian:
        body, bomb = _inflated(handle)
        dataset, whole = _elements(_Watched(body, size), start, end, faults)
        if bomb:
            faults.append((Reason.DECOMPRESSION_BOMB, f"the header unpacks to more than {_LARGEST_HEADER >> 20} MB"))
    else:
        dataset, whole = _elements(_Watched(handle, size), start, end, faults)
        whole = whole and handle.tell() + end.length <= size
    if not whole and not faults:
        place = "pixel data" if end.length else "header"
        faults.append((Reason.TRUNCATED, f"the file ends inside its {place}"))
    row = _Reader(dataset, start.meta, faults).row()
    if start.bare and not ((row["SOPClassUID"] or "").startswith("1.2.") and row["SOPInstanceUID"]):
        return FileHeader(None, (*faults, (Reason.NOT_DICOM, "no prefix DICM, and no SOP class and instance UID")))
    if whole and not end.reached and row["Modality"] == "CT" and row["Rows"]:
        faults.append((Reason.TRUNCATED, "the file ends before its pixel data"))
    if not row.get("SOPClassUID") and not row.get("Modality"):
        return FileHeader(None, (*faults, (Reason.NOT_DICOM, "no SOP class and no modality")))
    return FileHeader(row, tuple(dict.fromkeys([*faults, *_identifier_faults(row)])))


def _identifier_faults(row: dict[str, Any]) -> tuple[tuple[Reason, str], ...]:
    if all(re.fullmatch(r"[0-9.]{1,64}", row[name] or "") for name in _IDENTIFIERS):
        return ()
    return ((Reason.UNSAFE_IDENTIFIER, "the study, series or SOP instance UID is not a DICOM UID"),)


def _elements(
    source: _Watched, start: DataSetStart, stop: _Stop, faults: list[tuple[Reason, str]]
) -> tuple[Dataset, bool]:
    """The elements up to `stop` or the end of the file, and whether the file is complete up to there."""
    from pydicom.filereader import data_element_generator

    found: dict[BaseTag, Any] = {}
    try:
        for element in data_element_generator(
            source,  # type: ignore[arg-type]
            start.implicit,
            start.little,
            stop,
            specific_tags=_wanted_tags(),
        ):
            found[element.tag] = element
    except (EOFError, struct.error):
        source.short = True
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001  a broken element; what came before it may name the series
        source.short = True
        typed = typed_cause(error)
        message = f"the header cannot be read to its end ({type(error).__name__})"
        faults.append((typed.reason, typed.message) if typed else (Reason.DECODE_ERROR, message))
    encoding: Any = "iso8859"
    characters = found.get(BaseTag(0x00080005))
    if characters is not None and characters.value:
        names = characters.value.decode("latin-1").split("\\") if isinstance(characters.value, bytes) else "ISO_IR 6"
        encoding = convert_encodings([name.strip(" \x00") for name in names] if isinstance(names, list) else names)
    dataset = Dataset(found, parent_encoding=encoding)
    dataset.set_original_encoding(start.implicit, start.little, encoding)
    return dataset, not source.short


class _Watched:
    """A file that notes when it gave less than it was asked for, other than at its very end."""

    def __init__(self, source: BinaryIO, size: int) -> None:
        self._source = BoundedReader(source, size)
        self._empty = 0
        self.short = False
        self.tell = source.tell
        self.seek = source.seek

    def read(self, size: int = -1) -> bytes:
        """Read; a header of an element and then nothing is a file that was cut short."""
        data = self._source.read(size)
        if len(data) < size:
            self._empty += not data
            self.short = self.short or bool(data) or self._empty > 1
        return data


class _Stop:
    """Ends reading at the pixel data, and keeps their stated length."""

    def __init__(self) -> None:
        self.reached = False
        self.length = 0
        """Bytes of the element, its own header included; 0 where there is none or it is of undefined length."""

    def __call__(self, tag: int, vr: str | None, length: int) -> bool:
        if int(tag) < 0x00020000:
            raise ValueError("an element of group 0 in a data set")
        if int(tag) < _PIXEL_TAGS[0]:
            return False
        self.reached = True
        if int(tag) in _PIXEL_TAGS and length != 0xFFFFFFFF:
            self.length = length + (12 if vr in {"OB", "OW", "OD", "OF", "OL", "OV", "UN"} else 8)
        return True


def _inflated(handle: BinaryIO) -> tuple[BinaryIO, bool]:
    """The first part of what a deflated data set unpacks to (PS3.5 A.5), and whether more comes before the pixels."""
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    body = bytearray()
    while len(body) < _LARGEST_HEADER and (chunk := handle.read(1 << 16)):
        body += engine.decompress(chunk, _LARGEST_HEADER - len(body))
    pixels = b"\xe0\x7f\x10\x00" in body  # tag (7FE0,0010), little endian
    return io.BytesIO(bytes(body)), len(body) >= _LARGEST_HEADER and not pixels


@lru_cache(maxsize=1)
def _wanted_tags() -> list[BaseTag | int]:
    return [BaseTag(tag) for tag in columns_by_tag()]


class _Reader:
    """Turns the elements of one data set into values of the catalog's types, without pydicom's slow conversions."""

    def __init__(self, dataset: Dataset, meta: Dataset, faults: list[tuple[Reason, str]]) -> None:
        self._dataset = dataset
        self._meta = meta
        self._faults = faults

    def row(self) -> dict[str, Any]:
        """One value a column that is a DICOM attribute."""
        return {
            column.name: self._value(self._meta if column.name in FILE_META else self._dataset, column)
            for column in _DICOM
        }

    def _value(self, dataset: Dataset, column: Column) -> Any:
        empty: Any = [] if column.repeated else None
        tag = _tag(column.name)
        if tag not in dataset or column.vr == "PN":
            return empty
        try:
            if column.vr == "SQ":
                return [{f.name: self._value(item, f) for f in column.fields} for item in dataset[tag].value or ()]
            values = self._scalars(dataset, tag, column)
        except Exception:  # noqa: BLE001  pydicom raises many kinds for a value that does not fit its VR
            self._faults.append((Reason.DECODE_ERROR, f"{column.name} cannot be read"))
            return empty
        if column.repeated:
            return values
        # a single-valued attribute that holds several values keeps them, as text, in one
        return ("\\".join(map(str, values)) if column.type == "STRING" else values[0]) if values else None

    def _scalars(self, dataset: Dataset, tag: BaseTag, column: Column) -> list[Any]:
        raw: Any = dataset.get_item(tag)
        if isinstance(raw, RawDataElement) and isinstance(raw.value, bytes) and column.vr in PLAIN_VRS:
            text = raw.value.decode("latin-1").strip(" \x00")
            if any(c < " " and c not in "\t\r\n" for c in text):
                raise ValueError("control characters")  # the bytes of other elements, names among them
            return [part.strip(" \x00") for part in text.split("\\")] if text else []
        value: Any = dataset[tag].value
        if value is None or value in ("", b""):
            return []
        values = list(value) if isinstance(value, (MultiValue, list, tuple)) else [value]
        return [converted for v in values if (converted := self._scalar(column, v)) is not None]

    def _scalar(self, column: Column, value: Any) -> Any:
        if column.type == "STRING":
            return str(getattr(value, "original_string", value)).strip(" \x00")
        if column.type == "INT64":
            return int(value)
        if column.type == "FLOAT64":
            return float(value)
        parsed = parse_temporal(column.vr, str(value).strip(" \x00"))
        if parsed is None and column.name != TOLERATED:
            self._faults.append((Reason.DECODE_ERROR, f"{column.name} is not a valid date or time"))
        return parsed


@cache
def _tag(keyword: str) -> BaseTag:
    from pydicom.datadict import tag_for_keyword
    from pydicom.tag import Tag

    tag = tag_for_keyword(keyword)
    assert tag is not None
    return Tag(tag)
