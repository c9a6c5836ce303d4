"""Read untrusted DICOM files in bounded memory, with one typed error for every way in which they can be broken."""

from __future__ import annotations

import io
import math
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from pydicom import config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filereader import _read_file_meta_info, read_dataset, read_partial, read_preamble
from pydicom.tag import BaseTag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ctenrich.dicom.elements import LONG_VRS, SHORT_VRS
from ctenrich.dicom.fast_header import fast_elements, fast_meta
from ctenrich.errors import CtenrichError, InputError, UnsafeInputError
from ctenrich.reasons import Reason

__all__ = [
    "HEADER_LIMIT",
    "BoundedReader",
    "DataSetStart",
    "InflatingReader",
    "Parsed",
    "find_data_set",
    "joined_text",
    "largest_unpacked",
    "number",
    "numbers",
    "open_dataset",
    "open_dicom",
    "parse",
    "quiet",
    "read_part10",
    "text",
    "texts",
    "typed_cause",
    "whole",
]

HEADER_LIMIT = 64 * 1024**2
"""Bytes that the elements before the pixel data may unpack to."""
_READS, _BYTES_PER_READ, _MOST_READS = 200_000, 32, 1_500_000
"""Reads of pydicom, one to three for each element, that a file may take: any file, a larger file, the largest file.

200,000 reads take below a second; 20,000 frames of a segmentation need 1,400,000."""
_SMALL, _LARGEST_RATIO = 256 * 1024**2, 200
"""Bytes that any deflated object may unpack to, and how often a larger one may unpack to its own size."""
_STEP = 256 * 1024
_PLAIN_TEXT = frozenset({"UI", "CS", "IS", "DS"})
_KNOWN: dict[str, tuple[int, str]] = {}
_PIXELS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))


