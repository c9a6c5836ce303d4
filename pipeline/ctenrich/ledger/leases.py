"""Leases: which runner works on which series.

A runner works on a series only while it holds the series' lease, and records a result only with the newest token of
that lease (a fencing token): a runner that was suspended past its lease cannot record anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ctenrich.ledger.database import Database

__all__ = ["Lease", "Leases", "LedgerLeases", "boottime"]


def boottime() -> float:
    """Return seconds since this machine was booted; the clock goes on while the machine sleeps, and never jumps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right to work on a series until `expires`."""

    series_instance_uid: str
    owner: str
    token: int
    """Rises with every new holder of the series."""
    expires: float
    """Seconds since this machine was booted (:func:`boottime`)."""


class Leases(Protocol):
    """Leases of one cohort, in the ledger or in a store that several machines reach."""

    poll_interval: float
    """Seconds to wait before asking again for series that others hold."""

    def acquire(self, series_instance_uid: str, owner: str, seconds: float) -> Lease | None:
        """Take the lease of a series for `seconds`; None if another owner holds it or has finished the series."""

    def renew(self, lease: Lease, seconds: float) -> Lease | None:
        """Extend a lease by `seconds` from now; None if another owner has taken it meanwhile."""

    def holds(self, lease: Lease) -> bool:
        """Return whether the lease has the newest token: only then may a result be recorded."""

    def release(self, lease: Lease, *, finished: bool = False) -> None:
        """Give a lease back; `finished`: the series has its outcome."""

    def finished_elsewhere(self, series_instance_uid: str) -> bool:
        """Return whether a runner with another ledger has recorded the outcome of the series."""


class LedgerLeases:
    """Leases of runners on one machine, kept in the ledger that they share.

    Parameters
    ----------
    database : Database
        Of the ledger, open for writing.
    clock : callable
        Seconds since boot; leases of an earlier boot have expired.
    """

    poll_interval = 0.2

    def __init__(self, database: Database, clock: Callable[[], float] = boottime) -> None:
        self._database = database
        self._clock = clock

    def acquire(self, series_instance_uid: str, owner: str, seconds: float) -> Lease | None:
        """Take the lease of a series; None if another owner holds it and has not let it expire.

        Parameters
        ----------
        series_instance_uid : str
            The series.
        owner : str
            Name of this runner, different from that of every other one.
        seconds : float
            Time until the lease expires.
        """
        now, boot, token = self._clock(), _boot_id(), 1
        with self._database.transaction() as db:
            row = db.execute("SELECT * FROM leases WHERE series_instance_uid = ?", (series_instance_uid,)).fetchone()
            if row is not None:
                if row["owner"] not in ("", owner) and row["boot"] == boot and row["expires"] > now:
                    return None
                token = row["token"] + 1
            db.execute(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)",
                (series_instance_uid, owner, token, boot, now + seconds),
            )
        return Lease(series_instance_uid=series_instance_uid, owner=owner, token=token, expires=now + seconds)

    def renew(self, lease: Lease, seconds: float) -> Lease | None:
        """Extend a lease by `seconds` from now; None if another owner has taken it meanwhile."""
        expires = self._clock() + seconds
        with self._database.transaction() as db:
            cursor = db.execute(
                "UPDATE leases SET expires = ? WHERE series_instance_uid = ? AND owner = ? AND token = ?",
                (expires, lease.series_instance_uid, lease.owner, lease.token),
            )
            if cursor.rowcount != 1:
                return None
        return Lease(
            series_instance_uid=lease.series_instance_uid, owner=lease.owner, token=lease.token, expires=expires
        )

    def holds(self, lease: Lease) -> bool:
        """Return whether the lease has the newest token: only then may a result be recorded."""
        rows = self._database.rows(
            "SELECT 1 FROM leases WHERE series_instance_uid = ? AND owner = ? AND token = ?",
            (lease.series_instance_uid, lease.owner, lease.token),
        )
        return bool(rows)

    def release(self, lease: Lease, *, finished: bool = False) -> None:
        """Give a lease back.

        The token stays, so that the next one is higher. `finished` is ignored: the outcomes of the same ledger tell
        which series are finished.
        """
        with self._database.transaction() as db:
            db.execute(
                "UPDATE leases SET owner = '', expires = 0 WHERE series_instance_uid = ? AND owner = ? AND token = ?",
                (lease.series_instance_uid, lease.owner, lease.token),
            )

    def finished_elsewhere(self, series_instance_uid: str) -> bool:
        """Return False: all runners that share a ledger record their outcomes in it."""
        return False


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
