"""The SQLite database below the ledger: schema, version, transactions."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ctenrich.errors import InputError, UsageError
from ctenrich.reasons import Reason

__all__ = ["Database", "check_database_path", "damaged_ledger", "set_aside_if_damaged"]

_SCHEMA_VERSION = 1
_LONGEST_PATH = 480
"""Bytes; SQLite opens no path of more than 512, and appends a suffix to the name."""
_FULL_BELOW = 1 << 20
"""Free bytes of a disk on which SQLite's less specific errors mean that it is full."""
_SALVAGED = (
    ("SELECT * FROM timings", "INSERT INTO timings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"),
    ("SELECT * FROM issues", "INSERT INTO issues VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"),
    ("SELECT * FROM runs", "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?)"),
)
"""Statements that read and write the tables that manifests cannot replace."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS plan (
  series_instance_uid TEXT NOT NULL, product TEXT NOT NULL, position INTEGER NOT NULL,
  PRIMARY KEY (series_instance_uid, product)) STRICT;
CREATE TABLE IF NOT EXISTS outcomes (
  series_instance_uid TEXT NOT NULL, product TEXT NOT NULL, state TEXT NOT NULL, stage TEXT NOT NULL,
  reason TEXT NOT NULL, message TEXT NOT NULL, seconds REAL NOT NULL, peak_memory INTEGER NOT NULL,
  PRIMARY KEY (series_instance_uid, product)) STRICT;
CREATE TABLE IF NOT EXISTS timings (
  series_instance_uid TEXT NOT NULL, product TEXT NOT NULL, stage TEXT NOT NULL, attempt INTEGER NOT NULL,
  seconds REAL NOT NULL, cpu_seconds REAL NOT NULL, peak_memory INTEGER NOT NULL, worker TEXT NOT NULL,
  finished REAL NOT NULL,
  PRIMARY KEY (series_instance_uid, product, stage, attempt)) STRICT;
CREATE TABLE IF NOT EXISTS issues (
  series_instance_uid TEXT NOT NULL, product TEXT NOT NULL, stage TEXT NOT NULL, rule TEXT NOT NULL,
  severity TEXT NOT NULL, object TEXT NOT NULL, message TEXT NOT NULL, checker TEXT NOT NULL,
  checker_version TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS runs (
  started REAL NOT NULL, finished REAL, command TEXT NOT NULL, version TEXT NOT NULL, executor TEXT NOT NULL,
  pid INTEGER NOT NULL, machine TEXT NOT NULL, ended TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS leases (
  series_instance_uid TEXT PRIMARY KEY, owner TEXT NOT NULL, token INTEGER NOT NULL, boot TEXT NOT NULL,
  expires REAL NOT NULL) STRICT;
"""

_INDEXES = (
    "CREATE INDEX IF NOT EXISTS issues_of_stage ON issues (series_instance_uid, product, stage)",
    "CREATE INDEX IF NOT EXISTS timings_of_stage ON timings (stage, seconds, cpu_seconds, peak_memory)",
    "CREATE INDEX IF NOT EXISTS outcomes_of_state ON outcomes (state, reason, product)",
)
"""Indexes; a ledger of version 0.1.0 gets them when it is opened for writing."""


class Database:
    """A connection to ``ledger.sqlite`` (WAL mode, full synchronisation).

    Parameters
    ----------
    path : Path
        Created if it does not exist, unless `read_only`.
    read_only : bool
        Never create or change anything; another process may write meanwhile.

    Raises
    ------
    UsageError
        BAD_RUN if the file is a ledger of another version, or does not exist (`read_only`).
    InputError
        DAMAGED_LEDGER if the file is not a database or some of its pages are damaged; also raised by all methods.
    OSError
        ENOSPC if the disk is full; also raised by all methods.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        if read_only and not path.is_file():
            raise UsageError(Reason.BAD_RUN, "the folder has no ledger", "is it a run's folder?")
        self._path = path
        with self._typed_errors():
            self._connection = _connect(path, read_only=read_only)
        try:
            with self._typed_errors():
                self._check_version(read_only)
        except BaseException:
            self._connection.close()
            raise

    def _check_version(self, read_only: bool) -> None:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _SCHEMA_VERSION):
            raise UsageError(
                Reason.BAD_RUN,
                f"the ledger has version {version}, this software writes {_SCHEMA_VERSION}",
                "use the version that made the run, or start a new run folder",
            )
        if read_only and version == 0:
            raise UsageError(Reason.BAD_RUN, "the ledger is empty", "wait until the run has started")
        if read_only:
            return
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        if version == 0:
            self._connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")
        for statement in _INDEXES:
            self._connection.execute(statement)

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        """Return the rows of a query, with access by column name."""
        with self._typed_errors():
            return self._connection.execute(sql, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Open a write transaction: committed at the end of the block, rolled back if it raises."""
        with self._typed_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _typed_errors(self) -> Iterator[None]:
        """Raise typed errors for a damaged file and a full disk."""
        try:
            yield
        except UnicodeDecodeError as error:  # SQLite returns text as it is on the page; Python decodes it
            raise damaged_ledger("a text is not UTF-8") from error
        except sqlite3.DatabaseError as error:
            if _is_damage(error):
                raise damaged_ledger(str(error)) from error
            if _is_full(error, self._path.parent):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path)) from error
            raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def check_database_path(path: Path) -> None:
    """Refuse a path that SQLite could not open, before anything is written.

    Raises
    ------
    UsageError
        BAD_RUN.
    """
    length = len(os.fsencode(path.absolute()))
    if length > _LONGEST_PATH:
        message = f"the path of the run's folder is too long for its ledger: {length} bytes of {_LONGEST_PATH}"
        raise UsageError(Reason.BAD_RUN, message, "choose a shorter --out folder")


