"""Selected series whose instances stay in Arrow columns, in temporary files, until the cohort file is written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ctenrich.records import Instance, SeriesEntry

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SeriesSpool", "SpooledSeries", "heads_of", "instance_type", "instances_in", "with_counts"]

_AT_ONCE = 256
"""Series that are Python objects at a time, in all parts together."""
_PER_BATCH = 32
"""Series whose instances are read at a time from each part."""
_FEW = 20_000
"""Instances of a single part that stay in memory as Python objects."""


def instance_type() -> pa.StructType:
    """Arrow type of an instance in a cohort file."""
    import pyarrow as pa

    text = pa.string()
    fields = [("sop_instance_uid", text), ("url", text), ("size", pa.int64()), ("md5", text), ("crc32c", text)]
    return pa.struct(fields)


def instances_in(lists: pa.ListArray) -> Iterator[tuple[Instance, ...]]:
    """Instances of each list, whose type is that of :func:`instance_type`."""
    flat = lists.flatten()
    columns = (column.to_pylist() for column in flat.flatten())
    instances = list(map(Instance, *columns))
    end = 0
    for length in lists.value_lengths().to_pylist():
        start, end = end, end + (length or 0)
        yield tuple(instances[start:end])


class SeriesSpool:
    """Takes the series of one part of a catalog after the other. A few of a single part become Python objects."""

    def __init__(self) -> None:
        self._first: tuple[tuple[SeriesEntry, ...], pa.ListArray] | None = None
        self._spooled: SpooledSeries | None = None

    def add(self, heads: Sequence[SeriesEntry], instances: pa.ListArray) -> None:
        """Add the series of a part.

        Parameters
        ----------
        heads : sequence of SeriesEntry
            Without their instances, sorted by UID; none of them is in another part.
        instances : pyarrow.ListArray
            The instances of each, of the type of :func:`instance_type`.
        """
        if not heads:
            return
        few = len(instances.flatten()) <= _FEW
        if self._spooled is None and self._first is None and few:
            self._first = (tuple(heads), instances)
            return
        if self._spooled is None:
            self._spooled = SpooledSeries()
            if self._first is not None:
                self._spooled.add(*self._first)
                self._first = None
        self._spooled.add(heads, instances)

    def series(self) -> tuple[SeriesEntry, ...] | SpooledSeries:
        """All series, sorted by UID."""
        if self._spooled is not None:
            return self._spooled
        if self._first is None:
            return ()
        heads, instances = self._first
        return tuple(replace(head, instances=own) for head, own in zip(heads, instances_in(instances), strict=True))


class SpooledSeries(Sequence[SeriesEntry]):
    """Series in temporary files, sorted by UID. Only their instances are there; all else is in memory."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ctenrich-series-")
        self._heads: dict[str, SeriesEntry] = {}
        self._places: dict[str, tuple[int, int]] = {}
        """Part and number of instances of each series; in a part they are in the order of their UIDs."""
        self._parts: list[Path] = []
        self._change: Callable[[pa.ListArray], pa.ListArray] | None = None

    def add(self, heads: Iterable[SeriesEntry], instances: pa.ListArray) -> None:
        """Write the series of a part, which are sorted by UID."""
        import pyarrow as pa

        path = Path(self._folder.name) / f"{len(self._parts)}.arrows"
        table = pa.table({"instances": instances})
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=_PER_BATCH)
        for head, count in zip(heads, instances.value_lengths().to_pylist(), strict=True):
            self._heads[head.series_instance_uid] = head
            self._places[head.series_instance_uid] = (len(self._parts), count)
        self._parts.append(path)

    def heads(self) -> tuple[SeriesEntry, ...]:
        """All series without their instances, sorted by UID."""
        return tuple(self._heads[uid] for uid in sorted(self._heads))

    def set_heads(self, heads: Iterable[SeriesEntry]) -> None:
        """Replace all that is not in files: companions and notes were added."""
        self._heads = {entry.series_instance_uid: entry for entry in heads}

    def counts(self) -> list[int]:
        """Number of instances of each series, in order."""
        return [self._places[uid][1] for uid in sorted(self._heads)]

    def changed(
        self, head: Callable[[SeriesEntry], SeriesEntry], instances: Callable[[pa.ListArray], pa.ListArray]
    ) -> SpooledSeries:
        """The same series with changes that are made when they are read.

        Parameters
        ----------
        head : callable
            Changes a series without its instances.
        instances : callable
            Changes instances; their number stays.

        Returns
        -------
        SpooledSeries
            It has the same temporary files.
        """
        other = SpooledSeries.__new__(SpooledSeries)
        before = self._change
        other.__dict__.update(self.__dict__)
        other.set_heads(map(head, self.heads()))
        other._change = instances if before is None else lambda lists: instances(before(lists))
        return other

    def listed(self, at_once: int = _AT_ONCE) -> Iterator[tuple[list[SeriesEntry], pa.ListArray]]:
        """So many series at a time, in order, without their instances; and these as a list for each."""
        import pyarrow as pa

        uids = sorted(self._heads)
        readers = [_PartReader(path) for path in self._parts]
        try:
            for start in range(0, len(uids), at_once):
                here = uids[start : start + at_once]
                rows = sorted(range(len(here)), key=lambda row: self._places[here[row]][0])  # by part; sorts are stable
                lists: list[pa.Array] = []
                for part, own in groupby(rows, key=lambda row: self._places[here[row]][0]):
                    lists += readers[part].next(len(list(own)))
                together = pa.concat_arrays(lists) if len(lists) > 1 else lists[0]
                if rows != sorted(rows):
                    place = dict(zip(rows, range(len(rows)), strict=True))
                    together = together.take(pa.array([place[row] for row in range(len(rows))]))
                yield [self._heads[uid] for uid in here], together if self._change is None else self._change(together)
        finally:
            for reader in readers:
                reader.close()

    def __len__(self) -> int:
        return len(self._heads)

    def __iter__(self) -> Iterator[SeriesEntry]:
        for heads, lists in self.listed():
            for head, instances in zip(heads, instances_in(lists), strict=True):
                yield replace(head, instances=instances)

    @overload
    def __getitem__(self, index: int) -> SeriesEntry: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[SeriesEntry, ...]: ...
    def __getitem__(self, index: int | slice) -> SeriesEntry | tuple[SeriesEntry, ...]:
        if isinstance(index, slice):
            wanted = range(len(self))[index]
            found = self._first(max(wanted, default=-1) + 1)
            return tuple(found[at] for at in wanted)
        return self._first(range(len(self))[index] + 1)[-1]

    def _first(self, count: int) -> list[SeriesEntry]:
        return [entry for _, entry in zip(range(count), self, strict=False)]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


