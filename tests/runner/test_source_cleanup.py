"""A disk smaller than the cohort: fetched objects go once a series has ended, and come back where they are needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.support.cohorts import make_cohort, result_hashes

from ctenrich import steps
from ctenrich.reasons import Reason
from ctenrich.records import State
from ctenrich.runner.executors import ExecutorName
from ctenrich.runner.run import Run
from ctenrich.select.cohort_file import cohort_table, read_cohort
from ctenrich.settings import FetchSettings, GeometrySettings, Settings

COUNT = 3


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cohort(tmp_path_factory.mktemp("cohort"), COUNT)


@pytest.fixture(scope="module")
def quota(cohort: Path) -> int:
    """Enough for one series, not for one series and what was fetched of another."""
    sizes = [
        sum(i.size or 0 for i in (*e.instances, *(c.instance for c in e.companions)))
        for e in read_cohort(cohort).series
    ]
    assert len(sizes) == COUNT
    return max(sizes) * 3 + min(sizes) // 2


def settings(quota: int | None, *, delete: bool = True) -> Settings:
    return Settings(fetch=FetchSettings(copy_local=True, disk_quota=quota, delete_after_use=delete))


def fetched(run: Run) -> list[Path]:
    return sorted(run.root.glob("series/*/source/**/*.dcm"))


def to_do(run: Run) -> dict[str, int]:
    return {stage: todo for stage, todo, _ in steps.preview(run) if todo}


@pytest.mark.parametrize(
    "executor", [ExecutorName.SERIAL, pytest.param(ExecutorName.PROCESSES, marks=pytest.mark.long)]
)
def test_a_cohort_larger_than_the_quota_passes(
    cohort: Path, quota: int, tmp_path: Path, executor: ExecutorName
) -> None:
    plain = steps.start(cohort, tmp_path / "plain", segmenters=["expert"])
    assert steps.run_all(plain).exit_code == 0
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"], settings=settings(quota))
    summary = steps.run_all(run, executor=executor)
    assert summary.exit_code == 0, summary
    assert result_hashes(run.root) == result_hashes(plain.root)
    assert fetched(run) == []
    assert to_do(run) == {}
    again = steps.run_all(steps.open_run(run.root), executor=executor)
    assert (again.exit_code, again.ran) == (0, 0)


def test_without_deleting_the_quota_ends_the_others_with_a_reason(cohort: Path, quota: int, tmp_path: Path) -> None:
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"], settings=settings(quota, delete=False))
    summary = steps.run_all(run)
    assert summary.reasons[Reason.DISK_FULL.value] == COUNT - 1
    assert summary.exit_code == 3, "the same command continues once there is space"
    assert len({p.parent for p in fetched(run)} - {p.parent for p in run.root.glob("*/*/source/companions/*")}) == 1


class Notes:
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def start(self, context: str, total: float | None = None) -> None: ...

    def advance(self, context: str, amount: float = 1) -> None: ...

    def status(self, context: str, text: str) -> None: ...

    def finish(self, context: str) -> None: ...

    def note(self, message: str) -> None:
        self.texts.append(message)


def test_what_is_needed_again_is_announced_and_fetched_again(cohort: Path, quota: int, tmp_path: Path) -> None:
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"], settings=settings(quota))
    assert steps.run_all(run).exit_code == 0
    before = result_hashes(run.root)
    uid = run.cohort.series[1].series_instance_uid
    (run.workspace.series_dir(uid) / "expert" / "objects" / "seg.dcm").unlink()
    assert to_do(run) == {"fetch": 1, "encode": 1, "validate": 1}
    notes = Notes()
    summary = steps.run_all(steps.open_run(run.root), progress=notes)
    assert summary.exit_code == 0
    assert summary.ran == 2, "fetch and encode; the objects came out the same, so that their proof stands"
    assert [t for t in notes.texts if "fetched again" in t] == [
        f"{uid} series: its objects were deleted after use; they are fetched again"
    ]
    assert result_hashes(run.root) == before
    assert fetched(run) == []


def test_a_series_that_sort_refused_is_not_fetched_twice(cohort: Path, tmp_path: Path) -> None:
    entries = tuple(replace(e, geometry_known=False) for e in read_cohort(cohort).series)
    unknown = tmp_path / "cohort.parquet"
    pq.write_table(cohort_table(replace(read_cohort(cohort), series=entries)), unknown)
    strict = replace(settings(None), geometry=GeometrySettings(minimum_slices=40))
    run = steps.start(unknown, tmp_path / "run", segmenters=["expert"], settings=strict)
    summary = steps.run_all(run)
    assert summary.states[State.EXCLUDED.value] == COUNT
    assert fetched(run) == []
    again = steps.run_all(steps.open_run(run.root))
    assert again.states == summary.states
    assert again.reasons == summary.reasons
    assert not list(run.root.glob("series/*/source"))


def test_a_series_that_failed_keeps_its_objects(cohort: Path, tmp_path: Path) -> None:
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"], settings=settings(None))
    uid = run.cohort.series[0].series_instance_uid
    blocked = run.workspace.series_dir(uid) / "expert" / "objects"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where a folder should be")
    assert steps.run_all(run).exit_code == 1
    assert {p.relative_to(run.root).parts[1] for p in fetched(run)} == {uid}
