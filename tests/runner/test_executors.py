"""Serial and process executors: order of pools, limits of workers, results of dead ones; the table of executors."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from tests.support.runner_cases import series

from ctenrich.reasons import Reason
from ctenrich.runner.executors import ExecutorName, ExecutorOptions, open_executor
from ctenrich.runner.executors.processes import ProcessExecutor
from ctenrich.runner.executors.serial import SerialExecutor
from ctenrich.runner.job import Job, JobResult
from ctenrich.settings import RunSettings, Settings


def job(pool: str, number: int = 1, *stages: str) -> Job:
    """A job whose only stage, if any, fails at once: there is no such series."""
    return Job(entry=series(number), pool=pool, stages=stages)


def test_auto_is_serial_for_one_series_and_processes_for_more() -> None:
    assert ExecutorName.AUTO.for_series(1) is ExecutorName.SERIAL
    assert ExecutorName.AUTO.for_series(2) is ExecutorName.PROCESSES
    assert ExecutorName.RAY.for_series(1) is ExecutorName.RAY


def test_every_executor_of_the_table_has_a_module(tmp_path: Path) -> None:
    assert {name.value for name in ExecutorName} == {"auto", "serial", "processes", "ray"}
    for name in (ExecutorName.AUTO, ExecutorName.SERIAL):
        assert isinstance(open_executor(name, tmp_path, Settings()), SerialExecutor)
    with_two = Settings(run=RunSettings(input_workers=1, output_workers=1))
    executor = open_executor(ExecutorName.PROCESSES, tmp_path, with_two, ExecutorOptions(address="ignored"))
    assert isinstance(executor, ProcessExecutor)
    executor.close(kill=True)


def test_serial_finishes_series_before_it_starts_others(tmp_path: Path) -> None:
    executor = SerialExecutor(tmp_path, Settings())
    for number, pool in enumerate(("input", "infer", "output", "input"), 1):
        executor.submit(job(pool, number))
    order = []
    while (result := executor.collect(0.0)) is not None:
        order.append(result.job.key.series_instance_uid)
    assert order == ["1.3.1", "1.2.1", "1.1.1", "1.4.1"]


def test_serial_drops_its_queue_when_it_is_closed(tmp_path: Path) -> None:
    executor = SerialExecutor(tmp_path, Settings())
    executor.submit(job("input"))
    executor.close()
    assert executor.collect(0.0) is None
    assert not executor.works_in_background


def collect_all(executor: ProcessExecutor, count: int) -> list[JobResult]:
    found: list[JobResult] = []
    deadline = time.monotonic() + 120
    while len(found) < count and time.monotonic() < deadline:
        result = executor.collect(0.5)
        if result is not None:
            found.append(result)
    return found


@pytest.fixture
def processes(tmp_path: Path) -> ProcessExecutor:
    return ProcessExecutor(tmp_path, Settings(run=RunSettings(input_workers=1, output_workers=1)))


def test_every_job_gets_one_result_from_a_worker_of_its_pool(processes: ProcessExecutor) -> None:
    try:
        for number, pool in enumerate(("input", "infer", "output", "input"), 1):
            processes.submit(job(pool, number, "measure"))
        results = collect_all(processes, 4)
        assert sorted(r.job.key.series_instance_uid for r in results) == [f"1.{n}.1" for n in range(1, 5)]
        assert {(r.job.pool, t.worker) for r in results for t in r.timings} == {
            (pool, f"ctenrich-{pool}") for pool in ("input", "infer", "output")
        }
        assert processes.collect(0.0) is None
    finally:
        processes.close()
    assert processes._workers == []


def test_a_worker_that_dies_costs_the_job_that_it_had(processes: ProcessExecutor) -> None:
    """The worker is stopped first, so that it cannot finish before it is killed."""
    try:
        worker = next(w for w in processes._workers if w.pool == "input")
        assert worker.process.pid is not None
        os.kill(worker.process.pid, signal.SIGSTOP)
        processes.submit(job("input", 1, "sort"))
        processes.submit(job("input", 2, "sort"))
        os.kill(worker.process.pid, signal.SIGKILL)
        dead, alive = collect_all(processes, 2)
        assert dead.failure is not None
        assert (dead.job.key.series_instance_uid, dead.failure.reason) == ("1.1.1", Reason.WORKER_DIED)
        assert dead.failure.message.endswith("signal SIGKILL")
        assert (dead.failure.stage, dead.failure.retryable) == ("sort", False)
        assert alive.job.key.series_instance_uid == "1.2.1"
        assert alive.failure is not None
        assert alive.failure.reason is not Reason.WORKER_DIED
    finally:
        processes.close(kill=True)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [(RunSettings(unit_timeout=0.0), Reason.TIMEOUT), (RunSettings(memory_limit=1), Reason.OUT_OF_MEMORY)],
)
def test_a_worker_over_its_limit_is_killed(tmp_path: Path, limits: RunSettings, reason: Reason) -> None:
    executor = ProcessExecutor(tmp_path, Settings(run=limits))
    try:
        executor.submit(job("input", 1, "sort"))
        (result,) = collect_all(executor, 1)
        assert result.failure is not None
        assert result.failure.reason is reason
    finally:
        executor.close(kill=True)
