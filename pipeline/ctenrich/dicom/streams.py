"""Streams over untrusted files: a bounded number of reads, and inflation that never exceeds a limit."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import IO, Any

from ctenrich.errors import InputError, UnsafeInputError
from ctenrich.reasons import Reason

__all__ = ["BoundedReader", "InflatingReader", "largest_unpacked"]

_READS, _BYTES_PER_READ, _MOST_READS = 200_000, 32, 1_500_000
"""Reads of pydicom, one to three for each element, that a file may take: any file, a larger file, the largest file.

200,000 reads take below a second; 20,000 frames of a segmentation need 1,400,000."""
_NESTED_PER_BYTE, _MOST_NESTED = 2, 2_000_000
"""Cost of elements in sequences of explicit length that a file may have for each of its bytes, and at most.

A frame of a segmentation costs 60; two million take pydicom 10 s."""
_SMALL, _LARGEST_RATIO = 256 * 1024**2, 200
"""Bytes that any deflated object may unpack to, and how often a larger one may unpack to its own size."""
_STEP = 256 * 1024


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
        DECOMPRESSION_BOMB, from `read`, when the calls are used up; from `count_nested`, when there are too many
        elements.
    """

    def __init__(self, source: IO[bytes], size: int) -> None:
        self._read = source.read
        self._left = min(_READS + size // _BYTES_PER_READ, _MOST_READS)
        self.nested_left = min(_READS + _NESTED_PER_BYTE * size, _MOST_NESTED)
        self._end = None if isinstance(source, InflatingReader) else size
        self.seek = source.seek
        self.tell = source.tell

    def count_nested(self, cost: int) -> None:
        """Count elements in sequences of explicit length, which are read as one value and parsed later."""
        self.nested_left -= cost
        if self.nested_left < 0:
            raise _too_many_elements()

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes."""
        self._left -= 1
        if self._left < 0:
            raise _too_many_elements()
        if self._end is not None and size > _STEP:  # a file allocates what it is asked for, whether it has it or not
            size = min(size, max(self._end - self.tell(), 0))
        return self._read(size)


def _too_many_elements() -> UnsafeInputError:
    return UnsafeInputError(Reason.DECOMPRESSION_BOMB, "a file has far more elements than a DICOM object needs")


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
