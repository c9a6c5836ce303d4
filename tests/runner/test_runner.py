"""The runner: one outcome each, nothing done twice, the same bytes whoever works."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pyarrow.parquet as pq
import pytest
from tests.support.cohorts import make_cohort, partial_files, result_hashes

from ctenrich import steps
from ctenrich.errors import InputError, UsageError
from ctenrich.ledger.reader import LedgerReader
from ctenrich.progress import Progress
from ctenrich.records import State
from ctenrich.runner.executors import ExecutorName
from ctenrich.runner.executors.processes import ProcessExecutor
from ctenrich.runner.run import Run
from ctenrich.runner.runner import Runner, RunnerOptions
from ctenrich.runner.stopping import Budget
from ctenrich.settings import RunSettings, Settings

COUNT = 3


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cohort(tmp_path_factory.mktemp("cohort"), COUNT)


@pytest.fixture(scope="module")
def undisturbed(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    summary = steps.run_all(steps.start(cohort, out, segmenters=["expert"]))
    assert summary.exit_code == 0, summary
    return out


def test_everything_ends_in_one_outcome(undisturbed: Path) -> None:
    run = Run.open(undisturbed)
    with LedgerReader(run.ledger_path) as ledger:
        outcomes = ledger.outcomes()
    assert sorted((o.series_instance_uid, o.product) for o in outcomes) == sorted(run.jobs())
    states = {(o.product, o.state, o.reason) for o in outcomes}
    assert states == {
        ("", State.DONE, None),
        ("expert", State.DONE, None),
    }


class Notes:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def test_failures_are_notes_and_successes_are_not(tmp_path: Path) -> None:
    run, notes = steps.start(make_cohort(tmp_path, 2), tmp_path / "run", segmenters=["expert"]), Notes()
    steps.fetch(run, progress=cast("Progress", notes))
    assert notes.said == []
    slices = sorted(tmp_path.glob("dicom/p0/**/*.dcm"))
    os.truncate(slices[len(slices) // 2], 700)
    steps.sort(run, progress=cast("Progress", notes))
    assert any(" series: failed (" in said for said in notes.said)


def test_every_check_of_the_proof_is_in_a_table(undisturbed: Path) -> None:
    rows = pq.read_table(undisturbed / "tables" / "proofs.parquet").to_pylist()
    assert {r["product"] for r in rows} == {"expert"}
    assert len({r["SeriesInstanceUID"] for r in rows}) == COUNT
    assert {"seg.voxels", "seg.centroids", "shape_sr.values", "volumes"} <= {r["check"] for r in rows}
    assert all(r["passed"] and r["detail"] for r in rows)


def test_what_a_killed_writer_left_is_cleaned_up_wherever_it_is(cohort: Path, tmp_path: Path) -> None:
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"])
    series_dir = run.workspace.series_dir(run.cohort.series[0].series_instance_uid)
    for folder in (run.root, run.workspace.tables, run.workspace.report, series_dir / "volume"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".half.parquet.4194304.0a1b2c3d.tmp").write_bytes(b"half")
    mine = series_dir / f".dcm2niix.{os.getpid()}.0a1b2c3d.tmp"
    (series_dir / ".dcm2niix.4194304.0a1b2c3d.tmp").mkdir()
    mine.mkdir()
    assert steps.run_all(run).exit_code == 0
    assert mine.is_dir(), "its writer lives"
    mine.rmdir()
    assert partial_files(run.root) == []


def test_a_second_run_does_nothing_and_leaves_the_same_bytes(undisturbed: Path, cohort: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in undisturbed.glob("series/**/*") if p.is_file()}
    hashes = result_hashes(undisturbed)
    summary = steps.run_all(steps.start(cohort, undisturbed, segmenters=["expert"]))
    assert summary.ran == 0
    assert {p: p.stat().st_mtime_ns for p in undisturbed.glob("series/**/*") if p.is_file()} == before
    assert result_hashes(undisturbed) == hashes


def test_a_changed_setting_runs_what_depends_on_it_and_no_more(undisturbed: Path, cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(undisturbed, out)
    settings = Settings()
    changed = Settings(measure=type(settings.measure)(engine="pyradiomics"))
    run = steps.start(cohort, out, segmenters=["expert"], settings=changed)
    todo = {stage: count for stage, count, _ in steps.preview(run) if count}
    assert todo == {"measure": COUNT, "encode": COUNT, "validate": COUNT}
    assert steps.run_all(run).ran == 3 * COUNT


def test_a_damaged_file_is_made_again(undisturbed: Path, cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(undisturbed, out)
    seg = sorted(out.glob("series/*/expert/objects/seg.dcm"))[0]
    seg.write_bytes(seg.read_bytes()[:-10])
    summary = steps.run_all(steps.start(cohort, out, segmenters=["expert"]))
    assert summary.ran >= 1
    assert result_hashes(out) == result_hashes(undisturbed)


@pytest.mark.parametrize("executor", [ExecutorName.PROCESSES])
def test_other_executors_give_the_same_bytes(
    undisturbed: Path, cohort: Path, tmp_path: Path, executor: ExecutorName
) -> None:
    summary = steps.run_all(steps.start(cohort, tmp_path / "run", segmenters=["expert"]), executor=executor)
    assert summary.exit_code == 0
    assert result_hashes(tmp_path / "run") == result_hashes(undisturbed)


def test_stage_by_stage_gives_the_same_bytes(undisturbed: Path, cohort: Path, tmp_path: Path) -> None:
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"])
    assert len(steps.fetch(run)) == COUNT
    assert len(steps.sort(run)) == COUNT
    run = steps.open_run(tmp_path / "run")
    assert len(steps.convert(run)) == COUNT
    assert len(steps.segment(run)) == COUNT
    assert len(steps.measure(run)) == COUNT
    assert len(steps.encode(run)) == COUNT
    assert all(proof.passed for proof in steps.validate(run).values())
    steps.tables(run)
    assert result_hashes(tmp_path / "run") == result_hashes(undisturbed)


def test_a_stage_too_early_says_what_is_missing(cohort: Path, tmp_path: Path) -> None:
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"])
    with pytest.raises(InputError, match="NOT_PREPARED"):
        steps.segment(run)


def test_a_spent_budget_starts_nothing_and_says_so(cohort: Path, tmp_path: Path) -> None:
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"])
    summary = steps.run_all(run, budget=Budget(max_hours=0.0))
    assert (summary.ended, summary.exit_code) == ("budget", 4)
    assert summary.states["not_started_budget"] == 2 * COUNT
    assert steps.run_all(run).exit_code == 0


def test_one_bad_series_does_not_end_the_run(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path, 2)
    broken = sorted((tmp_path / "dicom" / "p0").glob("*.dcm"))[3]
    broken.write_bytes(broken.read_bytes()[:-100])
    summary = steps.run_all(steps.start(cohort, tmp_path / "run", segmenters=["expert"]))
    assert summary.exit_code == 1
    assert summary.states["done"] == 2
    assert summary.states["failed"] == 1
    assert summary.reasons["UPSTREAM_FAILED"] == 1
    assert not list((tmp_path / "run").glob("series/*/expert/objects/*.tmp"))


def test_a_worker_that_dies_costs_one_series(cohort: Path, tmp_path: Path) -> None:
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"])
    executor = ProcessExecutor(run.root, run.config.settings)
    killed: list[int] = []

    class Killer:
        """Kills the first output worker that it sees at work."""

        def __call__(self) -> bool:
            for worker in executor._workers:
                if not killed and worker.pool == "output" and worker.job is not None and worker.process.pid:
                    os.kill(worker.process.pid, signal.SIGKILL)
                    killed.append(worker.process.pid)
            return False

    summary = Runner(run, executor, options=RunnerOptions(stop=Killer())).run()
    assert killed
    assert summary.reasons["WORKER_DIED"] == 2
    assert summary.states["failed"] == 2
    again = steps.run_all(run)
    assert again.exit_code == 0


def test_a_worker_over_its_time_is_ended(cohort: Path, tmp_path: Path) -> None:
    settings = Settings(run=RunSettings(unit_timeout=0.0))
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"], settings=settings)
    summary = steps.run_all(run, executor=ExecutorName.PROCESSES)
    assert summary.reasons["TIMEOUT"] == COUNT


@pytest.mark.long
def test_sigterm_stops_cleanly_and_the_next_run_goes_on(cohort: Path, tmp_path: Path, undisturbed: Path) -> None:
    command = [
        sys.executable, "-m", "ctenrich.cli.main", "run", str(cohort), "--out", str(tmp_path / "run"), "--segmenter",
        "expert", "--executor", "processes",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        log = tmp_path / "run" / "log.jsonl"
        deadline = time.monotonic() + 120
        while not log.is_file() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=60)[0]
    assert process.returncode in (0, 3), output
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert result_hashes(tmp_path / "run") == result_hashes(undisturbed)
    assert partial_files(tmp_path / "run") == []


def test_two_runners_share_a_cohort(cohort: Path, tmp_path: Path, undisturbed: Path) -> None:
    command = [
        sys.executable, "-m", "ctenrich.cli.main", "run", str(cohort), "--out", str(tmp_path / "run"), "--segmenter",
        "expert", "--executor", "serial",
    ]  # fmt: skip
    steps.start(cohort, tmp_path / "run", segmenters=["expert"])
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(2)]
    assert [p.communicate(timeout=300) and p.returncode for p in both] == [0, 0]
    with LedgerReader(tmp_path / "run" / "ledger.sqlite") as ledger:
        attempts = [timing.attempt for timing in ledger.timings()]
    assert set(attempts) == {1}
    assert result_hashes(tmp_path / "run") == result_hashes(undisturbed)


def test_folders_that_are_not_this_run_are_refused(undisturbed: Path, cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(UsageError, match="BAD_RUN"):
        steps.start(cohort, tmp_path / "full", segmenters=["expert"])
    other = make_cohort(tmp_path / "other", 1)
    with pytest.raises(UsageError, match="another cohort"):
        steps.start(other, undisturbed, segmenters=["expert"])
    older = tmp_path / "older"
    shutil.copytree(undisturbed, older, ignore=shutil.ignore_patterns("series"))
    config = json.loads((older / "run.json").read_text())
    (older / "run.json").write_text(json.dumps({**config, "format": 0}))
    with pytest.raises(UsageError, match="format 0"):
        steps.open_run(older)


def test_a_run_whose_making_was_killed_is_made_again(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"

    def killed(*_: object, **__: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr("ctenrich.runner.creation.save_record", killed)
        with pytest.raises(SystemExit):
            steps.start(cohort, out, segmenters=["expert"])
    (out / ".cohort.parquet.12.ab34.tmp").write_bytes(b"half")
    assert (out / "cohort.parquet").read_bytes() == cohort.read_bytes()
    other = make_cohort(tmp_path / "other", 1)
    with pytest.raises(UsageError, match="BAD_RUN"):
        steps.start(other, out, segmenters=["expert"])
    assert (out / "cohort.parquet").read_bytes() == cohort.read_bytes()
    run = steps.start(cohort, out, segmenters=["expert"])
    assert len(run.cohort.series) > 1
    (out / "mine.txt").write_text("x")
    assert steps.start(cohort, out, segmenters=["expert"]).config == run.config


def test_nothing_asked_for_is_an_error(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="NO_MODEL"):
        steps.start(cohort, tmp_path / "run")
    with pytest.raises(UsageError, match="twice"):
        steps.start(cohort, tmp_path / "run", segmenters=["expert", "expert"])
    assert not (tmp_path / "run").exists()


def test_status_and_retry(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path, 1)
    (contours,) = (tmp_path / "dicom").rglob("RS*.dcm")
    whole = contours.read_bytes()
    contours.write_bytes(b"")
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"])
    assert steps.run_all(run).exit_code == 1
    found = steps.status(run)
    assert found.complete
    assert steps.retry(run, []) == 2, "the series and its contours"
    assert steps.retry(run, []) == 0
    assert not steps.status(run).complete
    contours.write_bytes(whole)
    assert steps.run_all(run).exit_code == 0, "the contours are fetched again"
    assert steps.retry(run, []) == 0
    with pytest.raises(UsageError, match="no reason"):
        steps.retry(run, ["NONSENSE"])
