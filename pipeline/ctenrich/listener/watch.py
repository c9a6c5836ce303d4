"""The watch folder: files that have stopped growing are stored like objects that were sent, and then deleted there."""

from __future__ import annotations

import time
from collections.abc import Callable
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


class _Seen(NamedTuple):
    size: int
    mtime_ns: int
    since: float
    junk: bool


class WatchFolder:
    """Takes files in from a folder and its subfolders.

    Files may be copied, renamed or hard-linked into the folder. Links are not followed. What is no DICOM object, and
    DICOMDIR, stays where it is.

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

    @property
    def junk(self) -> int:
        """Number of files in the folder that are no DICOM objects."""
        return sum(seen.junk for seen in self._seen.values())

    @property
    def growing(self) -> int:
        """Number of files that are not complete yet."""
        return sum(not seen.junk for seen in self._seen.values())

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
        for path, status in files_below(self._folder):
            if path.name.startswith(".") or path.name.lower().endswith(_PARTIAL):
                continue
            before = self._seen.get(path)
            if before is None or (before.size, before.mtime_ns) != (status.st_size, status.st_mtime_ns):
                before = _Seen(status.st_size, status.st_mtime_ns, now, junk=False)
            there[path] = before
            if before.junk or now - before.since < _SETTLED_SECONDS:
                continue
            if now - before.since < _TRUNCATED_SECONDS and _is_cut(path):
                continue
            meta = _meta_of(path)
            if meta is None:
                there[path] = before._replace(junk=True)
                continue
            association = association or begin()
            receipt = self._take(path, meta, association)
            receipts.append(receipt)
            if receipt.status is StoreStatus.SUCCESS:
                path.unlink(missing_ok=True)
                del there[path]
            elif receipt.status is StoreStatus.CANNOT_UNDERSTAND:
                there[path] = before._replace(junk=True)
        self._seen = there
        return receipts

    def _take(self, path: Path, meta: FileMeta, association: int) -> Receipt:
        incoming = self._store.begin()
        with path.open("rb") as handle:
            while data := handle.read(_CHUNK):
                incoming.write(data)
        return self._store.commit(incoming, meta, association)


def _is_cut(path: Path) -> bool:
    return any(reason is Reason.TRUNCATED for reason, _ in read_header(path).faults)


def _meta_of(path: Path) -> FileMeta | None:
    """Identifiers of a DICOM object; None for anything else, and for a DICOMDIR."""
    try:
        with path.open("rb") as handle:
            head = handle.read(144)
            if head[128:132] != b"DICM":
                return None
            meta = read_meta(head + handle.read(min(_CHUNK, int.from_bytes(head[140:144], "little"))))
    except OSError:
        return None
    return None if meta is None or meta.sop_class_uid == MEDIA_STORAGE_DIRECTORY else meta
