"""Which state products and series end in, and totals that must be consistent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.runner_cases import EXPERT, NETWORK, series

from ctenrich.errors import InconsistencyError
from ctenrich.ledger.ledger import Ledger
from ctenrich.reasons import Reason
from ctenrich.records import Outcome, State
from ctenrich.runner.job import Failure
from ctenrich.runner.outcome_rules import DONE, End, check_totals, end_of_product, end_of_series, upstream_failed

ENTRY = series(1)
NO_CONTOURS = Failure(stage="segment", reason=Reason.NO_EXPERT, message="no contours")
CRASH = Failure(stage="measure", reason=Reason.WORKER_DIED, message="signal")
GAP = Failure(stage="sort", reason=Reason.MISSING_SLICE, message="a gap")


def test_a_product_without_its_input_is_skipped_and_any_other_failure_fails_it() -> None:
    assert end_of_product(None) == DONE
    assert end_of_product(NO_CONTOURS).state is State.SKIPPED
    assert end_of_product(CRASH) == End(
        state=State.FAILED, stage="measure", reason=Reason.WORKER_DIED, message="signal"
    )
    assert upstream_failed(GAP).message == "sort ended with MISSING_SLICE"


PRODUCTS = (EXPERT, NETWORK)


@pytest.mark.parametrize(
    ("failures", "state", "reason"),
    [
        ({}, State.DONE, None),
        ({"expert": NO_CONTOURS}, State.DONE, None),
        ({"expert": NO_CONTOURS, "nnunet:m": NO_CONTOURS}, State.SKIPPED, Reason.NO_EXPERT),
        ({"expert": NO_CONTOURS, "nnunet:m": CRASH}, State.FAILED, Reason.WORKER_DIED),
        ({"": GAP}, State.FAILED, Reason.MISSING_SLICE),
        ({"expert": CRASH, "": CRASH}, State.FAILED, Reason.WORKER_DIED),
    ],
)
def test_a_series_ends_as_its_products_do(failures: dict[str, Failure], state: State, reason: Reason | None) -> None:
    end = end_of_series(ENTRY, failures, PRODUCTS)
    assert (end.state, end.reason) == (state, reason)


def test_the_message_counts_failed_products_among_all() -> None:
    assert end_of_series(ENTRY, {"nnunet:m": CRASH}, PRODUCTS).message == "1 of 2 products failed"


def test_sort_excludes_a_series_whose_geometry_the_catalog_did_not_know() -> None:
    unknown = replace(ENTRY, geometry_known=False)
    assert end_of_series(unknown, {"": GAP}, PRODUCTS).state is State.EXCLUDED
    fetch = Failure(stage="fetch", reason=Reason.CHECKSUM, message="")
    assert end_of_series(unknown, {"": fetch}, PRODUCTS).state is State.FAILED


def test_totals_that_are_not_consistent_are_an_error(tmp_path: Path) -> None:
    done = Outcome("1.2", "expert", State.DONE, "validate")
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.set_plan([("1.2", "expert"), ("1.2", "")])
        ledger.record(done)
        with pytest.raises(InconsistencyError, match="1 of 2 without an outcome, 0 unplanned"):
            check_totals(ledger.totals())
        assert check_totals(ledger.totals(["expert"]))["done"] == 1
        ledger.set_plan([])
        ledger.record(done)
        with pytest.raises(InconsistencyError, match="0 of 0 without an outcome, 1 unplanned") as caught:
            check_totals(ledger.totals())
        assert caught.value.reason is Reason.INCONSISTENT_TOTALS
        ledger.set_plan([("1.2", "expert")])
        ledger.record(done)
        counts = check_totals(ledger.totals())
    assert counts == {"done": 1, "excluded": 0, "failed": 0, "skipped": 0, "not_started_budget": 0}
