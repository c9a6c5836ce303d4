"""The ledger: rows come back as they were written, old words are read, a series has one holder at a time."""

from __future__ import annotations

import multiprocessing
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ctenrich.errors import InputError, UsageError
from ctenrich.ledger.leases import LedgerLeases
from ctenrich.ledger.ledger import Ledger
from ctenrich.ledger.reader import LedgerReader
from ctenrich.ledger.rows import IssueRow, ProductKey, RunRow, StageTiming, TimingRow
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Outcome, Severity, State

DONE = Outcome("1.2", "expert", State.DONE, "validate", None, "", 1.5, 10)
KEY = ProductKey("1.2", "expert")


class FakeTime:
    """A clock that a test sets."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def ledger(tmp_path: Path, time: FakeTime) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite", now=time) as opened:
        yield opened


def test_outcomes_come_back_in_the_order_of_the_plan_and_replace_each_other(ledger: Ledger) -> None:
    ledger.set_plan([("1.3", ""), KEY])
    failed = Outcome("1.2", "expert", State.FAILED, "segment", Reason.NO_EXPERT, "none", 0.5, 5)
    series = Outcome("1.3", "", State.EXCLUDED, "sort", Reason.ONE_SLICE, "x", 0.0, 0)
    ledger.record(failed, series)
    ledger.record(DONE)
    assert ledger.plan() == [ProductKey("1.3", ""), KEY]
    assert ledger.outcomes() == [series, DONE]


def test_a_product_that_is_not_planned_any_more_loses_its_outcome(ledger: Ledger) -> None:
    ledger.set_plan([KEY])
    ledger.record(DONE)
    ledger.set_plan([("1.2", "other")])
    assert ledger.outcomes() == []


def test_issues_of_a_stage_are_replaced_not_added(ledger: Ledger) -> None:
    issue = Issue("rule", Severity.NOTE, "seg", "text", "checker", "1.0")
    ledger.set_issues(KEY, "validate", [issue, issue])
    ledger.set_issues(KEY, "encode", [])
    ledger.set_issues(KEY, "validate", [issue])
    assert ledger.issues() == [IssueRow(series_instance_uid="1.2", product="expert", stage="validate", issue=issue)]


def test_attempts_are_counted_by_stage_and_product(ledger: Ledger, time: FakeTime) -> None:
    timing = StageTiming(
        series_instance_uid="1.2", product="", stage="fetch", seconds=1.0, cpu_seconds=0.5, peak_memory=100, worker="w"
    )
    other = StageTiming(
        series_instance_uid="1.2", product="", stage="sort", seconds=2.0, cpu_seconds=0.5, peak_memory=100
    )
    ledger.add_timings(timing, other)
    time.now = 1001.0
    ledger.add_timings(timing)
    rows = ledger.timings()
    assert [(r.stage, r.attempt, r.finished) for r in rows] == [
        ("fetch", 1, 1000.0), ("sort", 1, 1000.0), ("fetch", 2, 1001.0),
    ]  # fmt: skip
    assert rows[0] == TimingRow(
        series_instance_uid="1.2", product="", stage="fetch", attempt=1, seconds=1.0, cpu_seconds=0.5,
        peak_memory=100, worker="w", finished=1000.0,
    )  # fmt: skip


def test_starts_of_runners_are_rows_with_names(ledger: Ledger, time: FakeTime) -> None:
    number = ledger.start_run("run", "0.1.0", "serial")
    (killed,) = ledger.runs()
    assert isinstance(killed, RunRow)
    assert (killed.started, killed.finished, killed.ended) == (1000.0, None, "")
    time.now = 1010.0
    ledger.finish_run(number, "done")
    (done,) = ledger.runs()
    assert (done.command, done.version, done.executor) == ("run", "0.1.0", "serial")
    assert (done.finished, done.ended) == (1010.0, "done")


@pytest.mark.parametrize(
    ("old", "member"),
    [
        ("BOMB", Reason.DECOMPRESSION_BOMB),
        ("BOOKS", Reason.INCONSISTENT_TOTALS),
        ("ELSEWHERE", Reason.DONE_BY_OTHER_RUNNER),
    ],
)
def test_reason_codes_of_an_earlier_version_are_read(ledger: Ledger, tmp_path: Path, old: str, member: Reason) -> None:
    ledger.record(DONE)
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as db, db:
        db.execute("UPDATE outcomes SET state = 'failed', reason = ?", (old,))
    with LedgerReader(tmp_path / "ledger.sqlite") as reader:
        assert [o.reason for o in reader.outcomes()] == [member]


def test_a_reader_sees_a_ledger_that_is_being_written_and_cannot_write(ledger: Ledger, tmp_path: Path) -> None:
    with LedgerReader(tmp_path / "ledger.sqlite") as reader:
        assert reader.outcomes() == []
        ledger.record(DONE)
        assert reader.outcomes() == [DONE]
        assert not hasattr(reader, "record")


def test_a_lease_has_one_owner_until_it_expires(ledger: Ledger, time: FakeTime) -> None:
    leases = ledger.leases(time)
    first = leases.acquire("1.2", "a", 60)
    assert first is not None
    assert first.expires == 1060.0
    assert leases.acquire("1.2", "b", 60) is None
    time.now = 1059.9
    assert leases.acquire("1.2", "b", 60) is None
    assert ledger.leased_series() == ["1.2"]
    time.now = 1060.0
    taken = leases.acquire("1.2", "b", 60)
    assert taken is not None
    assert taken.token > first.token
    assert not leases.holds(first)
    assert leases.renew(first, 60) is None
    leases.release(first)
    assert leases.holds(taken), "a lease that was lost cannot be given back"


def test_a_renewed_lease_lasts_from_then_on_and_a_released_one_is_free(ledger: Ledger, time: FakeTime) -> None:
    leases = ledger.leases(time)
    lease = leases.acquire("1.2", "a", 60)
    assert lease is not None
    time.now = 1050.0
    renewed = leases.renew(lease, 60)
    assert renewed is not None
    assert (renewed.token, renewed.expires) == (lease.token, 1110.0)
    time.now = 1100.0
    assert leases.acquire("1.2", "b", 60) is None
    leases.release(renewed)
    assert ledger.leased_series() == []
    assert leases.acquire("1.2", "b", 60) is not None


def test_a_lease_of_an_earlier_boot_has_expired(
    ledger: Ledger, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = ledger.leases(time)
    assert leases.acquire("1.2", "a", 60) is not None
    monkeypatch.setattr("ctenrich.ledger.leases._boot_id", lambda: "after a restart")
    time.now = 5.0
    assert leases.acquire("1.2", "b", 60) is not None


def _compete(path: Path, owner: str, queue: multiprocessing.Queue[int]) -> None:
    with Ledger(path) as ledger:
        leases: LedgerLeases = ledger.leases()
        queue.put(sum(leases.acquire(f"1.{n}", owner, 60) is not None for n in range(50)))


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
    with closing(sqlite3.connect(newer)) as db, db:
        db.execute("PRAGMA user_version = 99")
    for open_ledger in (Ledger, LedgerReader):
        with pytest.raises(UsageError, match="version 99"):
            open_ledger(newer)
    junk = tmp_path / "junk.sqlite"
    junk.write_bytes(b"not a database, but long enough to be read as one" * 50)
    with pytest.raises(InputError, match="DAMAGED_LEDGER"):
        Ledger(junk)
    empty = tmp_path / "empty.sqlite"
    empty.touch()
    with pytest.raises(UsageError, match="the ledger is empty"):
        LedgerReader(empty)
    with pytest.raises(UsageError, match="no ledger"):
        LedgerReader(tmp_path / "missing.sqlite")
    assert not (tmp_path / "missing.sqlite").exists()
