"""Run jobs on Ray Core, on one machine or many: inference in actors that keep models open, other jobs in tasks.

The run's folder must be on storage that every node can access. Only the driver writes the ledger. If a node is lost,
its jobs are submitted again on other nodes, a bounded number of times.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ctenrich.errors import UsageError
from ctenrich.inference.model_cache import ModelCache
from ctenrich.reasons import Reason
from ctenrich.runner.executors.base import ExecutorOptions
from ctenrich.runner.job import Failure, Job, JobResult, run_job
from ctenrich.settings import Settings

__all__ = ["RayExecutor", "RayWorkers", "open_executor"]

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
    workers : callable, optional
        Ray -> workers of the cluster, with the methods of :class:`RayWorkers`, which is the default.
    """

    name = "ray"
    works_in_background = True

    def __init__(
        self,
        root: Path,
        settings: Settings,
        *,
        address: str | None = None,
        workers: Callable[[Any], RayWorkers] | None = None,
    ) -> None:
        self._ray = _import_ray()
        self._settings = settings
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if address is None and not self._ray.is_initialized():
            self._ray.init(
                _node_ip_address="127.0.0.1", include_dashboard=False, logging_level="ERROR", log_to_driver=False
            )
        elif not self._ray.is_initialized():
            self._ray.init(address=address, logging_level="ERROR", log_to_driver=False)
        self._workers = workers(self._ray) if workers else RayWorkers(self._ray, root, settings)
        self._idle = deque(range(self._workers.actors))
        self._most_tasks = settings.run.input_workers + settings.run.output_workers
        self._tasks = 0
        self._queues: dict[str, deque[tuple[Job, int]]] = {"input": deque(), "infer": deque(), "output": deque()}
        self._flights: dict[Any, _Flight] = {}
        self._ready: deque[Any] = deque()
        self.slots = self._workers.actors + self._most_tasks + 1

    @property
    def in_flight(self) -> int:
        """Number of jobs that workers have now; at most one for every actor and task."""
        return len(self._flights)

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self._queues[job.pool].append((job, 0))
        self._launch()

    def collect(self, timeout: float) -> JobResult | None:
        """Wait for a result."""
        until = time.monotonic() + timeout
        while self._flights:
            if not self._ready:
                self._ready.extend(self._wait(min(max(0.0, until - time.monotonic()), 1.0)))
            if self._ready:
                result = self._result_of(self._ready.popleft())
                self._launch()
                if result is not None:
                    return result
            elif (late := self._overdue()) is not None:
                self._launch()
                return late
            if time.monotonic() >= until:
                return None
        return None

    def close(self, *, kill: bool = False) -> None:
        """End actors and tasks, and disconnect from the cluster."""
        for reference, flight in self._flights.items():
            if flight.actor is None:
                self._ray.cancel(reference, force=kill)
        self._workers.close()
        self._flights.clear()
        self._ready.clear()
        self._ray.shutdown()

    # ------------------------------------------------------------ flights

    def _launch(self) -> None:
        """Submit jobs while workers are free, so that no queue grows in the cluster."""
        for pool in ("output", "infer", "input"):
            queue = self._queues[pool]
            while queue and (self._idle if pool == "infer" else self._tasks < self._most_tasks):
                actor = self._idle.popleft() if pool == "infer" else None
                self._tasks += actor is None
                job, lost = queue.popleft()
                self._flights[self._workers.start(job, actor)] = _Flight(job, time.monotonic(), actor, lost)

    def _wait(self, seconds: float) -> list[Any]:
        """Wait for the first result, and return all that are there: one look at all jobs serves many results."""
        references = list(self._flights)
        ready, others = self._ray.wait(references, num_returns=1, timeout=seconds)
        if ready and others:
            ready, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        return list(ready)

    def _landed(self, reference: Any) -> _Flight:
        """Forget a job in progress; its worker is free."""
        flight = self._flights.pop(reference)
        if flight.actor is None:
            self._tasks -= 1
        else:
            self._idle.append(flight.actor)
        return flight

    def _result_of(self, reference: Any) -> JobResult | None:
        """Return the result of a finished job; None if its worker was lost and the job is submitted again."""
        flight = self._landed(reference)
        try:
            result: JobResult = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return self._submit_again(flight, error)
        return replace(result, job=flight.job)

    def _submit_again(self, flight: _Flight, error: Exception) -> JobResult | None:
        """Submit the job of a lost worker again; returns its failure after too many attempts."""
        if isinstance(error, self._ray.exceptions.OutOfMemoryError):
            return _failed_result(flight.job, Reason.OUT_OF_MEMORY, "the node ran out of memory")
        if flight.lost + 1 >= _LOST_TRIES:
            text = f"the worker was lost {flight.lost + 1} times ({type(error).__name__})"
            return _failed_result(flight.job, Reason.WORKER_DIED, text)
        if flight.actor is not None:
            self._workers.replace(flight.actor)
        self._queues[flight.job.pool].appendleft((flight.job, flight.lost + 1))
        return None

    def _overdue(self) -> JobResult | None:
        limit = self._settings.run.unit_timeout
        for reference, flight in self._flights.items():
            if time.monotonic() - flight.started > limit:
                self._landed(reference)
                if flight.actor is None:
                    self._ray.cancel(reference, force=True)
                else:
                    self._workers.replace(flight.actor)
                return _failed_result(flight.job, Reason.TIMEOUT, f"ended after {limit:g} s")
        return None


