"""Which state a product or a series ends in, and that everything planned ends in exactly one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ctenrich.errors import InconsistencyError
from ctenrich.inference.products import RequestedProduct
from ctenrich.ledger.rows import OutcomeTotals
from ctenrich.reasons import Reason
from ctenrich.records import SeriesEntry, State
from ctenrich.runner.job import Failure

__all__ = [
    "DONE",
    "OVER_BUDGET",
    "OVER_LIMIT",
    "PROCESSED_ELSEWHERE",
    "End",
    "check_totals",
    "end_of_product",
    "end_of_series",
    "failures_that_count",
    "upstream_failed",
]

_NOT_ASKED = frozenset({Reason.NO_MEASUREMENTS})
"""Reasons of objects that are optional: nobody misses them, and an outcome does not mention them."""
_NOTHING_TO_DO = frozenset({Reason.NO_EXPERT})
"""Reasons of products that are skipped: the series lacks the input, nothing went wrong."""


@dataclass(frozen=True, kw_only=True)
class End:
    """How a product or a series ended."""

    state: State
    stage: str
    reason: Reason | None = None
    message: str = ""


DONE = End(state=State.DONE, stage="validate")
OVER_BUDGET = End(
    state=State.NOT_STARTED_BUDGET, stage="plan", reason=Reason.BUDGET, message=Reason.BUDGET.sentence
)  # fmt: skip
OVER_LIMIT = End(
    state=State.NOT_STARTED_BUDGET, stage="plan", reason=Reason.OVER_LIMIT, message=Reason.OVER_LIMIT.sentence
)  # fmt: skip
PROCESSED_ELSEWHERE = End(
    state=State.SKIPPED,
    stage="plan",
    reason=Reason.DONE_BY_OTHER_RUNNER,
    message=Reason.DONE_BY_OTHER_RUNNER.sentence,
)


def upstream_failed(failure: Failure) -> End:
    """Return the end of a product whose series failed before it."""
    message = f"{failure.stage} ended with {failure.reason.value}"
    return End(state=State.SKIPPED, stage=failure.stage, reason=Reason.UPSTREAM_FAILED, message=message)


def end_of_product(failure: Failure | None, left_out: Mapping[str, Reason] | None = None) -> End:
    """Return the end of a product whose last job came back.

    Parameters
    ----------
    failure : Failure or None
        Why the job did not finish.
    left_out : mapping of str to Reason, optional
        Object kinds that are not written because they would have no content; the product is done, with the reason.
    """
    missed = [reason for reason in (left_out or {}).values() if reason not in _NOT_ASKED]
    if failure is None and missed:
        reason = missed[0]
        return replace(DONE, reason=reason, message=reason.sentence)
    if failure is None:
        return DONE
    state = State.SKIPPED if failure.reason in _NOTHING_TO_DO else State.FAILED
    return End(state=state, stage=failure.stage, reason=failure.reason, message=failure.message)


def failures_that_count(failures: Mapping[str, Failure]) -> dict[str, Failure]:
    """Return the failures by product, without those of products that had nothing to do."""
    return {product: f for product, f in failures.items() if f.reason not in _NOTHING_TO_DO}


def end_of_series(entry: SeriesEntry, failures: Mapping[str, Failure], products: Sequence[RequestedProduct]) -> End:
    """Return the end of a series whose last job came back.

    Parameters
    ----------
    entry : SeriesEntry
        The series.
    failures : mapping of str to Failure
        Product -> its failure, in the order in which they occurred; ``""`` is the series itself.
    products : sequence of RequestedProduct
        Products of the run.

    Returns
    -------
    End
        EXCLUDED if sort refused a series whose geometry the catalog did not know, FAILED if the series or a product
        failed, SKIPPED if all products had nothing to do, otherwise DONE.
    """
    own = failures.get("")
    if own is not None:
        unknown = not entry.geometry_known and own.stage == "sort"
        state = State.EXCLUDED if unknown else State.FAILED
        return End(state=state, stage=own.stage, reason=own.reason, message=own.message)
    of_products = list(failures.values())
    failed = list(failures_that_count(failures).values())
    if failed:
        message = f"{len(failed)} of {len(products)} products failed"
        return End(state=State.FAILED, stage=failed[0].stage, reason=failed[0].reason, message=message)
    if of_products and len(of_products) == len(products):
        first = of_products[0]
        return End(state=State.SKIPPED, stage=first.stage, reason=first.reason, message=first.message)
    return DONE


def check_totals(totals: OutcomeTotals) -> dict[str, int]:
    """Check that every planned product has exactly one outcome, and return the number of outcomes of every state.

    Parameters
    ----------
    totals : OutcomeTotals
        Of the ledger.

    Raises
    ------
    InconsistencyError
        INCONSISTENT_TOTALS if a planned product has no outcome, or an outcome was never planned.
    """
    if totals.missing or totals.unplanned:
        message = f"{totals.missing} of {totals.planned} without an outcome, {totals.unplanned} unplanned outcomes"
        raise InconsistencyError(Reason.INCONSISTENT_TOTALS, message)
    return {state.value: totals.states.get(state.value, 0) for state in State}
