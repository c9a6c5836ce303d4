"""The runner: opens what a run needs, lets the scheduler run it, and checks that everything ended in one state."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from ctenrich import __version__
from ctenrich.errors import is_disk_full
from ctenrich.ledger.database import set_aside_if_damaged
from ctenrich.ledger.ledger import Ledger
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.runner.executors.base import Executor
from ctenrich.runner.job_planner import JobPlanner
from ctenrich.runner.lease_keeper import LeaseKeeper
from ctenrich.runner.outcome_rules import check_totals
from ctenrich.runner.recorder import RunEnd, RunRecorder, RunSummary
from ctenrich.runner.run import Run
from ctenrich.runner.scheduler import RunnerOptions, Scheduler
from ctenrich.workspace import remove_temporaries

__all__ = ["Runner", "RunnerOptions"]


class Runner:
    """Drives one run to its end through an executor.

    Parameters
    ----------
    run : Run
        The run.
    executor : Executor
        Does the jobs; the runner closes it.
    options : RunnerOptions, optional
        Stages, budget, leases, stop signal, clock.
    progress : Progress
        Gets one step for every series that ends.
    """

    def __init__(
        self, run: Run, executor: Executor, *, options: RunnerOptions | None = None, progress: Progress = SILENT
    ) -> None:
        self._run = run
        self._executor = executor
        self._options = options or RunnerOptions()
        self._progress = progress

    def run(self, command: str = "run") -> RunSummary:
        """Run until everything has an outcome, the budget is spent, or the run is stopped.

        Parameters
        ----------
        command : str
            Recorded in the ledger for this start.

        Returns
        -------
        RunSummary
            How it ended.

        Raises
        ------
        InconsistencyError
            INCONSISTENT_TOTALS if something ended without exactly one outcome.
        OSError
            ENOSPC if the ledger cannot even be opened because the disk is full.
        """
        clock = self._options.clock
        started = clock.monotonic()
        planner = JobPlanner(self._run.config, self._options.stages)
        with self._open_ledger() as ledger:
            recorder = RunRecorder(ledger, self._run.root / "log.jsonl", progress=self._progress, clock=clock)
            scheduler, ended = self._schedule(ledger, recorder, command)
            totals = ledger.totals()
            states = totals.states
            if not ended.early and planner.with_all_stages:  # other runners' products may not have ended yet
                states = check_totals(ledger.totals(self._run.product_names))
        seconds = clock.monotonic() - started
        return RunSummary(
            ended=ended,
            states=states,
            reasons=totals.reasons,
            ran=recorder.ran,
            seconds=seconds,
            failures=tuple(recorder.failures),
            attempted=scheduler.attempted,
            left_alone=scheduler.left_alone,
        )

    def _open_ledger(self) -> Ledger:
        """Open the ledger and record the plan; runners that start at once do so one after the other."""
        path = self._run.ledger_path
        with self._run.planned_jobs() as jobs:
            broken = set_aside_if_damaged(path)
            if broken is not None:
                self._progress.note(f"the ledger was damaged: it is kept as {broken.name}, and made anew")
            ledger = Ledger(path, now=self._options.clock.time)
            try:
                ledger.set_plan(jobs)
            except BaseException:
                ledger.close()
                raise
            return ledger

    def _schedule(self, ledger: Ledger, recorder: RunRecorder, command: str) -> tuple[Scheduler, RunEnd]:
        """Run the scheduler; whatever happens, close the executor, release leases and record the end."""
        clock = self._options.clock
        leases = LeaseKeeper(self._options.leases or ledger.leases(clock.boottime), _runner_name(), clock.boottime)
        scheduler = Scheduler(
            self._run,
            self._executor,
            recorder=recorder,
            leases=leases,
            options=self._options,
            progress=self._progress,
        )
        number = ledger.start_run(command, __version__, self._executor.name)
        ended = RunEnd.FAILED
        try:
            remove_temporaries(self._run.root, but="series")
            ended = scheduler.run(self._run.cohort, ledger.ended_series())
            if ended is RunEnd.DONE and Reason.BUDGET.value in ledger.totals().reasons:
                ended = RunEnd.BUDGET
        except OSError as error:
            if not is_disk_full(error):
                raise
            ended = RunEnd.DISK
        finally:
            self._executor.close(kill=ended is not RunEnd.DONE)
            for uid in scheduler.interrupted:
                remove_temporaries(self._run.workspace.series_dir(uid))
            with _unless_disk_full():
                leases.release_all()
            with _unless_disk_full():
                ledger.finish_run(number, ended.value)
        return scheduler, ended


@contextmanager
def _unless_disk_full() -> Iterator[None]:
    """Leave a record out if the disk is full: leases expire, and a run without a recorded end counts as killed."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise


def _runner_name() -> str:
    return f"{os.getpid()}-{secrets.token_hex(4)}"
