"""Outcomes after single stages: what they prove wrong is deleted, all else stays as it was."""

from __future__ import annotations

from collections.abc import Mapping

from ctenrich.ledger.rows import ProductKey
from ctenrich.records import Outcome, SeriesEntry, State
from ctenrich.runner.in_flight import SeriesInFlight
from ctenrich.runner.job import Failure
from ctenrich.runner.outcome_rules import end_of_series
from ctenrich.runner.readiness import context_of, stages_done
from ctenrich.runner.recorder import RunRecorder
from ctenrich.runner.run import Run
from ctenrich.stages.order import SERIES_STAGES, product_stages

__all__ = ["failures_of", "settle_outcomes"]


def failures_of(outcomes: Mapping[str, Outcome]) -> dict[str, Failure]:
    """Return the failures that outcomes (product -> outcome) name: product -> failure, without what is done."""
    return {
        product: Failure(stage=o.stage, reason=o.reason, message=o.message)
        for product, o in outcomes.items()
        if o.state is not State.DONE and o.reason is not None
    }


def settle_outcomes(run: Run, flight: SeriesInFlight, recorder: RunRecorder) -> None:
    """Bring the outcomes of a series up to date after a pass through some of its stages.

    The outcome of a product is deleted if it was made from results that have been replaced, or names a failure of a
    stage that has succeeded meanwhile. The outcome of the series is then derived from those of its products, or deleted
    while one of them has none.

    Parameters
    ----------
    run : Run
        The run.
    flight : SeriesInFlight
        A series without open jobs, which did not fail itself.
    recorder : RunRecorder
        Records outcomes.
    """
    entry, uid = flight.entry, flight.entry.series_instance_uid
    before = recorder.outcomes_of(uid)
    changed = bool(flight.recorded)
    for requested in run.config.products:
        product = str(requested.product)
        outcome = before.get(product)
        if outcome is None or product in flight.recorded:
            continue
        complete = not flight.worked or (
            stages_done(context_of(run, entry, None), SERIES_STAGES)
            and stages_done(
                context_of(run, entry, requested), product_stages(requested.product.kind, run.config.settings)
            )
        )
        if _is_outdated(outcome, flight, complete=complete):
            recorder.forget_outcome(ProductKey(uid, product))
            changed = True
    own = before.get("")
    if changed or (own is not None and own.stage in flight.succeeded.get("", ()) and own.state is not State.DONE):
        _record_series(run, entry, recorder)


def _is_outdated(outcome: Outcome, flight: SeriesInFlight, *, complete: bool) -> bool:
    """Return whether an outcome of an earlier pass is not true any more; `complete`: every stage is done."""
    if outcome.state is State.DONE:
        return not complete
    succeeded = flight.succeeded.get(outcome.product, set()) | flight.succeeded.get("", set())
    return outcome.stage in succeeded


def _record_series(run: Run, entry: SeriesEntry, recorder: RunRecorder) -> None:
    """Derive the outcome of a series from those of its products; delete it while a product has none."""
    outcomes = recorder.outcomes_of(entry.series_instance_uid)
    products = [str(requested.product) for requested in run.config.products]
    if any(product not in outcomes for product in products):
        recorder.forget_outcome(ProductKey(entry.series_instance_uid, ""))
        return
    failures = failures_of({product: outcomes[product] for product in products})
    recorder.record_outcome(entry.series_instance_uid, "", end_of_series(entry, failures, run.config.products))