class RayWorkers:
    """Workers of a cluster: an actor for every device, and a task for every other job.

    Parameters
    ----------
    ray : module
        Ray, connected to a cluster.
    root : Path
        The run's folder.
    settings : Settings
        Devices and their shares.
    """

    def __init__(self, ray: Any, root: Path, settings: Settings) -> None:
        self._ray, self._root, self._settings = ray, root, settings
        gpus = float(ray.cluster_resources().get("GPU", 0))
        per_actor = settings.run.gpu_share if gpus and not settings.segment.device.startswith("cpu") else 0.0
        self.actors = max(1, int(gpus / per_actor)) if per_actor else max(1, len(settings.run.devices))
        """Number of actors, which are numbered from 0."""
        options = {"num_gpus": per_actor, "num_cpus": 1, "max_restarts": -1, "max_task_retries": 0}
        self._make_actor = ray.remote(_InferenceActor).options(**options)
        self._made = [self._make_actor.remote(root, settings) for _ in range(self.actors)]
        self._task = ray.remote(_run_as_task).options(num_cpus=1, max_retries=0)

    def start(self, job: Job, actor: int | None) -> Any:
        """Start a job on an actor, or as a task, and return the reference of its result."""
        if actor is None:
            return self._task.remote(job, self._root, self._settings)
        return self._made[actor].run.remote(job)

    def replace(self, actor: int) -> None:
        """End an actor that is lost or hangs, and start another one in its place."""
        self._ray.kill(self._made[actor])
        self._made[actor] = self._make_actor.remote(self._root, self._settings)

    def close(self) -> None:
        """End all actors."""
        for actor in self._made:
            self._ray.kill(actor)


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
    return _small(run_job(job, root, settings, ModelCache(settings), worker="ray"))


def _small(result: JobResult) -> JobResult:
    """Leave out what the driver knows: the instances of a job's series are most of its bytes."""
    job = replace(result.job, entry=replace(result.job.entry, instances=()), prefetch=())
    return replace(result, job=job)


class _InferenceActor:
    """An actor that holds the models of one device."""

    def __init__(self, root: Path, settings: Settings) -> None:
        self._root, self._settings = root, settings
        self._models = ModelCache(replace(settings))

    def run(self, job: Job) -> JobResult:
        """Run one job."""
        return _small(run_job(job, self._root, self._settings, self._models, worker="ray-infer"))
