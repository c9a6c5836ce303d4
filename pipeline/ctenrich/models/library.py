"""Models on this machine: list, show, pull, import and verify. Imported models have been checked completely."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ctenrich.bodypart.scorer import load_bodypart_model
from ctenrich.codes.mappings import find_segment
from ctenrich.errors import ModelError, UnknownModelError, UnsafeInputError, did_you_mean
from ctenrich.inference.download import download
from ctenrich.inference.imported import check_imported_files
from ctenrich.inference.kinds import SegmenterKind, segmenter_kinds
from ctenrich.inference.registry import (
    ModelEntry,
    ModelKind,
    ResolvedModel,
    accept_licence,
    check_licence,
    check_name,
    models_home,
    registry,
    resolve_model,
)
from ctenrich.inference.segmentation import class_names, class_rows
from ctenrich.nnunet.conventions import REGISTRY, Conventions, stated_conventions
from ctenrich.nnunet.plans import ModelPlan, fail
from ctenrich.nnunet.store import StoredModel, load_weights, prepare, source_files
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.recipes.published import fits_published_labels, published_model, published_segments
from ctenrich.records import Issue, Severity
from ctenrich.workspace import sha256_of_file, write_bytes

__all__ = [
    "ModelStatus",
    "import_model",
    "import_record_of",
    "list_models",
    "pull_model",
    "show_model",
    "verify_model",
]

_MAX_UNPACKED = 64 * 1024**3
_MAX_RATIO = 200
_SINGLE_FILES = (".pth", ".pt", ".ts", ".safetensors")
"""Files of weights that are imported as they are; some of these formats are zip archives inside."""
_BODYPART_FILE = "model.pt"
_BODYPART_SETTINGS = "inference-settings.json"


@dataclass(frozen=True)
class ModelStatus:
    """One line of ``ctenrich models list``."""

    name: str
    kind: str
    title: str
    licence: str
    installed: bool
    """Whether its files are on this machine."""
    demo: bool = False
    accepted: bool = True
    """Whether its licence needs no acceptance, or was accepted."""


def list_models() -> tuple[ModelStatus, ...]:
    """List all models of the registry, and those that were imported under names of their own."""
    rows = [_model_status(entry) for entry in registry().values()]
    imported = models_home() / "imported"
    own = sorted(p.name for p in imported.iterdir() if p.is_dir()) if imported.is_dir() else []
    return (*rows, *(_own_status(name) for name in own if name not in registry()))


def _own_status(name: str) -> ModelStatus:
    """Status of an imported model that the registry does not know."""
    record = import_record_of(name)
    entry = published_model(name, models_home() / "imported" / name, str(record.get("file", "")))
    licence = entry.licence if entry is not None else str(record.get("licence", ""))
    return ModelStatus(name, record.get("kind", ""), "imported", licence, True)


def _model_status(entry: ModelEntry) -> ModelStatus:
    try:
        check_licence(entry)
        accepted = True
    except ModelError:
        accepted = False
    installed = True
    try:
        resolve_model(entry.name)
    except ModelError as error:
        installed = error.reason is Reason.LICENCE_NOT_ACCEPTED
    return ModelStatus(entry.name, entry.kind.value, entry.title, entry.licence, installed, entry.demo, accepted)


def import_record_of(name: str) -> dict[str, Any]:
    """Read the record of a model's import; an empty dictionary if it was not imported, or the record is damaged."""
    with contextlib.suppress(OSError, ValueError):
        data = json.loads((models_home() / "imported" / name / "import.json").read_text("utf-8"))
        return data if isinstance(data, dict) else {}
    return {}


