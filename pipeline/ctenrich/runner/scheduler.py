"""The scheduler: starts series, submits jobs, takes results; every decision is made by an object of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field, replace

from ctenrich.ledger.leases import Leases
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import Cohort, SeriesEntry
from ctenrich.runner.clock import Clock, SystemClock
from ctenrich.runner.executors.base import Executor
from ctenrich.runner.in_flight import SeriesInFlight
from ctenrich.runner.job import Failure, Job, JobResult
from ctenrich.runner.job_planner import JobPlanner
from ctenrich.runner.lease_keeper import LeaseKeeper
from ctenrich.runner.outcome_rules import (
    OVER_BUDGET,
    OVER_LIMIT,
    PROCESSED_ELSEWHERE,
    End,
    end_of_product,
    end_of_series,
    upstream_failed,
)
from ctenrich.runner.partial import failures_of, settle_outcomes
from ctenrich.runner.prefetch import Prefetcher
from ctenrich.runner.readiness import has_reached
from ctenrich.runner.recorder import RunEnd, RunRecorder
from ctenrich.runner.retry import NextStep, PostponedSeries, RetryPolicy
from ctenrich.runner.run import Run
from ctenrich.runner.series_queue import SeriesQueue
from ctenrich.runner.source_cleanup import delete_after_use, mark_for_refetch, needs_refetch
from ctenrich.runner.stopping import Budget
from ctenrich.select.cohort_file import uids_of
from ctenrich.stages.table import STAGES
from ctenrich.workspace import remove_temporaries

__all__ = ["GRACE_SECONDS", "RunnerOptions", "Scheduler"]

GRACE_SECONDS = 25.0
"""How long running jobs may still take after the run was asked to stop."""
_ENDED_WORKERS = frozenset({Reason.WORKER_DIED, Reason.TIMEOUT, Reason.OUT_OF_MEMORY})
"""Reasons of jobs whose worker did not live to clean up."""
_COLLECT_SECONDS = 0.5
"""How long the scheduler waits for a result before it looks at leases and signals again."""


@dataclass(frozen=True, kw_only=True)
class RunnerOptions:
    """What a runner runs, for how long, and with whom it shares the cohort."""

    stages: tuple[str, ...] = tuple(STAGES)
    """Only these stages."""
    budget: Budget = field(default_factory=Budget)
    """When to stop starting series."""
    leases: Leases | None = None
    """Shared with runners on other machines; None: the run's own ledger."""
    stop: Callable[[], bool] = lambda: False
    """Called again and again; once it returns True, running jobs end, none starts, and the run ends as interrupted."""
    clock: Clock = field(default_factory=SystemClock)


