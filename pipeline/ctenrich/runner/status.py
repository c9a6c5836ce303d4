"""How far a run is: read from the ledger and the manifests, also while the run goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ctenrich.errors import UsageError
from ctenrich.ledger.ledger import Ledger
from ctenrich.ledger.reader import LedgerReader
from ctenrich.reasons import Reason, current_code
from ctenrich.records import FetchedSeries
from ctenrich.runner.forecast import forecast_rest
from ctenrich.runner.manifest import forget_failures, forget_stage
from ctenrich.runner.run import Run
from ctenrich.series_store import SeriesStore
from ctenrich.stages.order import STAGE_POOLS

__all__ = ["StageStatus", "Status", "retry", "status"]


class StageStatus(NamedTuple):
    """How often a stage ran, and what it took."""

    stage: str
    done: int
    median_seconds: float
    cpu_seconds: float
    """In all."""
    peak_megabytes: float


@dataclass(frozen=True, kw_only=True)
class Status:
    """A run at one moment."""

    states: tuple[tuple[str, int], ...]
    """(state, number of series and products); the numbers add up to everything that is planned."""
    reasons: tuple[tuple[str, int], ...]
    """(reason code, number of series and products)."""
    stages: tuple[StageStatus, ...]
    complete: bool
    """Whether everything has an outcome."""
    line: str
    """Summary in one line."""
    hours_left: float | None = None
    """Forecast from what the run has done; None before the first series has ended."""


def status(run: Run) -> Status:
    """Read a run's ledger (which may be in use)."""
    with LedgerReader(run.ledger_path) as ledger:
        stages, runs = {total.stage: total for total in ledger.stage_totals()}, ledger.runs()
        ends = ledger.ends(run.product_names)
    planned, ended_jobs = run.number_of_jobs, sum(ends.states.values())
    states = dict(ends.states)
    if planned > ended_jobs:
        states["no outcome yet"] = planned - ended_jobs
    rows = [
        StageStatus(
            stage=name,
            done=stages[name].count,
            median_seconds=round(stages[name].median_seconds, 3),
            cpu_seconds=round(stages[name].cpu_seconds, 1),
            peak_megabytes=round(stages[name].peak_memory / 1e6, 0),
        )
        for name in STAGE_POOLS
        if name in stages
    ]
    ended = runs[-1].ended or "running (or killed)" if runs else "never started"
    rest = forecast_rest(run)
    line = f"{ended_jobs} of {planned} series and products have an outcome; last run: {ended}"
    return Status(
        states=tuple(sorted(states.items())),
        reasons=tuple(sorted(ends.reasons.items())),
        stages=tuple(rows),
        complete=ended_jobs == planned,
        line=line,
        hours_left=rest.wall_hours if rest else None,
    )


def retry(run: Run, reasons: Sequence[str]) -> int:
    """Delete the outcomes of failures, so that the next run tries them again.

    A series is fetched again if one of its companions could not be fetched.

    Parameters
    ----------
    run : Run
        The run; no runner may be at work.
    reasons : sequence of str
        Reason codes; empty: all.

    Returns
    -------
    int
        Number of outcomes that were deleted.

    Raises
    ------
    UsageError
        BAD_PARAMETER for a reason that does not exist.
    """
    codes = [current_code(code) for code in reasons]
    unknown = [code for code in codes if code not in Reason.__members__]
    if unknown:
        raise UsageError(Reason.BAD_PARAMETER, f"there is no reason {unknown[0]}", "see ctenrich status RUN")
    with Ledger(run.ledger_path) as ledger:
        found = ledger.failures(codes)
        ledger.forget(found)
    for uid, product in found:
        if product and _lacks_companion(run, uid):
            forget_stage(run.workspace.series_dir(uid), "fetch")
        for plan in run.config.products:
            if str(plan.product) == product:
                forget_failures(run.workspace.product_dir(uid, plan.product))
    return len(found)


def _lacks_companion(run: Run, uid: str) -> bool:
    fetched = SeriesStore(run.workspace).find(FetchedSeries, uid)
    return fetched is not None and any(i.rule == "fetch.companion" for i in fetched.issues)
