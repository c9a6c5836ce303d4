"""What a run meets in the wild: full and read-only disks, stopped runners, clocks that jump, files edited by hand."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.support.cohorts import make_cohort, partial_files, result_hashes
from typer.testing import CliRunner

from ctenrich import steps, workspace
from ctenrich.cli.main import app
from ctenrich.errors import InputError, UsageError, is_disk_full
from ctenrich.ledger import database
from ctenrich.ledger.reader import LedgerReader
from ctenrich.reasons import Reason
from ctenrich.records import State
from ctenrich.runner.clock import SystemClock
from ctenrich.runner.executors import ExecutorName, open_executor
from ctenrich.runner.lease_keeper import LEASE_SECONDS, LeaseKeeper
from ctenrich.runner.recorder import RunSummary
from ctenrich.runner.run import Run
from ctenrich.runner.runner import Runner, RunnerOptions
from ctenrich.settings import RunSettings, Settings


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cohort(tmp_path_factory.mktemp("cohort"), 1)


@pytest.fixture(scope="module")
def expected(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert steps.run_all(steps.start(cohort, out, segmenters=["expert"])).exit_code == 0
    return result_hashes(out)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of its own in memory; skips where this user may not mount one."""
    folder.mkdir(parents=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True)


def command(cohort: Path, run: Path, *options: str) -> list[str]:
    start = [sys.executable, "-m", "ctenrich.cli.main", "run", str(cohort), "--out", str(run)]
    return [*start, "--segmenter", "expert", *options]


def complete_run(run: Run) -> RunSummary:
    """The stages alone, in this process, without tables and report."""
    return Runner(run, open_executor(ExecutorName.SERIAL, run.root, run.config.settings)).run()


class FullDisk:
    """Stands in for the one door that writes; from the n-th write on, the disk is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes, self.limit = 0, sys.maxsize
        self._real = workspace.atomic_path
        for module in [m for n, m in sys.modules.items() if n.startswith("ctenrich") and hasattr(m, "atomic_path")]:
            monkeypatch.setattr(module, "atomic_path", self)

    @contextmanager
    def __call__(self, path: Path) -> Iterator[Path]:
        self.writes += 1
        with self._real(path) as temporary:
            if self.writes >= self.limit:
                temporary.write_bytes(b"half")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            yield temporary


def manifests(run: Run) -> int:
    """Number of manifests and cached failures of all series and products."""
    joined = [json.loads(path.read_bytes()) for path in run.root.glob("series/**/manifests.json")]
    return len(list(run.root.glob("series/**/manifests/*"))) + sum(map(len, joined))


@pytest.mark.parametrize("divide_from", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_full_disk_at_any_write_costs_nothing_but_time(
    cohort: Path, tmp_path: Path, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch, divide_from: int
) -> None:
    """Each write of each stage fails once: a run goes on with the stage that failed, and stops at its next write."""
    settings = Settings(run=RunSettings(divide_folders_from=divide_from))
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"], settings=settings)
    assert run.workspace.is_divided is bool(divide_from)
    disk = FullDisk(monkeypatch)
    stopped, limit, done = 0, 1, 0
    while True:
        disk.writes, disk.limit = 0, limit
        summary = complete_run(run)
        assert partial_files(run.root) == []
        if summary.exit_code == 0:
            break
        assert (summary.ended, summary.exit_code) == ("disk", 3), (stopped, limit)
        stopped += 1
        before, done = done, manifests(run)
        limit = 2 if done > before else limit + 1  # after a stage the first write of the next one has failed
    assert done >= 6, "stages"
    assert stopped > 15
    assert result_hashes(run.root) == {name: digest for name, digest in expected.items() if name.endswith(".dcm")}


@pytest.mark.long
def test_a_disk_that_is_really_full_stops_the_run_and_space_lets_it_go_on(
    cohort: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    with small_disk(tmp_path / "disk", "250k") as disk:
        first = subprocess.run(command(cohort, disk / "run"), capture_output=True, text=True, check=False)
        assert first.returncode == 3, first.stdout + first.stderr
        assert "DISK_FULL" in first.stderr or "the disk is full" in first.stderr
        assert "Traceback" not in first.stderr
        remount(disk, "size=100m")
        again = subprocess.run(command(cohort, disk / "run"), capture_output=True, text=True, check=False)
        assert again.returncode == 0, again.stdout + again.stderr
        assert result_hashes(disk / "run") == expected
        assert partial_files(disk / "run") == []


@pytest.mark.long
def test_a_full_disk_is_exit_code_3_at_every_write_of_the_command(
    cohort: Path, tmp_path: Path, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All stages are done, so that the writes are those of the run's folder, the tables and the report."""
    out = tmp_path / "run"
    assert steps.run_all(steps.start(cohort, out, segmenters=["expert"])).exit_code == 0
    disk, arguments = FullDisk(monkeypatch), command(cohort, out, "--executor", "serial")[3:]
    for _ in range(2):  # the second report finds its pages as they are
        disk.writes = 0
        assert CliRunner().invoke(app, arguments).exit_code == 0
    writes = disk.writes
    assert writes > 25
    for limit in (1, 2, 3, 6, 12, 19, writes):
        disk.writes, disk.limit = 0, limit
        result = CliRunner().invoke(app, arguments)
        assert isinstance(result.exception, SystemExit), (limit, result.exception)
        assert result.exit_code == 3, (limit, result.output)
        assert "DISK_FULL" in result.output or "the disk is full" in result.output
        assert partial_files(out) == []
    disk.limit = sys.maxsize
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert result_hashes(out) == expected


