"""The leases that one runner holds: acquire, renew in time, confirm before recording, release."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ctenrich.errors import CtenrichError
from ctenrich.ledger.leases import Lease, Leases

__all__ = ["LEASE_SECONDS", "LeaseKeeper"]

LEASE_SECONDS = 60.0
"""Time for which a series is leased, unless the lease is renewed."""


class LeaseKeeper:
    """Holds the leases of the series that a runner works on.

    Parameters
    ----------
    leases : Leases
        Where runners keep their leases.
    owner : str
        Name of this runner, different from that of every other one.
    clock : callable
        Seconds since boot, the clock of :attr:`ctenrich.ledger.leases.Lease.expires`.
    seconds : float
        Time for which a lease is taken or renewed; it is renewed when less than half of it is left.
    """

    def __init__(
        self, leases: Leases, owner: str, clock: Callable[[], float], *, seconds: float = LEASE_SECONDS
    ) -> None:
        self._leases = leases
        self._owner = owner
        self._clock = clock
        self._seconds = seconds
        self._held: dict[str, Lease] = {}

    @property
    def poll_interval(self) -> float:
        """Seconds to wait before asking again for series that others hold."""
        return self._leases.poll_interval

    def acquire(self, series_instance_uid: str) -> bool:
        """Take the lease of a series; False if another runner holds it or has finished the series."""
        lease = self._leases.acquire(series_instance_uid, self._owner, self._seconds)
        if lease is None:
            return False
        self._held[series_instance_uid] = lease
        return True

    def finished_elsewhere(self, series_instance_uid: str) -> bool:
        """Return whether a runner with another ledger has recorded the outcome of the series."""
        return self._leases.finished_elsewhere(series_instance_uid)

    def confirm(self, series_instance_uid: str) -> bool:
        """Return whether results of a series may be recorded now.

        A lease that has expired is renewed first, so that no other runner can take it between this answer and the
        record. A lease that another runner has taken is dropped: every later answer is False, until the series is
        acquired again.
        """
        lease = self._held.get(series_instance_uid)
        if lease is None:
            return False
        if lease.expires <= self._clock():
            renewed = self._leases.renew(lease, self._seconds)
        else:
            renewed = lease if self._leases.holds(lease) else None
        if renewed is None:
            del self._held[series_instance_uid]
            return False
        self._held[series_instance_uid] = renewed
        return True

    def renew_due(self) -> None:
        """Renew every lease of which less than half of its time is left."""
        for series_instance_uid, lease in list(self._held.items()):
            if lease.expires - self._clock() < self._seconds / 2:
                renewed = self._leases.renew(lease, self._seconds)
                if renewed is not None:
                    self._held[series_instance_uid] = renewed

    @contextmanager
    def renewing(self) -> Iterator[None]:
        """Renew the leases from a second thread while this one runs a job, which may take longer than a lease lasts.

        The thread ends before the block is left; meanwhile only it uses the leases. A renewal that fails (no network, a
        full disk) is tried again; whether the lease was kept is decided by :meth:`confirm` when the job has ended.
        """
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(self._seconds / 4):
                with suppress(CtenrichError, OSError, sqlite3.Error):
                    self.renew_due()

        thread = threading.Thread(target=renew, name="leases", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def release(self, series_instance_uid: str, *, finished: bool = False) -> None:
        """Give the lease of a series back.

        Parameters
        ----------
        series_instance_uid : str
            A series whose lease is held.
        finished : bool
            Whether the series has its outcome, so that runners with other ledgers leave it alone.
        """
        self._leases.release(self._held.pop(series_instance_uid), finished=finished)

    def release_all(self) -> None:
        """Give all leases back, of series without an outcome."""
        for series_instance_uid in list(self._held):
            self.release(series_instance_uid)
