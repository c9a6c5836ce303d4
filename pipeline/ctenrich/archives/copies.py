"""Copy series of an archive into a folder: a series appears there when it is whole."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from ctenrich.archives.archive import Archive, ArchiveSearch, ArchiveSeries
from ctenrich.errors import CtenrichError, IncompleteError, UsageError
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.settings import FetchSettings
from ctenrich.storage import open_storage
from ctenrich.storage.base import Storage, StoredObject, Transfer, verify_file
from ctenrich.workspace import check_uid

__all__ = ["RADIOTHERAPY", "CopiedSeries", "copy_series"]

RADIOTHERAPY = ("CT", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD")
"""Modalities of the objects from which treatments are made."""
_TASK = "Retrieve"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, kw_only=True)
class CopiedSeries:
    """Outcome of one series."""

    series: ArchiveSeries
    files: int = 0
    """Files in the folder; 0 where it could not be copied."""
    reason: Reason | None = None
    """Why it could not be copied."""
    message: str = ""


def copy_series(
    archive: Archive,
    search: ArchiveSearch,
    out: Path,
    settings: FetchSettings,
    *,
    notes: list[str],
    progress: Progress = SILENT,
) -> tuple[CopiedSeries, ...]:
    """Copy the series of a search into ``OUT/<study>/<series>/``.

    Files are collected beside the folder, in ``OUT.part``, and moved when all instances that the archive states have
    arrived. A second call goes on with what is there, and retrieves only what is missing.

    Parameters
    ----------
    archive : Archive
        Where the series are.
    search : ArchiveSearch
        Which ones.
    out : Path
        The folder; created if it does not exist.
    settings : FetchSettings
        How objects are retrieved.
    notes : list of str
        Gets what the user should know of the archive's answers.
    progress : Progress
        Receives one step per series.

    Returns
    -------
    tuple of CopiedSeries
        One outcome per series, sorted by UID; a series that fails does not stop the others.

    Raises
    ------
    CtenrichError
        The search fails; UsageError for wrong settings.
    """
    found = archive.find_series(search, notes, progress)
    part = out.with_name(f"{out.name}.part")
    copied = []
    progress.start(_TASK, len(found))
    for one in found:
        try:
            copied.append(CopiedSeries(series=one, files=_copy(one, out, part, settings)))
        except UsageError:
            raise
        except CtenrichError as error:
            copied.append(CopiedSeries(series=one, reason=error.reason, message=error.message))
        progress.advance(_TASK)
    progress.finish(_TASK)
    for folder in sorted(part.glob("*"), reverse=True):
        _remove_empty(folder)
    _remove_empty(part)
    return tuple(copied)


def _copy(one: ArchiveSeries, out: Path, part: Path, settings: FetchSettings) -> int:
    """Copy one series; returns the number of its files."""
    place = Path(check_uid(one.study_instance_uid)) / check_uid(one.series_instance_uid)
    storage = open_storage(one.url, settings)
    objects = storage.list_objects(one.url)
    if one.instances is not None and len(objects) < one.instances:
        message = f"the archive states {one.instances} instances and lists {len(objects)}"
        raise IncompleteError(Reason.INCOMPLETE, message)
    names = _names(objects)
    missing = [(item, name) for item, name in zip(objects, names, strict=True) if not (out / place / name).is_file()]
    if missing:
        (part / place).mkdir(parents=True, exist_ok=True)
        transfers = [Transfer(item.url, part / place / name, item.size, item.md5) for item, name in missing]
        _download(storage, transfers)
        (out / place).mkdir(parents=True, exist_ok=True)
        for transfer in transfers:
            transfer.path.replace(out / place / transfer.path.name)
        _remove_empty(part / place)
    return len(objects)


def _download(storage: Storage, transfers: Sequence[Transfer]) -> None:
    """Download what is not there; files with a stated checksum are kept from an earlier call if they have it."""
    left = [one for one in transfers if not (one.md5 and one.path.is_file() and _is_whole(one))]
    if left:
        storage.download(left)


def _is_whole(transfer: Transfer) -> bool:
    try:
        verify_file(transfer.path, transfer)
    except CtenrichError:
        return False
    return True


def _names(objects: Sequence[StoredObject]) -> list[str]:
    """File names: the last part of the URL where it can name a file and is the only one, else a hash of the URL."""
    last = [unquote(one.url.rstrip("/").rpartition("/")[2]) for one in objects]
    counts = Counter(name.casefold() for name in last)
    names = []
    for one, name in zip(objects, last, strict=True):
        safe = _NAME.fullmatch(name) is not None and counts[name.casefold()] == 1
        stem = name.removesuffix(".dcm") if safe else hashlib.sha256(one.url.encode()).hexdigest()[:32]
        names.append(f"{stem}.dcm")
    return names


def _remove_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
