"""The compressed NIfTI is made while the networks work; nothing waits for it, and it is remade where it is lost."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from tests.support.cohorts import make_cohort, partial_files, result_hashes

from ctenrich import steps
from ctenrich.runner.executors import ExecutorName
from ctenrich.runner.executors.serial import SerialExecutor
from ctenrich.runner.job import Job, JobResult
from ctenrich.runner.run import Run
from ctenrich.runner.runner import Runner
from ctenrich.settings import ConvertSettings, FetchSettings, Settings

COUNT = 2
PACKED = Settings(convert=ConvertSettings(compress_nifti=True))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cohort(tmp_path_factory.mktemp("cohort"), COUNT)


@pytest.fixture(scope="module")
def plain(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = steps.start(cohort, tmp_path_factory.mktemp("plain") / "run", segmenters=["expert"])
    assert steps.run_all(run).exit_code == 0
    return run


def volumes(run: Run) -> dict[str, bytes]:
    """Series -> content of its NIfTI."""
    found = {}
    for path in run.root.glob("series/*/volume/ct.nii*"):
        content = path.read_bytes()
        found[path.parent.parent.name] = gzip.decompress(content) if path.suffix == ".gz" else content
    return found


@pytest.mark.parametrize(
    "executor", [ExecutorName.SERIAL, pytest.param(ExecutorName.PROCESSES, marks=pytest.mark.long)]
)
def test_the_same_volume_compressed_beside_the_inference(
    cohort: Path, plain: Run, tmp_path: Path, executor: ExecutorName
) -> None:
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"], settings=PACKED)
    summary = steps.run_all(run, executor=executor)
    assert summary.exit_code == 0, summary
    assert len(list(run.root.glob("series/*/volume/ct.nii.gz"))) == COUNT
    assert not list(run.root.glob("series/*/volume/ct.nii"))
    assert volumes(run) == volumes(plain)
    assert result_hashes(run.root) == result_hashes(plain.root)
    assert partial_files(run.root) == []
    again = steps.run_all(steps.open_run(run.root), executor=executor)
    assert (again.exit_code, again.ran) == (0, 0)
    assert [row for row in steps.preview(run) if row[1]] == []


class Watched(SerialExecutor):
    """Notes what is handed over and what comes back."""

    def __init__(self, root: Path, settings: Settings) -> None:
        super().__init__(root, settings)
        self.events: list[tuple[str, ...]] = []

    def submit(self, job: Job) -> None:
        self.events.append(job.stages)
        super().submit(job)

    def collect(self, timeout: float) -> JobResult | None:
        self.events.append(("collect",))
        return super().collect(timeout)


def test_nothing_waits_for_it(cohort: Path, tmp_path: Path) -> None:
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"], settings=PACKED)
    executor = Watched(run.root, PACKED)
    assert Runner(run, executor).run().exit_code == 0
    places = [n for n, event in enumerate(executor.events) if event == ("compress",)]
    assert [executor.events[n - 1] for n in places] == [("segment",)] * COUNT


def test_a_lost_or_broken_file_is_made_again_and_nothing_else(cohort: Path, plain: Run, tmp_path: Path) -> None:
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"], settings=PACKED)
    assert steps.run_all(run).exit_code == 0
    first, second = sorted(run.root.glob("series/*/volume/ct.nii.gz"))
    good = first.read_bytes()
    first.unlink()
    second.write_bytes(second.read_bytes()[:-9] + b"trailing garbage")
    assert {stage: todo for stage, todo, _ in steps.preview(run) if todo} == {"compress": 2}
    summary = steps.run_all(steps.open_run(run.root))
    assert (summary.exit_code, summary.ran) == (0, 2)
    assert first.read_bytes() == good
    assert volumes(run) == volumes(plain)


def test_stage_by_stage_too(cohort: Path, plain: Run, tmp_path: Path) -> None:
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"], settings=PACKED)
    steps.fetch(run)
    steps.sort(run)
    found = steps.convert(run)
    assert all(run.workspace.resolve(uid, v.nifti_path or "").is_file() for uid, v in found.items())
    assert volumes(run) == volumes(plain)


def test_deleted_after_use_and_needed_for_a_lost_file(cohort: Path, plain: Run, tmp_path: Path) -> None:
    settings = Settings(
        convert=ConvertSettings(compress_nifti=True), fetch=FetchSettings(copy_local=True, delete_after_use=True)
    )
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"], settings=settings)
    assert steps.run_all(run).exit_code == 0
    next(run.root.glob("series/*/volume/ct.nii.gz")).unlink()
    assert {stage: todo for stage, todo, _ in steps.preview(run) if todo} == {"fetch": 1, "compress": 1}
    assert steps.run_all(steps.open_run(run.root)).exit_code == 0
    assert volumes(run) == volumes(plain)
