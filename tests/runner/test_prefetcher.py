"""Which series are fetched together: those at the head of the queue that are on S3, each once."""

from __future__ import annotations

from tests.support.runner_cases import series

from ctenrich.records import Cohort, SeriesEntry
from ctenrich.runner.prefetch import Prefetcher
from ctenrich.runner.series_queue import SeriesQueue


def queue(*entries: SeriesEntry) -> SeriesQueue:
    return SeriesQueue(Cohort("c", entries), [entry.series_instance_uid for entry in entries])


def patients(waiting: SeriesQueue) -> list[str]:
    return [waiting.popleft().patient_id for _ in range(len(waiting))]


def test_up_to_the_limit_and_not_past_a_series_from_elsewhere() -> None:
    waiting = queue(series(2, "s3"), series(3, "s3"), series(4, "s3"))
    assert Prefetcher(3).take(series(1, "s3"), waiting) == (series(2, "s3"), series(3, "s3"))
    assert patients(waiting) == ["p4"]
    waiting = queue(series(2, "s3"), series(3, "gs"), series(4, "s3"))
    assert Prefetcher(9).take(series(1, "s3"), waiting) == (series(2, "s3"),)


def test_nothing_for_a_series_that_is_not_on_s3_and_nothing_at_one_by_one() -> None:
    waiting = queue(series(2, "s3"))
    assert Prefetcher(9).take(series(1), waiting) == ()
    assert Prefetcher(1).take(series(1, "s3"), waiting) == ()
    assert len(waiting) == 1


def test_prefetched_series_return_to_the_head_and_prefetch_nothing_themselves() -> None:
    prefetcher = Prefetcher(3)
    waiting = queue(series(2, "s3"), series(3, "s3"), series(4, "s3"))
    taken = prefetcher.take(series(1, "s3"), waiting)
    prefetcher.give_back(taken, waiting)
    assert (waiting.first.patient_id, len(waiting)) == ("p2", 3)
    assert prefetcher.take(waiting.popleft(), waiting) == ()
    assert prefetcher.take(waiting.popleft(), waiting) == ()
    assert len(waiting) == 1
