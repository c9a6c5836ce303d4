"""Imported models: the record that an import leaves beside the files, and whether the files are still those."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from ctenrich.errors import ModelError
from ctenrich.inference.registry import models_home
from ctenrich.reasons import Reason
from ctenrich.workspace import sha256_of_file

__all__ = ["RECORD", "check_imported_files", "hash_of_model_file", "import_record", "pinned_files"]

RECORD = "import.json"
"""Name of the record, in the folder of the model."""


def import_record(folder: Path) -> dict[str, Any]:
    """Read what the import of a model recorded beside its files; an empty dictionary if it was not imported.

    Raises
    ------
    ModelError
        BAD_MODEL if the record is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise ModelError(Reason.BAD_MODEL, f"{RECORD} of {folder.name} is damaged", "import the model again")
    return record


def pinned_files(folder: Path) -> dict[str, str] | None:
    """SHA-256 of the files in a folder as their import recorded them, by path below the folder.

    Parameters
    ----------
    folder : Path
        Of a model, or of one trainer or configuration inside an imported model.

    Returns
    -------
    dict of str to str, or None
        None if the folder was not imported, or by version 0.1.0, which recorded no hashes.

    Raises
    ------
    ModelError
        BAD_MODEL if the record is damaged.
    """
    imported = models_home() / "imported"
    inside = [place for place in folder.parents if place.is_relative_to(imported) and place != imported]
    for place in (folder, *inside):
        files = import_record(place).get("files")
        if isinstance(files, dict):
            below = folder.relative_to(place).as_posix()
            start = "" if below == "." else f"{below}/"
            return {name.removeprefix(start): str(h) for name, h in files.items() if name.startswith(start)}
    return None


def check_imported_files(folder: Path) -> None:
    """Refuse an imported model one of whose recorded files changed or is gone; one that was not imported passes.

    Raises
    ------
    ModelError
        HASH_MISMATCH, naming the file.
    """
    for name, sha256 in (pinned_files(folder) or {}).items():
        path = folder / name
        if not path.is_file() or hash_of_model_file(path) != sha256:
            message = f"the imported model {folder.name} changed after its import: {name}"
            raise ModelError(Reason.HASH_MISMATCH, message, "import the model again if the new file is the right one")


def hash_of_model_file(path: Path) -> str:
    """SHA-256 of a file, computed once in a process as long as its size and its time of change stay.

    A model is checked before a source is read, and again when it is opened.
    """
    state = path.stat()
    return _hash(path, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)


@lru_cache(maxsize=4096)
def _hash(path: Path, *_state: int) -> str:
    return sha256_of_file(path)