class BoundedReader:
    """A binary file that can be read a limited number of times, so that no number of small elements takes long.

    Parameters
    ----------
    source : binary file
        Must be seekable.
    size : int
        Bytes of the file as it is stored; larger files have more elements.

    Raises
    ------
    UnsafeInputError
        DECOMPRESSION_BOMB, from `read`, when the calls are used up.
    """

    def __init__(self, source: IO[bytes], size: int) -> None:
        self._read = source.read
        self._left = min(_READS + size // _BYTES_PER_READ, _MOST_READS)
        self._end = None if isinstance(source, InflatingReader) else size
        self.seek = source.seek
        self.tell = source.tell

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes."""
        self._left -= 1
        if self._left < 0:
            raise UnsafeInputError(Reason.DECOMPRESSION_BOMB, "a file has far more elements than a DICOM object needs")
        if self._end is not None and size > _STEP:  # a file allocates what it is asked for, whether it has it or not
            size = min(size, max(self._end - self.tell(), 0))
        return self._read(size)


class InflatingReader(io.RawIOBase):
    """Inflates a raw deflate stream as it is read, and never more than a limit (PS3.5 A.5).

    Parameters
    ----------
    source : binary file
        Stands at the first byte of the stream.
    limit : int
        Bytes that may be asked for; raise it with `allow`.

    Raises
    ------
    UnsafeInputError
        DECOMPRESSION_BOMB, from `read`, when more than `limit` bytes are asked for and there are that many.
    """

    def __init__(self, source: IO[bytes], limit: int) -> None:
        super().__init__()
        self._source = source
        self._buffer = bytearray()
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._pending = b""
        self._place = 0
        self._limit = limit
        self._ended = False

    def allow(self, limit: int) -> None:
        """Set the limit anew."""
        self._limit = limit

    def read_from(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on; TRUNCATED if there are fewer."""
        self.seek(offset)
        out = self.read(size)
        if len(out) < size:
            raise InputError(Reason.TRUNCATED, "a deflated file is shorter than it says")
        return out

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def seekable(self) -> bool:
        """Whether it can be positioned: yes."""
        return True

    def tell(self) -> int:
        """Position in the inflated bytes."""
        return self._place

    def seek(self, offset: int, whence: int = 0) -> int:
        """Set the position; inflates nothing but for SEEK_END."""
        if whence == io.SEEK_END:
            self._fill(self._limit + 1)
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: len(self._buffer)}[whence]
        self._place = max(base + offset, 0)
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` inflated bytes."""
        end = self._limit + 1 if size is None or size < 0 else self._place + size
        self._fill(end)
        out = bytes(self._buffer[self._place : end])
        self._place += len(out)
        return out

    def readinto(self, target: Any) -> int:
        """Fill `target` with inflated bytes."""
        data = self.read(len(target))
        target[: len(data)] = data
        return len(data)

    def _fill(self, end: int) -> None:
        while len(self._buffer) < min(end, self._limit + 1) and not self._ended:
            left = self._limit + 1 - len(self._buffer)
            if not self._pending:
                self._pending = self._source.read(_STEP)
                if not self._pending:
                    self._ended = True
                    break
            try:
                self._buffer += self._inflater.decompress(self._pending, min(_STEP, left))
            except zlib.error as error:
                raise InputError(Reason.TRUNCATED, "a deflated file is damaged") from error
            self._pending = self._inflater.unconsumed_tail
            self._ended = self._inflater.eof
        if end > self._limit and len(self._buffer) > self._limit:
            message = f"a deflated file unpacks to more than {self._limit} bytes"
            raise UnsafeInputError(Reason.DECOMPRESSION_BOMB, message)


class _Quiet:
    """Filters of warnings and pydicom's checks belong to the process: the last thread to leave sets them back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = ExitStack()

    def enter(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                settings = config.settings
                self._before.callback(setattr, settings, "reading_validation_mode", settings.reading_validation_mode)
                settings.reading_validation_mode = config.IGNORE
                self._before.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._before.close()


_quiet = _Quiet()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom from warning about values that our own rules judge anyway; several threads may be inside."""
    _quiet.enter()
    try:
        yield
    finally:
        _quiet.leave()


@dataclass
class Parsed:
    """A data set, and the place of its pixel data in the stream."""

    dataset: Dataset
    """Elements before the pixel data, with file_meta."""
    stream: IO[bytes]
    """Inflated where the file is deflated."""
    transfer_syntax: str
    little_endian: bool
    pixel_offset: int | None = None
    """First byte of the value of Pixel Data in `stream`; None where there is no such element."""
    pixel_length: int = 0
    """Value length; 0xFFFFFFFF (undefined) where the pixel data are encapsulated."""
    notes: tuple[str, ...] = ()
    """What is odd about the file although it can be read."""


@dataclass(frozen=True, kw_only=True)
class DataSetStart:
    """How the data set of a file is encoded, by its own first bytes and by the file meta information (PS3.10 7.1)."""

    meta: FileMetaDataset
    """File meta information; empty where the file has none."""
    syntax: str
    """Transfer syntax: the stated one, or that of the bytes where none is stated or an uncompressed one is wrong."""
    implicit: bool
    """Whether the VR is implicit."""
    little: bool
    """Whether the byte order is little endian."""
    bare: bool
    """Whether the file has no preamble and no prefix DICM."""
    misstated: bool
    """Whether the file meta information states an encoding that the data set does not have."""


def parse(source: IO[bytes], *, tags: Sequence[str] | None = None, max_header: int = HEADER_LIMIT) -> Parsed:
    """Read the elements before the pixel data, in bounded memory.

    Parameters
    ----------
    source : binary file
        Positioned at the first byte of the file; must be seekable.
    tags : sequence of str, optional
        Keywords of the elements to read; None: all.
    max_header : int
        Bytes that the elements of a deflated file may unpack to.

    Returns
    -------
    Parsed
        The elements, and where the pixel data are in the stream.

    Raises
    ------
    InputError
        NOT_DICOM or TRUNCATED.
    UnsafeInputError
        DECOMPRESSION_BOMB.
    """
    try:
        return _parse(source, None if tags is None else [tag_for_keyword(t) or 0 for t in tags], max_header)
    except CtenrichError:
        raise
    except EOFError as error:
        raise InputError(Reason.TRUNCATED, "a file ends inside its header") from error
    except MemoryError as error:
        raise UnsafeInputError(Reason.DECOMPRESSION_BOMB, "a file asks for more memory than there is") from error
    except Exception as error:  # pydicom raises many kinds for broken files
        raise typed_cause(error) or InputError(
            Reason.NOT_DICOM, f"a file cannot be parsed as DICOM ({type(error).__name__})"
        ) from error


def typed_cause(error: BaseException) -> CtenrichError | None:
    """The error of our own that another one, which pydicom raised instead, was caused by; None if there is none."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, CtenrichError):
        cause = cause.__cause__ or cause.__context__
    return cause


@contextmanager
def open_dicom(path: Path, *, tags: Sequence[str] | None = None, max_header: int = HEADER_LIMIT) -> Iterator[Parsed]:
    """Open a file and read its elements before the pixel data; the stream stays open in the block.

    Parameters
    ----------
    path : Path
        The file.
    tags : sequence of str, optional
        Keywords of the elements to read; None: all.
    max_header : int
        Bytes that the elements of a deflated file may unpack to.

    Yields
    ------
    Parsed
        The elements, and where the pixel data are in the open stream.

    Raises
    ------
    InputError
        IO_ERROR, NOT_DICOM or TRUNCATED.
    UnsafeInputError
        DECOMPRESSION_BOMB.
    """
    try:
        handle = path.open("rb")
    except OSError as error:
        raise InputError(Reason.IO_ERROR, f"a file could not be opened: {error.strerror}") from error
    with handle, quiet():
        yield parse(handle, tags=tags, max_header=max_header)


_NOT_A_DATA_SET = "a file has neither the prefix DICM nor a data set at its start"
_MISSTATED = "the file meta information states another transfer syntax than the data set has; the data set was followed"


def find_data_set(source: IO[bytes], *, fast: bool = False) -> DataSetStart:
    """Find the data set of a DICOM file: with or without preamble and file meta information.

    The crawl and the stage sort both recognise files by this function, so that what one reads the other reads too.

    Parameters
    ----------
    source : binary file
        Positioned at the first byte of the file; it is left at the first byte of the data set.
    fast : bool
        Read only transfer syntax and SOP class of the file meta information, where that is possible.

    Returns
    -------
    DataSetStart
        How the data set is encoded. Where the first element shows another VR encoding or byte order than the stated
        transfer syntax has, the element counts.

    Raises
    ------
    InputError
        NOT_DICOM: the file is empty, or begins neither with the prefix DICM nor with an element of group 2 or 8.
    """
    start = source.read(140)
    size = source.seek(0, io.SEEK_END)
    if not start:
        raise InputError(Reason.NOT_DICOM, "a file is empty")
    bare = start[128:132] != b"DICM"
    if bare and start[:4] == b"DICM":
        start = start[4:]
        source.seek(4)
    else:
        source.seek(0 if bare else 132)
    if bare and not _is_first_element(start[:8]):
        raise InputError(Reason.NOT_DICOM, _NOT_A_DATA_SET)
    meta = fast_meta(source) if fast and not bare else None
    if meta is None:
        meta = _read_file_meta_info(cast(BinaryIO, BoundedReader(source, size)))
    stated = str(meta.get("TransferSyntaxUID", "") or "")
    if stated == DeflatedExplicitVRLittleEndian:
        return DataSetStart(meta=meta, syntax=stated, implicit=False, little=True, bare=bare, misstated=False)
    implicit, little = _encoding_at(source, stated)
    found = str(ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian)
    misstated = bool(stated) and (implicit, little) != _encoding_of(stated)
    syntax = found if not stated or (misstated and stated in _UNCOMPRESSED) else stated
    return DataSetStart(meta=meta, syntax=syntax, implicit=implicit, little=little, bare=bare, misstated=misstated)


_UNCOMPRESSED = frozenset({ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian})
_VRS = SHORT_VRS | LONG_VRS
_FIRST_GROUPS = frozenset({b"\x02\x00", b"\x08\x00", b"\x00\x08"})


def _is_first_element(start: bytes) -> bool:
    """Whether 8 bytes may be the header of the first element: group 2 or 8, and an existing VR or a short length."""
    if len(start) < 8 or start[:2] not in _FIRST_GROUPS:
        return False
    return start[4:6] in _VRS or (start[:2] == b"\x08\x00" and int.from_bytes(start[4:8], "little") <= 0xFFFF)


def _encoding_at(source: IO[bytes], stated: str) -> tuple[bool, bool]:
    """Whether the data set at the position of `source` is implicit VR, and little endian, by its first element."""
    place = source.tell()
    start = source.read(8)
    source.seek(place)
    if len(start) < 8:
        if not stated:
            raise EOFError
        return _encoding_of(stated)
    if start[4:6] in _VRS:
        return False, int.from_bytes(start[:2], "little") <= int.from_bytes(start[:2], "big")
    if not stated or (stated != ImplicitVRLittleEndian and int.from_bytes(start[4:8], "little") <= 0xFFFF):
        return True, True
    return _encoding_of(stated)


def _encoding_of(syntax: str) -> tuple[bool, bool]:
    """Whether a transfer syntax is implicit VR, and little endian."""
    return syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian


def _parse(source: IO[bytes], wanted: list[Any] | None, max_header: int) -> Parsed:
    start = find_data_set(source, fast=wanted is not None)
    deflated = start.syntax == DeflatedExplicitVRLittleEndian
    stream: Any = InflatingReader(source, max_header) if deflated else source
    notes = (_MISSTATED,) if start.misstated else ()
    if wanted is not None and not start.bare and not deflated and start.little:
        fast = fast_elements(source, frozenset(wanted), start.implicit)
        if fast is not None:
            data, offset, length = fast
            data.file_meta = start.meta
            return Parsed(data, stream, start.syntax, True, offset, length, notes)
    place = source.tell()
    size = source.seek(0, io.SEEK_END)
    source.seek(place)
    data, pixels = _read_by_pydicom(BoundedReader(stream, size), start.implicit, start.little, wanted)
    data.file_meta = start.meta
    if start.bare and not (text(data, "SOPClassUID").startswith("1.2.") and text(data, "SOPInstanceUID")):
        raise InputError(Reason.NOT_DICOM, "a file without DICOM preamble holds no SOP Class and Instance UID")
    return Parsed(data, stream, start.syntax, start.little, *pixels, notes)


def _read_by_pydicom(
    stream: Any, implicit: bool, little: bool, wanted: list[Any] | None
) -> tuple[Dataset, tuple[int | None, int]]:
    """Elements before the pixel data, and offset (None where there are none) and length of the pixel data."""
    place: list[int] = []

    def stop(tag: int, vr: str | None, length: int) -> bool:
        if tag < 0x00020000:
            raise ValueError("an element of group 0 in a data set")
        if tag < 0x7FE00008:
            if tag == length == 0:
                raise InputError(Reason.NOT_DICOM, "zeros follow where the elements of a file should be")
            return False
        if tag == 0x7FE00010:
            place.extend((stream.tell(), length))
        return True

    data = read_dataset(stream, implicit, little, stop_when=stop, specific_tags=wanted)
    return data, (place[0], place[1]) if place else (None, 0)


def open_dataset(path: Path, *, max_unpacked: int = 1024**3) -> Dataset:
    """Read a whole file (companions, SEG, SR) as a pydicom data set; pixel data stay as they are stored.

    Parameters
    ----------
    path : Path
        The file.
    max_unpacked : int
        Bytes that a deflated file may unpack to.

    Returns
    -------
    Dataset
        All elements, with pixel data as stored.

    Raises
    ------
    InputError
        IO_ERROR, NOT_DICOM or TRUNCATED.
    UnsafeInputError
        DECOMPRESSION_BOMB, where a deflated file unpacks to more than `max_unpacked` bytes.
    """
    with quiet(), open_dicom(path, max_header=max_unpacked) as parsed:
        data = parsed.dataset
        stream = parsed.stream
        if parsed.pixel_offset is None:
            return data
        if isinstance(stream, InflatingReader):
            stream.allow(max_unpacked)
            rest = stream.read_from(parsed.pixel_offset, parsed.pixel_length)
            data.PixelData = rest
            data["PixelData"].VR = "OB" if number(data, "BitsAllocated") == 8 else "OW"
            return data
    with quiet():
        try:
            return read_part10(path, stop=False, limit=max_unpacked, force=True)
        except CtenrichError:
            raise
        except Exception as error:
            raise typed_cause(error) or InputError(
                Reason.NOT_DICOM, f"a file cannot be parsed as DICOM ({type(error).__name__})"
            ) from error


def largest_unpacked(path: Path, limit: int) -> int:
    """Bytes that a deflated file may unpack to.

    Parameters
    ----------
    path : Path
        The file.
    limit : int
        Bytes that no file may exceed.

    Returns
    -------
    int
        256 MB or 200 times the file's size, whichever is larger, but at most `limit`.
    """
    return min(limit, max(_SMALL, _LARGEST_RATIO * path.stat().st_size))


def read_part10(
    path: Path, tags: Sequence[str] | None = None, *, stop: bool, limit: int, force: bool = False
) -> Dataset:
    """Read a DICOM file with pydicom, with limits of elements and of what a deflated file may unpack to.

    Zeros behind the last element are padding.

    Parameters
    ----------
    path : Path
        The file.
    tags : sequence of str, optional
        Keywords of the elements to read; None: all.
    stop : bool
        End before the pixel data.
    limit : int
        Bytes that a deflated file may unpack to; at most 256 MB or 200 times its size, whichever is larger.
    force : bool
        Read a file without preamble too.

    Returns
    -------
    Dataset
        With file meta information.

    Raises
    ------
    UnsafeInputError
        DECOMPRESSION_BOMB.
    InputError
        TRUNCATED for a damaged deflated file.
    Exception
        What pydicom raises for a file that is broken or no DICOM.
    """

    def end(tag: int, vr: str | None, length: int) -> bool:
        return tag == length == 0 or (stop and tag in _PIXELS)

    wanted: list[BaseTag | int] | None = (
        None if tags is None else [BaseTag(tag_for_keyword(keyword) or 0) for keyword in tags]
    )
    size = path.stat().st_size
    with path.open("rb") as handle:
        source = cast(BinaryIO, BoundedReader(handle, size))
        preamble = read_preamble(source, force)
        meta = _read_file_meta_info(source)
        if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            handle.seek(0)
            return read_partial(source, stop_when=end, force=force, specific_tags=wanted)
        inflating = InflatingReader(handle, largest_unpacked(path, limit))
        body = cast(BinaryIO, BoundedReader(cast(IO[bytes], inflating), size))
        content = read_dataset(body, False, True, stop_when=end, specific_tags=wanted)
        return FileDataset(str(path), content, preamble, meta, False, True)


def text(data: Dataset, keyword: str) -> str:
    """Value of an element as one string.

    Parameters
    ----------
    data : Dataset
        A data set; elements that pydicom has not converted yet are read from their bytes.
    keyword : str
        Keyword of the element.

    Returns
    -------
    str
        Without padding (blanks, NUL); empty where the element is missing or unreadable.
    """
    vr, raw, _ = _raw(data, keyword)
    if vr in _PLAIN_TEXT and raw.isascii():
        return str(raw, "ascii").strip(" \0")
    try:
        value = data.get(keyword)
    except Exception:  # noqa: BLE001  a broken value counts as missing; the geometry rules decide what follows
        return ""
    return "" if value is None else str(value).strip(" \0")


def texts(data: Dataset, keyword: str) -> tuple[str, ...]:
    """Values of an element as strings.

    Parameters
    ----------
    data : Dataset
        As :func:`text`.
    keyword : str
        Keyword of the element.

    Returns
    -------
    tuple of str
        Each without padding; empty where the element is missing or unreadable.
    """
    vr, raw, _ = _raw(data, keyword)
    if vr in _PLAIN_TEXT and raw.isascii():
        joined = str(raw, "ascii").strip(" \0")
        return tuple(v.strip(" \0") for v in joined.split("\\")) if joined else ()
    try:
        value = data.get(keyword)
    except Exception:  # noqa: BLE001  as above
        return ()
    if value is None or value == "":
        return ()
    values = [value] if isinstance(value, str) or not hasattr(value, "__len__") else list(value)
    return tuple(str(v).strip(" \0") for v in values)


_TEXT_VRS = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "SH", "TM", "UI"})


def joined_text(data: Dataset, keyword: str) -> str:
    """Values of an element as one string, joined by backslashes as in the file.

    Parameters
    ----------
    data : Dataset
        As :func:`text`.
    keyword : str
        Keyword of the element.

    Returns
    -------
    str
        Each value without padding at its ends; empty where the element is missing or unreadable.
    """
    vr, raw, _ = _raw(data, keyword)
    if vr in _TEXT_VRS and raw.isascii() and b"\x1b" not in raw:
        joined = str(raw, "ascii").strip(" \0")
        return joined if "\\" not in joined else "\\".join(part.strip(" \0") for part in joined.split("\\"))
    if not vr and _KNOWN[keyword][0] not in data._dict:
        return ""
    return "\\".join(texts(data, keyword))


def numbers(data: Dataset, keyword: str) -> tuple[float, ...] | None:
    """Values of an element as floats.

    Parameters
    ----------
    data : Dataset
        As :func:`text`.
    keyword : str
        Keyword of the element.

    Returns
    -------
    tuple of float or None
        None where the element is missing or one of its values is not a number.
    """
    vr, raw, little = _raw(data, keyword)
    try:
        if vr in {"DS", "IS"}:
            content = raw.strip(b" \0")
            return tuple(float(v) for v in content.split(b"\\")) if content else None
        if vr == "US":
            return struct.unpack(f"{'<' if little else '>'}{len(raw) // 2}H", raw)
        value = data.get(keyword)
        if value is None or value == "":
            return None
        parts = [value] if isinstance(value, str) or not hasattr(value, "__len__") else list(value)
        return tuple(float(v) for v in parts)
    except Exception:  # noqa: BLE001  as above
        return None


def _raw(data: Dataset, keyword: str) -> tuple[str, bytes, bool]:
    """VR, bytes and byte order of an element that pydicom has not yet interpreted; an empty VR otherwise.

    The bytes are quicker to read than pydicom's objects are to make, and there are thousands of slices.
    """
    known = _KNOWN.get(keyword)
    if known is None:
        tag = tag_for_keyword(keyword) or 0
        _KNOWN[keyword] = known = (tag, dictionary_VR(tag))
    item = data._dict.get(known[0])  # type: ignore[call-overload]
    if not isinstance(item, RawDataElement) or not item.value:
        return "", b"", True
    return item.VR or known[1], item.value, item.is_little_endian


def number(data: Dataset, keyword: str) -> float | None:
    """First value of an element as a float.

    Parameters
    ----------
    data : Dataset
        As :func:`text`.
    keyword : str
        Keyword of the element.

    Returns
    -------
    float or None
        None where the element is missing or one of its values is not a number.
    """
    found = numbers(data, keyword)
    return found[0] if found else None


def whole(data: Dataset, keyword: str) -> int | None:
    """First value of an element as an integer.

    Parameters
    ----------
    data : Dataset
        As :func:`text`.
    keyword : str
        Keyword of the element.

    Returns
    -------
    int or None
        None where the element is missing or its first value is not a whole number.
    """
    found = number(data, keyword)
    return int(found) if found is not None and math.isfinite(found) and found == int(found) else None
