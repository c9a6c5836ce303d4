"""The line that tells how a run goes."""

from __future__ import annotations

from ctenrich.ledger.rows import StageTiming
from ctenrich.reasons import Reason
from ctenrich.records import SeriesEntry
from ctenrich.runner.job import Failure, Job, JobResult
from ctenrich.runner.throughput import Throughput

ENTRY = SeriesEntry(collection_id="c", patient_id="p", study_instance_uid="1", series_instance_uid="1.1", instances=())


def result(pool: str, seconds: float, failure: Failure | None = None, worker: str = "w") -> JobResult:
    timing = StageTiming(
        series_instance_uid="1.1", product="", stage=pool, seconds=seconds, cpu_seconds=seconds, peak_memory=0,
        worker=worker,
    )  # fmt: skip
    return JobResult(job=Job(entry=ENTRY, pool=pool, stages=(pool,)), failure=failure, timings=(timing,))


def test_rates_busy_devices_and_failures() -> None:
    now = [0.0]
    pace = Throughput(lambda: now[0])
    for _ in range(4):
        pace.add(result("input", 1.0))
    pace.add(result("infer", 20.0))
    pace.add(result("infer", 25.0))
    pace.add(result("output", 1.0, Failure(stage="measure", reason=Reason.TIMEOUT, message="")))
    now[0] = 60.0
    assert str(pace) == "input 4.0/min, infer 2.0/min, output 1.0/min, devices 75 % busy, 1 failed"
    pace.add(result("infer", 45.0, worker="other"))
    assert "devices 75 % busy" in str(pace), "two devices share what was inferred"


def test_what_was_done_before_is_no_pace() -> None:
    now = [0.0]
    pace = Throughput(lambda: now[0])
    pace.add(JobResult(job=Job(entry=ENTRY, pool="input", stages=("sort",))))
    now[0] = 60.0
    assert str(pace) == "input 0.0/min, infer 0.0/min, output 0.0/min"
