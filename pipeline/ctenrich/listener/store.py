"""The durable store of received objects: an object is acknowledged only after its bytes and its row are on disk.

An object is written to a file of its own under a number. The name of the file was made durable before (files are
created in advance, a few dozen with one synchronisation of their folder). When the object is complete its bytes are
synchronised, then the row with its SHA-256 is committed. Rows of objects that arrive at the same time share a commit.
A file without a row was never acknowledged, and is deleted when the store is opened.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from ctenrich.listener.config import Limits
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.disk import Disk
from ctenrich.listener.incoming import FileMeta, IncomingFile, StoreStatus
from ctenrich.listener.station import Station

__all__ = ["ObjectStore", "Receipt", "Result"]

_PER_FOLDER = 1000
_IN_ADVANCE = 32
"""Files that are created at a time."""


class Result(StrEnum):
    """What became of an object."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    """The same bytes were received before: acknowledged, and not kept twice."""
    CONFLICT = "conflict"
    """Other bytes were received before under this SOP Instance UID: both are kept."""
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """Answer of the store about one object."""

    result: Result
    status: StoreStatus
    size: int = 0
    """Bytes of the file that was stored."""


@dataclass(kw_only=True)
class _Pending:
    """A row that waits for the next commit."""

    values: tuple[object, ...]
    association: int
    sop_instance_uid: str
    sha256: str
    result: Result = Result.REFUSED
    error: sqlite3.Error | None = None
    done: threading.Event = field(default_factory=threading.Event)


class ObjectStore:
    """Stores received objects.

    Parameters
    ----------
    station : Station
        The station; its lock is held.
    database : StationDatabase
        Used by the thread of the store alone.
    limits : Limits
        Largest object, reserve of the disk.
    disk : Disk
        How files are written.
    """

    def __init__(
        self, station: Station, database: StationDatabase, limits: Limits, *, disk: Disk | None = None
    ) -> None:
        self._station = station
        self._database = database
        self._limits = limits
        self._disk = disk or Disk()
        self._lock = threading.Lock()
        self._ready: list[tuple[Path, int]] = []
        self._next = self._recover() + 1
        self._queue: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._commit_rows, name="store", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------ opening

    def _recover(self) -> int:
        """Delete the files that have no row, which were never acknowledged; returns the largest number in use."""
        largest = self._database.value("SELECT max(id) FROM instances")
        for folder in sorted(self._station.received.iterdir()):
            names = {
                row["path"] for row in self._database.rows(
                    "SELECT path FROM instances WHERE path BETWEEN ? AND ?", (f"{folder.name}/", f"{folder.name}/~")
                )
            }  # fmt: skip
            for path in folder.iterdir():
                if f"{folder.name}/{path.name}" not in names:
                    path.unlink()
        return largest

    def missing(self) -> list[int]:
        """Numbers of objects that have a row, and whose file is not there or has another size."""
        found = []
        for row in self._database.rows("SELECT id, path, size FROM instances ORDER BY id"):
            path = self._station.received / row["path"]
            if not path.is_file() or path.stat().st_size != row["size"]:
                found.append(int(row["id"]))
        return found

    # ------------------------------------------------------------ receiving

    def full(self) -> bool:
        """Whether the reserve of the disk is reached."""
        try:
            return self._disk.free(self._station.received) < self._limits.reserve
        except OSError:
            return True

    def begin(self) -> IncomingFile:
        """Start an object; its file has a name that a power failure does not take away.

        Raises
        ------
        OSError
            If no file can be created.
        """
        with self._lock:
            if not self._ready:
                self._create_files()
            path, descriptor = self._ready.pop()
        return IncomingFile(path, descriptor, self._disk, limit=self._limits.max_object, full=self.full)

    def _create_files(self) -> None:
        """Create files in advance, and make their names durable."""
        touched = set()
        made = []
        try:
            for number in range(self._next, self._next + _IN_ADVANCE):
                folder = self._station.received / f"{number // _PER_FOLDER:06d}"
                if not folder.is_dir():
                    folder.mkdir(mode=0o700)
                    touched.add(self._station.received)
                path = folder / f"{number:09d}.dcm"
                made.append((path, self._disk.create(path)))
                touched.add(folder)
                self._next = number + 1
            for folder in sorted(touched, reverse=True):
                self._disk.sync_folder(folder)
        finally:
            self._ready = made[::-1] if len(made) == _IN_ADVANCE else []
            if not self._ready:
                for path, descriptor in made:
                    IncomingFile(path, descriptor, self._disk, limit=0, full=lambda: False).discard()

    def commit(self, file: IncomingFile, meta: FileMeta, association: int) -> Receipt:
        """Store an object that has arrived whole; returns once it is on disk, or it is refused and its file deleted.

        Parameters
        ----------
        file : IncomingFile
            The object.
        meta : FileMeta
            Its identifiers.
        association : int
            Row of the association, request or folder that it came by.

        Returns
        -------
        Receipt
            Status SUCCESS promises that the object outlives a kill and a power failure.
        """
        if file.finish() is not StoreStatus.SUCCESS:
            file.discard()
            return Receipt(result=Result.REFUSED, status=file.status)
        name = f"{file.path.parent.name}/{file.path.name}"
        values = (int(file.path.stem), meta.sop_instance_uid, meta.sop_class_uid, meta.transfer_syntax, file.sha256)
        pending = _Pending(
            values=(*values, file.size, name, association, time.time()),
            association=association,
            sop_instance_uid=meta.sop_instance_uid,
            sha256=file.sha256,
        )
        self._queue.put(pending)
        pending.done.wait()
        if pending.result in (Result.DUPLICATE, Result.REFUSED):
            file.discard()
        else:
            file.close()
        if pending.result is Result.REFUSED:
            return Receipt(result=Result.REFUSED, status=StoreStatus.OUT_OF_RESOURCES)
        size = 0 if pending.result is Result.DUPLICATE else file.size
        return Receipt(result=pending.result, status=StoreStatus.SUCCESS, size=size)

    # ------------------------------------------------------------ the thread that commits

    def _commit_rows(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                return
            batch = [first]
            while not self._queue.empty():
                following = self._queue.get()
                if following is None:
                    self._queue.put(None)
                    break
                batch.append(following)
            try:
                with self._database.transaction() as db:
                    for pending in batch:
                        pending.result = _insert(db, pending)
            except sqlite3.Error as error:
                for pending in batch:
                    pending.result, pending.error = Result.REFUSED, error
            for pending in batch:
                pending.done.set()

    def close(self) -> None:
        """Wait for the last commit, and delete the files that were created in advance."""
        self._queue.put(None)
        self._thread.join()
        with self._lock:
            for path, descriptor in self._ready:
                IncomingFile(path, descriptor, self._disk, limit=0, full=lambda: False).discard()
            self._ready = []


def _insert(db: sqlite3.Connection, pending: _Pending) -> Result:
    """Insert the row of an object, unless the same bytes have one; returns what the object is."""
    known = db.execute(
        "SELECT id, sha256 FROM instances WHERE sop_instance_uid = ?", (pending.sop_instance_uid,)
    ).fetchall()
    same = [row["id"] for row in known if row["sha256"] == pending.sha256]
    if same:
        db.execute("INSERT OR IGNORE INTO resent VALUES (?, ?)", (pending.association, same[0]))
        return Result.DUPLICATE
    db.execute(
        "INSERT INTO instances (id, sop_instance_uid, sop_class_uid, transfer_syntax, sha256, size, path, association,"
        " received, conflict) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*pending.values, bool(known)),
    )
    return Result.CONFLICT if known else Result.STORED
