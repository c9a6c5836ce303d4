"""Leases of one runner: renewed in time, confirmed before recording, dropped when another runner has them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.runner_cases import FakeClock

from ctenrich.errors import TransientError
from ctenrich.ledger.leases import Lease
from ctenrich.ledger.ledger import Ledger
from ctenrich.reasons import Reason
from ctenrich.runner.lease_keeper import LeaseKeeper


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def keeper(ledger: Ledger, clock: FakeClock, owner: str) -> LeaseKeeper:
    return LeaseKeeper(ledger.leases(clock.boottime), owner, clock.boottime, seconds=60)


def test_a_lease_is_renewed_when_half_of_its_time_is_left(ledger: Ledger, clock: FakeClock) -> None:
    one, two = keeper(ledger, clock, "one"), keeper(ledger, clock, "two")
    assert one.acquire("1.1")
    clock.now += 29
    one.renew_due()
    clock.now += 30.5
    assert not two.acquire("1.1"), "not renewed yet, not expired either"
    one.renew_due()
    clock.now += 59
    assert not two.acquire("1.1"), "renewed 59 s ago"
    clock.now += 2
    assert two.acquire("1.1")


def test_what_another_runner_has_taken_is_lost_for_good(ledger: Ledger, clock: FakeClock) -> None:
    one, two = keeper(ledger, clock, "one"), keeper(ledger, clock, "two")
    assert one.acquire("1.1")
    assert one.confirm("1.1")
    clock.now += 61
    assert two.acquire("1.1")
    one.renew_due()
    assert not one.confirm("1.1")
    two.release("1.1")
    assert not one.confirm("1.1"), "only a new lease counts"
    assert one.acquire("1.1")
    assert one.confirm("1.1")


def test_an_expired_lease_is_renewed_by_confirming_it(ledger: Ledger, clock: FakeClock) -> None:
    one, two = keeper(ledger, clock, "one"), keeper(ledger, clock, "two")
    assert one.acquire("1.1")
    clock.now += 500
    assert one.confirm("1.1")
    assert not two.acquire("1.1")


def test_all_leases_are_released_at_the_end(ledger: Ledger, clock: FakeClock) -> None:
    one, two = keeper(ledger, clock, "one"), keeper(ledger, clock, "two")
    assert one.acquire("1.1")
    assert one.acquire("1.2")
    one.release_all()
    assert two.acquire("1.1")
    assert two.acquire("1.2")
    assert not one.confirm("1.1")


class CountedLeases:
    """Leases that count how often they are renewed; the first renewals fail."""

    poll_interval = 0.0

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.renewed = threading.Event()
        self.threads: set[str] = set()

    def acquire(self, series_instance_uid: str, owner: str, seconds: float) -> Lease:
        return Lease(series_instance_uid=series_instance_uid, owner=owner, token=1, expires=0.0)

    def renew(self, lease: Lease, seconds: float) -> Lease:
        self.threads.add(threading.current_thread().name)
        if self.failures:
            self.failures -= 1
            raise TransientError(Reason.IO_ERROR, "no network")
        self.renewed.set()
        return lease


def test_leases_are_renewed_while_the_runner_itself_runs_a_job() -> None:
    leases = CountedLeases(failures=2)
    one = LeaseKeeper(leases, "one", lambda: 0.0, seconds=0.02)  # type: ignore[arg-type]
    assert one.acquire("1.1")
    with one.renewing():
        assert leases.renewed.wait(60), "the job would have ended after its lease"
    leases.renewed.clear()
    assert leases.threads == {"leases"}
    assert not any(t.name == "leases" for t in threading.enumerate()), "the thread has ended"


def test_the_ledger_takes_renewals_from_the_second_thread(tmp_path: Path) -> None:
    now = [0.0]
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        leases = ledger.leases(lambda: now[0])
        one, two = (LeaseKeeper(leases, name, lambda: now[0], seconds=0.04) for name in ("one", "two"))
        assert one.acquire("1.1")
        with one.renewing():
            now[0] = 0.03
            for _ in range(6000):
                if one._held["1.1"].expires > 0.05:
                    break
                threading.Event().wait(0.01)
        now[0] = 0.05
        assert not two.acquire("1.1"), "renewed at 0.03 until 0.07"
        assert one.confirm("1.1")
