"""The runner: sends the jobs of a run to an executor and gives everything exactly one outcome."""

from __future__ import annotations

import os
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import replace

from ctenrich import __version__
from ctenrich.errors import InputError
from ctenrich.inference.kinds import segmenter_kind
from ctenrich.inference.products import RequestedProduct
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import SeriesEntry, State
from ctenrich.runner.executors.base import Executor
from ctenrich.runner.job import Failure, Job, JobResult
from ctenrich.runner.ledger import Lease, Leases, Ledger, balance
from ctenrich.runner.recorder import DONE, EARLY, End, RunRecorder, RunSummary
from ctenrich.runner.run import Run
from ctenrich.runner.source_cleanup import needs_refetch, release, restore
from ctenrich.runner.stopping import Budget
from ctenrich.stages.table import SERIES_STAGES, STAGES, product_stages, series_output
from ctenrich.workspace import remove_temporaries

__all__ = ["Runner"]

_LEASE_SECONDS = 60.0
_GRACE_SECONDS = 25.0
_JOB_TRIES = 3
_SKIPPING = frozenset({Reason.NO_EXPERT})
"""Reasons that mean: there is nothing to do here, rather than: it went wrong."""


class Runner:
    """Drives one run to its end through an executor.

    Parameters
    ----------
    run : Run
        What to do.
    executor : Executor
        Who does it.
    stages : tuple of str, optional
        Only these stages (default: all).
    budget : Budget
        When to stop starting series.
    progress : Progress
        Told of every series that ends.
    leases : Leases, optional
        Shared with runners on other machines; default: the run's own ledger.
    stop : callable
        Asked again and again; True means: finish what runs, start nothing, end as interrupted.
    """

    def __init__(
        self,
        run: Run,
        executor: Executor,
        *,
        stages: Iterable[str] = tuple(STAGES),
        budget: Budget | None = None,
        progress: Progress = SILENT,
        leases: Leases | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._run = run
        self._executor = executor
        self._stages = frozenset(stages)
        self._budget = budget or Budget()
        self._progress = progress
        self._stop = stop
        self._owner = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._shared = leases
        self._leases: dict[str, Lease] = {}
        self._waiting: deque[SeriesEntry] = deque()
        self._open: Counter[str] = Counter()
        self._failures: dict[tuple[str, str], Failure] = {}
        self._uncropped: dict[str, list[Job]] = {}
        self._halted = False
        self._ended = 0
        self._postponed: dict[str, int] = {}
        self._along: set[str] = set()
        self._ledger: Ledger
        self._books: RunRecorder
        self._held: Leases

    def run(self, command: str = "run") -> RunSummary:
        """Do the run; returns when everything has an outcome, the budget is spent, or it was stopped.

        Raises
        ------
        InconsistencyError
            If something ended without exactly one outcome.
        """
        started = time.monotonic()
        with Ledger(self._run.ledger_path) as self._ledger:
            self._books = RunRecorder(self._ledger, self._run.root / "log.jsonl", self._progress)
            self._held = self._shared or self._ledger
            self._ledger.set_plan(self._run.jobs())
            number = self._ledger.start_run(command, __version__, self._executor.name)
            ended = "failed"
            try:
                ended = self._loop(started)
            finally:
                self._executor.close(kill=ended != "done")
                remove_temporaries(self._run.root)  # of workers that were killed
                for lease in self._leases.values():
                    self._held.release(lease)
                self._ledger.finish_run(number, ended)
            outcomes = self._ledger.outcomes()
            if ended not in EARLY and self._stages == frozenset(STAGES):
                states = balance(self._ledger.plan(), outcomes)
            else:
                states = dict(Counter(o.state.value for o in outcomes))
        reasons = Counter(o.reason.value for o in outcomes if o.reason)
        return RunSummary(ended, states, dict(reasons), self._books.ran, time.monotonic() - started)

    # ------------------------------------------------------------ the loop

    def _loop(self, started: float) -> str:
        waiting = self._waiting = deque(self._entries())
        self._progress.start("series", len(waiting))
        remove_temporaries(self._run.root)
        turned_away = 0
        while waiting or self._open:
            if self._stop():
                return self._drain("interrupted")
            if self._halted:
                return self._drain("disk")
            while waiting and len(self._open) < self._executor.slots and turned_away < len(waiting):
                if self._budget.spent(time.monotonic() - started):
                    self._close_budget(waiting)
                    waiting.clear()
                    break
                entry = waiting.popleft()
                if self._begin(entry):
                    turned_away = 0
                else:
                    waiting.append(entry)
                    turned_away += 1
            result = self._executor.collect(0.5)
            if result is not None:
                self._take(result)
                turned_away = 0
            elif waiting and not self._open:
                time.sleep(self._held.poll_interval)
                turned_away = 0
            self._renew()
        if self._halted:
            return "disk"
        self._progress.finish("series")
        over = any(o.state is State.NOT_STARTED_BUDGET for o in self._ledger.outcomes())
        return "budget" if over else "done"

    def _entries(self) -> list[SeriesEntry]:
        """All series; for single stages after the input, only those whose input was made."""
        if self._stages & set(SERIES_STAGES):
            return list(self._run.cohort.series)
        ended = (State.FAILED, State.EXCLUDED)
        broken = {
            o.series_instance_uid
            for o in self._ledger.outcomes()
            if not o.product and o.state in ended and o.stage in SERIES_STAGES
        }
        return [e for e in self._run.cohort.series if e.series_instance_uid not in broken]

    def _begin(self, entry: SeriesEntry) -> bool:
        """Start a series unless another runner works on it; False: ask again later."""
        uid = entry.series_instance_uid
        if self._open and self._postponed.get(uid) == self._ended:
            return False
        lease = self._held.acquire(uid, self._owner, _LEASE_SECONDS)
        if lease is None:
            if not self._held.finished_elsewhere(uid):
                return False
            for name in ("", *(str(p.product) for p in self._run.config.products)):
                self._books.record(
                    entry,
                    name,
                    End(State.SKIPPED, "plan", Reason.DONE_BY_OTHER_RUNNER, Reason.DONE_BY_OTHER_RUNNER.sentence),
                )
            self._progress.advance("series")
            return True
        self._leases[uid] = lease
        stages = tuple(s for s in SERIES_STAGES if s in self._stages)
        self._open[uid] += 1
        if "fetch" in stages and needs_refetch(self._run, entry):
            restore(self._run, entry)
            self._progress.note(f"{uid} series: its objects were deleted after use; they are fetched again")
        if stages:
            along = self._next_on_s3(entry) if "fetch" in stages else ()
            self._executor.submit(Job(entry, None, "input", stages, together=along))
        else:
            self._after_input(Job(entry, None, "input", ()), None)
            self._close_job(entry)
        return True

    def _next_on_s3(self, entry: SeriesEntry) -> tuple[SeriesEntry, ...]:
        """Take the next series on S3 out of the queue, to be fetched by the same s5cmd; `_take` puts them back."""
        if entry.series_instance_uid in self._along or not _on_s3(entry):
            return ()
        taken: list[SeriesEntry] = []
        while self._waiting and len(taken) + 1 < self._run.config.settings.fetch.series_at_once:
            if not _on_s3(self._waiting[0]):
                break
            taken.append(self._waiting.popleft())
        self._along |= {e.series_instance_uid for e in taken}
        return tuple(taken)

    def _take(self, result: JobResult) -> None:
        """Book a result and send what comes after it."""
        job = replace(result.job, together=())
        self._waiting.extendleft(reversed(result.job.together))
        uid = job.key[0]
        lease = self._leases.get(uid)
        if lease is None or not self._held.holds(lease):
            self._books.log("lease_lost", job)
            self._leases.pop(uid, None)
            self._uncropped.pop(uid, None)
            self._count_down(uid)
            if uid not in self._open:
                self._waiting.append(job.entry)
            return
        self._books.book(result)
        failure = result.failure
        if failure is not None and failure.fatal:
            self._halted = True
            self._count_down(uid)
            return
        if failure is not None and failure.reason is Reason.DISK_FULL and self._may_wait():
            self._postponed[uid] = self._ended
            self._waiting.append(job.entry)
            self._count_down(uid)
            self._held.release(self._leases.pop(uid))
            return
        if failure is not None and failure.retryable and job.attempt < _JOB_TRIES:
            self._executor.submit(replace(job, attempt=job.attempt + 1))
            return
        if failure is not None:
            self._failures[job.key] = failure
        if job.plan is not None and "score" in job.stages:
            self._after_scores(uid)
        if job.plan is None and job.pool == "input":
            self._after_input(job, failure)
        elif job.plan is None:
            pass  # the series itself says in the end whether this went well
        elif failure is None and job.pool == "infer":
            self._send_output(job)
        else:
            self._end_product(job, failure)
        self._close_job(job.entry)

    def _after_input(self, job: Job, failure: Failure | None) -> None:
        if failure is None and not self._is_whole() and job.stages:
            self._ledger.forget([job.key])
        for plan in self._run.config.products:
            product = str(plan.product)
            if plan.missing is not None:
                self._books.record(job.entry, product, End(State.SKIPPED, "plan", plan.missing, plan.missing.sentence))
            elif failure is not None:
                message = f"{failure.stage} ended with {failure.reason.value}"
                end = End(State.SKIPPED, failure.stage, Reason.UPSTREAM_FAILED, message)
                self._books.record(job.entry, product, end)
            else:
                stages = tuple(s for s in _pool_stages(plan, "infer") if s in self._stages)
                ahead = Job(job.entry, plan, "infer", stages)
                if stages and self._crops() and segmenter_kind(plan.product.kind).takes_crop:
                    self._uncropped.setdefault(job.key[0], []).append(ahead)
                elif stages:
                    self._open[job.key[0]] += 1
                    self._executor.submit(ahead)
                else:
                    self._send_output(ahead)
        self._beside(job, failure)

    def _beside(self, job: Job, failure: Failure | None) -> None:
        """Send what is made of the series itself, after its products: they do not wait for it."""
        stages = tuple(s for s in series_output(self._run.config.settings) if s in self._stages)
        if stages and failure is None:
            self._open[job.key[0]] += 1
            self._executor.submit(Job(job.entry, None, "output", stages))

    def _crops(self) -> bool:
        """Whether segmentations wait for the slice scores of their series, which say where to crop."""
        return bool(self._run.config.settings.segment.crop) and "score" in self._stages

    def _after_scores(self, uid: str) -> None:
        """Send the segmentations that waited for scores; without scores they see the whole series."""
        for job in self._uncropped.pop(uid, ()):
            self._open[uid] += 1
            self._executor.submit(job)

    def _send_output(self, job: Job) -> None:
        assert job.plan is not None
        stages = tuple(s for s in _pool_stages(job.plan, "output") if s in self._stages)
        if stages:
            self._open[job.key[0]] += 1
            self._executor.submit(Job(job.entry, job.plan, "output", stages))
        else:
            self._end_product(job, None)

    def _end_product(self, job: Job, failure: Failure | None) -> None:
        product = job.key[1]
        if failure is not None:
            state = State.SKIPPED if failure.reason in _SKIPPING else State.FAILED
            self._books.record(job.entry, product, End(state, failure.stage, failure.reason, failure.message))
        elif self._is_whole():
            self._books.record(job.entry, product, DONE)

    def _close_job(self, entry: SeriesEntry) -> None:
        """Count a job down; after the last one of a series the series ends."""
        uid = entry.series_instance_uid
        self._open[uid] -= 1
        if self._open[uid] > 0:
            return
        del self._open[uid]
        self._ended += 1
        self._end_series(entry)
        if self._run.config.settings.fetch.delete_after_use and self._is_whole():
            self._delete_fetched(entry)
        self._held.release(self._leases.pop(uid), finished=self._is_whole())
        self._progress.advance("series")

    def _end_series(self, entry: SeriesEntry) -> None:
        uid = entry.series_instance_uid
        failure = self._failures.get((uid, ""))
        if failure is not None:
            unknown = not entry.geometry_known and failure.stage == "sort"
            state = State.EXCLUDED if unknown else State.FAILED
            self._books.record(entry, "", End(state, failure.stage, failure.reason, failure.message))
            return
        if not self._is_whole():
            return
        ended = [f for (u, p), f in self._failures.items() if u == uid and p]
        failed = [f for f in ended if f.reason not in _SKIPPING]
        made = sum(p.missing is None for p in self._run.config.products)
        if ended and not failed and len(ended) == made:
            first = ended[0]
            self._books.record(entry, "", End(State.SKIPPED, first.stage, first.reason, first.message))
        elif failed:
            first = failed[0]
            message = f"{len(failed)} of {len(self._run.config.products)} products failed"
            self._books.record(entry, "", End(State.FAILED, first.stage, first.reason, message))
        else:
            self._books.record(entry, "", DONE)

    def _may_wait(self) -> bool:
        """Whether another series that is at work will make folder on the disk when it ends."""
        return self._run.config.settings.fetch.delete_after_use and len(self._open) > 1

    def _delete_fetched(self, entry: SeriesEntry) -> None:
        """Delete what was fetched, unless the series failed: then another try needs it."""
        uid = entry.series_instance_uid
        failures = [f for (u, _), f in self._failures.items() if u == uid and f.reason not in _SKIPPING]
        own = self._failures.get((uid, ""))
        if own is not None and own.stage == "sort" and not entry.geometry_known:
            release(self._run, entry, InputError(own.reason, own.message))
        elif not failures:
            release(self._run, entry)

    def _is_whole(self) -> bool:
        return "validate" in self._stages

    # ------------------------------------------------------------ leases, stopping

    def _renew(self) -> None:
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        for uid, lease in list(self._leases.items()):
            if lease.expires - now < _LEASE_SECONDS / 2:
                renewed = self._held.renew(lease, _LEASE_SECONDS)
                if renewed is not None:
                    self._leases[uid] = renewed

    def _drain(self, ended: str) -> str:
        """Let running jobs end (a bounded time), book them, and stop."""
        deadline = time.monotonic() + _GRACE_SECONDS
        if self._executor.name == "serial":
            return ended
        while time.monotonic() < deadline and self._open:
            result = self._executor.collect(0.5)
            if result is not None:
                self._books.book(result)
                self._count_down(result.job.key[0])
        return ended

    def _count_down(self, uid: str) -> None:
        """One job less at work; the series has no outcome yet."""
        self._open[uid] -= 1
        self._open += Counter()

    def _close_budget(self, waiting: Iterable[SeriesEntry]) -> None:
        for entry in waiting:
            for name in ("", *(str(p.product) for p in self._run.config.products)):
                end = End(State.NOT_STARTED_BUDGET, "plan", Reason.BUDGET, Reason.BUDGET.sentence)
                self._books.record(entry, name, end)


def _on_s3(entry: SeriesEntry) -> bool:
    return any(i.url.startswith("s3://") for i in entry.instances)


def _pool_stages(plan: RequestedProduct, pool: str) -> tuple[str, ...]:
    return tuple(s for s in product_stages(plan.product.kind) if STAGES[s].pool == pool)
