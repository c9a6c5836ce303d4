"""Runs without data: a clock that tests set, an executor that answers as a test says, runs of empty series."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

from ctenrich.inference.products import RequestedProduct
from ctenrich.ledger.rows import StageTiming
from ctenrich.reasons import Reason
from ctenrich.records import Cohort, Instance, Product, ProductKind, SeriesEntry
from ctenrich.runner.job import Failure, Job, JobResult
from ctenrich.runner.run import Run, RunConfig
from ctenrich.settings import Settings

EXPERT = RequestedProduct("expert", Product(ProductKind.EXPERT))
NETWORK = RequestedProduct("nnunet:m", Product(ProductKind.NNUNET, "m"))
SCORER = RequestedProduct("b", Product(ProductKind.BODYPART, "b"))


Answer = Callable[[Job], Failure | None]


class FakeClock:
    """All clocks of a runner; sleeping only moves the hands."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.slept: list[float] = []

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def boottime(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class FakeExecutor:
    """Ends one job for every call of `collect`, the first submitted one first, as `answer` says.

    Parameters
    ----------
    answer : callable
        Job -> failure, or None for success; may move the clock or take leases.
    slots : int
        Series in flight.
    background : bool
        Whether it claims to work in the background.
    """

    name = "fake"

    def __init__(self, answer: Answer = lambda _: None, *, slots: int = 2, background: bool = True) -> None:
        self._answer = answer
        self.slots = slots
        self.works_in_background = background
        self.submitted: list[Job] = []
        self.queue: deque[Job] = deque()
        self.closed: list[bool] = []

    def submit(self, job: Job) -> None:
        self.submitted.append(job)
        self.queue.append(job)

    def collect(self, timeout: float) -> JobResult | None:
        if not self.queue:
            return None
        job = self.queue.popleft()
        failure = self._answer(job)
        timings = tuple(timing(job, stage) for stage in job.stages)
        return JobResult(job=job, failure=failure, timings=timings)

    def close(self, *, kill: bool = False) -> None:
        self.closed.append(kill)


def timing(job: Job, stage: str) -> StageTiming:
    return StageTiming(
        series_instance_uid=job.key.series_instance_uid, product=job.key.product, stage=stage, seconds=1.0,
        cpu_seconds=1.0, peak_memory=10,
    )  # fmt: skip


def series(number: int, scheme: str = "file") -> SeriesEntry:
    return SeriesEntry(
        collection_id="c",
        patient_id=f"p{number}",
        study_instance_uid=f"1.{number}",
        series_instance_uid=f"1.{number}.1",
        instances=(Instance(f"1.{number}.1.1", f"{scheme}://bucket/{number}.dcm"),),
    )


def make_run(
    root: Path,
    count: int = 1,
    *,
    products: tuple[RequestedProduct, ...] = (EXPERT,),
    settings: Settings | None = None,
    scheme: str = "file",
) -> Run:
    """A run of `count` series that exist in the cohort only."""
    root.mkdir(parents=True, exist_ok=True)
    cohort = Cohort("c", tuple(series(n, scheme) for n in range(1, count + 1)), "0" * 64)
    config = RunConfig(1, "0.1.0", cohort.name, cohort.sha256, products, settings or Settings())
    return Run(root, config, cohort)


def transient(job: Job) -> Failure:
    """A failure that may be gone a moment later."""
    return Failure(stage=job.stages[0], reason=Reason.IO_ERROR, message="for now", retryable=True)


def lasting(job: Job, reason: Reason = Reason.WORKER_DIED, *, fatal: bool = False) -> Failure:
    """A failure that stays."""
    return Failure(stage=job.stages[0], reason=reason, message="for good", fatal=fatal)
