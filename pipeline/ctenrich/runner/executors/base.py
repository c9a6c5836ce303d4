"""The protocol that the conductor speaks with an executor."""

from __future__ import annotations

from typing import Protocol

from ctenrich.runner.job import Unit, UnitResult

__all__ = ["Executor"]


class Executor(Protocol):
    """Takes units and gives back results, in any order; loses none."""

    name: str
    slots: int
    """How many series may be in flight so that every worker has work and memory stays bounded."""

    def submit(self, unit: Unit) -> None:
        """Take a unit; returns at once."""

    def collect(self, timeout: float) -> UnitResult | None:
        """Wait for one result, at most `timeout` seconds; None if none came."""

    def close(self, *, kill: bool = False) -> None:
        """Stop the workers; with `kill`, at once."""
