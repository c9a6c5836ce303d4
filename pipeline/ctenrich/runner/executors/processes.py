"""Run jobs in several processes on this machine, so that input, inference and output of different series overlap.

Each pool has its own workers; those of the inference pool keep their models open. A worker that dies, hangs or takes
too much memory costs one job, and is replaced. Workers end with their parent process, however it ends.
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

from ctenrich.inference.model_cache import ModelCache
from ctenrich.reasons import Reason
from ctenrich.runner.executors.base import ExecutorOptions
from ctenrich.runner.job import Failure, Job, JobResult, run_job
from ctenrich.settings import Settings

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

__all__ = ["ProcessExecutor", "open_executor"]

_PR_SET_PDEATHSIG = 1
_WATCH_SECONDS = 0.25


@dataclass
class _Worker:
    """A worker process, the parent's end of its pipe, and its job."""

    pool: str
    device: str
    process: SpawnProcess
    pipe: Connection
    job: Job | None = None
    deadline: float = 0.0
    killed_for: Reason | None = None
    """Why the executor killed it, if it did."""


class ProcessExecutor:
    """Runs jobs in pools of worker processes.

    Parameters
    ----------
    root : Path
        The run's folder.
    settings : Settings
        ``settings.run``: number of workers, time and memory limits.
    """

    name = "processes"
    works_in_background = True

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
        """Wait for a result; enforce the limits of the workers meanwhile."""
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
                    self._enforce_limits(worker)
            self._assign()
        return self._results.popleft()

    def close(self, *, kill: bool = False) -> None:
        """Stop all workers; without `kill` they finish their current job first."""
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
            target=_run_worker, args=(theirs, self._root, settings if pool == "infer" else self._settings, os.getpid()),
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
                    worker = self._workers[index] = self._spawn(worker.pool, worker.device)  # noqa: PLW2901 - its replacement
                job = self._queues[worker.pool].popleft()
                try:
                    worker.pipe.send(job)
                except OSError:  # it died between two jobs: the job waits for its replacement
                    self._queues[worker.pool].appendleft(job)
                    continue
                worker.job = job
                worker.deadline = time.monotonic() + self._settings.run.unit_timeout

    def _receive(self, worker: _Worker) -> None:
        try:
            result: JobResult = worker.pipe.recv()
        except (EOFError, OSError):
            self._replace(worker)
            return
        worker.job = None
        self._results.append(result)

    def _enforce_limits(self, worker: _Worker) -> None:
        """Kill a worker that exceeds its time or memory; its closed pipe then reports it."""
        if worker.killed_for is not None:
            return
        if time.monotonic() > worker.deadline:
            worker.killed_for = Reason.TIMEOUT
        elif _resident_memory(worker.process.pid) > self._limit:
            worker.killed_for = Reason.OUT_OF_MEMORY
        if worker.killed_for is not None:
            worker.process.kill()

    def _replace(self, worker: _Worker) -> None:
        """Replace a worker that has ended; the job that it had fails."""
        worker.process.join(10)
        if worker.job is not None:
            reason = worker.killed_for or Reason.WORKER_DIED
            message = {
                Reason.TIMEOUT: f"ended after {self._settings.run.unit_timeout:g} s",
                Reason.OUT_OF_MEMORY: f"ended at {self._limit / 2**30:.1f} GiB of memory",
            }.get(reason, f"the worker process ended with {_exit_description(worker.process.exitcode)}")
            failure = Failure(stage=_first_stage(worker.job), reason=reason, message=message)
            self._results.append(JobResult(job=worker.job, failure=failure))
        index = self._workers.index(worker)
        worker.pipe.close()
        self._workers[index] = self._spawn(worker.pool, worker.device)


def open_executor(root: Path, settings: Settings, options: ExecutorOptions) -> ProcessExecutor:
    """Start the executor; see :func:`ctenrich.runner.executors.open_executor`.

    Parameters
    ----------
    root : Path
        The run's folder.
    settings : Settings
        The run's settings.
    options : ExecutorOptions
        Not used by this executor.

    Returns
    -------
    ProcessExecutor
        The started executor; its owner closes it.
    """
    return ProcessExecutor(root, settings)


def _first_stage(job: Job) -> str:
    """Return the stage that is reported for a job whose worker ended; the one that ran is not known."""
    return job.stages[0] if job.stages else job.pool


def _exit_description(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def _resident_memory(pid: int | None) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


# ---------------------------------------------------------------- inside a worker


def _run_worker(pipe: Any, root: Path, settings: Settings, parent: int) -> None:
    """Run jobs until the parent closes the pipe or sends None; models stay open."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
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
