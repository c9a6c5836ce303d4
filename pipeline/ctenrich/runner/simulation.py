"""The wall time of a cohort whose stages take known times: three lanes of workers, as the conductor feeds them."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Lanes", "Simulation", "simulate"]


@dataclass(frozen=True)
class Lanes:
    """How many workers each lane has."""

    input: int = 1
    infer: int = 1
    """Devices."""
    output: int = 1

    @property
    def slots(self) -> int:
        """Series in flight at most: one for every worker and one that waits, as the executors have it."""
        return self.input + self.infer + self.output + 1


@dataclass(frozen=True)
class Simulation:
    """What came out."""

    seconds: float
    """Wall time."""
    device_busy: float
    """Share of the wall time in which the devices infer."""


def simulate(times: Sequence[tuple[float, float, float]], lanes: Lanes | None) -> Simulation:
    """Let series pass through the lanes one after another, each lane first come, first served.

    Parameters
    ----------
    times : sequence of (input, infer, output)
        Seconds of each series in each lane, in the order in which they start.
    lanes : Lanes or None
        Workers; None: one process does one thing after another.
    """
    if lanes is None or not times:
        total = sum(sum(one) for one in times)
        busy = sum(infer for _, infer, _ in times)
        return Simulation(total, busy / total if total else 0.0)
    workers = [[0.0] * n for n in (lanes.input, lanes.infer, lanes.output)]
    in_flight: list[float] = []
    begin = end = 0.0
    for one in times:
        if len(in_flight) >= lanes.slots:
            begin = max(begin, heapq.heappop(in_flight))
        ready = begin
        for lane, seconds in zip(workers, one, strict=True):
            if seconds:
                ready = max(ready, heapq.heappop(lane)) + seconds
                heapq.heappush(lane, ready)
        heapq.heappush(in_flight, ready)
        end = max(end, ready)
    busy = sum(infer for _, infer, _ in times)
    return Simulation(end, busy / (end * lanes.infer) if end else 0.0)
