"""Selected series of several parts of a catalog, kept in temporary files until the cohort file is written."""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import overload

from ctenrich.records import SeriesEntry
from ctenrich.select.cohort_file import StoredSeries, write_cohort_table

__all__ = ["SeriesSpool", "SpooledSeries", "heads_of"]

_AT_ONCE = 256
"""Series that are Python objects at a time, in all parts together."""


class SeriesSpool:
    """Takes the series of one part of a catalog after the other. A single part stays in memory."""

    def __init__(self) -> None:
        self._first: Sequence[SeriesEntry] = ()
        self._spooled: SpooledSeries | None = None

    def add(self, series: Sequence[SeriesEntry]) -> None:
        """Add the series of a part, sorted by UID; none of them is in another part."""
        if not series:
            return
        if self._spooled is None and not self._first:
            self._first = series
            return
        if self._spooled is None:
            self._spooled = SpooledSeries()
            self._spooled.add(self._first)
            self._first = ()
        self._spooled.add(series)

    def series(self) -> tuple[SeriesEntry, ...] | SpooledSeries:
        """All series, sorted by UID."""
        return tuple(self._first) if self._spooled is None else self._spooled


class SpooledSeries(Sequence[SeriesEntry]):
    """Series in temporary files, sorted by UID. Only their instances are there; all else is in memory."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ctenrich-series-")
        self._parts: list[StoredSeries] = []
        self._heads: dict[str, SeriesEntry] = {}

    def add(self, series: Iterable[SeriesEntry]) -> None:
        """Write the series of a part, which are sorted by UID."""
        path = Path(self._folder.name) / f"{len(self._parts)}.parquet"
        write_cohort_table(path, "part", "", series)
        part = StoredSeries(path)
        self._parts.append(part)
        for entry in part.in_batches(_AT_ONCE):
            self._heads[entry.series_instance_uid] = replace(entry, instances=())

    def heads(self) -> tuple[SeriesEntry, ...]:
        """All series without their instances, sorted by UID."""
        return tuple(self._heads[uid] for uid in sorted(self._heads))

    def set_heads(self, heads: Iterable[SeriesEntry]) -> None:
        """Replace all that is not in files: companions and notes were added."""
        self._heads = {entry.series_instance_uid: entry for entry in heads}

    def __len__(self) -> int:
        return len(self._heads)

    def __iter__(self) -> Iterator[SeriesEntry]:
        at_once = max(1, _AT_ONCE // len(self._parts))
        parts = (part.in_batches(at_once) for part in self._parts)
        for entry in heapq.merge(*parts, key=lambda entry: entry.series_instance_uid):
            yield replace(self._heads[entry.series_instance_uid], instances=entry.instances)

    @overload
    def __getitem__(self, index: int) -> SeriesEntry: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[SeriesEntry, ...]: ...
    def __getitem__(self, index: int | slice) -> SeriesEntry | tuple[SeriesEntry, ...]:
        if isinstance(index, slice):
            wanted = range(len(self))[index]
            found = tuple(islice(self, max(wanted, default=-1) + 1))
            return tuple(found[at] for at in wanted)
        return next(islice(self, range(len(self))[index], None))


def heads_of(series: Sequence[SeriesEntry]) -> Sequence[SeriesEntry]:
    """Series whose instances are not needed; those of spooled series are left out, so that no file is read."""
    return series.heads() if isinstance(series, SpooledSeries) else series
