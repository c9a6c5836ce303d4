"""Run all jobs in this process, one after another: for notebooks and debugging."""

from __future__ import annotations

from collections import deque
from pathlib import Path

from ctenrich.inference.model_cache import ModelCache
from ctenrich.progress import SILENT, Progress
from ctenrich.runner.executors.base import ExecutorOptions
from ctenrich.runner.job import Job, JobResult, run_job
from ctenrich.settings import Settings

__all__ = ["SerialExecutor", "open_executor"]

_ORDER = ("output", "infer", "input")


class SerialExecutor:
    """Runs a job when its result is collected; jobs that finish a series come first.

    Parameters
    ----------
    root : Path
        The run's folder.
    settings : Settings
        The run's settings.
    models : ModelCache, optional
        Models that are open already.
    progress : Progress
        Passed to the stages.
    """

    name = "serial"
    slots = 1
    works_in_background = False

    def __init__(
        self, root: Path, settings: Settings, *, models: ModelCache | None = None, progress: Progress = SILENT
    ) -> None:
        self._root = root
        self._settings = settings
        self._models = models or ModelCache(settings)
        self._progress = progress
        self._queues: dict[str, deque[Job]] = {pool: deque() for pool in _ORDER}

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self._queues[job.pool].append(job)

    def collect(self, timeout: float) -> JobResult | None:
        """Run the next job and return its result; None if there is none."""
        for pool in _ORDER:
            if self._queues[pool]:
                job = self._queues[pool].popleft()
                return run_job(job, self._root, self._settings, self._models, worker=self.name, progress=self._progress)
        return None

    def close(self, *, kill: bool = False) -> None:
        """Drop the queued jobs."""
        for queue in self._queues.values():
            queue.clear()


def open_executor(root: Path, settings: Settings, options: ExecutorOptions) -> SerialExecutor:
    """Start the executor; see :func:`ctenrich.runner.executors.open_executor`.

    Parameters
    ----------
    root : Path
        The run's folder.
    settings : Settings
        The run's settings.
    options : ExecutorOptions
        Open models, progress.

    Returns
    -------
    SerialExecutor
        The started executor; its owner closes it.
    """
    return SerialExecutor(root, settings, models=options.models, progress=options.progress)
