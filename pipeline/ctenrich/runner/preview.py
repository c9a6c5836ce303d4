"""What a run would do, stage by stage, from its manifests."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from ctenrich.errors import CtenrichError
from ctenrich.inference.products import RequestedProduct
from ctenrich.records import SeriesEntry
from ctenrich.runner.manifest import is_done, stage_key
from ctenrich.runner.readiness import context_of
from ctenrich.runner.run import Run
from ctenrich.runner.source_cleanup import needs_refetch
from ctenrich.stages.order import SERIES_STAGES, product_stages, series_output
from ctenrich.stages.table import STAGES

__all__ = ["StagePreview", "preview"]


class StagePreview(NamedTuple):
    """How often a stage is to run."""

    stage: str
    to_do: int
    done: int


def preview(run: Run) -> list[StagePreview]:
    """Return what a run would do, by stage.

    Objects that were deleted after use and are needed again count as to be fetched.
    """
    todo: Counter[str] = Counter()
    done: Counter[str] = Counter()
    for entry in run.cohort.series:
        whole = _count(run, entry, None, SERIES_STAGES, (todo, done))
        _count(run, entry, None, series_output(run.config.settings), (todo, done), whole=whole)
        for plan in run.config.products:
            _count(run, entry, plan, product_stages(plan.product.kind, run.config.settings), (todo, done), whole=whole)
        if needs_refetch(run, entry):
            todo["fetch"] += 1
            done["fetch"] -= 1
    return [StagePreview(stage, todo[stage], done[stage]) for stage in STAGES if todo[stage] or done[stage]]


def _count(
    run: Run,
    entry: SeriesEntry,
    plan: RequestedProduct | None,
    stages: tuple[str, ...],
    counts: tuple[Counter[str], Counter[str]],
    *,
    whole: bool = True,
) -> bool:
    """Count the stages of one job; once one has to run (`whole` is False), so do those after it."""
    todo, done = counts
    context = context_of(run, entry, plan)
    for name in stages:
        if whole:
            try:
                whole = is_done(STAGES[name], context, stage_key(STAGES[name], context))
            except CtenrichError:
                whole = False
        (done if whole else todo)[name] += 1
    return whole
