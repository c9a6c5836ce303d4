"""The SQLite database of a station: received objects, associations, cases and their revisions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.workspace import sync_folders

__all__ = ["StationDatabase"]

_SCHEMA_VERSION = 3
"""2: the table `unsettled`; 3: the tables of flows."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS associations (
  id INTEGER PRIMARY KEY, source TEXT NOT NULL, sender TEXT NOT NULL, host TEXT NOT NULL, priority INTEGER NOT NULL,
  deadline REAL, started REAL NOT NULL, ended REAL, ending TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS instances (
  id INTEGER PRIMARY KEY, sop_instance_uid TEXT NOT NULL, sop_class_uid TEXT NOT NULL, transfer_syntax TEXT NOT NULL,
  sha256 TEXT NOT NULL, size INTEGER NOT NULL, path TEXT NOT NULL UNIQUE, association INTEGER NOT NULL,
  received REAL NOT NULL, conflict INTEGER NOT NULL, case_id INTEGER, revision INTEGER,
  series_instance_uid TEXT NOT NULL DEFAULT '', modality TEXT NOT NULL DEFAULT '', fault TEXT NOT NULL DEFAULT '',
  cataloged INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE INDEX IF NOT EXISTS instances_of_sop ON instances (sop_instance_uid);
CREATE INDEX IF NOT EXISTS instances_of_case ON instances (case_id, revision);
CREATE INDEX IF NOT EXISTS instances_without_case ON instances (id) WHERE case_id IS NULL;
CREATE INDEX IF NOT EXISTS instances_of_association ON instances (association);
CREATE INDEX IF NOT EXISTS instances_not_in_catalog ON instances (id) WHERE cataloged = 0;
CREATE TABLE IF NOT EXISTS unsettled (instance INTEGER PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS resent (
  association INTEGER NOT NULL, instance INTEGER NOT NULL, PRIMARY KEY (association, instance)) STRICT;
CREATE INDEX IF NOT EXISTS resent_of_instance ON resent (instance);
CREATE TABLE IF NOT EXISTS cases (
  id INTEGER PRIMARY KEY, study_instance_uid TEXT NOT NULL UNIQUE, revision INTEGER NOT NULL,
  priority INTEGER NOT NULL, deadline REAL, held TEXT NOT NULL DEFAULT '') STRICT;
CREATE TABLE IF NOT EXISTS revisions (
  case_id INTEGER NOT NULL, revision INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
  message TEXT NOT NULL DEFAULT '', created REAL NOT NULL, open_seconds REAL NOT NULL DEFAULT 0,
  closed REAL, started REAL, ended REAL, deaths INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (case_id, revision)) STRICT;
CREATE INDEX IF NOT EXISTS revisions_of_state ON revisions (state);
CREATE TABLE IF NOT EXISTS flow_files (sha256 TEXT PRIMARY KEY, content BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS case_flows (
  case_id INTEGER NOT NULL, revision INTEGER NOT NULL, flow TEXT NOT NULL, sha256 TEXT NOT NULL,
  priority INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL, files TEXT NOT NULL,
  roles TEXT NOT NULL, failures TEXT NOT NULL, started REAL, ended REAL,
  PRIMARY KEY (case_id, revision, flow)) STRICT;
"""


class StationDatabase:
    """A connection to ``station.sqlite`` (WAL mode; a commit is on disk when it returns, unless it need not be).

    Several processes write; each transaction is short, and the others wait for it.

    Parameters
    ----------
    path : Path
        Created if it does not exist, unless `read_only`.
    read_only : bool
        Never create or change anything.

    Raises
    ------
    UsageError
        BAD_STATION if the file is of another version or is not a database.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        new = not path.exists()
        if read_only:
            self._db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30, check_same_thread=False)
        else:
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        try:
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in range(_SCHEMA_VERSION + 1):
                message = f"the station has version {version}, this software writes {_SCHEMA_VERSION}"
                raise UsageError(Reason.BAD_STATION, message, "use the version that made it")
            if not read_only:
                path.chmod(0o600)
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                if version < _SCHEMA_VERSION:
                    self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")
        except sqlite3.DatabaseError as error:
            self._db.close()
            message = f"{path.name} cannot be read as the database of a station"
            raise UsageError(Reason.BAD_STATION, message, "restore it from a copy, or name a new folder") from error
        except BaseException:
            self._db.close()
            raise
        if new and not read_only:
            sync_folders([path.parent])

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        """Return the rows of a query, with access by column name."""
        return self._db.execute(sql, values).fetchall()

    def value(self, sql: str, values: Sequence[object] = ()) -> int:
        """Return the one whole number that a query yields; 0 for NULL."""
        return int(self._db.execute(sql, values).fetchone()[0] or 0)

    @contextmanager
    def transaction(self, *, sync: bool = True) -> Iterator[sqlite3.Connection]:
        """Open a write transaction: committed at the end of the block, rolled back if it raises.

        Parameters
        ----------
        sync : bool
            Whether it is on disk at the end of the block, with all that was committed before. If not, a kill of the
            process does not undo it, and a power failure may.
        """
        self._db.execute("PRAGMA synchronous = FULL" if sync else "PRAGMA synchronous = NORMAL")
        self._db.execute("BEGIN IMMEDIATE")
        try:
            if sync:
                self._db.execute(
                    f"PRAGMA user_version = {_SCHEMA_VERSION}"
                )  # only a commit that writes is synchronised
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def __enter__(self) -> StationDatabase:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
