"""Runners that start at once in one folder with different products: each ends with its own, the run has all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.cohorts import make_cohort

from ctenrich import steps
from ctenrich.ledger.ledger import Ledger
from ctenrich.ledger.reader import LedgerReader
from ctenrich.runner.executors.serial import SerialExecutor
from ctenrich.runner.job import JobResult
from ctenrich.runner.recorder import RunEnd
from ctenrich.runner.run import Run
from ctenrich.runner.runner import Runner

DEMO = "nnunet:demo-organs"


def start(cohort: Path, out: Path, segmenter: str) -> Run:
    return steps.start(cohort, out, segmenters=[segmenter], allow_demo=True)


class Meanwhile(SerialExecutor):
    """Does something else before its first result."""

    def __init__(self, run: Run, act: Callable[[], object]) -> None:
        super().__init__(run.root, run.config.settings)
        self._act: Callable[[], object] | None = act

    def collect(self, timeout: float) -> JobResult | None:
        act, self._act = self._act, None
        if act is not None:
            act()
        return super().collect(timeout)


def test_a_product_that_is_added_while_another_runner_works(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path, 1)
    first = start(cohort, tmp_path / "run", "expert")
    added: list[Run] = []

    def add() -> None:
        second = start(cohort, tmp_path / "run", DEMO)
        with second.planned_jobs() as jobs, Ledger(second.ledger_path) as ledger:
            ledger.set_plan(jobs)
        added.append(second)

    summary = Runner(first, Meanwhile(first, add)).run()
    assert (summary.ended, summary.states["done"], sum(summary.states.values())) == (RunEnd.DONE, 2, 2)
    (second,) = added
    assert [str(p.product.kind) for p in second.config.products] == ["expert", "nnunet"], "products are additive"
    with LedgerReader(first.ledger_path) as ledger:
        assert sorted(ledger.plan()) == sorted(second.jobs())
    assert steps.run_all(second).states["done"] == 3


@pytest.mark.long
def test_a_plan_that_is_recorded_late_keeps_products_of_others(tmp_path: Path) -> None:
    """The first runner was opened before the second added a product, and records its plan after it."""
    cohort = make_cohort(tmp_path, 1)
    first = start(cohort, tmp_path / "run", "expert")
    second = start(cohort, tmp_path / "run", DEMO)
    assert steps.run_all(second).states["done"] == 3
    assert steps.run_all(first).states["done"] == 2
    with LedgerReader(first.ledger_path) as ledger:
        assert len(ledger.outcomes()) == len(ledger.plan()) == 3


def test_runs_that_are_made_at_once_have_all_products(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path, 1)
    together = threading.Barrier(2)
    errors: list[BaseException] = []

    def make(segmenter: str) -> None:
        together.wait(60)
        try:
            for _ in range(5):
                start(cohort, tmp_path / "run", segmenter)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=make, args=(name,)) for name in ("expert", DEMO)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert {str(p.product.kind) for p in steps.open_run(tmp_path / "run").config.products} == {"expert", "nnunet"}
