"""The ledger survives, balances, and gives a series to one runner at a time."""

from __future__ import annotations

import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from ctenrich.errors import InconsistencyError, UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Outcome, Severity, State
from ctenrich.runner.ledger import Ledger, StageTiming, balance

DONE = Outcome("1.2", "expert", State.DONE, "validate", None, "", 1.5, 10)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def test_outcomes_come_back_in_the_order_of_the_plan_and_replace_each_other(ledger: Ledger) -> None:
    ledger.set_plan([("1.3", ""), ("1.2", "expert")])
    failed = Outcome("1.2", "expert", State.FAILED, "segment", Reason.NO_EXPERT, "none", 0.5, 5)
    ledger.record(failed)
    series = Outcome("1.3", "", State.EXCLUDED, "sort", Reason.ONE_SLICE, "x", 0.0, 0)
    ledger.record(series)
    ledger.record(DONE)
    assert ledger.outcomes() == [series, DONE]


def test_what_is_not_planned_any_more_loses_its_outcome(ledger: Ledger) -> None:
    ledger.set_plan([("1.2", "expert")])
    ledger.record(DONE)
    ledger.set_plan([("1.2", "other")])
    assert ledger.outcomes() == []


def test_books_that_do_not_balance_are_an_error() -> None:
    with pytest.raises(InconsistencyError, match="1 of 2 without an outcome"):
        balance([("1.2", "expert"), ("1.2", "")], [DONE])
    with pytest.raises(InconsistencyError, match="1 unplanned"):
        balance([], [DONE])
    assert balance([("1.2", "expert")], [DONE])["done"] == 1


def test_issues_of_a_stage_are_replaced_not_added(ledger: Ledger) -> None:
    issue = Issue("rule", Severity.NOTE, "seg", "text")
    ledger.set_issues("1.2", "expert", "validate", [issue, issue])
    ledger.set_issues("1.2", "expert", "validate", [issue])
    assert ledger.issues() == [("1.2", "expert", "validate", issue)]


def test_attempts_are_counted(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.add_timing(StageTiming("1.2", "", "fetch", 1.0, 0.5, 100))
    assert [row[3] for row in ledger.timings()] == [1, 2]


def test_a_lease_is_held_by_one_owner_and_fences_the_one_who_slept(ledger: Ledger) -> None:
    first = ledger.acquire("1.2", "a", 60)
    assert first is not None
    assert ledger.acquire("1.2", "b", 60) is None
    slept = ledger.acquire("1.3", "a", -1)
    assert slept is not None
    taken = ledger.acquire("1.3", "b", 60)
    assert taken is not None
    assert taken.token > slept.token
    assert not ledger.holds(slept)
    assert ledger.renew(slept, 60) is None
    assert ledger.holds(taken)
    ledger.release(first)
    assert ledger.acquire("1.2", "b", 60) is not None


def _compete(path: Path, owner: str, queue: multiprocessing.Queue[int]) -> None:
    with Ledger(path) as ledger:
        queue.put(sum(ledger.acquire(f"1.{n}", owner, 60) is not None for n in range(50)))


def test_two_processes_never_hold_one_series(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=_compete, args=(path, str(n), queue)) for n in range(2)]
    for worker in workers:
        worker.start()
    total = sum(queue.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
    assert total == 50


def test_a_ledger_of_another_version_or_kind_is_refused(tmp_path: Path) -> None:
    newer = tmp_path / "newer.sqlite"
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(UsageError, match="version 99"):
        Ledger(newer)
    junk = tmp_path / "junk.sqlite"
    junk.write_bytes(b"not a database, but long enough to be read as one" * 50)
    with pytest.raises(UsageError, match="BAD_RUN"):
        Ledger(junk)
    with pytest.raises(UsageError, match="no ledger"):
        Ledger(tmp_path / "missing.sqlite", read_only=True)
