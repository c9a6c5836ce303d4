"""How far a run is: read from the ledger and the manifests, by anybody, at any time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ctenrich.errors import CtenrichError, UsageError
from ctenrich.inference.model_cache import ModelCache
from ctenrich.inference.products import RequestedProduct
from ctenrich.reasons import Reason
from ctenrich.records import FetchedSeries, SeriesEntry, State
from ctenrich.runner.forecast import forecast_rest
from ctenrich.runner.ledger import Ledger
from ctenrich.runner.manifest import forget_failures, forget_stage, is_done, stage_key
from ctenrich.runner.run import Run
from ctenrich.runner.source_cleanup import needs_refetch
from ctenrich.stages.stage import StageContext
from ctenrich.stages.table import SERIES_STAGES, STAGES, product_stages, series_output
from ctenrich.workspace import load_record

__all__ = ["Status", "preview", "retry", "status"]


@dataclass(frozen=True)
class Status:
    """A run at one moment."""

    states: tuple[tuple[str, int], ...]
    reasons: tuple[tuple[str, int], ...]
    stages: tuple[tuple[str, int, float, float, float], ...]
    """(stage, times done, median seconds, CPU seconds in all, peak megabytes)."""
    complete: bool
    line: str
    hours_left: float | None = None
    """Forecast from what the run has done; None before the first series has ended."""


def status(run: Run) -> Status:
    """Read a run's ledger (which may be in use)."""
    with Ledger(run.ledger_path, read_only=True) as ledger:
        outcomes, timings, runs = ledger.outcomes(), ledger.timings(), ledger.runs()
    planned = len(run.jobs())
    states = Counter(o.state.value for o in outcomes)
    reasons = Counter(o.reason.value for o in outcomes if o.reason)
    rows = []
    for stage in STAGES:
        mine = [t for t in timings if t[2] == stage]
        if mine:
            cpu, peak = sum(t[5] for t in mine), max(t[6] for t in mine) / 1e6
            rows.append((stage, len(mine), round(median(t[4] for t in mine), 3), round(cpu, 1), round(peak, 0)))
    ended = runs[-1][7] or "running (or killed)" if runs else "never started"
    rest = forecast_rest(run)
    line = f"{len(outcomes)} of {planned} series and products have an outcome; last run: {ended}"
    return Status(
        tuple(sorted(states.items())), tuple(sorted(reasons.items())), tuple(rows), len(outcomes) == planned, line,
        rest.wall_hours if rest else None,
    )  # fmt: skip


def retry(run: Run, reasons: list[str]) -> int:
    """Forget failures (of these reasons; none named: all but NO_MODEL), so that the next run tries them again.

    A series without contours is fetched again if it has a companion that could not be fetched.

    Raises
    ------
    UsageError
        BAD_PARAMETER for a reason that does not exist.
    """
    known = {r.value for r in Reason}
    unknown = [r for r in reasons if r not in known]
    if unknown:
        raise UsageError(Reason.BAD_PARAMETER, f"there is no reason {unknown[0]}", "see ctenrich status RUN")
    with Ledger(run.ledger_path) as ledger:
        found = [
            o
            for o in ledger.outcomes()
            if o.state in (State.FAILED, State.SKIPPED)
            and (o.reason and o.reason.value in reasons if reasons else o.reason is not Reason.NO_MODEL)
        ]
        ledger.forget([(o.series_instance_uid, o.product) for o in found])
    for outcome in found:
        folder = run.workspace.series_dir(outcome.series_instance_uid)
        if outcome.reason is Reason.NO_EXPERT and _lacks_companion(folder):
            forget_stage(folder, "fetch")
        for plan in run.config.products:
            if str(plan.product) == outcome.product:
                forget_failures(run.workspace.product_dir(outcome.series_instance_uid, plan.product))
    return len(found)


def _lacks_companion(folder: Path) -> bool:
    record = folder / "fetched.json"
    return record.is_file() and any(i.rule == "fetch.companion" for i in load_record(record, FetchedSeries).issues)


def preview(run: Run) -> list[tuple[str, int, int]]:
    """What a run would do: (stage, number to do, number done already).

    Objects that were deleted after use and are needed again count as to be fetched.
    """
    todo: Counter[str] = Counter()
    done: Counter[str] = Counter()
    for entry in run.cohort.series:
        whole = _count(run, entry, None, SERIES_STAGES, (todo, done))
        _count(run, entry, None, series_output(run.config.settings), (todo, done), whole=whole)
        for plan in run.config.products:
            if plan.missing is None:
                stages = product_stages(plan.product.kind)
                _count(run, entry, plan, stages, (todo, done), whole=whole)
        if needs_refetch(run, entry):
            todo["fetch"] += 1
            done["fetch"] -= 1
    return [(stage, todo[stage], done[stage]) for stage in STAGES if todo[stage] or done[stage]]


def _count(
    run: Run,
    entry: SeriesEntry,
    plan: RequestedProduct | None,
    stages: tuple[str, ...],
    counts: tuple[Counter[str], Counter[str]],
    *,
    whole: bool = True,
) -> bool:
    """Count the stages of one job; once one is to do (`whole` is False), so are those after it."""
    from ctenrich.progress import SILENT

    todo, done = counts
    settings = run.config.settings
    context = StageContext(
        entry=entry,
        requested=plan,
        settings=settings,
        workspace=run.workspace,
        models=ModelCache(settings),
        progress=SILENT,
    )
    for name in stages:
        if whole:
            try:
                whole = is_done(STAGES[name], context, stage_key(STAGES[name], context))
            except CtenrichError:
                whole = False
        (done if whole else todo)[name] += 1
    return whole
