"""Run jobs on Ray Core, on one machine or many: inference in actors that keep models open, other jobs in tasks.

The run's folder must be on storage that every node can access. Only the driver writes the ledger. If a node is lost,
its jobs are submitted again on other nodes, a bounded number of times.
"""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ctenrich.errors import UsageError
from ctenrich.inference.model_cache import ModelCache
from ctenrich.reasons import Reason
from ctenrich.runner.executors.base import ExecutorOptions
from ctenrich.runner.job import Failure, Job, JobResult, run_job
from ctenrich.settings import Settings

__all__ = ["RayExecutor", "open_executor"]

_LOST_TRIES = 5
"""Attempts for a job whose workers are lost."""


@dataclass
class _Flight:
    """A job in progress on a worker."""

    job: Job
    started: float
    actor: int | None
    lost: int = 0


class RayExecutor:
    """Runs jobs on a Ray cluster.

    Parameters
    ----------
    root : Path
        The run's folder, on shared storage.
    settings : Settings
        ``settings.run``: number of workers of each pool.
    address : str, optional
        Of a running cluster; None: a local one is started for the duration of the run.
    """

    name = "ray"
    works_in_background = True

    def __init__(self, root: Path, settings: Settings, *, address: str | None = None) -> None:
        self._ray = _import_ray()
        self._root, self._settings = root, settings
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if address is None and not self._ray.is_initialized():
            self._ray.init(
                _node_ip_address="127.0.0.1", include_dashboard=False, logging_level="ERROR", log_to_driver=False
            )
        elif not self._ray.is_initialized():
            self._ray.init(address=address, logging_level="ERROR", log_to_driver=False)
        gpus = float(self._ray.cluster_resources().get("GPU", 0))
        per_actor = settings.run.gpu_share if gpus and not settings.segment.device.startswith("cpu") else 0.0
        count = max(1, int(gpus / per_actor)) if per_actor else max(1, len(settings.run.devices))
        self._actor_options = {"num_gpus": per_actor, "num_cpus": 1, "max_restarts": -1, "max_task_retries": 0}
        self._make_actor = self._ray.remote(_InferenceActor).options(**self._actor_options)
        self._actors = [self._make_actor.remote(root, settings) for _ in range(count)]
        self._busy: set[int] = set()
        self._task = self._ray.remote(_run_as_task).options(num_cpus=1, max_retries=0)
        self._queues: dict[str, deque[tuple[Job, int]]] = {"input": deque(), "infer": deque(), "output": deque()}
        self._flights: dict[Any, _Flight] = {}
        self._tasks = settings.run.input_workers + settings.run.output_workers
        self.slots = count + self._tasks + 1

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self._queues[job.pool].append((job, 0))
        self._launch()

    def collect(self, timeout: float) -> JobResult | None:
        """Wait for a result."""
        until = time.monotonic() + timeout
        while self._flights:
            left = max(0.0, until - time.monotonic())
            ready, _ = self._ray.wait(list(self._flights), num_returns=1, timeout=min(left, 1.0))
            if ready:
                result = self._result_of(ready[0])
                self._launch()
                if result is not None:
                    return result
            elif (late := self._overdue()) is not None:
                return late
            if time.monotonic() >= until:
                return None
        return None

    def close(self, *, kill: bool = False) -> None:
        """End actors and tasks, and disconnect from the cluster."""
        for reference in self._flights:
            self._ray.cancel(reference, force=kill) if self._flights[reference].actor is None else None
        for actor in self._actors:
            self._ray.kill(actor)
        self._flights.clear()
        self._ray.shutdown()

    # ------------------------------------------------------------ flights

    def _launch(self) -> None:
        """Submit jobs while workers are free, so that no queue grows in the cluster."""
        for pool in ("output", "infer", "input"):
            queue = self._queues[pool]
            while queue:
                if pool == "infer":
                    free = next((n for n in range(len(self._actors)) if n not in self._busy), None)
                    if free is None:
                        break
                    job, lost = queue.popleft()
                    self._busy.add(free)
                    reference = self._actors[free].run.remote(job)
                    self._flights[reference] = _Flight(job, time.monotonic(), free, lost)
                else:
                    if sum(f.actor is None for f in self._flights.values()) >= self._tasks:
                        break
                    job, lost = queue.popleft()
                    reference = self._task.remote(job, self._root, self._settings)
                    self._flights[reference] = _Flight(job, time.monotonic(), None, lost)

    def _result_of(self, reference: Any) -> JobResult | None:
        """Return the result of a finished job; None if its worker was lost and the job is submitted again."""
        flight = self._flights.pop(reference)
        if flight.actor is not None:
            self._busy.discard(flight.actor)
        try:
            result: JobResult = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return self._submit_again(flight, error)
        return result

    def _submit_again(self, flight: _Flight, error: Exception) -> JobResult | None:
        """Submit the job of a lost worker again; returns its failure after too many attempts."""
        if isinstance(error, self._ray.exceptions.OutOfMemoryError):
            return _failed_result(flight.job, Reason.OUT_OF_MEMORY, "the node ran out of memory")
        if flight.lost + 1 >= _LOST_TRIES:
            text = f"the worker was lost {flight.lost + 1} times ({type(error).__name__})"
            return _failed_result(flight.job, Reason.WORKER_DIED, text)
        if flight.actor is not None:
            self._ray.kill(self._actors[flight.actor])
            self._actors[flight.actor] = self._make_actor.remote(self._root, self._settings)
        self._queues[flight.job.pool].appendleft((flight.job, flight.lost + 1))
        return None

    def _overdue(self) -> JobResult | None:
        limit = self._settings.run.unit_timeout
        for reference, flight in list(self._flights.items()):
            if time.monotonic() - flight.started > limit:
                del self._flights[reference]
                if flight.actor is None:
                    self._ray.cancel(reference, force=True)
                else:
                    self._ray.kill(self._actors[flight.actor])
                    self._actors[flight.actor] = self._make_actor.remote(self._root, self._settings)
                    self._busy.discard(flight.actor)
                return _failed_result(flight.job, Reason.TIMEOUT, f"ended after {limit:g} s")
        return None


def open_executor(root: Path, settings: Settings, options: ExecutorOptions) -> RayExecutor:
    """Start the executor; see :func:`ctenrich.runner.executors.open_executor`.

    Parameters
    ----------
    root : Path
        The run's folder.
    settings : Settings
        The run's settings.
    options : ExecutorOptions
        Address of a running cluster.

    Returns
    -------
    RayExecutor
        The started executor; its owner closes it.
    """
    return RayExecutor(root, settings, address=options.address)


def _failed_result(job: Job, reason: Reason, message: str) -> JobResult:
    return JobResult(job=job, failure=Failure(stage=job.stages[0], reason=reason, message=message))


def _import_ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise UsageError(Reason.MISSING_EXTRA, "ray is not installed", "pip install 'ctenrich[ray]'") from None
    return ray


def _run_as_task(job: Job, root: Path, settings: Settings) -> JobResult:
    return run_job(job, root, settings, ModelCache(settings), worker="ray")


class _InferenceActor:
    """An actor that holds the models of one device."""

    def __init__(self, root: Path, settings: Settings) -> None:
        self._root, self._settings = root, settings
        self._models = ModelCache(replace(settings))

    def run(self, job: Job) -> JobResult:
        """Run one job."""
        return run_job(job, self._root, self._settings, self._models, worker="ray-infer")
