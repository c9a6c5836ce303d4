"""The watch folder: files that have stopped growing are stored like objects that were sent, and then deleted there."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from ctenrich.catalog.headers import read_header
from ctenrich.dicom.sop_classes import MEDIA_STORAGE_DIRECTORY
from ctenrich.listener.incoming import FileMeta, StoreStatus, read_meta
from ctenrich.listener.store import ObjectStore, Receipt
from ctenrich.reasons import Reason
from ctenrich.workspace import files_below

__all__ = ["WatchFolder"]

_SETTLED_SECONDS = 2.0
"""Time without a change after which a file is complete."""
_TRUNCATED_SECONDS = 120.0
"""The same for a file that ends inside an element: it is still being copied, or was cut."""
_PARTIAL = (".tmp", ".part", ".partial", ".crdownload", ".filepart")
"""Endings of the names of files that are still being written."""
_CHUNK = 1024**2


class _Kind(StrEnum):
    """What is known of a file that is in the folder."""

    GROWING = "growing"
    """It changes, or was not looked at yet."""
    JUNK = "junk"
    """It is no DICOM object."""
    CLOSED = "closed"
    """It cannot be read; every scan tries again."""
    TAKEN = "taken"
    """It is stored, and cannot be deleted."""


_AS_IT_IS = (_Kind.JUNK, _Kind.TAKEN)


class _Seen(NamedTuple):
    size: int
    mtime_ns: int
    since: float
    kind: _Kind = _Kind.GROWING


class WatchFolder:
    """Takes files in from a folder and its subfolders.

    Files may be copied, renamed or hard-linked into the folder. Links are not followed. What is no DICOM object, and
    DICOMDIR, stays where it is. A file that cannot be read is tried again by every scan, and one that cannot be
    deleted is taken once.

    Parameters
    ----------
    folder : Path
        The folder.
    store : ObjectStore
        Gets the objects.
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, folder: Path, store: ObjectStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._store = store
        self._clock = clock
        self._seen: dict[Path, _Seen] = {}
        self._closed: list[Path] = []

    def _count(self, kind: _Kind) -> int:
        return sum(seen.kind is kind for seen in self._seen.values())

    @property
    def junk(self) -> int:
        """Number of files in the folder that are no DICOM objects."""
        return self._count(_Kind.JUNK)

    @property
    def growing(self) -> int:
        """Number of files that are not complete yet."""
        return self._count(_Kind.GROWING)

    @property
    def closed(self) -> int:
        """Number of files and folders that cannot be read: a series may lack them."""
        return self._count(_Kind.CLOSED) + len(self._closed)

    @property
    def taken(self) -> int:
        """Number of files that are stored, and cannot be deleted."""
        return self._count(_Kind.TAKEN)

    @property
    def is_complete(self) -> bool:
        """Whether all objects in the folder were taken."""
        return self.growing + self.closed == 0

    def scan(self, begin: Callable[[], int]) -> list[Receipt]:
        """Take the complete files in.

        Parameters
        ----------
        begin : callable
            Called once if there is a file to take; returns the number under which this delivery is recorded.

        Returns
        -------
        list of Receipt
            One for each file that was taken or refused.
        """
        now, there, receipts = self._clock(), {}, []
        association = 0
        self._closed = []
        for path, status in files_below(self._folder, closed=self._closed):
            if path.name.startswith(".") or path.name.lower().endswith(_PARTIAL):
                continue
            before = self._seen.get(path)
            if before is None or (before.size, before.mtime_ns) != (status.st_size, status.st_mtime_ns):
                before = _Seen(status.st_size, status.st_mtime_ns, now)
            there[path] = before
            if before.kind in _AS_IT_IS or now - before.since < _SETTLED_SECONDS:
                continue
            if now - before.since < _TRUNCATED_SECONDS and _is_cut(path):
                continue
            try:
                meta = _meta_of(path)
            except FileNotFoundError:
                continue
            except OSError:
                there[path] = before._replace(kind=_Kind.CLOSED)
                continue
            if meta is None:
                there[path] = before._replace(kind=_Kind.JUNK)
                continue
            association = association or begin()
            receipt = self._take(path, meta, association)
            receipts.append(receipt)
            if receipt.status is StoreStatus.SUCCESS:
                if _is_deleted(path):
                    del there[path]
                else:
                    there[path] = before._replace(kind=_Kind.TAKEN)
            elif receipt.status is StoreStatus.CANNOT_UNDERSTAND:
                there[path] = before._replace(kind=_Kind.JUNK)
        self._seen = there
        return receipts

    def _take(self, path: Path, meta: FileMeta, association: int) -> Receipt:
        incoming = self._store.begin()
        with path.open("rb") as handle:
            while data := handle.read(_CHUNK):
                incoming.write(data)
        return self._store.commit(incoming, meta, association)


def _is_deleted(path: Path) -> bool:
    """Delete a file; False where this process may not, as in a folder that it can only read."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _is_cut(path: Path) -> bool:
    return any(reason is Reason.TRUNCATED for reason, _ in read_header(path).faults)


def _meta_of(path: Path) -> FileMeta | None:
    """Identifiers of a DICOM object; None for anything else, and for a DICOMDIR."""
    with path.open("rb") as handle:
        head = handle.read(144)
        if head[128:132] != b"DICM":
            return None
        meta = read_meta(head + handle.read(min(_CHUNK, int.from_bytes(head[140:144], "little"))))
    return None if meta is None or meta.sop_class_uid == MEDIA_STORAGE_DIRECTORY else meta