class Scheduler:
    """Schedules the jobs of a run.

    Parameters
    ----------
    run : Run
        The run.
    executor : Executor
        Does the jobs.
    recorder : RunRecorder
        Records results and outcomes.
    leases : LeaseKeeper
        Leases of the series.
    options : RunnerOptions
        Stages, budget, stop signal, clock.
    progress : Progress
        Gets one step for every series that ends.
    """

    def __init__(
        self,
        run: Run,
        executor: Executor,
        *,
        recorder: RunRecorder,
        leases: LeaseKeeper,
        options: RunnerOptions,
        progress: Progress = SILENT,
    ) -> None:
        fetch = run.config.settings.fetch
        self._run = run
        self._executor = executor
        self._recorder = recorder
        self._leases = leases
        self._options = options
        self._progress = progress
        self._planner = JobPlanner(run.config, options.stages)
        self._prefetcher = Prefetcher(fetch.series_at_once)
        self._retry = RetryPolicy(postpone_if_disk_full=fetch.delete_after_use)
        self._postponed = PostponedSeries()
        self._waiting = SeriesQueue(run.cohort, ())
        self._ended: Set[str] = frozenset()
        self._in_flight: dict[str, SeriesInFlight] = {}
        self._refused = 0
        self._fatal = False
        self.attempted = 0
        """Number of first jobs of products and series that were submitted."""
        self._interrupted: set[str] = set()
        self.left_alone = 0
        """Number of products and series that had not reached the chosen stages."""

    def run(self, cohort: Cohort, ended: Set[str] = frozenset()) -> RunEnd:
        """Run all jobs of a cohort.

        Parameters
        ----------
        cohort : Cohort
            Its series are read when they start.
        ended : set of str
            Series Instance UIDs of the series that have an outcome: whether it still holds is checked after the other
            series have been run.

        Returns
        -------
        RunEnd
            DONE if every series has ended or the budget did not let it start, DISK after a fatal failure, INTERRUPTED
            after a stop signal.
        """
        started = self._options.clock.monotonic()
        uids = uids_of(cohort)
        count = len(uids[: self._options.budget.max_series])
        self._end_unstarted(uids[count:], OVER_LIMIT)
        self._ended = ended
        self._waiting = SeriesQueue(cohort, uids[:count], ended)
        self._progress.start("series", len(self._waiting))
        while self._waiting or self._in_flight:
            if self._options.stop():
                return self._drain(RunEnd.INTERRUPTED)
            if self._fatal:
                return self._drain(RunEnd.DISK)
            self._start_series(started)
            self._recorder.show_series(self._in_flight)
            result = self._collect()
            if result is not None:
                self._take_result(result)
                self._refused = 0
            elif self._waiting and not self._in_flight:
                self._options.clock.sleep(self._leases.poll_interval)
                self._refused = 0
            self._leases.renew_due()
        if self._fatal:
            return RunEnd.DISK
        self._progress.finish("series")
        return RunEnd.DONE

    @property
    def interrupted(self) -> set[str]:
        """Series whose workers ended within a job, so that partial files may be left."""
        return self._interrupted | set(self._in_flight)

    def _collect(self) -> JobResult | None:
        """Take a result; leases are renewed by another thread if the executor runs the job in this one."""
        if self._executor.works_in_background or not self._in_flight:
            return self._executor.collect(_COLLECT_SECONDS)
        with self._leases.renewing():
            return self._executor.collect(_COLLECT_SECONDS)

    # ------------------------------------------------------------ starting series

    def _start_series(self, started: float) -> None:
        """Start waiting series until the executor has enough, each refused one is to wait, or the budget is spent."""
        while self._waiting and len(self._in_flight) < self._executor.slots and self._refused < len(self._waiting):
            if self._options.budget.spent(self._options.clock.monotonic() - started):
                self._end_unstarted(self._waiting.clear(), OVER_BUDGET)
                return
            entry = self._waiting.popleft()
            if self._try_to_start(entry):
                self._refused = 0
            else:
                self._waiting.append(entry)
                self._refused += 1

    def _try_to_start(self, entry: SeriesEntry) -> bool:
        """Start a series, or record that another runner has done it; False: it must wait."""
        uid = entry.series_instance_uid
        if self._in_flight and uid in self._postponed:
            return False
        if not self._leases.acquire(uid):
            if not self._leases.finished_elsewhere(uid):
                return False
            self._end_unstarted([uid], PROCESSED_ELSEWHERE)
            self._progress.advance("series")
            return True
        if uid not in self._ended:
            remove_temporaries(self._run.workspace.series_dir(uid))
        flight = self._in_flight[uid] = SeriesInFlight(entry)
        prefetch: tuple[SeriesEntry, ...] = ()
        if self._planner.with_fetch:
            if needs_refetch(self._run, entry):
                mark_for_refetch(self._run, entry)
                self._progress.note(f"{uid} series: its objects were deleted after use; they are fetched again")
            prefetch = self._prefetcher.take(entry, self._waiting)
        job = self._planner.input_job(entry, prefetch)
        if not job.stages:
            self._start_products(flight, None)
        elif self._has_reached(job):
            self._submit(flight, job)
        self._end_if_no_job_is_left(flight)
        return True

    def _has_reached(self, job: Job) -> bool:
        """Return whether the stages before a job are done; whoever runs all stages need not ask."""
        if self._planner.with_all_stages or has_reached(
            self._run, job.entry, job.plan, job.stages, self._planner.stages
        ):
            self.attempted += 1
            return True
        self.left_alone += 1
        return False

    def _end_unstarted(self, uids: Sequence[str], end: End) -> None:
        """Record why series were not started; what an earlier start of the run ended keeps its outcome."""
        self._recorder.record_unstarted(uids, self._run.product_names, end)

    # ------------------------------------------------------------ taking results

    def _take_result(self, result: JobResult) -> None:
        """Record a result and do what follows from it, if the lease of its series is still held."""
        job = replace(result.job, prefetch=())
        if result.failure is not None and result.failure.reason in _ENDED_WORKERS:
            touched = (job.entry, *result.job.prefetch)
            self._interrupted.update(entry.series_instance_uid for entry in touched)
        self._prefetcher.give_back(result.job.prefetch, self._waiting)
        flight = self._in_flight[job.key.series_instance_uid]
        if not self._leases.confirm(job.key.series_instance_uid):
            self._recorder.record_lost_lease(job)
            flight.waiting_for_scores.clear()
            if self._count_down(flight):
                self._waiting.append(flight.entry)
            return
        self._recorder.record_result(result)
        flight.worked = flight.worked or bool(result.ran)
        step = self._retry.decide(result, others_at_work=len(self._in_flight) > 1)
        if step is NextStep.STOP:
            self._fatal = True
            self._count_down(flight)
        elif step is NextStep.POSTPONE:
            self._postponed.add(job.key.series_instance_uid)
            self._count_down(flight)
            self._waiting.append(flight.entry)
            self._leases.release(job.key.series_instance_uid)
        elif step is NextStep.RETRY:
            self._executor.submit(replace(job, attempt=job.attempt + 1))
        else:
            self._accept(flight, job, result)

    def _accept(self, flight: SeriesInFlight, job: Job, result: JobResult) -> None:
        """Go on after a job that succeeded, or failed for good."""
        failure = result.failure
        if failure is not None:
            flight.failures[job.key.product] = failure
        else:
            flight.succeeded.setdefault(job.key.product, set()).update(job.stages)
        if job.plan is not None and "score" in job.stages:
            self._submit_jobs_that_wait_for_scores(flight)
        if job.plan is not None:
            self._continue_product(flight, job, result)
        elif job.pool == "input":
            self._start_products(flight, failure)
        flight.open_jobs -= 1
        self._end_if_no_job_is_left(flight)

    def _start_products(self, flight: SeriesInFlight, failure: Failure | None) -> None:
        """Submit the first job of every product after the input of its series, or end the product."""
        for requested in self._run.config.products:
            product = str(requested.product)
            if failure is not None:
                self._record(flight, product, upstream_failed(failure))
                continue
            job = self._planner.product_job(flight.entry, requested)
            if job is None or self._has_reached(job):
                self._submit_or_end(flight, job, end_of_product(None), product)
        beside = self._planner.series_output_job(flight.entry)
        if beside is not None and failure is None and self._has_reached(beside):
            self._submit(flight, beside)

    def _continue_product(self, flight: SeriesInFlight, job: Job, result: JobResult) -> None:
        assert job.plan is not None
        if result.failure is not None:
            self._record(flight, job.key.product, end_of_product(result.failure))
        else:
            following = self._planner.product_job(flight.entry, job.plan, after=job)
            self._submit_or_end(flight, following, end_of_product(None, result.left_out), job.key.product)

    def _submit_or_end(self, flight: SeriesInFlight, job: Job | None, end: End, product: str) -> None:
        """Submit the next job of a product, or keep it until there are scores; without one the product ends."""
        if job is None:
            if self._planner.with_last_stage:
                self._record(flight, product, end)
        elif self._planner.waits_for_scores(job):
            flight.waiting_for_scores.append(job)
        else:
            self._submit(flight, job)

    def _submit_jobs_that_wait_for_scores(self, flight: SeriesInFlight) -> None:
        """Submit the segmentations of a series after its scores; if these failed, nothing is cropped."""
        for job in flight.waiting_for_scores:
            self._submit(flight, job)
        flight.waiting_for_scores.clear()

    def _record(self, flight: SeriesInFlight, product: str, end: End) -> None:
        flight.recorded.add(product)
        self._recorder.record_outcome(flight.entry.series_instance_uid, product, end)

    def _submit(self, flight: SeriesInFlight, job: Job) -> None:
        flight.open_jobs += 1
        self._executor.submit(job)

    # ------------------------------------------------------------ ending series

    def _count_down(self, flight: SeriesInFlight) -> bool:
        """Count a job that leaves its series without an outcome; return whether it was the last one."""
        flight.open_jobs -= 1
        if flight.open_jobs == 0:
            del self._in_flight[flight.entry.series_instance_uid]
        return flight.open_jobs == 0

    def _end_if_no_job_is_left(self, flight: SeriesInFlight) -> None:
        """Record the outcome of a series after its last job."""
        if flight.open_jobs > 0:
            return
        entry = flight.entry
        del self._in_flight[entry.series_instance_uid]
        self._postponed.series_ended()
        failures, ended = flight.failures, True
        if "" in failures or self._planner.with_all_stages:
            end = end_of_series(entry, failures, self._run.config.products)
            self._recorder.record_outcome(entry.series_instance_uid, "", end)
        else:
            settle_outcomes(self._run, flight, self._recorder)
            outcomes = self._recorder.outcomes_of(entry.series_instance_uid)
            failures, ended = failures_of(outcomes), self._planner.with_last_stage and "" in outcomes
        if self._run.config.settings.fetch.delete_after_use and self._planner.with_last_stage and ended:
            delete_after_use(self._run, entry, failures)
        self._leases.release(entry.series_instance_uid, finished=ended and self._planner.with_last_stage)
        self._progress.advance("series")

    def _drain(self, ended: RunEnd) -> RunEnd:
        """Wait a bounded time for running jobs and record their results; nothing follows from them."""
        if not self._executor.works_in_background:
            return ended
        deadline = self._options.clock.monotonic() + GRACE_SECONDS
        while self._in_flight and self._options.clock.monotonic() < deadline:
            result = self._executor.collect(_COLLECT_SECONDS)
            if result is None:
                continue
            uid = result.job.key.series_instance_uid
            if self._leases.confirm(uid):
                self._recorder.record_result(result)
            else:
                self._recorder.record_lost_lease(result.job)
            self._count_down(self._in_flight[uid])
        return ended
