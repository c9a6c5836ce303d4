"""The SQLite database of deliveries: schema, version, transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.workspace import sync_folders

__all__ = ["DeliveryDatabase"]

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE destinations (
  name TEXT PRIMARY KEY, settings TEXT NOT NULL, failures INTEGER NOT NULL DEFAULT 0,
  not_before REAL NOT NULL DEFAULT 0, problem TEXT NOT NULL DEFAULT '') STRICT;
CREATE TABLE batches (
  id INTEGER PRIMARY KEY, case_id INTEGER NOT NULL, revision INTEGER NOT NULL, destination TEXT NOT NULL,
  flow TEXT NOT NULL, hooks TEXT NOT NULL, own INTEGER NOT NULL, created REAL NOT NULL,
  notified INTEGER NOT NULL DEFAULT 0, UNIQUE (case_id, revision, destination)) STRICT;
CREATE TABLE objects (
  id INTEGER PRIMARY KEY, batch INTEGER NOT NULL REFERENCES batches, destination TEXT NOT NULL,
  sop_instance_uid TEXT NOT NULL, sop_class_uid TEXT NOT NULL, series_instance_uid TEXT NOT NULL,
  study_instance_uid TEXT NOT NULL, transfer_syntax TEXT NOT NULL, sha256 TEXT NOT NULL, path TEXT NOT NULL,
  size INTEGER NOT NULL, priority INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
  detail TEXT NOT NULL DEFAULT '', status INTEGER, sends INTEGER NOT NULL DEFAULT 0,
  not_before REAL NOT NULL DEFAULT 0, queued REAL, sent REAL, confirmed TEXT NOT NULL DEFAULT '',
  asks INTEGER NOT NULL DEFAULT 0, losses INTEGER NOT NULL DEFAULT 0,
  UNIQUE (destination, sop_instance_uid, sha256)) STRICT;
CREATE INDEX objects_of_state ON objects (state, destination);
CREATE INDEX objects_of_batch ON objects (batch, state);
CREATE TABLE notifications (
  id INTEGER PRIMARY KEY, batch INTEGER NOT NULL, event TEXT NOT NULL, hook TEXT NOT NULL, message TEXT NOT NULL,
  state TEXT NOT NULL DEFAULT 'queued', attempts INTEGER NOT NULL DEFAULT 0, not_before REAL NOT NULL DEFAULT 0,
  problem TEXT NOT NULL DEFAULT '') STRICT;
"""


class DeliveryDatabase:
    """A connection to ``deliveries.sqlite`` (WAL mode, full synchronisation: a commit is on disk when it returns).

    Several processes and threads write, each with a connection of its own; each transaction is short.

    Parameters
    ----------
    path : Path
        Created if it does not exist.

    Raises
    ------
    UsageError
        BAD_STATION if the file is of another version or is not a database.
    """

    def __init__(self, path: Path) -> None:
        new = not path.exists()
        self._db = sqlite3.connect(path, timeout=30, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        try:
            path.chmod(0o600)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("BEGIN IMMEDIATE")  # two processes may create it at once
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _SCHEMA_VERSION):
                message = f"the deliveries have version {version}, this software writes {_SCHEMA_VERSION}"
                raise UsageError(Reason.BAD_STATION, message, "use the version that made them")
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            self._db.execute("COMMIT")
        except sqlite3.OperationalError:  # locked for too long, or the disk is full
            self._db.close()
            raise
        except sqlite3.DatabaseError as error:
            self._db.close()
            message = f"{path.name} cannot be read as the database of deliveries"
            raise UsageError(Reason.BAD_STATION, message, "restore it from a copy") from error
        except BaseException:
            self._db.close()
            raise
        if new:
            sync_folders([path.parent])

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        """Return the rows of a query, with access by column name."""
        return self._db.execute(sql, values).fetchall()

    def value(self, sql: str, values: Sequence[object] = ()) -> int:
        """Return the one whole number that a query yields; 0 for NULL."""
        return int(self._db.execute(sql, values).fetchone()[0] or 0)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Open a write transaction: committed and on disk at the end of the block, rolled back if it raises."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the connection."""
        self._db.close()
