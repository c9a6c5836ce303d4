"""Run many small pieces of work on threads, one torch thread each, and return their results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["in_order", "torch_threads"]

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run with `count` CPU threads (0: as many as torch chose)."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_order(
    work: Callable[[T], R], items: Sequence[T], workers: int, threads_each: int = 1
) -> Generator[R, None, None]:
    """Results of `work` for each item, in the items' order; at most one result more than `workers` is waiting.

    Parameters
    ----------
    work : callable
        Called with one item.
    items : sequence
    workers : int
        Items that are worked on at once; 1: in the caller's own thread.
    threads_each : int
        Threads of torch inside each worker, one worker or many: a product that is split among another number of
        threads may round differently. Two threads that share one small product wait for each other most of the
        time, and on a busy machine for many times as long as the product takes. With several workers this is also
        the number of the caller's threads until the end, for the same reason.

    Yields
    ------
    result of `work`
    """
    workers = min(workers, len(items))
    if workers <= 1:
        for item in items:
            with torch_threads(threads_each):
                result = work(item)
            yield result
        return
    import torch

    before = torch.get_num_threads()
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads_each,)) as pool:
        waiting: deque[Future[R]] = deque()
        torch.set_num_threads(threads_each)
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            torch.set_num_threads(before)
