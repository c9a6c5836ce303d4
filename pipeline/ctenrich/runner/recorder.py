"""Write down what a run does: results in the ledger, lines in the log, notes on the screen."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path

from ctenrich.ledger.ledger import Ledger
from ctenrich.ledger.rows import ProductKey
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import Outcome, State
from ctenrich.runner.clock import Clock, SystemClock
from ctenrich.runner.job import Job, JobResult
from ctenrich.runner.outcome_rules import End
from ctenrich.runner.throughput import Throughput

__all__ = ["RunEnd", "RunRecorder", "RunSummary"]


_SHOWN_OF_UID = 12
"""Last characters of a Series Instance UID that are shown: enough to tell the series of a cohort apart."""
_SHOWN_SERIES = 4
"""Series at work that are shown."""


class RunEnd(StrEnum):
    """How a runner ended."""

    DONE = "done"
    """Everything has an outcome."""
    BUDGET = "budget"
    """Everything has an outcome; some series were not started because the budget was spent."""
    INTERRUPTED = "interrupted"
    """A signal came."""
    DISK = "disk"
    """The disk is full or cannot be written."""
    FAILED = "failed"
    """The runner itself failed."""

    @property
    def early(self) -> bool:
        """Whether series are left without an outcome; the same command resumes them."""
        return self in (RunEnd.INTERRUPTED, RunEnd.DISK)


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """How a run ended."""

    ended: RunEnd
    states: dict[str, int]
    """State -> number of products and series."""
    reasons: dict[str, int]
    """Reason code -> number of products and series that ended with it."""
    ran: int
    """Number of stages that did work; stages that were done before do not count."""
    seconds: float
    failures: tuple[Outcome, ...] = ()
    """Products and series that failed in this pass."""
    attempted: int = 0
    """Number of jobs of products and series in this pass."""
    left_alone: int = 0
    """Number of products and series that had not reached the chosen stages; their outcomes are as they were."""

    @property
    def stopped_early(self) -> bool:
        """Whether series are left without an outcome; the same command resumes them."""
        return self.ended.early

    @property
    def exit_code(self) -> int:
        """0: done (what is left out has its reason); 1: failures, or nothing done; 3: stopped early; 4: budget.

        A series that the disk has no space for counts as stopped early: the same command continues with it.
        """
        if self.stopped_early or self.reasons.get(Reason.DISK_FULL.value):
            return 3
        if self.ended is RunEnd.BUDGET:
            return 4
        failed, done = self.states.get(State.FAILED.value), self.states.get(State.DONE.value)
        return 1 if failed or not done else 0


class RunRecorder:
    """Writes the ledger and the log of a run while it goes on.

    Parameters
    ----------
    ledger : Ledger
        Of this run.
    log : Path
        File of JSON lines.
    progress : Progress
        Gets the throughput, and a note for everything that does not end as requested.
    clock : Clock, optional
        Time of the lines.
    """

    def __init__(self, ledger: Ledger, log: Path, *, progress: Progress = SILENT, clock: Clock | None = None) -> None:
        self._ledger = ledger
        self._log_path = log
        self._progress = progress
        self._clock = clock or SystemClock()
        self._throughput = Throughput(self._clock.monotonic)
        self._spent: dict[tuple[str, str], tuple[float, int]] = {}
        self._at_work: tuple[str, ...] = ()
        self.ran = 0
        """Number of stages that did work."""
        self.failures: list[Outcome] = []
        """Outcomes with the state FAILED, in the order in which they were recorded."""

    def record_outcome(self, series_instance_uid: str, product: str, end: End) -> None:
        """Record the outcome of a product.

        Parameters
        ----------
        series_instance_uid : str
            The series.
        product : str
            The product; ``""`` for the series itself.
        end : End
            How it ended.
        """
        uid = series_instance_uid
        seconds, peak = self._spent.pop((uid, product), (0.0, 0))
        outcome = Outcome(uid, product, end.state, end.stage, end.reason, end.message, round(seconds, 3), peak)
        self._ledger.record(outcome)
        if end.state is State.FAILED:
            self.failures.append(outcome)
        if end.reason is not None:
            name = product or "series"
            self._progress.note(f"{uid} {name}: {end.state.value} ({end.reason.value}) {end.message}")

    def record_unstarted(self, series: Sequence[str], products: Sequence[str], end: End) -> None:
        """Record why series were not started; outcomes that an earlier start of the run reached stay.

        Parameters
        ----------
        series : sequence of str
            Series Instance UIDs.
        products : sequence of str
            Everything that ends in an outcome for each of them; ``""`` is the series itself.
        end : End
            How they ended.
        """
        if not series:
            return
        self._ledger.record_unstarted(
            Outcome(uid, product, end.state, end.stage, end.reason, end.message, 0.0, 0)
            for uid in series
            for product in products
        )
        which = series[0] if len(series) == 1 else f"{len(series)} series"
        code = f" ({end.reason.value})" if end.reason else ""
        self._progress.note(f"{which}: {end.state.value}{code} {end.message}")

    def forget_outcome(self, key: ProductKey) -> None:
        """Delete the outcome of a product that runs again."""
        self._ledger.forget([key])

    def outcomes_of(self, series_instance_uid: str) -> dict[str, Outcome]:
        """Return the outcomes of a series: product -> outcome; ``""`` is the series itself."""
        return self._ledger.outcomes_of(series_instance_uid)

    def show_series(self, series: Iterable[str]) -> None:
        """Show which series are at work, by the ends of their Series Instance UIDs.

        Parameters
        ----------
        series : iterable of str
            Their Series Instance UIDs.
        """
        at_work = tuple(f"...{uid[-_SHOWN_OF_UID:]}" for uid in islice(series, _SHOWN_SERIES))
        if at_work != self._at_work:
            self._at_work = at_work
            self._show()

    def _show(self) -> None:
        series = f"at work: {' '.join(self._at_work)}" if self._at_work else ""
        self._progress.status("series", ", ".join(filter(None, (str(self._throughput), series))))

    def record_result(self, result: JobResult) -> None:
        """Record the timings and issues of a job."""
        self.ran += len(result.ran)
        self._throughput.add(result)
        self._show()
        self._ledger.add_timings(*result.timings)
        for timing in result.timings:
            key = (timing.series_instance_uid, timing.product)
            seconds, peak = self._spent.get(key, (0.0, 0))
            self._spent[key] = (seconds + timing.seconds, max(peak, timing.peak_memory))
        for stage, issues in result.issues.items():
            self._ledger.set_issues(result.job.key, stage, issues)
        self._log("job", result.job, result)

    def record_lost_lease(self, job: Job) -> None:
        """Note in the log that a result was discarded, because another runner has taken the series."""
        self._log("lease_lost", job)

    def _log(self, event: str, job: Job, result: JobResult | None = None) -> None:
        line: dict[str, object] = {"time": self._clock.time(), "event": event}
        line |= {"series": job.key.series_instance_uid, "product": job.key.product}
        line |= {"pool": job.pool, "attempt": job.attempt}
        if result is not None:
            line["stages"] = {t.stage: round(t.seconds, 4) for t in result.timings}
            if result.failure is not None:
                f = result.failure
                line |= {"stage": f.stage, "reason": f.reason.value, "message": f.message, "trace": f.trace}
        with self._log_path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")