class _PartReader:
    """The lists of a part's file, one after the other."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: tuple[Any, Any] | None = None
        self._batch: pa.Array | None = None

    def next(self, count: int) -> list[pa.Array]:
        """So many of the lists that follow."""
        import pyarrow as pa

        if self._open is None:
            file = pa.OSFile(str(self._path))
            self._open = file, pa.ipc.open_stream(file)
        found: list[pa.Array] = []
        while count:
            if self._batch is None or not len(self._batch):
                self._batch = self._open[1].read_next_batch().column(0)
            found.append(self._batch[:count])
            count -= len(found[-1])
            self._batch = self._batch[len(found[-1]) :]
        return found

    def close(self) -> None:
        """Close the file."""
        if self._open is not None:
            self._open[1].close()
            self._open[0].close()


def heads_of(series: Sequence[SeriesEntry]) -> Sequence[SeriesEntry]:
    """Series whose instances are not needed; those of spooled series are left out, so that no file is read."""
    return series.heads() if isinstance(series, SpooledSeries) else series


def with_counts(series: Sequence[SeriesEntry]) -> Iterator[tuple[SeriesEntry, int]]:
    """Series as :func:`heads_of` gives them, and the number of instances of each."""
    if isinstance(series, SpooledSeries):
        yield from zip(series.heads(), series.counts(), strict=True)
    else:
        yield from ((entry, len(entry.instances)) for entry in series)
