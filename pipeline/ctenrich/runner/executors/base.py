"""The interface between the runner and an executor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ctenrich.inference.model_cache import ModelCache
from ctenrich.progress import SILENT, Progress
from ctenrich.runner.job import Job, JobResult

__all__ = ["Executor", "ExecutorOptions"]


class Executor(Protocol):
    """Takes jobs and returns their results, in any order; every job gets one result."""

    name: str
    slots: int
    """How many series may be in flight, so that every worker has work and memory stays bounded."""
    works_in_background: bool
    """Whether jobs make progress between two calls of :meth:`collect`."""

    def submit(self, job: Job) -> None:
        """Take a job; returns at once."""

    def collect(self, timeout: float) -> JobResult | None:
        """Wait for one result, at most `timeout` seconds; None if none came."""

    def close(self, *, kill: bool = False) -> None:
        """Stop the workers; with `kill`, at once."""


@dataclass(frozen=True, kw_only=True)
class ExecutorOptions:
    """Options of executors in addition to the run's settings; each uses those that apply to it."""

    models: ModelCache | None = None
    """Open models (serial)."""
    address: str | None = None
    """Address of a running cluster (Ray)."""
    progress: Progress = SILENT
    """Passed to the stages (serial)."""
