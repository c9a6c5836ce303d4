"""Make tables in parts: a function over many inputs in several processes, and one Parquet file per table."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ctenrich.workspace import atomic_path

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["RowGroups", "TableFiles", "WorkerPool"]

W = TypeVar("W")
R = TypeVar("R")
_PARTS_APART, _JOINED_ROWS, _MOST_ROWS = 256, 2000, 32_768
"""Parts of a table that are row groups of their own, and rows of the row groups of further parts."""
_AHEAD = 4
"""Results per process that may wait for the consumer; more are not computed in advance, so that memory is bounded."""


@dataclass
class WorkerPool:
    """Maps a function over items in order, in this process or in several."""

    processes: int
    _executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self.processes > 1:
            from multiprocessing import get_context

            self._executor = ProcessPoolExecutor(self.processes, mp_context=get_context("spawn"))
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    @property
    def is_parallel(self) -> bool:
        """Whether functions are called in other processes."""
        return self._executor is not None

    def map(self, function: Callable[[W], R], work: Iterable[W]) -> Iterator[R]:
        """Yield ``function(item)`` for every item, in the order of the items.

        Parameters
        ----------
        function : callable
            A function of a module, for it is pickled.
        work : iterable
            Items; they are taken from it as results are consumed.
        """
        if self._executor is None:
            yield from map(function, work)
            return
        waiting: deque[Future[R]] = deque()
        for item in work:
            waiting.append(self._executor.submit(function, item))
            if len(waiting) >= _AHEAD * self.processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class RowGroups:
    """Writes the parts of a table: each is a row group, until there are many.

    A Parquet file lists every column of every row group at its end, and the writer keeps that list in memory. From
    the 257th part on, parts are therefore joined to row groups of a number of rows, which grows with the table: to a
    sixteenth of the rows before.

    Parameters
    ----------
    writer : pyarrow.parquet.ParquetWriter
        Where the rows go.
    smallest, largest : int
        Rows of a joined row group, at least.
    """

    def __init__(self, writer: Any, smallest: int, largest: int) -> None:
        self._writer = writer
        self._smallest = smallest
        self._largest = largest
        self._parts = 0
        self._written = 0
        self._waiting: list[pa.Table] = []

    def add(self, part: pa.Table) -> None:
        """Add the rows of a part."""
        self._parts += 1
        self._waiting.append(part)
        wanted = min(max(self._smallest, self._written // 16), self._largest)
        if self._parts <= _PARTS_APART or sum(table.num_rows for table in self._waiting) >= wanted:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait for further parts."""
        import pyarrow as pa

        if self._waiting:
            rows = pa.concat_tables(self._waiting)
            self._writer.write_table(rows)
            self._written += rows.num_rows
        self._waiting = []


class TableFiles:
    """Writes one Parquet file per table; all appear together when the block ends without an error.

    Parameters
    ----------
    folder : Path
        Where the files are written.
    schemas : mapping
        Table name -> Arrow schema.
    """

    def __init__(self, folder: Path, schemas: Mapping[str, pa.Schema]) -> None:
        self._folder = folder
        self._schemas = schemas
        self._writers: dict[str, RowGroups] = {}

    def __enter__(self) -> Self:
        import pyarrow.parquet as pq

        self._folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:  # an error here removes the temporary files of the tables before it
            for name, schema in self._schemas.items():
                temporary = stack.enter_context(atomic_path(self._folder / f"{name}.parquet"))
                writer = stack.enter_context(pq.ParquetWriter(temporary, schema, compression="zstd"))
                self._writers[name] = RowGroups(writer, _JOINED_ROWS, _MOST_ROWS)
            self._stack = stack.pop_all()
        return self

    def write(self, tables: Mapping[str, pa.Table]) -> None:
        """Add rows to some of the tables."""
        for name, table in tables.items():
            if table.num_rows:
                self._writers[name].add(table)

    def __exit__(self, *details: Any) -> None:
        if details[0] is not None:
            self._stack.__exit__(*details)
            return
        with self._stack:
            for writer in self._writers.values():
                writer.flush()
