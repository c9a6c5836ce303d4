"""Throughput of a run in one line: jobs per minute of each pool, share of time that devices are busy, failures."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from ctenrich.runner.job import JobResult

__all__ = ["Throughput"]


class Throughput:
    """Counts results.

    Parameters
    ----------
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._done: Counter[str] = Counter()
        self._failed = 0
        self._inferring = 0.0
        self._inferring_workers: set[str] = set()

    def add(self, result: JobResult) -> None:
        """Count a result; a job whose stages were all done before does not count."""
        if result.ran:
            self._done[result.job.pool] += 1
        self._failed += result.failure is not None
        if result.job.pool == "infer":
            self._inferring += sum(t.seconds for t in result.timings)
            self._inferring_workers |= {t.worker for t in result.timings}

    def __str__(self) -> str:
        """E.g. ``input 12.0/min, infer 11.2/min, output 11.0/min, devices 93 % busy, 2 failed``."""
        elapsed = max(self._clock() - self._started, 1e-9)
        parts = [f"{pool} {60 * self._done[pool] / elapsed:.1f}/min" for pool in ("input", "infer", "output")]
        if self._inferring:
            share = self._inferring / (elapsed * max(1, len(self._inferring_workers)))
            parts.append(f"devices {100 * min(share, 1.0):.0f} % busy")
        return ", ".join([*parts, *([f"{self._failed} failed"] if self._failed else [])])
