"""Several processes on this machine: while the device infers, others prepare the next series and finish the last.

Each lane has its workers; the inferring ones keep their models. A worker that dies, hangs or takes too much memory
costs the unit that it had, and is replaced. Workers end with their parent, whatever ends it.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import time
from collections import deque
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctenrich.reasons import Reason
from ctenrich.runner.job import Failure, Unit, UnitResult, run_unit
from ctenrich.settings import Settings

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

__all__ = ["ProcessExecutor"]

_PR_SET_PDEATHSIG = 1
_WATCH_SECONDS = 0.25


@dataclass
class _Worker:
    """A process, its end of the pipe, and what it works on."""

    lane: str
    device: str
    process: SpawnProcess
    pipe: Connection
    unit: Unit | None = None
    deadline: float = 0.0
    verdict: Reason | None = None
    """Why we ended it, if we did."""


class ProcessExecutor:
    """Lanes of worker processes.

    Parameters
    ----------
    root : Path
        The run's folder.
    settings : Settings
        ``settings.run`` says how many workers, for how long, with how much memory.
    """

    name = "processes"

    def __init__(self, root: Path, settings: Settings) -> None:
        self._root = root
        self._settings = settings
        self._context = multiprocessing.get_context("spawn")
        self._limit = settings.run.memory_limit or _share_of_memory()
        self._queues: dict[str, deque[Unit]] = {"input": deque(), "infer": deque(), "output": deque()}
        devices = settings.run.devices or (settings.segment.device,)
        lanes = [("input", "cpu")] * settings.run.input_workers + [("output", "cpu")] * settings.run.output_workers
        self._workers = [self._spawn(lane, device) for lane, device in (*lanes, *(("infer", d) for d in devices))]
        self.slots = len(self._workers) + 1
        self._results: deque[UnitResult] = deque()

    def submit(self, unit: Unit) -> None:
        """Queue a unit for the workers of its lane."""
        self._queues[unit.lane].append(unit)
        self._assign()

    def collect(self, timeout: float) -> UnitResult | None:
        """Wait for a result; watch the workers meanwhile."""
        until = time.monotonic() + timeout
        while not self._results:
            left = until - time.monotonic()
            if left <= 0 or not any(w.unit for w in self._workers):
                return None
            ready = wait([w.pipe for w in self._workers], min(left, _WATCH_SECONDS))
            for worker in list(self._workers):
                if worker.pipe in ready:
                    self._receive(worker)
                elif worker.unit is not None:
                    self._watch(worker)
            self._assign()
        return self._results.popleft()

    def close(self, *, kill: bool = False) -> None:
        """Stop all workers; without `kill` they finish the unit that they have."""
        for worker in self._workers:
            if kill:
                worker.process.kill()
            else:
                with contextlib.suppress(OSError):
                    worker.pipe.send(None)
        for worker in self._workers:
            worker.process.join(10)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join(10)
            worker.pipe.close()
        self._workers.clear()

    # ------------------------------------------------------------ workers

    def _spawn(self, lane: str, device: str) -> _Worker:
        ours, theirs = self._context.Pipe()
        settings = replace(self._settings, segment=replace(self._settings.segment, device=device))
        process = self._context.Process(
            target=_work, args=(theirs, self._root, settings if lane == "infer" else self._settings, os.getpid()),
            name=f"ctenrich-{lane}",
        )  # fmt: skip
        process.start()
        theirs.close()
        return _Worker(lane, device, process, ours)

    def _assign(self) -> None:
        for index, worker in enumerate(self._workers):
            if worker.unit is None and self._queues[worker.lane]:
                if not worker.process.is_alive():
                    worker.pipe.close()
                    worker = self._workers[index] = self._spawn(worker.lane, worker.device)  # noqa: PLW2901 - its successor
                unit = self._queues[worker.lane].popleft()
                try:
                    worker.pipe.send(unit)
                except OSError:  # it died between two units: the unit waits for its successor
                    self._queues[worker.lane].appendleft(unit)
                    continue
                worker.unit = unit
                worker.deadline = time.monotonic() + self._settings.run.unit_timeout

    def _receive(self, worker: _Worker) -> None:
        try:
            result: UnitResult = worker.pipe.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        worker.unit = None
        self._results.append(result)

    def _watch(self, worker: _Worker) -> None:
        """End a worker that is over its time or memory; its pipe then says so."""
        if worker.verdict is not None:
            return
        if time.monotonic() > worker.deadline:
            worker.verdict = Reason.TIMEOUT
        elif _resident(worker.process.pid) > self._limit:
            worker.verdict = Reason.OUT_OF_MEMORY
        if worker.verdict is not None:
            worker.process.kill()

    def _bury(self, worker: _Worker) -> None:
        worker.process.join(10)
        if worker.unit is not None:
            reason = worker.verdict or Reason.WORKER_DIED
            message = {
                Reason.TIMEOUT: f"ended after {self._settings.run.unit_timeout:g} s",
                Reason.OUT_OF_MEMORY: f"ended at {self._limit / 2**30:.1f} GiB of memory",
            }.get(reason, f"the worker process ended with {_ending(worker.process.exitcode)}")
            failure = Failure(_stage_at_work(worker.unit), reason, message)
            self._results.append(UnitResult(worker.unit, failure))
        index = self._workers.index(worker)
        worker.pipe.close()
        self._workers[index] = self._spawn(worker.lane, worker.device)


def _stage_at_work(unit: Unit) -> str:
    """What is known of a unit whose worker is gone: its first stage."""
    return unit.stages[0] if unit.stages else unit.lane


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def _share_of_memory() -> int:
    import psutil

    return int(psutil.virtual_memory().total * 0.8)


def _resident(pid: int | None) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


# ---------------------------------------------------------------- inside a worker


def _work(pipe: Any, root: Path, settings: Settings, parent: int) -> None:
    """Take units until told to stop; the models stay open."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    from ctenrich.runner.model_cache import Models

    models = Models(settings)
    name = multiprocessing.current_process().name
    while True:
        try:
            unit = pipe.recv()
        except (EOFError, OSError):
            return
        if unit is None:
            return
        pipe.send(run_unit(unit, root, settings, models, worker=name))
