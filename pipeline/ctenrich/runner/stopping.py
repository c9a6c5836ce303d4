"""Stop a run before its end: a budget of hours or money, a number of series, or a signal."""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass
from typing import Any

__all__ = ["Budget", "StopSignal"]


@dataclass(frozen=True)
class Budget:
    """When to stop starting series."""

    max_hours: float | None = None
    max_cost: float | None = None
    price_per_hour: float = 0.0
    max_series: int | None = None
    """Only the first series of the cohort, this many, are run."""

    def spent(self, seconds: float) -> bool:
        """Return whether `seconds` of wall time use up the budget."""
        hours = seconds / 3600
        over_cost = self.max_cost is not None and hours * self.price_per_hour >= self.max_cost
        return over_cost or (self.max_hours is not None and hours >= self.max_hours)


class StopSignal:
    """Turns SIGTERM and SIGINT into a flag while it is entered; calling it returns whether one came.

    A second signal has its usual effect: it ends the process at once. No partial file becomes visible.
    """

    def __init__(self) -> None:
        self._came = False
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Return whether a signal came."""
        return self._came

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, *_: object) -> None:
        self._came = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
