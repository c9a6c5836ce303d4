"""The protocol that the runner speaks with an executor."""

from __future__ import annotations

from typing import Protocol

from ctenrich.runner.job import Job, JobResult

__all__ = ["Executor"]


class Executor(Protocol):
    """Takes jobs and gives back results, in any order; loses none."""

    name: str
    slots: int
    """How many series may be in flight so that every worker has work and memory stays bounded."""

    def submit(self, job: Job) -> None:
        """Take a job; returns at once."""

    def collect(self, timeout: float) -> JobResult | None:
        """Wait for one result, at most `timeout` seconds; None if none came."""

    def close(self, *, kill: bool = False) -> None:
        """Stop the workers; with `kill`, at once."""