def show_model(name: str) -> dict[str, Any]:
    """Describe a model: the registry's entry and, where it is on this machine, the content of its files.

    Returns
    -------
    dict
        Plain data in the order in which to print it.

    Raises
    ------
    ModelError
        NOT_FOUND for a name that neither the registry nor this machine knows; the fault of the model's files.
    """
    entry = registry().get(name)
    out: dict[str, Any] = {"name": name}
    if entry is not None:
        keys = ("kind", "title", "version", "licence", "licence_url", "citation", "source", "url", "sha256", "task")
        out |= {key: str(getattr(entry, key)) for key in keys if getattr(entry, key)}
        out["labels"] = dict(entry.labels)
        out["configurations"] = list(entry.configurations)
    try:
        model = resolve_model(name)
    except ModelError as error:
        if entry is None:
            raise
        return out | {"installed": False, "why": error.message, "hint": error.hint}
    out |= {"installed": True, **({"imported": import_record_of(name)} if import_record_of(name) else {})}
    if _is_bodypart(model):
        return out | {"kind": ModelKind.BODYPART.value, **_bodypart_details(model)}
    other = _other_kind(model)
    if other is not None and other.model_files is not None:
        return out | {"kind": other.key, **other.model_files.describe(model)}
    models = _one_per_trainer(model)
    stored = prepare(models[0])
    out |= {"kind": stored.meta["kind"]}
    if len(models) > 1:  # what their files state differs in the networks alone
        out["trainers"] = [one.folder.name for one in models]
    return out | _nnunet_details(model, stored)


def _classes(name: str, plan: ModelPlan) -> list[dict[str, str]]:
    """Value, label, segment, code and side of every class; the segment is empty where no mapping knows the label.

    The labels of published weights that no mapping knows have the segments of the recipe that uses these weights.
    """
    published = published_segments(name)
    rows = []
    for label, value in sorted(plan.labels.names.items(), key=lambda item: item[1]):
        code = find_segment(label)
        rows.append((value, code.name if code is not None else published.get(value, ""), label))
    return class_rows(tuple(rows))


def _nnunet_details(model: ResolvedModel, stored: StoredModel) -> dict[str, Any]:
    plans = {name: stored.plan(name) for name in stored.configurations}
    first = next(iter(plans.values()))
    stated = stated_conventions(model)
    return {
        "axes": stated.axes or "not stated: give :axes=RAS, :axes=LAS or :axes=LPS",
        **({"axes_from": stated.axes_from} if stated.axes else {}),
        "step": "that of the run's settings, 0.5 by default" if stated.step is None else stated.step,
        **({"step_from": stated.step_from} if stated.step is not None else {}),
        "labels": dict(first.labels.names),
        "classes": _classes(model.name, first),
        "configurations": list(plans),
        "folds": {name: list(stored.folds(name)) for name in plans},
        "spacing": {name: list(plan.spacing) for name, plan in plans.items()},
        "patch": {name: list(plan.patch) for name, plan in plans.items()},
        "weights_sha256": {name: stored.identity(name, stored.folds(name)) for name in plans},
    }


def _is_bodypart(model: ResolvedModel) -> bool:
    """Whether the model's files are those of body part regression, whatever its name is."""
    if model.entry is not None:
        return model.entry.kind is ModelKind.BODYPART
    return (model.folder / _BODYPART_SETTINGS).is_file()


def _other_kind(model: ResolvedModel) -> SegmenterKind | None:
    """Return the kind of network, other than nnU-Net, whose files a model has."""
    for kind in segmenter_kinds().values():
        if kind.model_files is not None and kind.model_files.recognise(model):
            return kind
    return None


def _bodypart_details(model: ResolvedModel) -> dict[str, Any]:
    check_imported_files(model.folder)
    _, found = load_bodypart_model(model.folder)
    return {"landmarks": list(found.lookup_table), "image axes": found.axes.value, "weights_sha256": found.sha256}


