"""The books of a run: outcomes, timings and issues in the ledger, lines in the log, notes on the screen."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from ctenrich.progress import Progress
from ctenrich.reasons import Reason
from ctenrich.records import Outcome, SeriesEntry, State
from ctenrich.runner.job import Job, JobResult
from ctenrich.runner.ledger import Ledger
from ctenrich.runner.throughput import Throughput

__all__ = ["DONE", "EARLY", "End", "RunRecorder", "RunSummary"]

EARLY = frozenset({"interrupted", "disk"})
"""How a run ends that leaves some series without an outcome; the same command goes on."""


@dataclass(frozen=True)
class End:
    """How something ended."""

    state: State
    stage: str
    reason: Reason | None = None
    message: str = ""


DONE = End(State.DONE, "validate")


@dataclass(frozen=True)
class RunSummary:
    """How a run ended."""

    ended: str
    """``done``, ``interrupted``, ``disk`` (it takes no more) or ``budget``."""
    states: dict[str, int]
    """State -> number of products and series."""
    reasons: dict[str, int]
    """Reason code -> number, of what is not done."""
    ran: int
    """Stages that did work."""
    seconds: float

    @property
    def stopped_early(self) -> bool:
        """Whether series are left without an outcome: the same command goes on with them."""
        return self.ended in EARLY

    @property
    def exit_code(self) -> int:
        """0: done (what is left out has its reason); 1: failures, or nothing done; 3: stopped early; 4: budget."""
        if self.stopped_early:
            return 3
        if self.ended == "budget":
            return 4
        failed, done = self.states.get(State.FAILED.value), self.states.get(State.DONE.value)
        return 1 if failed or not done else 0


class RunRecorder:
    """What is written down of a run while it goes on.

    Parameters
    ----------
    ledger : Ledger
        Open, of this run.
    log : Path
        File of JSON lines.
    progress : Progress
        Told the pace, and of everything that does not end as it was asked for: a product for which no model was named
        is skipped without a word, and has its outcome in the ledger.
    """

    def __init__(self, ledger: Ledger, log: Path, progress: Progress) -> None:
        self._ledger = ledger
        self._path = log
        self._progress = progress
        self._pace = Throughput()
        self._spent: dict[tuple[str, str], tuple[float, int]] = {}
        self.ran = 0
        """Stages that did work."""

    def record(self, entry: SeriesEntry, product: str, end: End) -> None:
        """Give a product, or the series itself (""), its outcome."""
        uid = entry.series_instance_uid
        seconds, peak = self._spent.get((uid, product), (0.0, 0))
        outcome = Outcome(uid, product, end.state, end.stage, end.reason, end.message, round(seconds, 3), peak)
        self._ledger.record(outcome)
        if end.reason not in {None, Reason.NO_MODEL}:
            name = product or "series"
            self._progress.note(f"{uid} {name}: {end.state.value} ({end.reason.value}) {end.message}")

    def book(self, result: JobResult) -> None:
        """Keep what a job took and found."""
        self.ran += len(result.ran)
        self._pace.add(result)
        self._progress.status("series", str(self._pace))
        for timing in result.timings:
            self._ledger.add_timing(timing)
            key = (timing.series_instance_uid, timing.product)
            seconds, peak = self._spent.get(key, (0.0, 0))
            self._spent[key] = (seconds + timing.seconds, max(peak, timing.peak_memory))
        for stage, issues in result.issues.items():
            self._ledger.set_issues(*result.job.key, stage, issues)
        self.log("job", result.job, result)

    def log(self, event: str, job: Job, result: JobResult | None = None) -> None:
        """Add a line to the log file."""
        line: dict[str, object] = {"time": time.time(), "event": event, "series": job.key[0], "product": job.key[1]}
        line |= {"pool": job.pool, "attempt": job.attempt}
        if result is not None:
            line["stages"] = {t.stage: round(t.seconds, 4) for t in result.timings}
            if result.failure is not None:
                f = result.failure
                line |= {"stage": f.stage, "reason": f.reason.value, "message": f.message, "trace": f.trace}
        with self._path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")
