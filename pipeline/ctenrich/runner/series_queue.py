"""The series of a run that have not started, in the order in which they start."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from itertools import chain

from ctenrich.records import Cohort, SeriesEntry
from ctenrich.select.cohort_file import entries_at

__all__ = ["SeriesQueue"]


class SeriesQueue:
    """A queue whose series are read from the cohort file when they are taken.

    Series that have ended come last: that their results are still there is checked when all others have been run.

    Parameters
    ----------
    cohort : Cohort
        The cohort.
    uids : sequence of str
        Series Instance UIDs of its first series, which are to be run.
    ended : collection of str
        Series Instance UIDs of those that have an outcome already.
    """

    def __init__(self, cohort: Cohort, uids: Sequence[str], ended: Collection[str] = frozenset()) -> None:
        later = {at for at, uid in enumerate(uids) if uid in ended}
        now = set(range(len(uids))) - later
        self._uids = [*(uids[at] for at in sorted(now)), *(uids[at] for at in sorted(later))]
        self._next = 0
        self._unread: Iterator[SeriesEntry] = chain(entries_at(cohort, now), entries_at(cohort, later))
        self._read: deque[SeriesEntry] = deque()
        self._returned: deque[SeriesEntry] = deque()

    def __len__(self) -> int:
        return len(self._read) + len(self._uids) - self._next + len(self._returned)

    @property
    def first(self) -> SeriesEntry:
        """The series that starts next."""
        if self._read:
            return self._read[0]
        if self._next < len(self._uids):
            self._read.append(self._take_unread())
            return self._read[0]
        return self._returned[0]

    def popleft(self) -> SeriesEntry:
        """Take the series that starts next.

        Raises
        ------
        IndexError
            If the queue is empty.
        """
        if self._read:
            return self._read.popleft()
        if self._next < len(self._uids):
            return self._take_unread()
        return self._returned.popleft()

    def append(self, entry: SeriesEntry) -> None:
        """Put a series back to the end of the queue."""
        self._returned.append(entry)

    def put_first(self, entries: Sequence[SeriesEntry]) -> None:
        """Put series back to the head of the queue, in their order."""
        self._read.extendleft(reversed(entries))

    def clear(self) -> list[str]:
        """Empty the queue, and return the Series Instance UIDs of what was in it."""
        held = [entry.series_instance_uid for entry in self._read]
        returned = [entry.series_instance_uid for entry in self._returned]
        left = [*held, *self._uids[self._next :], *returned]
        self._read.clear()
        self._returned.clear()
        self._next = len(self._uids)
        return left

    def _take_unread(self) -> SeriesEntry:
        self._next += 1
        return next(self._unread)