def pull_model(name: str, *, accept: bool = False, url: str | None = None, progress: Progress = SILENT) -> ModelStatus:
    """Download a model of the registry and import it; an interrupted download resumes where it stopped.

    Parameters
    ----------
    name : str
        Name in the registry.
    accept : bool
        The user accepts the model's licence; stored once.
    url : str, optional
        Another address of the same file (a mirror); the registry's hash still applies.
    progress : Progress

    Returns
    -------
    ModelStatus

    Raises
    ------
    UnknownModelError
        NOT_FOUND if there is no such model to download.
    ModelError
        LICENCE_NOT_ACCEPTED, HASH_MISMATCH, or the fault of the model.
    TransientError
        The download failed a bounded number of times.
    """
    entry = registry().get(name)
    if entry is None or not entry.url:
        known = ", ".join(e.name for e in registry().values() if e.url)
        hint = did_you_mean(name, known.split(", "), f"known: {known}")
        raise UnknownModelError(Reason.NOT_FOUND, f"there is no model {name} to download", hint)
    _require_licence(entry, accept)
    suffix = PurePosixPath(entry.url.partition("?")[0]).suffix
    file = models_home() / "downloads" / f"{check_name(name)}{suffix if suffix in _SINGLE_FILES else '.zip'}"
    download(url or entry.url, file, progress=progress)
    try:
        return import_model(file, name=name, progress=progress)
    finally:
        file.unlink()


def _require_licence(entry: ModelEntry, accept: bool) -> None:
    if accept and entry.accept:
        accept_licence(entry)
    check_licence(entry)


def import_model(
    source: Path,
    *,
    name: str | None = None,
    labels: Path | None = None,
    conventions: Conventions | None = None,
    accept: bool = False,
    progress: Progress = SILENT,
) -> ModelStatus:
    """Import a model from a zip file or a folder: nnU-Net v1 exports, nnU-Net v2 folders, the body part model's files.

    Everything is read and checked before the model appears under its name; nothing is left behind on failure.

    Parameters
    ----------
    source : Path
    name : str, optional
        By default the registry's name if the file's hash or name is known, else the file's own name.
    labels : Path, optional
        JSON file of label names and values, for v1 exports that the registry does not know.
    conventions : Conventions, optional
        Axes and step of an nnU-Net model, recorded for every use of its name; by default those that its files or
        their names state.
    accept : bool
        The user accepts the licence of a model of the registry.
    progress : Progress

    Returns
    -------
    ModelStatus

    Raises
    ------
    UnknownModelError
        NOT_FOUND if the file or folder does not exist.
    ModelError
        LICENCE_NOT_ACCEPTED, HASH_MISMATCH, BAD_MODEL, UNSAFE_WEIGHTS, WRONG_MODALITY or UNMAPPED_LABEL.
    UnsafeInputError
        The archive would unpack outside its folder, or to far more than its size.
    """
    if not source.exists():
        raise UnknownModelError(Reason.NOT_FOUND, f"there is no file or folder {source}")
    pinned = sha256_of_file(source) if source.is_file() else ""
    chosen = check_name(name or _guess_name(source, pinned))
    entry = _entry_of(chosen, source)
    if entry is not None:
        if entry.package:
            fail(f"{chosen} is a model of the package", "choose another name")
        _require_licence(entry, accept)
        _check_pin(entry, pinned)
        _check_published_hash(entry, source)
    imported = models_home() / "imported"
    imported.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".importing-", dir=imported))
    try:
        progress.note(f"reading {source.name}")
        folder = staging / chosen
        _copy_or_unpack(source, folder)
        (folder / "import.json").unlink(missing_ok=True)  # of a model that had been imported before
        if labels is not None:
            shutil.copyfile(labels, folder / "labels.json")
        model = ResolvedModel(chosen, folder, entry)
        kind, licence = _check_import(model)
        record = {"kind": kind, "file": source.name, "sha256": pinned} | ({"licence": licence} if licence else {})
        record |= _recorded_conventions(model, source, kind, conventions or Conventions())
        write_bytes(folder / "import.json", (json.dumps(record, indent=1) + "\n").encode())
        _replace_folder(folder, imported / chosen, staging / "old")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return _model_status(entry) if chosen in registry() and entry is not None else _own_status(chosen)


