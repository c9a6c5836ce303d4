"""Leases of one runner: renewed in time, confirmed before recording, dropped when another runner has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.runner_cases import FakeClock

from ctenrich.ledger.ledger import Ledger
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
