"""A job: a few stages of one series or product, run in one worker, and its result.

Every executor runs the same function on the same job, so that results do not depend on the executor.
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

from ctenrich.errors import CtenrichError, is_disk_full
from ctenrich.inference.model_cache import ModelCache
from ctenrich.inference.products import RequestedProduct
from ctenrich.ledger.rows import ProductKey, StageTiming
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Product, SeriesEntry
from ctenrich.runner.manifest import cached_failure, is_done, run_stage, stage_key
from ctenrich.settings import Settings
from ctenrich.stages.fetch import prefetch_series
from ctenrich.stages.stage import StageContext, StageFindingsError
from ctenrich.stages.table import STAGES, objects_left_out
from ctenrich.workspace import Workspace

__all__ = ["Failure", "Job", "JobResult", "run_job"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """Stages of one series (`plan` is None) or of one product, all of one pool."""

    entry: SeriesEntry
    plan: RequestedProduct | None = None
    pool: str
    """``input``, ``infer`` or ``output``."""
    stages: tuple[str, ...]
    attempt: int = 1
    prefetch: tuple[SeriesEntry, ...] = ()
    """The next series: their objects are fetched together with those of this one."""
    scorer: Product | None = None
    """Product of the run whose slice scores a crop is derived from."""

    @property
    def key(self) -> ProductKey:
        """Series and product."""
        return ProductKey(self.entry.series_instance_uid, str(self.plan.product) if self.plan else "")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a job did not finish."""

    stage: str
    reason: Reason
    message: str
    retryable: bool = False
    """Whether the same job may succeed a moment later."""
    fatal: bool = False
    """Whether every other job would fail in the same way, so that the run should stop."""
    trace: str = ""
    """Traceback, for the log; never in tables or the report."""


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """The result of a job."""

    job: Job
    failure: Failure | None = None
    timings: tuple[StageTiming, ...] = ()
    """Of the stages that did work; the others were done before."""
    issues: dict[str, tuple[Issue, ...]] = field(default_factory=dict)
    """Stage -> issues that it found."""
    left_out: dict[str, Reason] = field(default_factory=dict)
    """Object kinds of a product that are not written because they would have no content; after its last stage."""

    @property
    def ran(self) -> tuple[str, ...]:
        """Stages that did work."""
        return tuple(timing.stage for timing in self.timings)


def run_job(
    job: Job, root: Path, settings: Settings, models: ModelCache, *, worker: str = "", progress: Progress = SILENT
) -> JobResult:
    """Run the stages of a job that are not done yet; errors of the data become a failure, not an exception.

    Parameters
    ----------
    job : Job
        What to run.
    root : Path
        The run's folder.
    settings : Settings
        Of the run.
    models : ModelCache
        Open models of this worker.
    worker : str
        Name of this worker, for the timings.
    progress : Progress
        Passed to the stages.

    Returns
    -------
    JobResult
        Timings and issues of the stages that ran, and the failure that ended the job, if any.
    """
    context = StageContext(
        entry=job.entry,
        requested=job.plan,
        settings=settings,
        workspace=Workspace(root),
        models=models,
        progress=progress,
        scorer=job.scorer,
    )
    timings: list[StageTiming] = []
    issues: dict[str, tuple[Issue, ...]] = {}
    failure: Failure | None = None
    for name in job.stages:
        started, cpu = time.monotonic(), _cpu_seconds()
        _reset_peak_memory()
        worked = True
        try:
            if name == "fetch" and job.prefetch:
                _prefetch(job, context)
            worked = _run_unless_done(name, context, issues)
        except StageFindingsError as error:
            issues[name] = error.issues
            failure = Failure(stage=name, reason=error.reason, message=error.message)
        except Exception as error:  # noqa: BLE001 - one series never ends a run; the reason is kept
            failure = _failure_of(name, error)
            if isinstance(error, CtenrichError) and error.issues:
                issues[name] = error.issues
        if worked:
            timings.append(
                StageTiming(
                    series_instance_uid=job.key.series_instance_uid,
                    product=job.key.product,
                    stage=name,
                    seconds=time.monotonic() - started,
                    cpu_seconds=_cpu_seconds() - cpu,
                    peak_memory=_peak_memory(),
                    worker=worker,
                )
            )
        if failure is not None:
            break
    ended = failure is None and job.plan is not None and "validate" in job.stages
    left_out = objects_left_out(context) if ended else {}
    return JobResult(job=job, failure=failure, timings=tuple(timings), issues=issues, left_out=left_out)


def _run_unless_done(name: str, context: StageContext, issues: dict[str, tuple[Issue, ...]]) -> bool:
    """Run a stage and keep its issues; return False if it was done before."""
    stage = STAGES[name]
    key = stage_key(stage, context)
    if is_done(stage, context, key):
        return False
    known = cached_failure(stage, context, key)
    if known is not None:
        raise known
    issues[name] = run_stage(stage, context, key)
    return True


def _prefetch(job: Job, context: StageContext) -> None:
    """Fetch this series' objects together with those of the next; each one's own fetch reports its errors."""
    stage = STAGES["fetch"]
    todo = []
    for entry in (job.entry, *job.prefetch):
        one = replace(context, entry=entry)
        with suppress(CtenrichError):
            if not is_done(stage, one, stage_key(stage, one)):
                todo.append(entry)
    if len(todo) > 1:
        prefetch_series(todo, settings=context.settings, workspace=context.workspace, progress=context.progress)


def _failure_of(stage: str, error: Exception) -> Failure:
    estimated = isinstance(error, CtenrichError) and error.reason is Reason.DISK_FULL  # another series may still fit
    if is_disk_full(error) and not estimated:
        trace = "".join(traceback.format_exception(error))
        message = "there is no space left on the disk"
        return Failure(stage=stage, reason=Reason.DISK_FULL, message=message, fatal=True, trace=trace)
    if isinstance(error, CtenrichError):
        hint = f" ({error.hint})" if error.hint else ""
        return Failure(stage=stage, reason=error.reason, message=error.message + hint, retryable=error.retryable)
    reason, message = Reason.INTERNAL, f"{type(error).__name__} in {stage}; the log has the details"
    fatal = False
    if isinstance(error, MemoryError):
        reason, message = Reason.OUT_OF_MEMORY, "memory ran out"
    elif isinstance(error, OSError) and error.errno == errno.EROFS:
        reason, message, fatal = Reason.IO_ERROR, "the run's folder is read-only", True
    elif isinstance(error, OSError):
        reason, message = Reason.IO_ERROR, f"{type(error).__name__}: {os.strerror(error.errno or 0)}"
    trace = "".join(traceback.format_exception(error))
    return Failure(stage=stage, reason=reason, message=message, fatal=fatal, trace=trace)


def _cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _reset_peak_memory() -> None:
    """Ask the kernel to forget this process's highest memory use, where it can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak_memory() -> int:
    """Highest resident memory since `_reset_peak_memory` (or of the process's life), bytes."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
