"""The ledger: one SQLite file a run that knows how everything ended, and survives anything.

Only the process that conducts a run writes it (WAL mode, full synchronisation); any other process may read it while
the run goes on. Several runners on one machine share a cohort through *leases*: a series is worked on by whoever
holds its lease, and a result is taken only with the lease's fencing token, so that a runner that slept past its
lease cannot commit.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ctenrich.errors import InconsistencyError, UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Outcome, Severity, State

__all__ = ["Lease", "Leases", "Ledger", "StageTiming", "balance"]

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


@dataclass(frozen=True)
class StageTiming:
    """How long one stage of one product took."""

    series_instance_uid: str
    product: str
    stage: str
    seconds: float
    cpu_seconds: float
    peak_memory: int
    worker: str = ""


@dataclass(frozen=True)
class Lease:
    """The right to work on a series until `expires` (monotonic seconds of this machine's current boot)."""

    series_instance_uid: str
    owner: str
    token: int
    expires: float


class Leases(Protocol):
    """Who works on which series: held in the ledger, or in a store that several machines see."""

    poll_interval: float
    """Seconds to wait before asking again for series that others hold."""

    def acquire(self, series_instance_uid: str, owner: str, seconds: float) -> Lease | None:
        """Take the lease of a series if nobody holds it; None if it is held, or finished elsewhere."""

    def renew(self, lease: Lease, seconds: float) -> Lease | None:
        """Extend a lease; None if somebody else has taken it meanwhile."""

    def holds(self, lease: Lease) -> bool:
        """Whether the lease is still the newest: only then may a result be committed."""

    def release(self, lease: Lease, *, finished: bool = False) -> None:
        """Give a lease back; `finished`: the series has its outcome."""

    def finished_elsewhere(self, series_instance_uid: str) -> bool:
        """Whether a runner with another ledger has given the series its outcome."""


class Ledger:
    """Outcomes, timings and issues of one run.

    Parameters
    ----------
    path : Path
        ``ledger.sqlite`` of the run; made if missing.
    read_only : bool
        For watchers: never creates or changes anything.

    Raises
    ------
    UsageError
        BAD_RUN if the file is not a ledger of this version.
    """

    poll_interval = 0.2

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = Path(path)
        if read_only and not self.path.is_file():
            raise UsageError(Reason.BAD_RUN, "the folder has no ledger", "is it a run's folder?")
        if read_only:
            self._db = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=30)
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        try:
            self._open(read_only)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise UsageError(Reason.BAD_RUN, f"the ledger cannot be read: {error}") from error

    def _open(self, read_only: bool) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _SCHEMA_VERSION):
            raise UsageError(
                Reason.BAD_RUN,
                f"the ledger has version {version}, this software writes {_SCHEMA_VERSION}",
                "use the version that made the run, or start a new run folder",
            )
        if read_only:
            return
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")

    def close(self) -> None:
        """Close the file; the ledger cannot be used afterwards."""
        self._db.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # ------------------------------------------------------------ what is planned

    def set_plan(self, jobs: Sequence[tuple[str, str]]) -> None:
        """State the (series, product) pairs that must end in an outcome; product ``""`` is the series itself."""
        with self._write() as db:
            db.execute("DELETE FROM plan")
            db.executemany("INSERT INTO plan VALUES (?, ?, ?)", [(s, p, i) for i, (s, p) in enumerate(jobs)])
            db.execute(
                "DELETE FROM outcomes WHERE NOT EXISTS (SELECT 1 FROM plan WHERE "
                "plan.series_instance_uid = outcomes.series_instance_uid AND plan.product = outcomes.product)"
            )

    def plan(self) -> list[tuple[str, str]]:
        """The planned (series, product) pairs, in order."""
        return self._db.execute("SELECT series_instance_uid, product FROM plan ORDER BY position").fetchall()

    # ------------------------------------------------------------ how it ended

    def record(self, outcome: Outcome) -> None:
        """Keep how a product (or series) ended; a later outcome of the same replaces it."""
        reason = outcome.reason.value if outcome.reason else ""
        with self._write() as db:
            db.execute(
                "INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (outcome.series_instance_uid, outcome.product, outcome.state.value, outcome.stage, reason,
                 outcome.message, outcome.seconds, outcome.peak_memory),
            )  # fmt: skip

    def forget(self, jobs: Iterable[tuple[str, str]]) -> None:
        """Drop outcomes so that their products are run again."""
        with self._write() as db:
            db.executemany("DELETE FROM outcomes WHERE series_instance_uid = ? AND product = ?", list(jobs))

    def outcomes(self) -> list[Outcome]:
        """All outcomes, in the plan's order."""
        rows = self._db.execute(
            "SELECT o.* FROM outcomes o LEFT JOIN plan USING (series_instance_uid, product) "
            "ORDER BY plan.position, o.series_instance_uid, o.product"
        ).fetchall()
        return [
            Outcome(uid, product, State(state), stage, Reason(reason) if reason else None, message, seconds, peak)
            for uid, product, state, stage, reason, message, seconds, peak in rows
        ]

    def add_timing(self, timing: StageTiming) -> None:
        """Keep how long a stage took; repeated work gets the next attempt number."""
        with self._write() as db:
            db.execute(
                "INSERT INTO timings SELECT ?1, ?2, ?3, 1 + coalesce(max(attempt), 0), ?4, ?5, ?6, ?7, ?8 "
                "FROM timings WHERE series_instance_uid = ?1 AND product = ?2 AND stage = ?3",
                (timing.series_instance_uid, timing.product, timing.stage, timing.seconds, timing.cpu_seconds,
                 timing.peak_memory, timing.worker, time.time()),
            )  # fmt: skip

    def timings(self) -> list[tuple[str, str, str, int, float, float, int, str, float]]:
        """Rows (series, product, stage, attempt, seconds, CPU seconds, peak bytes, worker, finished)."""
        return self._db.execute("SELECT * FROM timings ORDER BY finished, stage").fetchall()

    def set_issues(self, series_instance_uid: str, product: str, stage: str, issues: Sequence[Issue]) -> None:
        """Replace the issues of one stage of one product."""
        with self._write() as db:
            db.execute(
                "DELETE FROM issues WHERE series_instance_uid = ? AND product = ? AND stage = ?",
                (series_instance_uid, product, stage),
            )
            db.executemany(
                "INSERT INTO issues VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(series_instance_uid, product, stage, i.rule, i.severity.value, i.object, i.message, i.checker,
                  i.checker_version) for i in issues],
            )  # fmt: skip

    def issues(self) -> list[tuple[str, str, str, Issue]]:
        """(series, product, stage, issue), sorted."""
        rows = self._db.execute(
            "SELECT * FROM issues ORDER BY series_instance_uid, product, stage, rule, object, message"
        ).fetchall()
        return [
            (uid, product, stage, Issue(rule, Severity(severity), about, message, checker, version))
            for uid, product, stage, rule, severity, about, message, checker, version in rows
        ]

    # ------------------------------------------------------------ runs

    def start_run(self, command: str, version: str, executor: str) -> int:
        """Note that a runner starts; returns its number."""
        with self._write() as db:
            cursor = db.execute(
                "INSERT INTO runs VALUES (?, NULL, ?, ?, ?, ?, ?, '')",
                (time.time(), command, version, executor, os.getpid(), os.uname().machine),
            )
            return int(cursor.lastrowid or 0)

    def finish_run(self, number: int, ended: str) -> None:
        """Note how a runner ended (``done``, ``interrupted``, ``budget`` ...)."""
        with self._write() as db:
            db.execute("UPDATE runs SET finished = ?, ended = ? WHERE rowid = ?", (time.time(), ended, number))

    def runs(self) -> list[tuple[float, float | None, str, str, str, int, str, str]]:
        """Rows (started, finished, command, version, executor, pid, machine, ended)."""
        return self._db.execute("SELECT * FROM runs ORDER BY started").fetchall()

    # ------------------------------------------------------------ leases

    def acquire(self, series_instance_uid: str, owner: str, seconds: float) -> Lease | None:
        """Take the lease of a series if nobody holds it (or its holder let it expire); None if it is held."""
        now, boot = time.clock_gettime(time.CLOCK_BOOTTIME), _boot_id()
        with self._write() as db:
            row = db.execute(
                "SELECT owner, token, boot, expires FROM leases WHERE series_instance_uid = ?", (series_instance_uid,)
            ).fetchone()
            token = 1
            if row is not None:
                holder, last, held_boot, expires = row
                if holder not in ("", owner) and held_boot == boot and expires > now:
                    return None
                token = last + 1
            db.execute(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)",
                (series_instance_uid, owner, token, boot, now + seconds),
            )
        return Lease(series_instance_uid, owner, token, now + seconds)

    def renew(self, lease: Lease, seconds: float) -> Lease | None:
        """Extend a lease; None if somebody else has taken it meanwhile."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        with self._write() as db:
            cursor = db.execute(
                "UPDATE leases SET expires = ? WHERE series_instance_uid = ? AND owner = ? AND token = ?",
                (now + seconds, lease.series_instance_uid, lease.owner, lease.token),
            )
            if cursor.rowcount != 1:
                return None
        return Lease(lease.series_instance_uid, lease.owner, lease.token, now + seconds)

    def holds(self, lease: Lease) -> bool:
        """Whether the lease's token is still the newest: only then may a result be committed."""
        row = self._db.execute(
            "SELECT owner, token FROM leases WHERE series_instance_uid = ?", (lease.series_instance_uid,)
        ).fetchone()
        return bool(row == (lease.owner, lease.token))

    def release(self, lease: Lease, *, finished: bool = False) -> None:
        """Give a lease back; the token stays, so that the next one is higher. What is finished, the outcomes say."""
        with self._write() as db:
            db.execute(
                "UPDATE leases SET owner = '', expires = 0 WHERE series_instance_uid = ? AND owner = ? AND token = ?",
                (lease.series_instance_uid, lease.owner, lease.token),
            )

    def finished_elsewhere(self, series_instance_uid: str) -> bool:
        """Never: all who share a ledger write their outcomes into it."""
        return False


def balance(plan: Sequence[tuple[str, str]], outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Count outcomes by state and make sure that the books balance.

    Returns
    -------
    dict
        State -> number of planned (series, product) pairs.

    Raises
    ------
    InconsistencyError
        If something that was planned has no outcome, or an outcome was never planned.
    """
    ended = {(o.series_instance_uid, o.product) for o in outcomes}
    planned = set(plan)
    if ended != planned:
        missing, extra = len(planned - ended), len(ended - planned)
        raise InconsistencyError(
            Reason.INCONSISTENT_TOTALS, f"{missing} of {len(planned)} without an outcome, {extra} unplanned outcomes"
        )
    counts = {state.value: 0 for state in State}
    for outcome in outcomes:
        counts[outcome.state.value] += 1
    return counts


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
