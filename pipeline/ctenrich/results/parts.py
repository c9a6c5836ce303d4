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

__all__ = ["TableFiles", "WorkerPool"]

W = TypeVar("W")
R = TypeVar("R")
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
        self._writers: dict[str, Any] = {}

    def __enter__(self) -> Self:
        import pyarrow.parquet as pq

        self._folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:  # an error here removes the temporary files of the tables before it
            for name, schema in self._schemas.items():
                temporary = stack.enter_context(atomic_path(self._folder / f"{name}.parquet"))
                self._writers[name] = stack.enter_context(pq.ParquetWriter(temporary, schema, compression="zstd"))
            self._stack = stack.pop_all()
        return self

    def write(self, tables: Mapping[str, pa.Table]) -> None:
        """Add rows to some of the tables."""
        for name, table in tables.items():
            if table.num_rows:
                self._writers[name].write_table(table)

    def __exit__(self, *details: Any) -> None:
        self._stack.__exit__(*details)