def _entry_of(name: str, source: Path) -> ModelEntry | None:
    """What is known about a model: an entry of the registry, or a data set that a recipe of the package names."""
    return registry().get(name) or published_model(name, source, source.name)


def _recorded_conventions(model: ResolvedModel, source: Path, kind: str, given: Conventions) -> dict[str, Any]:
    """What the record of an import states: hashes, axes and step as given, or as found where the model came from."""
    if kind not in (ModelKind.NNUNET_V1, ModelKind.NNUNET_V2):
        if given.axes or given.step is not None:
            fail("--axes and --step are for nnU-Net models", "the files of other models state their axes")
        files = sorted(p for p in model.folder.rglob("*") if p.is_file())
        return {"files": {p.relative_to(model.folder).as_posix(): sha256_of_file(p) for p in files}}
    here = stated_conventions(model, source.name.removesuffix(".zip"))
    found = stated_conventions(replace(model, folder=source.resolve())) if source.is_dir() else here
    out: dict[str, Any] = {"files": source_files(model.folder)}
    if given.axes:
        out |= {"axes": given.axes, "axes_from": "models import --axes"}
    elif found.axes and found.axes_from != REGISTRY:
        out |= {"axes": found.axes, "axes_from": found.axes_from}
    if given.step is not None:
        out |= {"step": given.step, "step_from": "models import --step"}
    elif found.step is not None and found.step_from != REGISTRY:
        out |= {"step": found.step, "step_from": found.step_from}
    return out


def _guess_name(source: Path, sha256: str) -> str:
    for entry in registry().values():
        if (sha256 and entry.sha256 == sha256) or (entry.url and Path(entry.url.split("?")[0]).name == source.name):
            return entry.name
    return source.name.removesuffix(".zip")


def _check_pin(entry: ModelEntry, sha256: str) -> None:
    wanted = entry.sha256 or import_record_of(entry.name).get("sha256", "")
    if wanted and sha256 and wanted != sha256:
        message = f"the file has the SHA-256 {sha256[:16]}..., pinned for {entry.name} is {wanted[:16]}..."
        raise ModelError(
            Reason.HASH_MISMATCH, message, "delete the imported model first if the new file is the right one"
        )


def _check_published_hash(entry: ModelEntry, source: Path) -> None:
    """Compare a file with the SHA-1 that its publisher states; the SHA-256 of the first import is pinned besides."""
    if not entry.sha1 or not source.is_file():
        return
    with source.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha1").hexdigest()
    if found != entry.sha1:
        message = f"the file has the SHA-1 {found[:16]}..., published for {entry.name} is {entry.sha1[:16]}..."
        raise ModelError(Reason.HASH_MISMATCH, message, f"download version {entry.version} again")


def _check_import(model: ResolvedModel) -> tuple[str, str]:
    """Read the whole model once; return its kind, and the licence that its files state."""
    other = _other_kind(model)
    if other is not None and other.model_files is not None:
        return other.key, str(other.model_files.describe(model).get("licence", ""))
    found = sorted(model.folder.rglob(_BODYPART_FILE))
    nnunet = any(model.folder.rglob("plans.json")) or any(model.folder.rglob("plans.pkl"))
    if found and not nnunet:
        for path in list(found[0].parent.iterdir()):
            if path.parent != model.folder:
                path.replace(model.folder / path.name)
        _bodypart_details(model)
        return ModelKind.BODYPART.value, ""
    stated_conventions(model)  # a published model of MR is refused by its name
    kinds = []
    for one in _one_per_trainer(model):
        stored = prepare(one)
        kinds.append(str(stored.meta["kind"]))
        for configuration in stored.configurations:
            labels = stored.plan(configuration).labels.names
            if not fits_published_labels(model.name, labels):  # a recipe gives its own names to the others
                class_names(labels, stored.name)
    return kinds[0], ""


