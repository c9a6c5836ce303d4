"""The clocks that a runner reads, as an object, so that tests need no waiting."""

from __future__ import annotations

import time
from typing import Protocol

from ctenrich.ledger.leases import boottime

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Time for a runner; all values are seconds."""

    def time(self) -> float:
        """Return the wall clock (since 1970), for records; it may jump."""

    def monotonic(self) -> float:
        """Return a clock that never jumps, for durations."""

    def boottime(self) -> float:
        """Return time since boot, which goes on while the machine sleeps, for leases."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The clocks of this machine."""

    def time(self) -> float:
        """Return the wall clock."""
        return time.time()

    def monotonic(self) -> float:
        """Return the monotonic clock."""
        return time.monotonic()

    def boottime(self) -> float:
        """Return time since boot."""
        return boottime()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)
