"""Status and retry of a run, from its ledger and manifests."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.runner_cases import make_run

from ctenrich.errors import UsageError
from ctenrich.ledger.ledger import Ledger
from ctenrich.ledger.reader import LedgerReader
from ctenrich.ledger.rows import StageTiming
from ctenrich.reasons import Reason
from ctenrich.records import Outcome, State
from ctenrich.runner.run import Run
from ctenrich.runner.status import StageStatus, retry, status


def timing(stage: str, seconds: float, peak: int) -> StageTiming:
    return StageTiming(
        series_instance_uid="1.1.1", product="", stage=stage, seconds=seconds, cpu_seconds=2 * seconds, peak_memory=peak
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = make_run(tmp_path / "run", 2)
    with Ledger(made.ledger_path) as ledger:
        ledger.set_plan(made.jobs())
    return made


def test_a_run_that_never_started(run: Run) -> None:
    found = status(run)
    assert found.line == "0 of 4 series and products have an outcome; last run: never started"
    assert (found.complete, found.stages, found.states, found.hours_left) == (False, (), (("no outcome yet", 4),), None)


def test_stages_are_summed_up_in_the_order_of_the_table(run: Run) -> None:
    with Ledger(run.ledger_path) as ledger:
        ledger.start_run("run", "0", "serial")
        ledger.add_timings(*(timing("sort", s, p) for s, p in ((1.0, 5), (2.0, 9_000_000), (9.0, 7))))
        ledger.add_timings(timing("fetch", 0.5, 1_600_000))
    found = status(run)
    assert found.stages == (
        StageStatus(stage="fetch", done=1, median_seconds=0.5, cpu_seconds=1.0, peak_megabytes=2.0),
        StageStatus(stage="sort", done=3, median_seconds=2.0, cpu_seconds=24.0, peak_megabytes=9.0),
    )
    assert found.line.endswith("running (or killed)")


def test_outcomes_and_reasons_are_counted_and_all_of_them_make_a_run_complete(run: Run) -> None:
    with Ledger(run.ledger_path) as ledger:
        number = ledger.start_run("run", "0", "serial")
        ledger.record(
            Outcome("1.1.1", "", State.DONE, "validate"),
            Outcome("1.1.1", "expert", State.DONE, "validate"),
            Outcome("1.2.1", "", State.FAILED, "sort", Reason.MISSING_SLICE),
        )
        ledger.finish_run(number, "done")
        found = status(run)
        assert found.states == (("done", 2), ("failed", 1), ("no outcome yet", 1))
        assert found.reasons == (("MISSING_SLICE", 1),)
        assert not found.complete
        ledger.record(Outcome("1.2.1", "expert", State.SKIPPED, "sort", Reason.UPSTREAM_FAILED))
    assert status(run).complete
    assert status(run).line == "4 of 4 series and products have an outcome; last run: done"


def test_retry_takes_reasons_of_today_and_of_earlier_versions(run: Run) -> None:
    with Ledger(run.ledger_path) as ledger:
        ledger.record(
            Outcome("1.1.1", "", State.FAILED, "sort", Reason.DECOMPRESSION_BOMB),
            Outcome("1.1.1", "expert", State.DONE, "validate"),
            Outcome("1.2.1", "", State.FAILED, "sort", Reason.CHECKSUM),
            Outcome("1.2.1", "expert", State.EXCLUDED, "sort", Reason.ONE_SLICE),
        )
    with pytest.raises(UsageError, match="no reason NONSENSE"):
        retry(run, ["CHECKSUM", "NONSENSE"])
    assert retry(run, ["BOMB"]) == 1
    assert retry(run, ["BOMB"]) == 0
    assert retry(run, []) == 1, "neither what is done nor what was excluded"
    with LedgerReader(run.ledger_path) as reader:
        assert {o.state for o in reader.outcomes()} == {State.DONE, State.EXCLUDED}