def damaged_ledger(detail: str) -> InputError:
    """Return the error of a ledger that cannot be read, with what to do."""
    return InputError(
        Reason.DAMAGED_LEDGER,
        f"the ledger is damaged: {detail}",
        "run ctenrich run again: it keeps the damaged file as ledger.sqlite.broken-N and makes the ledger anew from "
        "the manifests; nothing that is done is done again",
    )


def set_aside_if_damaged(path: Path) -> Path | None:
    """Rename a damaged ledger to ``NAME.broken-N`` and start a new one with the rows that can still be read.

    Outcomes are not copied: the next pass of a runner derives them from the manifests. Timings, issues and starts of
    runners are copied as far as their pages can be read.

    Parameters
    ----------
    path : Path
        ``ledger.sqlite``; no runner may be at work.

    Returns
    -------
    Path or None
        The damaged file; None if there is no ledger, or it is not damaged.
    """
    if not path.is_file() or not _has_damage(path):
        return None
    number = next(n for n in range(1, 1_000_000) if not path.with_name(f"{path.name}.broken-{n}").exists())
    broken = path.with_name(f"{path.name}.broken-{number}")
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(broken.with_name(broken.name + suffix))
    with Database(path, read_only=False) as database:
        for select, insert in _SALVAGED:
            rows = _readable_rows(broken, select)
            with database.transaction() as db:
                for row in rows:
                    with suppress(sqlite3.IntegrityError, sqlite3.ProgrammingError):  # a damaged row does not fit
                        db.execute(insert, row)
    return broken


def _connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    if read_only:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        # leases are renewed from a second thread while the first one waits for a job
        connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    return connection


_ALL_COLUMNS = (
    "SELECT series_instance_uid, product, position FROM plan",
    "SELECT series_instance_uid, product, state, stage, reason, message, seconds, peak_memory FROM outcomes",
    "SELECT series_instance_uid, product, stage, attempt, worker, seconds, cpu_seconds, finished FROM timings",
    "SELECT series_instance_uid, product, stage, rule, severity, object, message, checker, checker_version FROM issues",
    "SELECT started, finished, command, version, executor, pid, machine, ended FROM runs",
    "SELECT series_instance_uid, owner, token, boot, expires FROM leases",
)
_OTHER_SCHEMA = ("no such table", "no such column", "has no column named", "values were supplied")
"""Messages of SQLite where the page that holds the schema was changed."""


def _has_damage(path: Path) -> bool:
    try:
        connection = _connect(path, read_only=True)
        try:
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if found is None or found[0] != "ok":
                return True
            if connection.execute("PRAGMA user_version").fetchone()[0] != _SCHEMA_VERSION:
                return False  # of another version, or not made yet
            for select in _ALL_COLUMNS:  # the integrity check decodes no text, and accepts any schema
                deque(connection.execute(select), maxlen=0)
            return False
        finally:
            connection.close()
    except UnicodeDecodeError:
        return True
    except sqlite3.DatabaseError as error:
        return _is_damage(error)


def _readable_rows(path: Path, select: str) -> list[tuple[object, ...]]:
    """Rows that a statement returns before the first page that cannot be read."""
    rows: list[tuple[object, ...]] = []
    with suppress(sqlite3.Error, UnicodeDecodeError):
        connection = _connect(path, read_only=True)
        try:
            rows.extend(map(tuple, connection.execute(select)))  # rows before an error are kept
        finally:
            connection.close()
    return rows


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    code, text = getattr(error, "sqlite_errorcode", 0) & 0xFF, str(error)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "Could not decode" in text:
        return True
    return code == sqlite3.SQLITE_ERROR and any(words in text for words in _OTHER_SCHEMA)


def _is_full(error: sqlite3.DatabaseError, folder: Path) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return True
    if code not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        return False
    try:
        return shutil.disk_usage(folder).free < _FULL_BELOW
    except OSError:
        return False
