"""Read untrusted DICOM files in bounded memory, with one typed error for every way in which they can be broken."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from pydicom.datadict import tag_for_keyword
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
from ctenrich.dicom.nested_elements import count_nested
from ctenrich.dicom.quiet import quiet
from ctenrich.dicom.streams import BoundedReader, InflatingReader, largest_unpacked
from ctenrich.dicom.values import number, text
from ctenrich.errors import CtenrichError, InputError, UnsafeInputError
from ctenrich.reasons import Reason

__all__ = [
    "HEADER_LIMIT",
    "DataSetStart",
    "Parsed",
    "find_data_set",
    "open_dataset",
    "open_dicom",
    "parse",
    "read_part10",
    "typed_cause",
]

HEADER_LIMIT = 64 * 1024**2
"""Bytes that the elements before the pixel data may unpack to."""
_PIXELS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))


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
    bounded = BoundedReader(stream, size)
    data, pixels = _read_by_pydicom(bounded, start.implicit, start.little, wanted)
    count_nested(bounded, data)
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
    with quiet(), path.open("rb") as handle:
        bounded = BoundedReader(handle, size)
        source = cast(BinaryIO, bounded)
        preamble = read_preamble(source, force)
        meta = _read_file_meta_info(source)
        if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            handle.seek(0)
            found = read_partial(source, stop_when=end, force=force, specific_tags=wanted)
            count_nested(bounded, found)
            return found
        inflating = InflatingReader(handle, largest_unpacked(path, limit))
        body = BoundedReader(cast(IO[bytes], inflating), size)
        content = read_dataset(cast(BinaryIO, body), False, True, stop_when=end, specific_tags=wanted)
        count_nested(body, content)
        return FileDataset(str(path), content, preamble, meta, False, True)
