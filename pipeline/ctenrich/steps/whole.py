"""All stages, tables and report of a run at once."""

from __future__ import annotations

from ctenrich.inference.model_cache import ModelCache
from ctenrich.progress import SILENT, Progress
from ctenrich.runner.executors import ExecutorName, ExecutorOptions, open_executor
from ctenrich.runner.recorder import RunSummary
from ctenrich.runner.run import Run
from ctenrich.runner.runner import Runner, RunnerOptions
from ctenrich.runner.shared_leases import SharedLeases
from ctenrich.runner.stopping import Budget, StopSignal
from ctenrich.steps.results import finish
from ctenrich.steps.running import models_of_runs, save_measured_rates

__all__ = ["run_all"]


def run_all(
    run: Run,
    *,
    executor: ExecutorName = ExecutorName.SERIAL,
    address: str | None = None,
    share: str | None = None,
    budget: Budget | None = None,
    progress: Progress = SILENT,
) -> RunSummary:
    """Run all stages of all series, then build tables and report.

    Parameters
    ----------
    run : Run
        The run.
    executor : ExecutorName
        Where jobs run; the results have the same bytes.
    address : str, optional
        Address of a Ray cluster.
    share : str, optional
        ``gs://bucket/prefix``, ``s3://bucket/prefix`` or ``file:///folder`` for the leases by which runners on several
        machines divide the series among them; each runner has its own run folder.
    budget : Budget, optional
        Limit after which no further series is started.
    progress : Progress
        Receives one step per series.

    Returns
    -------
    RunSummary
        Final states of the products.

    Raises
    ------
    UsageError
        MISSING_EXTRA if a package that the executor needs is not installed.
    """
    chosen = executor.for_series(len(run.cohort.series))
    models = models_of_runs.setdefault(run, ModelCache(run.config.settings))
    leases = SharedLeases(share, run.config.settings.fetch, run.root) if share else None
    options = ExecutorOptions(models=models, address=address, progress=progress)
    workers = open_executor(chosen, run.root, run.config.settings, options)
    with StopSignal() as stop:
        limits = RunnerOptions(budget=budget or Budget(), leases=leases, stop=stop)
        summary = Runner(run, workers, options=limits, progress=progress).run("run")
    save_measured_rates(run)
    if not summary.stopped_early:
        finish(run, progress=progress)
    return summary
