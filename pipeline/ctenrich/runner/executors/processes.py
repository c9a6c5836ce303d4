"""Several processes on this machine: while the device infers, others prepare the next series and finish the last.

Each pool has its workers; the inferring ones keep their models. A worker that dies, hangs or takes too much memory
costs the job that it had, and is replaced. Workers end with their parent, whatever ends it.
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
from ctenrich.runner.job import Failure, Job, JobResult, run_job
from ctenrich.settings import Settings

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

__all__ = ["ProcessExecutor"]

_PR_SET_PDEATHSIG = 1
_WATCH_SECONDS = 0.25


@dataclass
class _Worker:
    """A process, its end of the pipe, and what it works on."""

    pool: str
    device: str
    process: SpawnProcess
    pipe: Connection
    job: Job | None = None
    deadline: float = 0.0
    verdict: Reason | None = None
    """Why we ended it, if we did."""


class ProcessExecutor:
    """WorkerPools of worker processes.

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
        self._limit = settings.run.worker_memory()
        self._queues: dict[str, deque[Job]] = {"input": deque(), "infer": deque(), "output": deque()}
        devices = settings.run.devices or (settings.segment.device,)
        pools = [("input", "cpu")] * settings.run.input_workers + [("output", "cpu")] * settings.run.output_workers
        self._workers = [self._spawn(pool, device) for pool, device in (*pools, *(("infer", d) for d in devices))]
        self.slots = len(self._workers) + 1
        self._results: deque[JobResult] = deque()

    def submit(self, job: Job) -> None:
        """Queue a job for the workers of its pool."""
        self._queues[job.pool].append(job)
        self._assign()

    def collect(self, timeout: float) -> JobResult | None:
        """Wait for a result; watch the workers meanwhile."""
        until = time.monotonic() + timeout
        while not self._results:
            left = until - time.monotonic()
            if left <= 0 or not any(w.job for w in self._workers):
                return None
            ready = wait([w.pipe for w in self._workers], min(left, _WATCH_SECONDS))
            for worker in list(self._workers):
                if worker.pipe in ready:
                    self._receive(worker)
                elif worker.job is not None:
                    self._watch(worker)
            self._assign()
        return self._results.popleft()

    def close(self, *, kill: bool = False) -> None:
        """Stop all workers; without `kill` they finish the job that they have."""
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

    def _spawn(self, pool: str, device: str) -> _Worker:
        ours, theirs = self._context.Pipe()
        settings = replace(self._settings, segment=replace(self._settings.segment, device=device))
        process = self._context.Process(
            target=_work, args=(theirs, self._root, settings if pool == "infer" else self._settings, os.getpid()),
            name=f"ctenrich-{pool}",
        )  # fmt: skip
        process.start()
        theirs.close()
        return _Worker(pool, device, process, ours)

    def _assign(self) -> None:
        for index, worker in enumerate(self._workers):
            if worker.job is None and self._queues[worker.pool]:
                if not worker.process.is_alive():
                    worker.pipe.close()
                    worker = self._workers[index] = self._spawn(worker.pool, worker.device)  # noqa: PLW2901 - its successor
                job = self._queues[worker.pool].popleft()
                try:
                    worker.pipe.send(job)
                except OSError:  # it died between two jobs: the job waits for its successor
                    self._queues[worker.pool].appendleft(job)
                    continue
                worker.job = job
                worker.deadline = time.monotonic() + self._settings.run.unit_timeout

    def _receive(self, worker: _Worker) -> None:
        try:
            result: JobResult = worker.pipe.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        worker.job = None
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
        if worker.job is not None:
            reason = worker.verdict or Reason.WORKER_DIED
            message = {
                Reason.TIMEOUT: f"ended after {self._settings.run.unit_timeout:g} s",
                Reason.OUT_OF_MEMORY: f"ended at {self._limit / 2**30:.1f} GiB of memory",
            }.get(reason, f"the worker process ended with {_ending(worker.process.exitcode)}")
            failure = Failure(_stage_at_work(worker.job), reason, message)
            self._results.append(JobResult(worker.job, failure))
        index = self._workers.index(worker)
        worker.pipe.close()
        self._workers[index] = self._spawn(worker.pool, worker.device)


def _stage_at_work(job: Job) -> str:
    """What is known of a job whose worker is gone: its first stage."""
    return job.stages[0] if job.stages else job.pool


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def _resident(pid: int | None) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


# ---------------------------------------------------------------- inside a worker


def _work(pipe: Any, root: Path, settings: Settings, parent: int) -> None:
    """Take jobs until told to stop; the models stay open."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    from ctenrich.inference.model_cache import ModelCache

    models = ModelCache(settings)
    name = multiprocessing.current_process().name
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        if job is None:
            return
        pipe.send(run_job(job, root, settings, models, worker=name))
