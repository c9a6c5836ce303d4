"""Write a ledger: outcomes, timings and issues of a run, and the starts of its runners.

Only the process that drives a run writes it; any other process may read it meanwhile
(:class:`ctenrich.ledger.reader.LedgerReader`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ctenrich.ledger.database import Database
from ctenrich.ledger.leases import LedgerLeases, boottime
from ctenrich.ledger.reader import LedgerReader
from ctenrich.ledger.rows import ProductKey, StageTiming
from ctenrich.records import Issue, Outcome

__all__ = ["Ledger"]


class Ledger(LedgerReader):
    """The ledger of one run, open for writing.

    Parameters
    ----------
    path : Path
        ``ledger.sqlite`` of the run; created if it does not exist.
    now : callable
        Wall clock, seconds since 1970: the times that are recorded.

    Raises
    ------
    UsageError
        BAD_RUN if the file is not a ledger of this version.
    """

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time) -> None:
        self._database = Database(Path(path), read_only=False)
        self._now = now

    def leases(self, clock: Callable[[], float] = boottime) -> LedgerLeases:
        """Return the leases that runners on this machine keep in this ledger; `clock` decides when they expire."""
        return LedgerLeases(self._database, clock)

    def set_plan(self, jobs: Iterable[tuple[str, str]]) -> None:
        """Record which products must end in an outcome; outcomes of any other product are deleted.

        Parameters
        ----------
        jobs : iterable of (Series Instance UID, product)
            In order; the product ``""`` is the series itself.
        """
        with self._database.transaction() as db:
            db.execute("DELETE FROM plan")
            db.executemany("INSERT INTO plan VALUES (?, ?, ?)", ((s, p, i) for i, (s, p) in enumerate(jobs)))
            db.execute(
                "DELETE FROM outcomes WHERE NOT EXISTS (SELECT 1 FROM plan WHERE "
                "plan.series_instance_uid = outcomes.series_instance_uid AND plan.product = outcomes.product)"
            )

    def record(self, *outcomes: Outcome) -> None:
        """Record how products ended, in one transaction; they replace earlier outcomes of the same products."""
        with self._database.transaction() as db:
            db.executemany("INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?, ?)", map(_values, outcomes))

    def record_unstarted(self, outcomes: Iterable[Outcome]) -> None:
        """Record outcomes of products that were not started, in one transaction; those that have ended keep theirs."""
        with self._database.transaction() as db:
            db.executemany(
                "INSERT INTO outcomes VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) "
                "ON CONFLICT (series_instance_uid, product) DO UPDATE SET state = ?3, stage = ?4, reason = ?5, "
                "message = ?6, seconds = ?7, peak_memory = ?8 WHERE state = 'not_started_budget'",
                map(_values, outcomes),
            )

    def forget(self, jobs: Iterable[tuple[str, str]]) -> None:
        """Delete the outcomes of products (Series Instance UID, product), so that they are run again."""
        with self._database.transaction() as db:
            db.executemany("DELETE FROM outcomes WHERE series_instance_uid = ? AND product = ?", list(jobs))

    def add_timings(self, *timings: StageTiming) -> None:
        """Record what stages took, in one transaction; a stage that is repeated gets the next attempt number."""
        with self._database.transaction() as db:
            db.executemany(
                "INSERT INTO timings SELECT ?1, ?2, ?3, 1 + coalesce(max(attempt), 0), ?4, ?5, ?6, ?7, ?8 "
                "FROM timings WHERE series_instance_uid = ?1 AND product = ?2 AND stage = ?3",
                [(t.series_instance_uid, t.product, t.stage, t.seconds, t.cpu_seconds, t.peak_memory, t.worker,
                  self._now()) for t in timings],
            )  # fmt: skip

    def set_issues(self, key: ProductKey, stage: str, issues: Sequence[Issue]) -> None:
        """Replace the issues of one stage of one product.

        Parameters
        ----------
        key : ProductKey
            Series and product.
        stage : str
            Name of the stage that found them.
        issues : sequence of Issue
            All issues of its last pass.
        """
        with self._database.transaction() as db:
            db.execute("DELETE FROM issues WHERE series_instance_uid = ? AND product = ? AND stage = ?", (*key, stage))
            db.executemany(
                "INSERT INTO issues VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(*key, stage, i.rule, i.severity.value, i.object, i.message, i.checker, i.checker_version)
                 for i in issues],
            )  # fmt: skip

    def start_run(self, command: str, version: str, executor: str) -> int:
        """Record that a runner starts.

        Parameters
        ----------
        command : str
            ``run``, or the names of single stages.
        version : str
            Of this package.
        executor : str
            Name of the executor.

        Returns
        -------
        int
            Number of the start, for :meth:`finish_run`.
        """
        with self._database.transaction() as db:
            cursor = db.execute(
                "INSERT INTO runs VALUES (?, NULL, ?, ?, ?, ?, ?, '')",
                (self._now(), command, version, executor, os.getpid(), os.uname().machine),
            )
            return int(cursor.lastrowid or 0)

    def finish_run(self, number: int, ended: str) -> None:
        """Record how a runner ended.

        Parameters
        ----------
        number : int
            From :meth:`start_run`.
        ended : str
            ``done``, ``interrupted``, ``disk``, ``budget`` or ``failed``.
        """
        with self._database.transaction() as db:
            db.execute("UPDATE runs SET finished = ?, ended = ? WHERE rowid = ?", (self._now(), ended, number))


def _values(outcome: Outcome) -> tuple[object, ...]:
    """The row of an outcome."""
    o = outcome
    reason = o.reason.value if o.reason else ""
    return (o.series_instance_uid, o.product, o.state.value, o.stage, reason, o.message, o.seconds, o.peak_memory)
