"""One object while it arrives: written to its file in pieces, hashed, and held against the limits."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from enum import IntEnum
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from ctenrich.errors import is_disk_full
from ctenrich.listener.disk import Disk
from ctenrich.uids import derive_uid

__all__ = [
    "IMPLEMENTATION_UID",
    "IMPLEMENTATION_VERSION",
    "FileMeta",
    "IncomingFile",
    "StoreStatus",
    "encode_head",
    "read_meta",
]

IMPLEMENTATION_UID = derive_uid("implementation", "ctenrich", "listener")
"""Implementation Class UID (0002,0012); the same in all versions, so that an object has the same file in all."""
IMPLEMENTATION_VERSION = "CTENRICH"

_SYNC_EVERY = 64 * 1024**2
"""Bytes after which those of a large object are written to disk, so that the end does not take long."""
_BUFFER = 256 * 1024
_CHECK_EVERY = 16 * 1024**2
"""Bytes after which the free space is looked at again."""
_LARGEST_META = 1024**2
"""Bytes of file meta information; usual are 200."""
_META_START = 144
"""Preamble, prefix and File Meta Information Group Length (PS3.10 7.1)."""


class StoreStatus(IntEnum):
    """Status of a C-STORE response (PS3.4 table B.2-1)."""

    SUCCESS = 0x0000
    OUT_OF_RESOURCES = 0xA700
    """The disk is full, or its reserve is reached; a later attempt may succeed."""
    CANNOT_UNDERSTAND = 0xC000
    """No DICOM file, or larger than the limit."""
    PROCESSING_FAILURE = 0x0110
    """An unexpected error."""


class FileMeta(NamedTuple):
    """Identifiers of an object, from its file meta information or its C-STORE request."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str


class IncomingFile:
    """An object that arrives as a DICOM file (preamble, file meta information, data set).

    The SHA-256 is that of the data set alone, as it was sent: the file meta information of a C-STORE is ours.

    Parameters
    ----------
    path : Path
        Its file, created and empty.
    descriptor : int
        The open file.
    disk : Disk
        How it is written.
    limit : int
        Largest size, bytes.
    full : callable
        Returns whether the reserve of the disk is reached.
    """

    def __init__(self, path: Path, descriptor: int, disk: Disk, *, limit: int, full: Callable[[], bool]) -> None:
        self.path = path
        self.size = 0
        self.status = StoreStatus.SUCCESS
        """Why it is refused, as soon as that is known; what follows of it is not written."""
        self.head = b""
        """The file up to its data set, once that is complete."""
        self._descriptor = descriptor
        self._disk = disk
        self._limit = limit
        self._full = full
        self._start = bytearray()
        self._digest = hashlib.sha256()
        self._buffer = bytearray()
        self._hashed = 0
        """Bytes of the buffer that are hashed, or before the data set."""
        self._synced = self._checked = 0
        if full():
            self.status = StoreStatus.OUT_OF_RESOURCES

    @property
    def sha256(self) -> str:
        """SHA-256 of the data set, hexadecimal."""
        self._hash()
        return self._digest.hexdigest()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Add the next bytes; errors become the status of the object."""
        if self.status is not StoreStatus.SUCCESS:
            return
        try:
            self._add(data)
        except OSError as error:
            self.status = StoreStatus.OUT_OF_RESOURCES if is_disk_full(error) else StoreStatus.PROCESSING_FAILURE
            self._buffer.clear()

    def _add(self, data: bytes | bytearray | memoryview) -> None:
        self.size += len(data)
        if self.size > self._limit:
            self.status = StoreStatus.CANNOT_UNDERSTAND
            return
        if self.size - self._checked > _CHECK_EVERY:
            self._checked = self.size
            if self._full():
                self.status = StoreStatus.OUT_OF_RESOURCES
                return
        self._buffer += data
        if not self.head:
            self._start += data
            self._find_data_set()
        if len(self._buffer) >= _BUFFER:
            self._flush()
        if self.size - self._synced > _SYNC_EVERY:
            self._synced = self.size
            self._disk.sync_file(self._descriptor)

    def _find_data_set(self) -> None:
        """Split the file at the end of its file meta information."""
        if len(self._start) < _META_START:
            return
        tag_and_vr, length = bytes(self._start[132:138]), int.from_bytes(self._start[140:144], "little")
        if self._start[128:132] != b"DICM" or tag_and_vr != b"\x02\x00\x00\x00UL" or length > _LARGEST_META:
            self.status = StoreStatus.CANNOT_UNDERSTAND
            return
        end = _META_START + length
        if len(self._start) >= end:
            self.head = bytes(self._start[:end])
            self._digest.update(memoryview(self._start)[end:])
            self._start = bytearray()
            self._hashed = len(self._buffer)

    def _hash(self) -> None:
        """Hash what is in the buffer and was not, if the data set has begun."""
        if self.head:
            with memoryview(self._buffer) as buffer:
                self._digest.update(buffer[self._hashed :])
            self._hashed = len(self._buffer)

    def _flush(self) -> None:
        self._hash()
        self._hashed = 0
        self._disk.write(self._descriptor, self._buffer)
        self._buffer = bytearray()

    def finish(self, trailer: Callable[[], bytes]) -> StoreStatus:
        """Return once all bytes and a trailer are on disk, or why they are not.

        Parameters
        ----------
        trailer : callable
            Returns what follows the object in its file until its row in the database is on disk.
        """
        if self.status is StoreStatus.SUCCESS and not self.head:
            self.status = StoreStatus.CANNOT_UNDERSTAND
        if self.status is StoreStatus.SUCCESS:
            try:
                end = trailer()
                self._flush()
                self._disk.write(self._descriptor, end)
                self._disk.sync_file(self._descriptor)
            except OSError as error:
                self.status = StoreStatus.OUT_OF_RESOURCES if is_disk_full(error) else StoreStatus.PROCESSING_FAILURE
        return self.status

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def discard(self) -> None:
        """Close and delete the file."""
        self.close()
        self.path.unlink(missing_ok=True)


def encode_head(meta: FileMeta) -> bytes:
    """Return preamble, prefix and file meta information of an object that came without (PS3.10 7.1)."""
    elements = [
        b"\x02\0\x01\0OB\0\0\x02\0\0\0\0\x01",
        _short(0x0002, b"UI", meta.sop_class_uid),
        _short(0x0003, b"UI", meta.sop_instance_uid),
        _short(0x0010, b"UI", meta.transfer_syntax),
        _short(0x0012, b"UI", IMPLEMENTATION_UID),
        _short(0x0013, b"SH", IMPLEMENTATION_VERSION),
    ]
    body = b"".join(elements)
    return bytes(128) + b"DICM\x02\0\0\0UL\x04\0" + len(body).to_bytes(4, "little") + body


def _short(element: int, vr: bytes, text: str) -> bytes:
    """An element of the group 0002 in Explicit VR Little Endian, with a length of two bytes."""
    value = text.encode("ascii")
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    return b"\x02\0" + element.to_bytes(2, "little") + vr + len(value).to_bytes(2, "little") + value


def read_meta(head: bytes) -> FileMeta | None:
    """Read the identifiers of a file from its beginning up to the data set; None if one of them is missing."""
    from pydicom import dcmread

    try:
        meta = dcmread(BytesIO(head)).file_meta
        found = FileMeta(
            str(meta.get("MediaStorageSOPClassUID") or ""),
            str(meta.get("MediaStorageSOPInstanceUID") or ""),
            str(meta.get("TransferSyntaxUID") or ""),
        )
    except Exception:  # noqa: BLE001  pydicom raises many kinds for broken headers
        return None
    return found if all(found) else None
