"""Delete the fetched objects of series that have ended, and know which of them a run needs again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ctenrich.errors import CtenrichError
from ctenrich.progress import SILENT
from ctenrich.records import SeriesEntry
from ctenrich.runner.manifest import is_done, keep_failure, known_failure, stage_key
from ctenrich.runner.model_cache import Models
from ctenrich.runner.products import ProductPlan
from ctenrich.runner.run import Run
from ctenrich.stages.fetch import fetched_bytes
from ctenrich.stages.stage import Task
from ctenrich.stages.table import PRODUCT_STAGES, SERIES_STAGES, STAGES, series_output
from ctenrich.workspace import write_bytes

__all__ = ["needs_again", "release", "restore"]


def release(run: Run, entry: SeriesEntry, failure: CtenrichError | None = None) -> int:
    """Delete what was fetched for a series that has ended; its records and its volume stay.

    The manifest says so first: a run that is killed in between leaves files that nobody needs, never a promise of
    files that are gone. Files that were read where they are were not fetched and stay.

    Parameters
    ----------
    run : Run
        The run.
    entry : SeriesEntry
        A series of it; all its units have ended.
    failure : CtenrichError, optional
        Why sort refused the series. It is kept, so that the next run need not fetch to find the same.

    Returns
    -------
    int
        Bytes that were deleted.
    """
    task = _task(run, entry, None)
    source = task.room / "source"
    manifest = _manifest(task.room)
    if manifest is None or not source.is_dir():
        return 0
    size = fetched_bytes(task.room)
    if failure is not None:
        keep_failure(STAGES["sort"], task, stage_key(STAGES["sort"], task), failure)
    manifest["files"] = {name: facts for name, facts in manifest["files"].items() if not name.startswith("source/")}
    manifest["released"] = True
    write_bytes(_place(task.room), json.dumps(manifest, indent=1).encode() + b"\n")
    shutil.rmtree(source)
    return size


def needs_again(run: Run, entry: SeriesEntry) -> bool:
    """Whether a series' objects were deleted after use while a stage of it is to be done (again)."""
    task = _task(run, entry, None)
    manifest = _manifest(task.room)
    if manifest is None or not manifest.get("released"):
        return False
    settled = _settled(task, (*SERIES_STAGES, *series_output(run.config.settings)))
    if settled is not True:
        return settled is None
    plans = (p for p in run.config.products if p.missing is None)
    return any(_settled(_task(run, entry, p), PRODUCT_STAGES[p.product.kind]) is None for p in plans)


def restore(run: Run, entry: SeriesEntry) -> None:
    """Let the objects of a series be fetched again; what was made of them stays as long as they are the same."""
    _place(run.workspace.room(entry.series_instance_uid)).unlink(missing_ok=True)


def _settled(task: Task, stages: tuple[str, ...]) -> bool | None:
    """True: all stages are done; False: one ended with a reason that lasts; None: something is to be done."""
    for name in stages:
        try:
            key = stage_key(STAGES[name], task)
        except CtenrichError:
            return None
        if known_failure(STAGES[name], task, key) is not None:
            return False
        if not is_done(STAGES[name], task, key):
            return None
    return True


def _task(run: Run, entry: SeriesEntry, plan: ProductPlan | None) -> Task:
    settings = run.config.settings
    return Task(entry, plan, settings, run.workspace, Models(settings), SILENT)


def _place(room: Path) -> Path:
    return room / "manifests" / "fetch.json"


def _manifest(room: Path) -> dict[str, Any] | None:
    try:
        manifest: dict[str, Any] = json.loads(_place(room).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return manifest
