"""The durable store of received objects: an object is acknowledged only after its bytes and its row are on disk.

An object is written to a file of its own under a number. The name of the file was made durable before (files are
created in advance, a few dozen with one synchronisation of their folder). When the object is complete, a trailer with
its UIDs and SHA-256 is added to the file and both are synchronised; then its row is committed, and the object is
acknowledged. The row is not synchronised: after a power failure it is made again from the trailer. A few times a
second all rows are synchronised at once, and then the trailers of their files are cut off. Until that has happened the
number of an object is in the table `unsettled`, and no case gets it.

A file with neither a row nor a trailer was never acknowledged, and is deleted when the store is opened.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from ctenrich.listener.config import Limits
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.disk import Disk
from ctenrich.listener.incoming import FileMeta, IncomingFile, StoreStatus
from ctenrich.listener.station import Station
from ctenrich.listener.trailer import Trailer, encode_trailer, read_trailer

__all__ = ["ObjectStore", "Receipt", "Result"]

_PER_FOLDER = 1000
_IN_ADVANCE = 32
"""Files that are created at a time."""
_LOW = 16
"""Files left at which the next ones are created, so that no object waits for them."""
_SETTLE_SECONDS = 0.25
"""Time after which a row is synchronised, with all others."""


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
    """An object whose row waits for the next commit."""

    number: int
    path: Path
    trailer: Trailer
    result: Result = Result.REFUSED
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
    settle_seconds : float
        Time after which rows are synchronised.
    """

    def __init__(
        self,
        station: Station,
        database: StationDatabase,
        limits: Limits,
        *,
        disk: Disk | None = None,
        settle_seconds: float = _SETTLE_SECONDS,
    ) -> None:
        self._settle_seconds = settle_seconds
        self._station = station
        self._database = database
        self._limits = limits
        self._disk = disk or Disk()
        self._lock = threading.Lock()
        self._creating = threading.Lock()
        self._ready: deque[tuple[Path, int]] = deque()
        self._few = threading.Event()
        self._closed = False
        self._queue: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        self._unsettled: list[_Pending] = []
        self._settle_at = 0.0
        self._next = self._recover() + 1
        self._threads = [
            threading.Thread(target=self._commit_rows, name="store", daemon=True),
            threading.Thread(target=self._create_in_advance, name="files", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    # ------------------------------------------------------------ opening

    def _recover(self) -> int:
        """Make rows that a power failure took away again, and delete what was never acknowledged.

        Returns
        -------
        int
            The largest number of an object.
        """
        without_row: list[_Pending] = []
        longer: list[tuple[Path, int]] = []
        for folder in sorted(self._station.received.iterdir()):
            sizes = {
                row["path"]: row["size"] for row in self._database.rows(
                    "SELECT path, size FROM instances WHERE path BETWEEN ? AND ?",
                    (f"{folder.name}/", f"{folder.name}/~"),
                )
            }  # fmt: skip
            for path in sorted(folder.iterdir()):
                size = sizes.get(f"{folder.name}/{path.name}")
                if size is not None:
                    if path.stat().st_size > size:
                        longer.append((path, size))
                elif path.stat().st_size and (trailer := read_trailer(path)) is not None:
                    without_row.append(_Pending(number=int(path.stem), path=path, trailer=trailer))
                else:
                    path.unlink()
        with self._database.transaction() as db:
            for pending in without_row:
                _insert(db, pending)
        for pending in without_row:
            if pending.result is Result.DUPLICATE:
                pending.path.unlink()
            else:
                longer.append((pending.path, pending.trailer.size))
        for path, size in longer:
            self._disk.truncate(path, size)
        with self._database.transaction() as db:
            db.execute("DELETE FROM unsettled")
        return self._database.value("SELECT max(id) FROM instances")

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
        while True:
            with self._lock:
                if len(self._ready) <= _LOW:
                    self._few.set()
                if self._ready:
                    path, descriptor = self._ready.popleft()
                    break
            self._create_files()
        return IncomingFile(path, descriptor, self._disk, limit=self._limits.max_object, full=self.full)

    def _create_in_advance(self) -> None:
        while True:
            self._few.wait()
            self._few.clear()
            if self._closed:
                return
            with suppress(OSError):  # `begin` tries again, and reports it
                self._create_files(at_most=_LOW)

    def _create_files(self, at_most: int = 0) -> None:
        """Create files in advance, and make their names durable, unless there are more than some of them."""
        with self._creating:
            if len(self._ready) > at_most:
                return
            touched, made = set(), []
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
            except BaseException:
                self._delete(made)
                raise
            with self._lock:
                self._ready.extend(made)

    def _delete(self, files: Iterable[tuple[Path, int]]) -> None:
        for path, descriptor in files:
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
        received = time.time()

        def trailer() -> Trailer:
            return Trailer.of(meta, sha256=file.sha256, size=file.size, association=association, received=received)

        if file.finish(lambda: encode_trailer(trailer())) is not StoreStatus.SUCCESS:
            file.discard()
            return Receipt(result=Result.REFUSED, status=file.status)
        pending = _Pending(number=int(file.path.stem), path=file.path, trailer=trailer())
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
        closing = False
        while not closing:
            batch, closing = self._next_batch()
            settle = bool(self._unsettled) and time.monotonic() >= self._settle_at
            try:
                with self._database.transaction(sync=settle) as db:
                    for pending in batch:
                        _insert(db, pending)
            except sqlite3.Error:
                for pending in batch:
                    pending.result = Result.REFUSED
                settle = False
            if not self._unsettled:
                self._settle_at = time.monotonic() + self._settle_seconds
            self._unsettled += [one for one in batch if one.result in (Result.STORED, Result.CONFLICT)]
            for pending in batch:
                pending.done.set()
            if settle:
                self._settle()

    def _next_batch(self) -> tuple[list[_Pending], bool]:
        """Return the rows that wait, none if it is time to settle, and whether the store is closed."""
        batch: list[_Pending] = []
        with suppress(queue.Empty):
            while True:
                left = max(0.0, self._settle_at - time.monotonic()) if self._unsettled else None
                one = self._queue.get(timeout=0.0 if batch else left)
                if one is None:
                    return batch, True
                batch.append(one)
        return batch, False

    def _settle(self) -> None:
        """Cut the trailers off whose rows are on disk."""
        self._settle_at = time.monotonic() + self._settle_seconds
        try:
            for pending in self._unsettled:
                with suppress(FileNotFoundError):  # its case was deleted meanwhile
                    self._disk.truncate(pending.path, pending.trailer.size)
            with self._database.transaction(sync=False) as db:
                numbers = [(pending.number,) for pending in self._unsettled]
                db.executemany("DELETE FROM unsettled WHERE instance = ?", numbers)
        except (OSError, sqlite3.Error):
            return  # the next time
        self._unsettled = []

    def close(self) -> None:
        """Wait for the last commit, and delete the files that were created in advance."""
        self._queue.put(None)
        self._closed = True
        self._few.set()
        for thread in self._threads:
            thread.join()
        if self._unsettled:  # the last commit was not synchronised
            with self._database.transaction():
                pass
            self._settle()
        with self._lock:
            self._delete(self._ready)
            self._ready.clear()


def _insert(db: sqlite3.Connection, pending: _Pending) -> None:
    """Insert the row of an object, unless the same bytes have one, and note what the object is."""
    one = pending.trailer
    known = db.execute(
        "SELECT id, sha256 FROM instances WHERE sop_instance_uid = ?", (one.sop_instance_uid,)
    ).fetchall()
    same = [row["id"] for row in known if row["sha256"] == one.sha256]
    if same:
        db.execute("INSERT OR IGNORE INTO resent VALUES (?, ?)", (one.association, same[0]))
        pending.result = Result.DUPLICATE
        return
    db.execute(
        "INSERT INTO instances (id, sop_instance_uid, sop_class_uid, transfer_syntax, sha256, size, path, association,"
        " received, conflict) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            pending.number,
            one.sop_instance_uid,
            one.sop_class_uid,
            one.transfer_syntax,
            one.sha256,
            one.size,
            f"{pending.path.parent.name}/{pending.path.name}",
            one.association,
            one.received,
            bool(known),
        ),
    )
    db.execute("INSERT INTO unsettled VALUES (?)", (pending.number,))
    pending.result = Result.CONFLICT if known else Result.STORED
