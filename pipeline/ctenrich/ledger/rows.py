"""Rows of the ledger, with names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ctenrich.records import Issue, Outcome

__all__ = [
    "IssueRow",
    "LedgerPart",
    "OutcomeCounts",
    "OutcomeTotals",
    "ProductKey",
    "RunRow",
    "StageTiming",
    "StageTotal",
    "TimingRow",
]


class ProductKey(NamedTuple):
    """A product of a series; the product ``""`` is the series itself."""

    series_instance_uid: str
    product: str


@dataclass(frozen=True, kw_only=True)
class StageTiming:
    """Time and memory that one stage of one product took."""

    series_instance_uid: str
    product: str
    stage: str
    seconds: float
    """Wall time."""
    cpu_seconds: float
    """CPU time of the worker and its child processes."""
    peak_memory: int
    """Largest resident memory, bytes."""
    worker: str = ""


@dataclass(frozen=True, kw_only=True)
class TimingRow(StageTiming):
    """A recorded timing."""

    attempt: int
    """From 1; higher if the stage ran before for the same product."""
    finished: float
    """Time of recording, seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class StageTotal:
    """What all passes of one stage took."""

    stage: str
    count: int
    median_seconds: float
    cpu_seconds: float
    """In all."""
    peak_memory: int
    """Largest, bytes."""


@dataclass(frozen=True, kw_only=True)
class OutcomeCounts:
    """How products ended."""

    states: dict[str, int]
    """State -> number of outcomes; states without one are left out."""
    reasons: dict[str, int]
    """Reason code -> number of outcomes."""


@dataclass(frozen=True, kw_only=True)
class OutcomeTotals(OutcomeCounts):
    """How many products are planned, and how they ended."""

    planned: int
    missing: int
    """Planned products without an outcome."""
    unplanned: int
    """Outcomes of products that are not planned."""


@dataclass(frozen=True, kw_only=True)
class IssueRow:
    """An issue and the stage that found it."""

    series_instance_uid: str
    product: str
    stage: str
    issue: Issue


@dataclass(frozen=True)
class LedgerPart:
    """What a ledger has of some series, sorted by series, product and what follows."""

    outcomes: tuple[Outcome, ...]
    timings: tuple[TimingRow, ...]
    issues: tuple[IssueRow, ...]


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One start of a runner."""

    started: float
    """Seconds since 1970."""
    finished: float | None
    """Seconds since 1970; None while the runner works, and if it was killed."""
    command: str
    version: str
    executor: str
    pid: int
    machine: str
    """Hardware name, for instance ``x86_64``."""
    ended: str
    """``done``, ``interrupted``, ``disk``, ``budget`` or ``failed``; empty while `finished` is None."""
