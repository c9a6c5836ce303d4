"""The SQLite database below the ledger: schema, version, transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason

__all__ = ["Database"]

_SCHEMA_VERSION = 1
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
        BAD_RUN if the file is not a ledger of this version, or does not exist (`read_only`).
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        if read_only and not path.is_file():
            raise UsageError(Reason.BAD_RUN, "the folder has no ledger", "is it a run's folder?")
        if read_only:
            self._connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=30, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        try:
            self._check_version(read_only)
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise UsageError(Reason.BAD_RUN, f"the ledger cannot be read: {error}") from error
        except UsageError:
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

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        """Return the rows of a query, with access by column name."""
        return self._connection.execute(sql, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Open a write transaction: committed at the end of the block, rolled back if it raises."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
