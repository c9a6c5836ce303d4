"""The queue of series that have not started."""

from __future__ import annotations

import pytest
from tests.support.runner_cases import series

from ctenrich.records import Cohort
from ctenrich.runner.series_queue import SeriesQueue

ENTRIES = tuple(series(number) for number in range(1, 7))
UIDS = [entry.series_instance_uid for entry in ENTRIES]
COHORT = Cohort("c", ENTRIES)


def drain(queue: SeriesQueue) -> list[str]:
    return [queue.popleft().series_instance_uid for _ in range(len(queue))]


def test_series_come_in_the_order_of_the_cohort_and_those_that_ended_last() -> None:
    assert drain(SeriesQueue(COHORT, UIDS)) == UIDS
    assert drain(SeriesQueue(COHORT, UIDS, set(UIDS))) == UIDS
    assert drain(SeriesQueue(COHORT, UIDS, {UIDS[0], UIDS[2], "9.9"})) == [*UIDS[1:2], *UIDS[3:], UIDS[0], UIDS[2]]
    assert drain(SeriesQueue(COHORT, UIDS[:2])) == UIDS[:2]


def test_what_is_put_back_comes_where_it_was_put() -> None:
    queue = SeriesQueue(COHORT, UIDS)
    one, two = queue.popleft(), queue.popleft()
    queue.append(one)
    assert queue.first == ENTRIES[2]
    queue.put_first([two])
    assert (queue.first, len(queue)) == (two, 6)
    assert drain(queue) == [UIDS[1], *UIDS[2:], UIDS[0]]
    with pytest.raises(IndexError):
        queue.popleft()


def test_a_cleared_queue_names_what_was_in_it() -> None:
    queue = SeriesQueue(COHORT, UIDS, {UIDS[0]})
    queue.append(queue.popleft())
    assert queue.first.series_instance_uid == UIDS[2]
    assert queue.clear() == [*UIDS[2:], UIDS[0], UIDS[1]]
    assert len(queue) == 0
