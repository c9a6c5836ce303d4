"""One job of scheduling: a few stages of one series or product, done in one worker, with what came of it.

Every executor runs the same function on the same job, so that results do not depend on who runs it.
"""

from __future__ import annotations

import errno
import os
import resource
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ctenrich.errors import CtenrichError
from ctenrich.inference.model_cache import ModelCache
from ctenrich.inference.products import RequestedProduct
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import Issue, SeriesEntry
from ctenrich.runner.ledger import StageTiming
from ctenrich.runner.manifest import cached_failure, is_done, run_stage, stage_key
from ctenrich.settings import Settings
from ctenrich.stages.stage import StageContext, StageFindingsError
from ctenrich.stages.table import STAGES
from ctenrich.workspace import Workspace

__all__ = ["Failure", "Job", "JobResult", "run_job"]


@dataclass(frozen=True)
class Job:
    """Stages of one series (`plan` is None) or of one product, all of one pool."""

    entry: SeriesEntry
    plan: RequestedProduct | None
    pool: str
    stages: tuple[str, ...]
    attempt: int = 1
    together: tuple[SeriesEntry, ...] = ()
    """Series that are next, whose objects the fetch of this one may bring along."""

    @property
    def key(self) -> tuple[str, str]:
        """(Series Instance UID, product)."""
        return self.entry.series_instance_uid, str(self.plan.product) if self.plan else ""


@dataclass(frozen=True)
class Failure:
    """Why a job did not finish."""

    stage: str
    reason: Reason
    message: str
    retryable: bool = False
    fatal: bool = False
    """Whether every other job would fail in the same way, so that the run had better stop."""
    trace: str = ""
    """For the log; never in tables or the report."""


@dataclass(frozen=True)
class JobResult:
    """What came of a job."""

    job: Job
    failure: Failure | None = None
    ran: tuple[str, ...] = ()
    """Stages that did work (the others were done already)."""
    timings: tuple[StageTiming, ...] = ()
    issues: dict[str, tuple[Issue, ...]] = field(default_factory=dict)


def run_job(
    job: Job, root: Path, settings: Settings, models: ModelCache, *, worker: str = "", progress: Progress = SILENT
) -> JobResult:
    """Run the stages of a job that are not done yet; never raises for what goes wrong with the data."""
    context = StageContext(
        entry=job.entry,
        requested=job.plan,
        settings=settings,
        workspace=Workspace(root),
        models=models,
        progress=progress,
    )
    timings: list[StageTiming] = []
    issues: dict[str, tuple[Issue, ...]] = {}
    failure: Failure | None = None
    for name in job.stages:
        started, cpu = time.monotonic(), _cpu_seconds()
        _reset_peak()
        worked = True
        try:
            if name == "fetch" and job.together:
                _bring_along(job, context)
            worked = _run_one(name, context, issues)
        except StageFindingsError as error:
            issues[name] = error.issues
            failure = Failure(name, error.reason, error.message)
        except Exception as error:  # noqa: BLE001 - one series never ends a run; the reason is kept
            failure = _failure(name, error)
        if worked:
            seconds = time.monotonic() - started
            timings.append(StageTiming(*job.key, name, seconds, _cpu_seconds() - cpu, _peak(), worker))
        if failure is not None:
            break
    return JobResult(job, failure, tuple(t.stage for t in timings), tuple(timings), issues)


def _run_one(name: str, context: StageContext, issues: dict[str, tuple[Issue, ...]]) -> bool:
    stage = STAGES[name]
    key = stage_key(stage, context)
    if is_done(stage, context, key):
        return False
    known = cached_failure(stage, context, key)
    if known is not None:
        raise known
    issues[name] = run_stage(stage, context, key)
    return True


def _bring_along(job: Job, context: StageContext) -> None:
    """Fetch this series' objects together with those of the next; what goes wrong is for each one's own fetch."""
    from ctenrich.stages.fetch import prefetch_series

    stage = STAGES["fetch"]
    todo = []
    for entry in (job.entry, *job.together):
        one = replace(context, entry=entry)
        with suppress(CtenrichError):
            if not is_done(stage, one, stage_key(stage, one)):
                todo.append(entry)
    if len(todo) > 1:
        prefetch_series(todo, settings=context.settings, workspace=context.workspace, progress=context.progress)


def _failure(stage: str, error: Exception) -> Failure:
    if isinstance(error, CtenrichError):
        hint = f" ({error.hint})" if error.hint else ""
        return Failure(stage, error.reason, error.message + hint, error.retryable)
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, MemoryError):
        return Failure(stage, Reason.OUT_OF_MEMORY, "memory ran out", trace=trace)
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return Failure(stage, Reason.DISK_FULL, "there is no space left on the disk", fatal=True, trace=trace)
        if error.errno == errno.EROFS:
            return Failure(stage, Reason.IO_ERROR, "the run's folder is read-only", fatal=True, trace=trace)
        return Failure(stage, Reason.IO_ERROR, f"{type(error).__name__}: {os.strerror(error.errno or 0)}", trace=trace)
    return Failure(stage, Reason.INTERNAL, f"{type(error).__name__} in {stage}; the log has the details", trace=trace)


def _cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _reset_peak() -> None:
    """Ask the kernel to forget this process's highest memory use, where it can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak() -> int:
    """Highest resident memory since `_reset_peak` (or of the process's life), bytes."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
