"""The scheduler with an injected clock and executor: leases, retries, postponed series, budgets, signals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.runner_cases import (
    EXPERT,
    NETWORK,
    SCORER,
    FakeClock,
    FakeExecutor,
    lasting,
    make_run,
    transient,
)

from ctenrich.ledger.leases import Lease
from ctenrich.ledger.ledger import Ledger
from ctenrich.ledger.reader import LedgerReader
from ctenrich.reasons import Reason
from ctenrich.records import Outcome, SeriesEntry, State
from ctenrich.runner.job import Failure, Job
from ctenrich.runner.lease_keeper import LEASE_SECONDS, LeaseKeeper
from ctenrich.runner.recorder import RunEnd, RunSummary
from ctenrich.runner.run import Run
from ctenrich.runner.runner import Runner, RunnerOptions
from ctenrich.runner.scheduler import GRACE_SECONDS
from ctenrich.runner.stopping import Budget
from ctenrich.settings import FetchSettings, SegmentSettings, Settings


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def go(run: Run, executor: FakeExecutor, clock: FakeClock, **options: object) -> RunSummary:
    return Runner(run, executor, options=RunnerOptions(clock=clock, **options)).run()  # type: ignore[arg-type]


def outcomes(run: Run) -> dict[tuple[str, str], Outcome]:
    with LedgerReader(run.ledger_path) as ledger:
        return {(o.series_instance_uid, o.product): o for o in ledger.outcomes()}


def attempts(run: Run) -> list[tuple[str, str, str, int]]:
    with LedgerReader(run.ledger_path) as ledger:
        return [(t.series_instance_uid, t.product, t.stage, t.attempt) for t in ledger.timings()]


class OtherRunner:
    """Takes leases in the same ledger, at a time of the same clock."""

    def __init__(self, run: Run, clock: FakeClock) -> None:
        self._ledger = Ledger(run.ledger_path, now=clock.time)
        self._leases = self._ledger.leases(clock.boottime)
        self.lease: Lease | None = None

    def take(self, uid: str) -> None:
        self.lease = self._leases.acquire(uid, "other", 1e6)
        assert self.lease is not None, "the lease had not expired"

    def give_back(self) -> None:
        assert self.lease is not None
        self._leases.release(self.lease)
        self._ledger.close()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run")


@pytest.fixture
def other(run: Run, clock: FakeClock) -> OtherRunner:
    return OtherRunner(run, clock)


def test_a_result_after_the_lease_was_taken_over_is_not_recorded(
    run: Run, clock: FakeClock, other: OtherRunner
) -> None:
    seen: list[list[tuple[str, str, str, int]]] = []

    def answer(job: Job) -> None:
        if job.pool == "infer" and len(executor.submitted) == 2:
            clock.now += LEASE_SECONDS
            other.take("1.1.1")
        return

    def stop() -> bool:
        if other.lease is not None and not executor.queue and len(executor.submitted) == 2:
            seen.append(attempts(run))
            other.give_back()
            other.lease = None
        return False

    executor = FakeExecutor(answer)
    summary = go(run, executor, clock, stop=stop)
    inputs = [("1.1.1", "", stage, 1) for stage in ("convert", "fetch", "sort")]
    assert seen == [inputs], "the segmentation came back after the lease was lost"
    assert '"event": "lease_lost"' in (run.root / "log.jsonl").read_text()
    assert summary.ended is RunEnd.DONE
    assert ("1.1.1", "expert", "segment", 2) not in attempts(run), "recorded once, with the new lease"
    assert outcomes(run)["1.1.1", "expert"].state is State.DONE


def test_an_expired_lease_that_nobody_took_is_renewed_before_the_result_is_recorded(run: Run, clock: FakeClock) -> None:
    def answer(job: Job) -> None:
        clock.now += 10 * LEASE_SECONDS

    executor = FakeExecutor(answer)
    summary = go(run, executor, clock)
    assert summary.states["done"] == 2
    assert len(executor.submitted) == 3, "nothing was done twice"


def test_an_executor_that_works_in_this_thread_has_its_leases_renewed_meanwhile(
    run: Run, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside: list[bool] = []

    @contextmanager
    def renewing(_: LeaseKeeper) -> Iterator[None]:
        inside.append(True)
        yield
        inside.pop()

    def answer(_: Job) -> None:
        seen.append(bool(inside))

    monkeypatch.setattr(LeaseKeeper, "renewing", renewing)
    for background in (False, True):
        seen: list[bool] = []
        assert go(run, FakeExecutor(answer, background=background), clock).exit_code == 0
        assert set(seen) == {not background}
    assert not inside


def test_results_that_come_while_the_run_stops_need_the_lease_too(
    run: Run, clock: FakeClock, other: OtherRunner
) -> None:
    def stop() -> bool:
        if len(executor.submitted) < 2:
            return False
        clock.now += LEASE_SECONDS
        other.take("1.1.1")
        return True

    executor = FakeExecutor()
    assert go(run, executor, clock, stop=stop).ended is RunEnd.INTERRUPTED
    other.give_back()
    assert {stage for _, _, stage, _ in attempts(run)} == {"fetch", "sort", "convert"}, "no segmentation"
    assert outcomes(run) == {}


def test_jobs_that_run_while_the_run_is_stopped_are_recorded(tmp_path: Path, clock: FakeClock) -> None:
    run = make_run(tmp_path / "run", 3)
    executor = FakeExecutor(slots=2)
    summary = go(run, executor, clock, stop=lambda: bool(executor.submitted))
    assert summary.ended is RunEnd.INTERRUPTED
    assert summary.exit_code == 3
    assert {uid for uid, *_ in attempts(run)} == {"1.1.1", "1.2.1"}
    assert outcomes(run) == {}
    assert executor.closed == [True]


def test_a_job_that_does_not_end_holds_a_stopped_run_for_a_bounded_time(run: Run, clock: FakeClock) -> None:
    class Hanging(FakeExecutor):
        def collect(self, timeout: float) -> None:
            clock.now += timeout

    started = clock.now
    executor = Hanging()
    assert go(run, executor, clock, stop=lambda: bool(executor.submitted)).ended is RunEnd.INTERRUPTED
    assert GRACE_SECONDS <= clock.now - started <= GRACE_SECONDS + 2


def test_a_transient_failure_is_tried_three_times(run: Run, clock: FakeClock) -> None:
    executor = FakeExecutor(lambda job: transient(job) if job.pool == "infer" else None)
    summary = go(run, executor, clock)
    assert [(j.pool, j.attempt) for j in executor.submitted] == [
        ("input", 1), ("infer", 1), ("infer", 2), ("infer", 3),
    ]  # fmt: skip
    assert [a for *_, stage, a in attempts(run) if stage == "segment"] == [1, 2, 3]
    assert (summary.states["failed"], summary.reasons["IO_ERROR"]) == (2, 2)
    assert outcomes(run)["1.1.1", ""].message == "1 of 1 products failed"


def test_a_failure_that_goes_away_leaves_no_trace_in_the_outcome(run: Run, clock: FakeClock) -> None:
    executor = FakeExecutor(lambda job: transient(job) if job.attempt < 3 else None)
    summary = go(run, executor, clock)
    assert (summary.exit_code, summary.states["done"]) == (0, 2)
    assert summary.reasons == {}
    expert = outcomes(run)["1.1.1", "expert"]
    assert expert.seconds == 12.0, "three attempts of segment, and of measure, encode, validate"


def test_a_worker_that_dies_costs_one_job(tmp_path: Path, clock: FakeClock) -> None:
    run = make_run(tmp_path / "run", 3, products=(EXPERT, NETWORK))

    def answer(job: Job) -> Failure | None:
        return lasting(job) if job.key == ("1.2.1", "expert") else None

    executor = FakeExecutor(answer)
    summary = go(run, executor, clock)
    assert summary.reasons == {"WORKER_DIED": 2}, "the product and its series"
    ended = outcomes(run)
    assert ended["1.2.1", "expert"].state is State.FAILED
    assert ended["1.2.1", str(NETWORK.product)].state is State.DONE
    assert sum(o.state is State.DONE for o in ended.values()) == 7
    assert sum(j.key == ("1.2.1", "expert") for j in executor.submitted) == 1, "it is not tried again by itself"


def test_a_series_that_fails_skips_its_products(tmp_path: Path, clock: FakeClock) -> None:
    run = make_run(tmp_path / "run", products=(EXPERT,))
    executor = FakeExecutor(lambda job: lasting(job, Reason.CHECKSUM))
    go(run, executor, clock)
    ended = {product: (o.state, o.reason) for (_, product), o in outcomes(run).items()}
    assert ended == {
        "": (State.FAILED, Reason.CHECKSUM),
        "expert": (State.SKIPPED, Reason.UPSTREAM_FAILED),
    }


def test_a_fatal_failure_stops_the_run_and_the_next_one_resumes(tmp_path: Path, clock: FakeClock) -> None:
    run = make_run(tmp_path / "run", 5)
    full = FakeExecutor(lambda job: lasting(job, Reason.DISK_FULL, fatal=True), slots=1)
    summary = go(run, full, clock)
    assert (summary.ended, summary.exit_code) == (RunEnd.DISK, 3)
    assert len(full.submitted) == 1
    assert outcomes(run) == {}
    assert go(run, FakeExecutor(), clock).exit_code == 0


def test_a_series_for_which_the_disk_is_too_full_waits_for_another_one_to_end(tmp_path: Path, clock: FakeClock) -> None:
    settings = Settings(fetch=FetchSettings(delete_after_use=True))
    run = make_run(tmp_path / "run", 2, settings=settings)
    events: list[str] = []

    def answer(job: Job) -> Failure | None:
        uid = job.key.series_instance_uid
        first_ended = ("1.1.1", "") in outcomes(run)
        events.append(f"{uid} {job.pool}")
        if uid == "1.2.1" and job.pool == "input" and not first_ended:
            return lasting(job, Reason.DISK_FULL)
        return None

    summary = go(run, FakeExecutor(answer), clock)
    assert summary.states["done"] == 4
    assert [e for e in events if e == "1.2.1 input"] == ["1.2.1 input"] * 2, "not again and again meanwhile"
    assert events.index("1.1.1 output") < len(events) - 1 - events[::-1].index("1.2.1 input")


def test_a_full_disk_that_no_series_can_free_ends_the_series(tmp_path: Path, clock: FakeClock) -> None:
    settings = Settings(fetch=FetchSettings(delete_after_use=True))
    run = make_run(tmp_path / "run", settings=settings)
    executor = FakeExecutor(lambda job: lasting(job, Reason.DISK_FULL))
    assert go(run, executor, clock).reasons["DISK_FULL"] == 1
    assert len(executor.submitted) == 1


def test_the_budget_ends_the_start_of_series_not_those_at_work(tmp_path: Path, clock: FakeClock) -> None:
    run = make_run(tmp_path / "run", 3)

    def answer(job: Job) -> None:
        clock.now += 1200.0

    summary = go(run, FakeExecutor(answer, slots=1), clock, budget=Budget(max_hours=1.5))
    assert (summary.ended, summary.exit_code) == (RunEnd.BUDGET, 4)
    assert summary.states["done"] == 4, "two series were begun within 5400 s, three jobs of 1200 s each"
    assert summary.states["not_started_budget"] == 2


def test_a_budget_that_is_spent_takes_no_outcome_back(tmp_path: Path, clock: FakeClock) -> None:
    run = make_run(tmp_path / "run", 2)
    go(run, FakeExecutor(), clock)
    before = outcomes(run)
    go(run, FakeExecutor(), clock, budget=Budget(max_hours=0))
    assert outcomes(run) == before


def test_a_limit_keeps_to_the_first_series_and_is_no_failure(tmp_path: Path, clock: FakeClock) -> None:
    run = make_run(tmp_path / "run", 3)
    executor = FakeExecutor()
    summary = go(run, executor, clock, budget=Budget(max_series=2))
    first = [entry.series_instance_uid for entry in run.cohort.series[:2]]
    assert {job.key.series_instance_uid for job in executor.submitted} == set(first)
    assert (summary.ended, summary.exit_code, summary.reasons) == (RunEnd.DONE, 0, {"OVER_LIMIT": 2})
    assert go(run, FakeExecutor(), clock).states["done"] == 6


def test_segmentations_wait_for_the_scores_that_crop_them(tmp_path: Path, clock: FakeClock) -> None:
    settings = Settings(segment=SegmentSettings(crop="lung_start..lung_end"))
    run = make_run(tmp_path / "run", products=(EXPERT, NETWORK, SCORER), settings=settings)
    executor = FakeExecutor(lambda job: lasting(job) if "score" in job.stages else None)
    go(run, executor, clock)
    stages = [(j.key.product, j.stages[0]) for j in executor.submitted]
    assert stages.index((str(NETWORK.product), "segment")) > stages.index((str(SCORER.product), "score"))
    assert stages.index(("expert", "segment")) < stages.index((str(SCORER.product), "score"))
    assert outcomes(run)["1.1.1", str(NETWORK.product)].state is State.DONE, "without scores it sees everything"


def test_a_series_that_another_runner_works_on_is_asked_for_after_a_while(
    run: Run, clock: FakeClock, other: OtherRunner
) -> None:
    other.take("1.1.1")

    def stop() -> bool:
        if len(clock.slept) == 3 and other.lease is not None:
            other.give_back()
            other.lease = None
        return False

    executor = FakeExecutor()
    assert go(run, executor, clock, stop=stop).exit_code == 0
    assert clock.slept == [0.2] * 3


class Finished:
    """Leases of a store in which another runner has finished everything."""

    poll_interval = 5.0

    def acquire(self, series_instance_uid: str, owner: str, seconds: float) -> None: ...

    def renew(self, lease: Lease, seconds: float) -> None: ...

    def holds(self, lease: Lease) -> bool:
        return False

    def release(self, lease: Lease, *, finished: bool = False) -> None: ...

    def finished_elsewhere(self, series_instance_uid: str) -> bool:
        return True


def test_a_series_that_another_machine_finished_is_skipped(run: Run, clock: FakeClock) -> None:
    executor = FakeExecutor()
    summary = go(run, executor, clock, leases=Finished())
    assert executor.submitted == []
    assert summary.reasons == {"DONE_BY_OTHER_RUNNER": 2}


def test_series_on_s3_are_prefetched_once_and_keep_their_place(tmp_path: Path, clock: FakeClock) -> None:
    settings = Settings(fetch=FetchSettings(series_at_once=3))
    run = make_run(tmp_path / "run", 4, settings=settings, scheme="s3")
    executor = FakeExecutor(slots=1)
    assert go(run, executor, clock).exit_code == 0
    inputs = [j for j in executor.submitted if j.pool == "input"]
    assert [j.key.series_instance_uid for j in inputs] == ["1.1.1", "1.2.1", "1.3.1", "1.4.1"]
    assert [[e.series_instance_uid for e in j.prefetch] for j in inputs] == [["1.2.1", "1.3.1"], [], [], []]


def test_single_stages_end_no_product_and_skip_series_without_input(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reached(_: Run, entry: SeriesEntry, *__: object) -> bool:
        return entry.series_instance_uid == "1.2.1" or not outcomes_known

    outcomes_known: list[bool] = []
    monkeypatch.setattr("ctenrich.runner.scheduler.has_reached", reached)
    run = make_run(tmp_path / "run", 2)

    def answer(job: Job) -> Failure | None:
        return lasting(job, Reason.ONE_SLICE) if job.key.series_instance_uid == "1.1.1" else None

    go(run, FakeExecutor(answer), clock, stages=("fetch", "sort", "convert"))
    assert set(outcomes(run)) == {("1.1.1", ""), ("1.1.1", "expert")}
    executor, before = FakeExecutor(), outcomes(run)
    outcomes_known.append(True)
    summary = go(run, executor, clock, stages=("segment",))
    assert (summary.attempted, summary.left_alone, summary.failures) == (1, 1, ())
    assert outcomes(run) == before
    assert [(j.key.series_instance_uid, j.stages) for j in executor.submitted] == [("1.2.1", ("segment",))]


def test_a_failure_of_an_earlier_pass_does_not_count_after_the_lease_was_lost(
    run: Run, clock: FakeClock, other: OtherRunner
) -> None:
    """The lease is lost while the product fails; the second pass succeeds, and so does the series."""
    passes: list[str] = []

    def answer(job: Job) -> Failure | None:
        passes.append(job.pool)
        if job.pool == "infer" and passes.count("infer") == 1:
            clock.now += LEASE_SECONDS
            other.take("1.1.1")
            other.give_back()
            return lasting(job)
        return None

    summary = go(run, FakeExecutor(answer), clock)
    assert summary.reasons == {}
    assert summary.states["done"] == 2


def test_the_log_names_attempts_and_reasons(run: Run, clock: FakeClock) -> None:
    go(run, FakeExecutor(lambda job: replace(lasting(job), trace="Traceback")), clock)
    (line,) = (run.root / "log.jsonl").read_text().splitlines()
    for part in ('"attempt": 1', '"reason": "WORKER_DIED"', '"trace": "Traceback"', '"time": 1000.0'):
        assert part in line
