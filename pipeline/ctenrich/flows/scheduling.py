"""Run the tasks of a graph: each once those before it have ended, several at a time as far as resources allow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Generic, TypeVar

from ctenrich.errors import UsageError
from ctenrich.flows.capacity import Allotment, Capacity, FreeResources, Needs
from ctenrich.reasons import Reason

__all__ = ["GraphTask", "run_tasks"]

T = TypeVar("T")
Stop = Callable[[], bool]


@dataclass(frozen=True, kw_only=True)
class GraphTask(Generic[T]):
    """A task of a graph."""

    name: str
    run: Callable[[Allotment, Stop], T]
    """Gets its resources, and whether it has to end; raises KeyboardInterrupt if it ended for that reason."""
    before: frozenset[str] = frozenset()
    """Tasks that have to end first."""
    priority: int = 0
    """Of the tasks that could start, the one with the highest starts first, then the one that could start earlier."""
    needs: Needs = field(default_factory=Needs)
    in_caller: bool = False
    """Runs in the thread of the caller, alone there; signals arrive in that thread."""


def run_tasks(tasks: Sequence[GraphTask[T]], capacity: Capacity, *, stop: Stop = lambda: False) -> list[T]:
    """Run the tasks of a graph.

    A task that waits for a resource keeps those of lower priority from taking it.

    Parameters
    ----------
    tasks : sequence of GraphTask
        The tasks.
    capacity : Capacity
        Resources for tasks that run at the same time.
    stop : callable
        Whether to end.

    Returns
    -------
    list
        Results in the order in which the tasks ended.

    Raises
    ------
    Exception
        Of the first task that failed; the others were ended.
    UsageError
        BAD_FLOW: a task needs more than the capacity.
    KeyboardInterrupt
        It was stopped.
    """
    order = TopologicalSorter({task.name: task.before for task in tasks})
    order.prepare()
    free, cancelled = FreeResources(capacity), threading.Event()
    waiting: list[GraphTask[T]] = []
    running: dict[Future[T], tuple[GraphTask[T], Allotment]] = {}
    ended: list[T] = []

    def should_stop() -> bool:
        return cancelled.is_set() or stop()

    with ThreadPoolExecutor(max_workers=max(1, len(tasks))) as pool:
        try:
            while order.is_active():
                names = set(order.get_ready())
                waiting += [task for task in tasks if task.name in names]
                waiting.sort(key=lambda task: -task.priority)  # stable
                inline = _start(waiting, free, lambda one, given: _submit(pool, running, one, given, should_stop))
                if inline is not None:
                    task, given = inline
                    ended.append(task.run(given, should_stop))
                    free.give_back(given)
                    order.done(task.name)
                elif not running:
                    message = f"{waiting[0].name} needs more than this machine has"
                    raise UsageError(Reason.BAD_FLOW, message, "state what it has, or need less")
                for future in _finished(running, at_once=inline is not None):
                    task, given = running.pop(future)
                    free.give_back(given)
                    ended.append(future.result())
                    order.done(task.name)
        except BaseException:
            cancelled.set()
            wait(running)
            if stop():
                raise KeyboardInterrupt from None
            raise
    return ended


def _submit(
    pool: ThreadPoolExecutor,
    running: dict[Future[T], tuple[GraphTask[T], Allotment]],
    task: GraphTask[T],
    given: Allotment,
    stop: Stop,
) -> None:
    running[pool.submit(task.run, given, stop)] = (task, given)


def _start(
    waiting: list[GraphTask[T]], free: FreeResources, submit: Callable[[GraphTask[T], Allotment], None]
) -> tuple[GraphTask[T], Allotment] | None:
    """Start the tasks that fit, those of highest priority first; one for the thread of the caller is returned."""
    blocked: frozenset[str] = frozenset()
    inline = None
    for task in list(waiting):
        lacking = free.lacking(task.needs)
        if lacking or blocked & task.needs.names:
            blocked |= lacking
            continue
        if task.in_caller and inline is not None:
            continue
        waiting.remove(task)
        given = free.take(task.needs)
        if task.in_caller:
            inline = (task, given)
        else:
            submit(task, given)
    return inline


def _finished(running: dict[Future[T], tuple[GraphTask[T], Allotment]], *, at_once: bool) -> list[Future[T]]:
    """Tasks that have ended, as they were started; waits for one unless `at_once`."""
    done, _ = wait(running, timeout=0 if at_once else None, return_when=FIRST_COMPLETED)
    return [future for future in running if future in done]
