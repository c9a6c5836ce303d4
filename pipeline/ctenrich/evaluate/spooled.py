"""Results of an evaluation that may not fit into memory: rows in their order, and values of metrics by structure.

Both are in memory as long as they are few, and otherwise in temporary files without a name, which end with the process.
"""

from __future__ import annotations

import pickle
import struct
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import IO, Any, Generic, NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

__all__ = ["MetricTable", "MetricTables", "RowSpool", "SeriesValues", "SpooledRows", "in_order"]

_ROWS = 20_000
"""Rows in memory."""
_BYTES = 64_000_000
"""Bytes of values in memory."""

T = TypeVar("T")


def _temporary_file(owner: object) -> IO[bytes]:
    """Open a file without a name that is closed when its owner is no longer used."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with its owner
    weakref.finalize(owner, file.close)
    return file


class SpooledRows(Sequence[T], Generic[T]):
    """Rows in a temporary file; a part of them is in memory at a time."""

    def __init__(self) -> None:
        self._file = _temporary_file(self)
        self._places: list[int] = []
        self._length = 0

    def extend(self, rows: Sequence[T]) -> None:
        """Write a part of the rows."""
        self._places.append(self._file.seek(0, 2))
        pickle.dump(tuple(rows), self._file, pickle.HIGHEST_PROTOCOL)
        self._length += len(rows)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        for place in self._places:
            self._file.seek(place)
            yield from pickle.load(self._file)  # noqa: S301 - written by this process, and no other can

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        if isinstance(index, slice):
            wanted = range(len(self))[index]
            found = dict(enumerate(islice(self, max(wanted, default=-1) + 1)))
            return tuple(found[at] for at in wanted)
        return next(islice(self, range(len(self))[index], None))


class RowSpool(Generic[T]):
    """Takes rows one after the other."""

    def __init__(self) -> None:
        self._rows: list[T] = []
        self._spooled: SpooledRows[T] | None = None

    def add(self, row: T) -> None:
        """Add a row.

        Parameters
        ----------
        row : object
            It is pickled if there are many.
        """
        self._rows.append(row)
        if len(self._rows) >= _ROWS:
            self._spooled = self._spooled or SpooledRows()
            self._spooled.extend(self._rows)
            self._rows = []

    def rows(self) -> tuple[T, ...] | SpooledRows[T]:
        """All rows, in their order; a tuple if they are few."""
        if self._spooled is None:
            return tuple(self._rows)
        if self._rows:
            self._spooled.extend(self._rows)
            self._rows = []
        return self._spooled


class SeriesValues(NamedTuple):
    """Values of one product, each of another series, in the order in which the series were added."""

    series: NDArray[np.int64]
    """Numbers of the series, shape (n,)."""
    values: NDArray[np.float64]
    """Their values, shape (n,)."""


class MetricTable(NamedTuple):
    """Values of one metric of one structure in one stratum."""

    place: int
    """Number of its first value among all values: tables are in the order of their first values."""
    segment: str
    metric: str
    stratum: str
    values: dict[str, SeriesValues]
    """Product -> values; numbers of series are the same in all tables."""


_RECORD = struct.Struct("=QIHd")
_FIELDS = np.dtype([("place", "<u8"), ("series", "<u4"), ("product", "<u2"), ("value", "<f8")])


class MetricTables:
    """Values of metrics by structure. Those of one metric of one structure are in memory when its tables are made."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._parts: dict[tuple[str, str], list[tuple[int, int]]] = {}
        self._buffers: dict[tuple[str, str], bytearray] = {}
        self._buffered = 0
        self._length = 0
        self._series: dict[str, int] = {}
        self._products: dict[str, int] = {}

    def __len__(self) -> int:
        return self._length

    def add(self, *, series: str, segment: str, product: str, metric: str, value: float) -> None:
        """Add a value.

        Parameters
        ----------
        series : str
            Series Instance UID.
        segment : str
            Structure.
        product : str
            Product whose mask was measured.
        metric : str
            Name of the metric.
        value : float
            Its value.
        """
        numbers = _number(self._series, series), _number(self._products, product)
        self._buffers.setdefault((segment, metric), bytearray()).extend(_RECORD.pack(self._length, *numbers, value))
        self._length += 1
        self._buffered += _RECORD.size
        if self._buffered >= _BYTES:
            self._write()

    def tables(self, strata: Mapping[str, str] | None, whole: str) -> Iterator[MetricTable]:
        """Tables of every structure, metric and stratum, one structure and metric after the other.

        Parameters
        ----------
        strata : mapping, optional
            Series -> stratum; None: all series are the stratum `whole`.
        whole : str
            Name of the stratum of all series.
        """
        products = list(self._products)
        names = [whole if strata is None else strata.get(uid, "not stated") for uid in self._series]
        numbers: dict[str, int] = {}
        stratum_of = np.array([_number(numbers, name) for name in names], np.int64)
        strata_names = list(numbers)
        for segment, metric in dict.fromkeys((*self._parts, *self._buffers)):
            values = self._values_of(segment, metric)
            of_rows = stratum_of[values["series"]]
            for stratum in _in_order_of_appearance(of_rows):
                chosen = values[of_rows == stratum]
                found = {
                    products[product]: _last_of_each(chosen[chosen["product"] == product])
                    for product in _in_order_of_appearance(chosen["product"])
                }
                yield MetricTable(int(chosen["place"][0]), segment, metric, strata_names[stratum], found)

    def _values_of(self, segment: str, metric: str) -> NDArray[np.void]:
        parts = []
        for place, size in self._parts.get((segment, metric), ()):
            assert self._file is not None
            self._file.seek(place)
            parts.append(self._file.read(size))
        return np.frombuffer(b"".join((*parts, self._buffers.get((segment, metric), b""))), _FIELDS)

    def _write(self) -> None:
        self._file = self._file or _temporary_file(self)
        place = self._file.seek(0, 2)
        for key, buffer in self._buffers.items():
            self._file.write(buffer)
            self._parts.setdefault(key, []).append((place, len(buffer)))
            place += len(buffer)
        self._buffers, self._buffered = {}, 0


def _in_order_of_appearance(numbers: NDArray[Any]) -> list[int]:
    found, places = np.unique(numbers, return_index=True)
    return [int(number) for number in found[np.argsort(places)]]


def _last_of_each(rows: NDArray[np.void]) -> SeriesValues:
    """Values of one product; of a series that was added again, the last one in the place of the first."""
    series, values = rows["series"].astype(np.int64), rows["value"].astype(np.float64)
    found, places, numbers = np.unique(series, return_index=True, return_inverse=True)
    if found.size == series.size:
        return SeriesValues(series, values)
    last = np.empty(found.size)
    last[numbers] = values
    order = np.argsort(places)
    return SeriesValues(found[order], last[order])


def _number(known: dict[str, int], name: str) -> int:
    return known.setdefault(name, len(known))


def in_order(found: Iterable[tuple[int, T]]) -> list[T]:
    """Return results in the order of the tables that they were computed from.

    Parameters
    ----------
    found : iterable of (int, object)
        `MetricTable.place` and result.
    """
    return [result for _, result in sorted(found, key=lambda pair: pair[0])]
