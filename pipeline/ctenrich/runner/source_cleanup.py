"""Delete the fetched objects of series that have ended, and know which of them a run needs again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ctenrich.errors import CtenrichError
from ctenrich.inference.model_cache import ModelCache
from ctenrich.inference.products import RequestedProduct
from ctenrich.progress import SILENT
from ctenrich.records import SeriesEntry
from ctenrich.runner.manifest import cache_failure, cached_failure, is_done, stage_key
from ctenrich.runner.run import Run
from ctenrich.stages.fetch import fetched_bytes
from ctenrich.stages.stage import StageContext
from ctenrich.stages.table import SERIES_STAGES, STAGES, product_stages, series_output
from ctenrich.workspace import write_bytes

__all__ = ["needs_refetch", "release", "restore"]


def release(run: Run, entry: SeriesEntry, failure: CtenrichError | None = None) -> int:
    """Delete what was fetched for a series that has ended; its records and its volume stay.

    The manifest says so first: a run that is killed in between leaves files that nobody needs, never a promise of
    files that are gone. Files that were read where they are were not fetched and stay.

    Parameters
    ----------
    run : Run
        The run.
    entry : SeriesEntry
        A series of it; all its jobs have ended.
    failure : CtenrichError, optional
        Why sort refused the series. It is kept, so that the next run need not fetch to find the same.

    Returns
    -------
    int
        Bytes that were deleted.
    """
    context = _task(run, entry, None)
    source = context.folder / "source"
    manifest = _manifest(context.folder)
    if manifest is None or not source.is_dir():
        return 0
    size = fetched_bytes(context.folder)
    if failure is not None:
        cache_failure(STAGES["sort"], context, stage_key(STAGES["sort"], context), failure)
    manifest["files"] = {name: facts for name, facts in manifest["files"].items() if not name.startswith("source/")}
    manifest["released"] = True
    write_bytes(_place(context.folder), json.dumps(manifest, indent=1).encode() + b"\n")
    shutil.rmtree(source)
    return size


def needs_refetch(run: Run, entry: SeriesEntry) -> bool:
    """Whether a series' objects were deleted after use while a stage of it is to be done (again)."""
    context = _task(run, entry, None)
    manifest = _manifest(context.folder)
    if manifest is None or not manifest.get("released"):
        return False
    settled = _settled(context, (*SERIES_STAGES, *series_output(run.config.settings)))
    if settled is not True:
        return settled is None
    plans = (p for p in run.config.products if p.missing is None)
    return any(_settled(_task(run, entry, p), product_stages(p.product.kind)) is None for p in plans)


def restore(run: Run, entry: SeriesEntry) -> None:
    """Let the objects of a series be fetched again; what was made of them stays as long as they are the same."""
    _place(run.workspace.series_dir(entry.series_instance_uid)).unlink(missing_ok=True)


def _settled(context: StageContext, stages: tuple[str, ...]) -> bool | None:
    """True: all stages are done; False: one ended with a reason that lasts; None: something is to be done."""
    for name in stages:
        try:
            key = stage_key(STAGES[name], context)
        except CtenrichError:
            return None
        if cached_failure(STAGES[name], context, key) is not None:
            return False
        if not is_done(STAGES[name], context, key):
            return None
    return True


def _task(run: Run, entry: SeriesEntry, plan: RequestedProduct | None) -> StageContext:
    settings = run.config.settings
    return StageContext(
        entry=entry,
        requested=plan,
        settings=settings,
        workspace=run.workspace,
        models=ModelCache(settings),
        progress=SILENT,
    )


def _place(folder: Path) -> Path:
    return folder / "manifests" / "fetch.json"


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest: dict[str, Any] = json.loads(_place(folder).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return manifest
