"""Which series are fetched together with the next one, by one request to a storage that prefers batches."""

from __future__ import annotations

from collections.abc import Iterable

from ctenrich.records import SeriesEntry
from ctenrich.runner.series_queue import SeriesQueue
from ctenrich.storage import prefers_batches

__all__ = ["Prefetcher"]


class Prefetcher:
    """Takes series from the head of the queue, each at most once.

    Parameters
    ----------
    series_at_once : int
        Largest number of series of one fetch (``fetch.series_at_once``).
    """

    def __init__(self, series_at_once: int) -> None:
        self._series_at_once = series_at_once
        self._prefetched: set[str] = set()

    def take(self, entry: SeriesEntry, waiting: SeriesQueue) -> tuple[SeriesEntry, ...]:
        """Remove from the queue the series whose objects the fetch of `entry` transfers too.

        Parameters
        ----------
        entry : SeriesEntry
            The series that starts now.
        waiting : SeriesQueue
            Series that have not started, the next one first.

        Returns
        -------
        tuple of SeriesEntry
            Empty if the storage of `entry` does not prefer batches, or if it was prefetched itself;
            :meth:`give_back` returns them to the queue.
        """
        if entry.series_instance_uid in self._prefetched or not _prefers_batches(entry):
            return ()
        taken: list[SeriesEntry] = []
        while waiting and len(taken) + 1 < self._series_at_once and _prefers_batches(waiting.first):
            taken.append(waiting.popleft())
        self._prefetched |= {e.series_instance_uid for e in taken}
        return tuple(taken)

    def give_back(self, entries: Iterable[SeriesEntry], waiting: SeriesQueue) -> None:
        """Put prefetched series back to the head of the queue, in their order."""
        waiting.put_first(tuple(entries))


def _prefers_batches(entry: SeriesEntry) -> bool:
    return any(prefers_batches(instance.url) for instance in entry.instances)
