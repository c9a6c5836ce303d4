"""The series that a runner works on: jobs at work, jobs that wait for scores, failures so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from ctenrich.records import SeriesEntry
from ctenrich.runner.job import Failure, Job

__all__ = ["SeriesInFlight"]


@dataclass
class SeriesInFlight:
    """One series between its first job and its outcome."""

    entry: SeriesEntry
    open_jobs: int = 0
    """Jobs that the executor has."""
    waiting_for_scores: list[Job] = field(default_factory=list)
    failures: dict[str, Failure] = field(default_factory=dict)
    """Product -> failure of its last attempt; ``""`` is the series itself."""
    succeeded: dict[str, set[str]] = field(default_factory=dict)
    """Product -> stages that are done after this pass; ``""`` is the series itself."""
    worked: bool = False
    """Whether a stage did work in this pass."""
    recorded: set[str] = field(default_factory=set)
    """Products that got an outcome in this pass."""