def _one_per_trainer(model: ResolvedModel) -> list[ResolvedModel]:
    """Two trainers of one configuration (total_v3 and its small form) are two models, of which recipes take one."""
    trainers = [path.parent for path in sorted(model.folder.rglob("plans.json"))]
    twice = len({place.name.rpartition("__")[2] for place in trainers}) < len(trainers)
    return [replace(model, folder=place) for place in trainers] if twice else [model]


def _replace_folder(new: Path, place: Path, old: Path) -> None:
    if place.exists():
        place.replace(old)
    new.replace(place)


def _copy_or_unpack(source: Path, folder: Path) -> None:
    if source.is_dir():
        if any(p.is_symlink() for p in source.rglob("*")):
            raise UnsafeInputError(Reason.UNSAFE_PATH, f"{source.name} contains links", "give a folder of plain files")
        shutil.copytree(source, folder)
        return
    if source.suffix in _SINGLE_FILES:
        folder.mkdir()
        shutil.copyfile(source, folder / source.name)
        return
    if not zipfile.is_zipfile(source):
        fail(f"{source.name} is neither a folder nor a zip file")
    with zipfile.ZipFile(source) as archive:
        for info in _safe_entries(archive, source):
            target = folder / PurePosixPath(info.filename)
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as reader, target.open("wb") as writer:
                shutil.copyfileobj(reader, writer)


def _safe_entries(archive: zipfile.ZipFile, source: Path) -> Iterator[zipfile.ZipInfo]:
    """Plain files of an archive; links, names that leave the folder and bombs are refused before any is written."""
    entries = [info for info in archive.infolist() if not info.is_dir()]
    packed = max(1, source.stat().st_size)
    total = sum(info.file_size for info in entries)
    if total > min(_MAX_UNPACKED, packed * _MAX_RATIO):
        raise UnsafeInputError(Reason.DECOMPRESSION_BOMB, f"{source.name} would unpack to {total} bytes")
    for info in entries:
        path = PurePosixPath(info.filename)
        bad = path.is_absolute() or ".." in path.parts or "\\" in info.filename or ":" in path.parts[0]
        if bad or stat.S_ISLNK(info.external_attr >> 16):
            raise UnsafeInputError(Reason.UNSAFE_PATH, f"an entry of {source.name} would leave the folder")
    yield from entries


def verify_model(name: str) -> tuple[Issue, ...]:
    """Check a model on this machine: hashes, plans, every fold's tensors, labels.

    Returns
    -------
    tuple of Issue
        One error per fault; empty if there is none.
    """
    try:
        model = resolve_model(name)
        if _is_bodypart(model):
            _bodypart_details(model)
            return ()
        other = _other_kind(model)
        if other is not None and other.model_files is not None:
            other.model_files.describe(model)
            return ()
        found = [prepare(one) for one in _one_per_trainer(model)]
    except ModelError as error:
        return (_model_issue("model.files", name, error),)
    return tuple(issue for stored in found for issue in _verify_stored(name, stored))


def _verify_stored(name: str, stored: StoredModel) -> list[Issue]:
    issues: list[Issue] = []
    for configuration in stored.configurations:
        try:
            labels = stored.plan(configuration).labels.names
            if not fits_published_labels(name, labels):  # as at import
                class_names(labels, stored.name)
        except ModelError as error:
            issues.append(_model_issue("model.labels", f"{name}:{configuration}", error))
        for fold in stored.folds(configuration):
            try:
                load_weights(stored, configuration, fold)
            except ModelError as error:
                issues.append(_model_issue("model.weights", f"{name}:{configuration}:{fold}", error))
    return issues


def _model_issue(rule: str, about: str, error: ModelError) -> Issue:
    return Issue(rule, Severity.ERROR, about, str(error))
