"""Manifests: run a stage, decide whether it is done, remember why it failed.

A stage runs only if its *key* changed: the hash of its name and version, of the settings that it uses, and of the
results of earlier stages that it reads. A stage is done if its manifest (written last, by rename) has the key, and
every file that the manifest lists exists and is complete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from ctenrich.errors import CtenrichError, InputError
from ctenrich.reasons import Reason
from ctenrich.records import Issue
from ctenrich.runner.manifest_files import ManifestFiles
from ctenrich.stages.stage import Stage, StageContext
from ctenrich.workspace import sha256_of_file, sync_folders

__all__ = ["cache_failure", "cached_failure", "forget_failures", "forget_stage", "is_done", "run_stage", "stage_key"]


def stage_key(stage: Stage, context: StageContext) -> str:
    """Return the hash of everything that the stage's result depends on.

    Parameters
    ----------
    stage : Stage
        The stage.
    context : StageContext
        Series or product.

    Raises
    ------
    InputError
        NOT_PREPARED if a record that it depends on does not exist yet.
    """
    parts = [stage.name, str(stage.version), *stage.cache_key_inputs(context)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


_LASTING = frozenset(
    {
        Reason.CONTOURS_OFF_SLICES,
        Reason.EMPTY_SEGMENTATION,
        Reason.NO_EXPERT,
        Reason.NO_MAPPED_ROI,
        Reason.NO_REFERENCE,
        Reason.TOO_FEW_SCORES,
        Reason.UNMAPPED_LABEL,
        Reason.WRONG_MODALITY,
    }
)
"""Reasons that repeat as long as the inputs are the same: such a failure is cached."""


def _files_of(context: StageContext) -> ManifestFiles:
    return ManifestFiles(context.folder, joined=context.workspace.is_divided)


def is_done(stage: Stage, context: StageContext, key: str) -> bool:
    """Return whether the stage's manifest has `key`, and all its files are complete.

    Parameters
    ----------
    stage : Stage
        The stage.
    context : StageContext
        Series or product.
    key : str
        From :func:`stage_key`.

    Notes
    -----
    A file whose size and modification time equal those in the manifest is taken as complete; any other is hashed.
    """
    try:
        manifest = _files_of(context).read(stage.name)
        if manifest["key"] != key:
            return False
        for name, (size, mtime, sha256) in manifest["files"].items():
            path = context.folder / name
            status = path.stat()
            if status.st_size != size or (status.st_mtime_ns != mtime and sha256_of_file(path) != sha256):
                return False
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def cached_failure(stage: Stage, context: StageContext, key: str) -> CtenrichError | None:
    """Return the error that the stage ended with, if nothing that it depends on has changed since; otherwise None.

    Parameters
    ----------
    stage : Stage
        The stage.
    context : StageContext
        Series or product.
    key : str
        From :func:`stage_key`.
    """
    try:
        content = _files_of(context).read(stage.name, failed=True)
        if content["key"] == key:
            return InputError(Reason(content["reason"]), content["message"], content["hint"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return None


def cache_failure(stage: Stage, context: StageContext, key: str, error: CtenrichError) -> None:
    """Cache the error of a stage for :func:`cached_failure`.

    Parameters
    ----------
    stage : Stage
        The stage.
    context : StageContext
        Series or product.
    key : str
        From :func:`stage_key`.
    error : CtenrichError
        The error; its reason, message and hint are kept.
    """
    failed = {"key": key, "reason": error.reason.value, "message": error.message, "hint": error.hint}
    _files_of(context).write(stage.name, failed, failed=True)


def forget_failures(folder: Path) -> None:
    """Delete all cached failures of a folder, so that their stages run again."""
    ManifestFiles(folder).remove_failures()


def forget_stage(folder: Path, name: str) -> None:
    """Delete the manifest of a stage, so that it runs again.

    Parameters
    ----------
    folder : Path
        Of the series or product; the stage's files stay until it runs.
    name : str
        Name of the stage.
    """
    ManifestFiles(folder).remove_manifest(name)


def run_stage(stage: Stage, context: StageContext, key: str) -> tuple[Issue, ...]:
    """Run a stage and write its manifest last.

    Parameters
    ----------
    stage : Stage
        The stage.
    context : StageContext
        Series or product.
    key : str
        From :func:`stage_key`.

    Returns
    -------
    tuple of Issue
        What the stage found.

    Raises
    ------
    CtenrichError
        The error of the stage; it is cached if it would repeat with the same inputs.
    """
    manifests = _files_of(context)
    manifests.remove(stage.name)
    try:
        result = stage.run(context)
    except CtenrichError as error:
        if stage.pool != "input" and error.reason in _LASTING:
            cache_failure(stage, context, key, error)
        raise
    entries = {}
    for path in sorted(set(result.files)):
        status = path.stat()
        name = path.relative_to(context.folder).as_posix()
        entries[name] = (status.st_size, status.st_mtime_ns, sha256_of_file(path))
    content = {"stage": stage.name, "version": stage.version, "key": key, "files": entries}
    _sync_before_manifest(context, manifests, result.files)
    manifests.write(stage.name, content, durable=True)
    return result.issues


def _sync_before_manifest(context: StageContext, manifests: ManifestFiles, files: Iterable[Path]) -> None:
    """Flush the folders that a manifest is going to rely on: after a power failure it must not name lost files."""
    manifests.prepare()
    series = context.workspace.series_dir(context.uid)
    inside = {parent for path in files for parent in path.parents if parent.is_relative_to(series)}
    above = series.parents[: 2 if context.workspace.is_divided else 1]
    sync_folders({*inside, context.folder, series, *above})
