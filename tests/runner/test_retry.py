"""Retries are bounded, fatal failures stop the run, and a postponed series waits for another one to end."""

from __future__ import annotations

import pytest
from tests.support.runner_cases import lasting, series, transient

from ctenrich.reasons import Reason
from ctenrich.runner.job import Failure, Job, JobResult
from ctenrich.runner.retry import NextStep, PostponedSeries, RetryPolicy

JOB = Job(entry=series(1), pool="input", stages=("fetch",))


def decide(failure: Failure | None, attempt: int = 1, *, tries: int = 3, others: bool = True) -> NextStep:
    job = Job(entry=series(1), pool="input", stages=("fetch",), attempt=attempt)
    policy = RetryPolicy(postpone_if_disk_full=True, tries=tries)
    return policy.decide(JobResult(job=job, failure=failure), others_at_work=others)


@pytest.mark.parametrize("tries", [1, 2, 5])
def test_the_last_attempt_is_final(tries: int) -> None:
    steps = [decide(transient(JOB), attempt, tries=tries) for attempt in range(1, tries + 1)]
    assert steps == [NextStep.RETRY] * (tries - 1) + [NextStep.ACCEPT]


def test_success_and_lasting_failures_are_final_at_once() -> None:
    assert decide(None) is NextStep.ACCEPT
    assert decide(lasting(JOB)) is NextStep.ACCEPT


def test_a_fatal_failure_stops_even_if_it_could_be_postponed() -> None:
    assert decide(lasting(JOB, Reason.DISK_FULL, fatal=True)) is NextStep.STOP


def test_a_full_disk_postpones_only_if_another_series_can_free_it() -> None:
    full = lasting(JOB, Reason.DISK_FULL)
    assert decide(full) is NextStep.POSTPONE
    assert decide(full, others=False) is NextStep.ACCEPT
    keeps = RetryPolicy(postpone_if_disk_full=False)
    assert keeps.decide(JobResult(job=JOB, failure=full), others_at_work=True) is NextStep.ACCEPT


def test_postponed_series_may_start_after_any_series_has_ended() -> None:
    postponed = PostponedSeries()
    assert "1" not in postponed
    postponed.add("1")
    assert "1" in postponed
    postponed.series_ended()
    assert "1" not in postponed
    postponed.add("1")
    assert "1" in postponed
