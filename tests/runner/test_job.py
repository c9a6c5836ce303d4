"""A job runs the stages that are not done, and turns every error into a failure with a reason."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from tests.support.fake_stages import FakeStages
from tests.support.runner_cases import series

from ctenrich.errors import CtenrichError, InputError, TransientError
from ctenrich.inference.model_cache import ModelCache
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Severity
from ctenrich.runner.job import Job, JobResult, run_job
from ctenrich.settings import Settings
from ctenrich.stages.stage import StageFindingsError

JOB = Job(entry=series(1), pool="output", stages=("first", "second"))


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> FakeStages:
    made = FakeStages()
    monkeypatch.setattr("ctenrich.runner.job.STAGES", made.table())
    return made


def go(root: Path) -> JobResult:
    return run_job(JOB, root, Settings(), ModelCache(Settings()), worker="w1")


def test_stages_run_in_order_once(tmp_path: Path, stages: FakeStages) -> None:
    result = go(tmp_path)
    assert (result.failure, result.ran) == (None, ("first", "second"))
    assert {t.worker for t in result.timings} == {"w1"}
    assert all(t.seconds >= 0 and t.peak_memory > 0 for t in result.timings)
    assert go(tmp_path).ran == ()
    assert stages.calls == ["first", "second"]


def test_a_stage_of_a_higher_version_runs_again_with_what_depends_on_its_result(
    tmp_path: Path, stages: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(tmp_path)
    monkeypatch.setattr("ctenrich.runner.job.STAGES", stages.table(second=2))
    assert go(tmp_path).ran == ("second",)
    stages.text = "new"
    assert go(tmp_path).ran == (), "the same version promises the same result"
    monkeypatch.setattr("ctenrich.runner.job.STAGES", stages.table(first=2, second=2))
    assert go(tmp_path).ran == ("first", "second")
    assert next(tmp_path.rglob("second.txt")).read_text() == "new and two"
    monkeypatch.setattr("ctenrich.runner.job.STAGES", stages.table(first=3, second=2))
    assert go(tmp_path).ran == ("first",), "its result is the same: nothing that depends on it changes"


@pytest.mark.parametrize(
    ("error", "reason", "retryable", "fatal"),
    [
        (InputError(Reason.TRUNCATED, "short", "fetch it again"), Reason.TRUNCATED, False, False),
        (TransientError(Reason.IO_ERROR, "busy"), Reason.IO_ERROR, True, False),
        (MemoryError(), Reason.OUT_OF_MEMORY, False, False),
        (OSError(errno.ENOSPC, "full"), Reason.DISK_FULL, False, True),
        (OSError(errno.EDQUOT, "quota"), Reason.DISK_FULL, False, True),
        (OSError(errno.EROFS, "read-only"), Reason.IO_ERROR, False, True),
        (OSError(errno.EIO, "broken"), Reason.IO_ERROR, False, False),
        (RuntimeError("secret"), Reason.INTERNAL, False, False),
    ],
)
def test_errors_become_failures(
    tmp_path: Path, stages: FakeStages, error: Exception, reason: Reason, retryable: bool, fatal: bool
) -> None:
    stages.error = error
    result = go(tmp_path)
    assert result.failure is not None
    assert (result.failure.stage, result.failure.reason) == ("first", reason)
    assert (result.failure.retryable, result.failure.fatal) == (retryable, fatal)
    assert result.ran == ("first",)
    assert stages.calls == ["first"], "later stages do not run"
    assert "secret" not in result.failure.message, "what an unexpected error says is for the log"
    assert bool(result.failure.trace) is not isinstance(error, CtenrichError)


def test_the_hint_is_part_of_the_message(tmp_path: Path, stages: FakeStages) -> None:
    stages.error = InputError(Reason.TRUNCATED, "short", "fetch it again")
    failure = go(tmp_path).failure
    assert failure is not None
    assert failure.message == "short (fetch it again)"


def test_findings_are_kept_although_the_product_fails(tmp_path: Path, stages: FakeStages) -> None:
    issue = Issue("rule", Severity.ERROR, "seg", "text")
    stages.error = StageFindingsError(Reason.INVALID_OBJECT, "1 error", (issue,))
    result = go(tmp_path)
    assert result.issues == {"first": (issue,)}
    assert result.failure is not None
    assert result.failure.reason is Reason.INVALID_OBJECT