@pytest.mark.parametrize("number", [1, *(pytest.param(n, marks=pytest.mark.long) for n in (2, 4, 8))])
def test_a_ledger_that_cannot_be_written_is_a_full_disk(
    cohort: Path, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the n-th transaction on SQLite has no page left; a lease that could not be released expires."""
    monkeypatch.setitem(LeaseKeeper.__init__.__kwdefaults__, "seconds", 3.0)
    real, count = database.Database.transaction, [0]

    @contextmanager
    def limited(self: database.Database) -> Iterator[sqlite3.Connection]:
        count[0] += 1
        with real(self) as connection:
            if count[0] >= number:
                connection.execute("PRAGMA max_page_count = 1")
                connection.execute("CREATE TABLE more (text TEXT)")
            yield connection

    arguments = command(cohort, tmp_path / "run", "--executor", "serial")[3:]
    with monkeypatch.context() as patched:
        patched.setattr(database.Database, "transaction", limited)
        result = CliRunner().invoke(app, arguments)
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == 3, result.output
    assert count[0] >= number
    assert CliRunner().invoke(app, arguments).exit_code == 0


def test_a_volume_is_not_written_through_a_map_without_blocks(tmp_path: Path) -> None:
    """Pages of a memory map that the disk cannot hold would end the process (SIGBUS)."""
    with small_disk(tmp_path / "disk", "100k") as disk:
        np.lib.format.open_memmap(disk / "a.npy", mode="w+", dtype="<i2", shape=(100, 100, 100))
        with pytest.raises(OSError, match="No space left") as caught:
            workspace.reserve_space(disk / "a.npy")
        assert is_disk_full(caught.value)
        np.lib.format.open_memmap(disk / "b.npy", mode="w+", dtype="<i2", shape=(10, 10, 10))
        workspace.reserve_space(disk / "b.npy")
        assert (disk / "b.npy").stat().st_blocks >= 4


def test_a_full_disk_is_found_below_the_errors_of_libraries() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    wrapped = InputError(Reason.IO_ERROR, "a file could not be copied")
    wrapped.__cause__ = full
    text = RuntimeError('IO Error: Could not write file "a": No space left on device')
    for error in (
        full,
        wrapped,
        text,
        OSError(errno.EDQUOT, "quota"),
        sqlite3.OperationalError("database or disk is full"),
    ):
        assert is_disk_full(error), error
    for error in (OSError(errno.EIO, "i/o"), ValueError("full"), InputError(Reason.IO_ERROR, "no")):
        assert not is_disk_full(error), error


@pytest.mark.long
def test_a_read_only_folder_is_a_clear_error(cohort: Path, tmp_path: Path, expected: dict[str, str]) -> None:
    with small_disk(tmp_path / "disk", "100m") as disk:
        remount(disk, "ro")
        refused = subprocess.run(command(cohort, disk / "new"), capture_output=True, text=True, check=False)
        assert refused.returncode == 1
        assert "error: IO_ERROR" in refused.stderr
        assert "hint: make the folder writable" in refused.stderr
        remount(disk, "rw")
        assert subprocess.run(command(cohort, disk / "run"), capture_output=True, check=False).returncode == 0
        assert result_hashes(disk / "run") == expected


class AfterTheLease(SystemClock):
    """A clock for which the leases that others hold now have expired."""

    def boottime(self) -> float:
        return super().boottime() + LEASE_SECONDS


@pytest.mark.long
def test_a_runner_that_sleeps_past_its_lease_cannot_record_its_result(tmp_path: Path, expected: dict[str, str]) -> None:
    """SIGSTOP one of two runners, let its lease run out, let the other finish, and wake it."""
    cohort = make_cohort(tmp_path, 3)
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"])
    slow = subprocess.Popen(
        command(cohort, run.root, "--executor", "serial"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    held = wait_for_lease(run.ledger_path)
    slow.send_signal(signal.SIGSTOP)
    later = Runner(
        run,
        open_executor(ExecutorName.SERIAL, run.root, run.config.settings),
        options=RunnerOptions(clock=AfterTheLease()),
    )
    assert later.run().exit_code == 0
    steps.finish(run)
    whole = result_hashes(run.root)
    slow.send_signal(signal.SIGCONT)
    output, _ = slow.communicate(timeout=120)
    assert slow.returncode == 0, output
    assert result_hashes(run.root) == whole
    with LedgerReader(run.ledger_path) as ledger:
        rows = [row for row in ledger.timings() if row.series_instance_uid == held]
        assert {o.state for o in ledger.outcomes()} == {State.DONE}
    assert {row.attempt for row in rows} == {1}, "the result of the runner that woke up was recorded"


def wait_for_lease(path: Path) -> str:
    """The series that a runner has started, as soon as it has."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with LedgerReader(path) as ledger:
                leased = ledger.leased_series()
        except UsageError:  # the ledger is not there yet
            leased = []
        if leased:
            return leased[0]
        time.sleep(0.002)
    raise AssertionError("no series was begun")


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0], ids=["a day back", "a day ahead"])
def test_a_clock_that_jumps_changes_no_lease_and_no_result(
    cohort: Path, tmp_path: Path, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """The wall clock jumps at every look; leases and limits go by clocks that cannot."""
    real, looks = time.time, 0

    def jumping() -> float:
        nonlocal looks
        looks += 1
        return real() + (jump if looks % 2 else 0.0)

    monkeypatch.setattr(time, "time", jumping)
    summary = complete_run(steps.start(cohort, tmp_path / "run", segmenters=["expert"]))
    assert looks > 5
    assert (summary.exit_code, summary.seconds < 300) == (0, True)
    assert result_hashes(tmp_path / "run") == {n: d for n, d in expected.items() if n.endswith(".dcm")}


def test_a_cohort_file_edited_by_hand_is_refused(cohort: Path, tmp_path: Path) -> None:
    for name in ("cohort.parquet", "cohort.lock.json"):
        shutil.copy(cohort.with_name(name), tmp_path / name)
    here = tmp_path / "cohort.parquet"
    table = pq.read_table(here)
    edited = table.set_column(table.schema.get_field_index("source_doi"), "source_doi", [["10.1/somewhere.else"]])
    pq.write_table(edited.replace_schema_metadata(table.schema.metadata), here)
    with pytest.raises(UsageError, match="BAD_COHORT"):
        steps.start(here, tmp_path / "run", segmenters=["expert"])
    assert not (tmp_path / "run").exists()
    here.write_bytes(cohort.read_bytes()[:-20])
    with pytest.raises(UsageError, match="BAD_COHORT"):
        steps.start(here, tmp_path / "run", segmenters=["expert"])


def test_the_cohort_in_a_run_cannot_be_edited_either(cohort: Path, tmp_path: Path) -> None:
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"])
    inside = run.root / "cohort.parquet"
    table = pq.read_table(inside)
    pq.write_table(table.slice(0, 0), inside)
    with pytest.raises(UsageError, match="BAD_COHORT"):
        steps.open_run(run.root)
