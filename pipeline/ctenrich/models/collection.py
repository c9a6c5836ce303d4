"""Several models at once: import every data set of a folder, and pull all weights of a recipe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ctenrich.errors import CtenrichError, ModelError, UnknownModelError
from ctenrich.inference.download import download
from ctenrich.inference.products import SegmenterSpec
from ctenrich.inference.registry import ModelEntry, accept_licence, check_licence, check_name, models_home
from ctenrich.models.library import import_model, import_record_of
from ctenrich.nnunet.store import source_files
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.recipes.kind import recipe_of_spec
from ctenrich.recipes.published import published_entry, published_model, recipe_weights

__all__ = ["CollectedModel", "find_data_sets", "import_collection", "pull_recipe_weights"]

_DATA_SET = re.compile(r"(Dataset|Task)\d{3}_.+")
_PLANS = ("plans.json", "plans.pkl")
_DEPTH = 3
"""Levels below the folder that are searched: version 1 keeps its data sets in ``nnUNet/3d_fullres``."""


@dataclass(frozen=True, kw_only=True)
class CollectedModel:
    """What became of one data set."""

    name: str
    licence: str = ""
    """Empty: not known."""
    state: str = ""
    """``imported``, ``already imported`` or ``not imported``."""
    error: CtenrichError | None = None
    """Why it was not imported."""


def find_data_sets(folder: Path) -> tuple[Path, ...]:
    """Folders of data sets of nnU-Net (``DatasetNNN_...``, ``TaskNNN_...``) below a folder, by name.

    A folder that is a data set itself, or the folder of one trainer, has none below it.
    """
    if _DATA_SET.fullmatch(folder.name) or any((folder / name).is_file() for name in _PLANS):
        return ()
    return tuple(sorted(_data_sets(folder, _DEPTH), key=lambda path: path.name))


def _data_sets(folder: Path, depth: int) -> Iterator[Path]:
    for path in folder.iterdir():
        if not path.is_dir() or path.is_symlink() or path.name.startswith("."):
            continue
        if not _DATA_SET.fullmatch(path.name):
            if depth > 1:
                yield from _data_sets(path, depth - 1)
        elif any(True for name in _PLANS for _ in path.rglob(name)):
            yield path


def import_collection(
    folders: tuple[Path, ...], *, accept: bool = False, progress: Progress = SILENT
) -> tuple[CollectedModel, ...]:
    """Import several data sets under their own names; one that cannot be imported does not stop the others.

    Parameters
    ----------
    folders : tuple of Path
        As `find_data_sets` returns them.
    accept : bool
        The user accepts the licences of all of them.
    progress : Progress

    Returns
    -------
    tuple of CollectedModel
        In the order of `folders`. A data set whose files are those of an earlier import is left as it is.
    """
    return tuple(_import_one(folder, accept, progress) for folder in folders)


def _import_one(folder: Path, accept: bool, progress: Progress) -> CollectedModel:
    entry = published_model(folder.name, folder)
    licence = entry.licence if entry is not None else ""
    try:
        if import_record_of(check_name(folder.name)).get("files") == source_files(folder):
            return CollectedModel(name=folder.name, licence=licence, state="already imported")
        import_model(folder, accept=accept, progress=progress)
    except CtenrichError as error:
        return CollectedModel(name=folder.name, licence=licence, state="not imported", error=error)
    return CollectedModel(name=folder.name, licence=licence, state="imported")


def pull_recipe_weights(
    spec: SegmenterSpec, *, accept: bool = False, url: str | None = None, progress: Progress = SILENT
) -> tuple[CollectedModel, ...]:
    """Download and import the weights of a recipe that are not on this machine; interrupted downloads are resumed.

    Parameters
    ----------
    spec : SegmenterSpec
        Of a kind that runs recipes, e.g. ``totalsegmentator:total:fast``.
    accept : bool
        The user accepts the licences of all of them.
    url : str, optional
        Address of a folder that has the same files (a mirror).
    progress : Progress

    Returns
    -------
    tuple of CollectedModel

    Raises
    ------
    UnknownModelError
        NOT_FOUND, before anything is downloaded, if some weights are not published openly and not imported yet.
    ModelError
        LICENCE_NOT_ACCEPTED; HASH_MISMATCH if a file is not the one that was pinned; the fault of the model.
    TransientError
        A download failed a bounded number of times.
    """
    entries = [published_entry(weights) for weights in recipe_weights(recipe_of_spec(spec))]
    for entry in entries:
        _check_can_be_had(entry, accept)
    return tuple(_pull_one(entry, url, progress) for entry in entries)


def _check_can_be_had(entry: ModelEntry, accept: bool) -> None:
    if not entry.url and not _is_imported(entry.name):
        raise UnknownModelError(
            Reason.NOT_FOUND,
            f"{entry.name} is not published openly ({entry.licence or 'no licence stated'})",
            "import your own folder: ctenrich models import FOLDER --accept-licence",
        )
    if accept and entry.accept:
        accept_licence(entry)
    check_licence(entry)


def _is_imported(name: str) -> bool:
    return bool(import_record_of(name))


def _pull_one(entry: ModelEntry, mirror: str | None, progress: Progress) -> CollectedModel:
    if _is_imported(entry.name):
        return CollectedModel(name=entry.name, licence=entry.licence, state="already imported")
    name = Path(entry.url.split("?")[0]).name
    file = models_home() / "downloads" / check_name(name)
    progress.note(f"{entry.name}: {entry.licence}")
    if not file.is_file():  # whole, but its import was interrupted
        download(f"{mirror.rstrip('/')}/{name}" if mirror else entry.url, file, progress=progress)
    try:
        import_model(file, name=entry.name, progress=progress)
    except ModelError:
        file.unlink()
        raise
    file.unlink()
    return CollectedModel(name=entry.name, licence=entry.licence, state="imported")
