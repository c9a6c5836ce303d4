"""Delete the fetched objects of series that have ended, and find the series whose objects are needed again."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from ctenrich.errors import CtenrichError, InputError
from ctenrich.records import SeriesEntry
from ctenrich.runner.job import Failure
from ctenrich.runner.manifest import cache_failure, cached_failure, is_done, stage_key
from ctenrich.runner.manifest_files import ManifestFiles
from ctenrich.runner.outcome_rules import failures_that_count
from ctenrich.runner.readiness import context_of
from ctenrich.runner.run import Run
from ctenrich.stages.order import SERIES_STAGES, product_stages, series_output
from ctenrich.stages.source_sizes import fetched_bytes
from ctenrich.stages.stage import StageContext
from ctenrich.stages.table import STAGES

__all__ = ["delete_after_use", "delete_source", "mark_for_refetch", "needs_refetch"]


def delete_after_use(run: Run, entry: SeriesEntry, failures: Mapping[str, Failure]) -> None:
    """Delete the fetched objects of a series, unless it failed: then another attempt needs them.

    Parameters
    ----------
    run : Run
        The run.
    entry : SeriesEntry
        A series of it; all its jobs have ended.
    failures : mapping of str to Failure
        Product -> failure; ``""`` is the series itself. A series that sort excluded counts as used.
    """
    own = failures.get("")
    if own is not None and own.stage == "sort" and not entry.geometry_known:
        delete_source(run, entry, InputError(own.reason, own.message))
    elif not failures_that_count(failures):
        delete_source(run, entry)


def delete_source(run: Run, entry: SeriesEntry, failure: CtenrichError | None = None) -> int:
    """Delete the fetched objects of a series that has ended; its records and its volume stay.

    The manifest is written first: a run that is killed in between leaves files that are not needed, never a manifest
    that lists deleted files. Objects that were read in place were not fetched and stay.

    Parameters
    ----------
    run : Run
        The run.
    entry : SeriesEntry
        A series of it; all its jobs have ended.
    failure : CtenrichError, optional
        Why sort refused the series. It is cached, so that the next run does not fetch the series to refuse it again.

    Returns
    -------
    int
        Number of bytes that were deleted.
    """
    context = context_of(run, entry, None)
    source = context.folder / "source"
    manifests = _manifests(run, entry)
    manifest = _read_fetch_manifest(manifests)
    if manifest is None or not source.is_dir():
        return 0
    size = fetched_bytes(context.folder)
    if failure is not None:
        cache_failure(STAGES["sort"], context, stage_key(STAGES["sort"], context), failure)
    manifest["files"] = {name: facts for name, facts in manifest["files"].items() if not name.startswith("source/")}
    manifest["released"] = True
    manifests.write("fetch", manifest)
    shutil.rmtree(source)
    return size


def needs_refetch(run: Run, entry: SeriesEntry) -> bool:
    """Return whether the objects of a series were deleted after use, and a stage of it has to run again.

    Parameters
    ----------
    run : Run
        The run.
    entry : SeriesEntry
        A series of it.
    """
    context = context_of(run, entry, None)
    manifest = _read_fetch_manifest(_manifests(run, entry))
    if manifest is None or not manifest.get("released"):
        return False
    settled = _settled(context, (*SERIES_STAGES, *series_output(run.config.settings)))
    if settled is not True:
        return settled is None
    plans = run.config.products
    return any(
        _settled(context_of(run, entry, p), product_stages(p.product.kind, run.config.settings)) is None for p in plans
    )


def mark_for_refetch(run: Run, entry: SeriesEntry) -> None:
    """Delete the manifest of a series' fetch, so that it runs again.

    Later stages stay done as long as the fetched objects are the same.

    Parameters
    ----------
    run : Run
        The run.
    entry : SeriesEntry
        A series whose objects were deleted.
    """
    _manifests(run, entry).remove_manifest("fetch")


def _settled(context: StageContext, stages: tuple[str, ...]) -> bool | None:
    """True: all stages are done; False: one has a cached failure; None: one has to run."""
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


def _manifests(run: Run, entry: SeriesEntry) -> ManifestFiles:
    workspace = run.workspace
    return ManifestFiles(workspace.series_dir(entry.series_instance_uid), joined=workspace.is_divided)


def _read_fetch_manifest(manifests: ManifestFiles) -> dict[str, Any] | None:
    try:
        manifest: dict[str, Any] = manifests.read("fetch")
    except (FileNotFoundError, ValueError):
        return None
    return manifest
