"""Simulate the wall time of a cohort whose stages take known times, in the three pools of workers of an executor."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Simulation", "WorkerPools", "simulate"]


@dataclass(frozen=True)
class WorkerPools:
    """How many workers each pool has."""

    input: int = 1
    infer: int = 1
    """Devices."""
    output: int = 1

    @property
    def slots(self) -> int:
        """Largest number of series in flight: one for every worker and one that waits, as in the executors."""
        return self.input + self.infer + self.output + 1


@dataclass(frozen=True)
class Simulation:
    """Result of a simulation."""

    seconds: float
    """Wall time."""
    device_busy: float
    """Share of the wall time in which the devices run inference."""


def simulate(times: Sequence[tuple[float, float, float]], pools: WorkerPools | None) -> Simulation:
    """Pass series through the pools, in order; each pool serves the series in the order in which they arrive.

    Parameters
    ----------
    times : sequence of (input, infer, output)
        Seconds of each series in each pool, in the order in which they start.
    pools : WorkerPools or None
        Workers; None: one process runs one job after another.

    Returns
    -------
    Simulation
        Wall time and share of busy devices.
    """
    if pools is None or not times:
        total = sum(sum(one) for one in times)
        busy = sum(infer for _, infer, _ in times)
        return Simulation(total, busy / total if total else 0.0)
    workers = [[0.0] * n for n in (pools.input, pools.infer, pools.output)]
    in_flight: list[float] = []
    begin = end = 0.0
    for one in times:
        if len(in_flight) >= pools.slots:
            begin = max(begin, heapq.heappop(in_flight))
        ready = begin
        for pool, seconds in zip(workers, one, strict=True):
            if seconds:
                ready = max(ready, heapq.heappop(pool)) + seconds
                heapq.heappush(pool, ready)
        heapq.heappush(in_flight, ready)
        end = max(end, ready)
    busy = sum(infer for _, infer, _ in times)
    return Simulation(end, busy / (end * pools.infer) if end else 0.0)
