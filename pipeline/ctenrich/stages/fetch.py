"""Stage fetch: bring all files of one series and its companions, proven whole, or say what is missing."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from ctenrich.errors import CtenrichError, IncompleteError, InputError, TransientError
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import FetchedFile, FetchedSeries, Instance, Issue, SeriesEntry, Severity
from ctenrich.settings import FetchSettings, Settings
from ctenrich.storage import BatchStorage, open_storage, prefers_batches
from ctenrich.storage.base import Storage, StoredObject, Transfer, verify_file
from ctenrich.storage.local import check_regular, local_path
from ctenrich.workspace import Workspace, check_uid, sha256_of_file

__all__ = ["fetch_series", "fetched_bytes", "prefetch_series"]

_HASH_THREADS = 4


@dataclass(frozen=True)
class _Wanted:
    """One object, with what the catalog and the store say of it."""

    url: str
    size: int | None
    md5: str | None
    crc32c: str | None
    sop_instance_uid: str

    @property
    def local(self) -> bool:
        return urlsplit(self.url).scheme == "file"


def fetch_series(
    entry: SeriesEntry, *, settings: Settings, workspace: Workspace, progress: Progress = SILENT
) -> FetchedSeries:
    """Bring the files of one series.

    Local files are read where they are (or copied where `fetch.copy_local` says so); remote objects go to the series'
    folder under names that are made of checked identifiers. What is there already and whole is not fetched again.

    Parameters
    ----------
    entry : SeriesEntry
        Each instance has a URL; one that ends in ``/`` stands for every object below it.

    Returns
    -------
    FetchedSeries
        Saved as ``fetched.json`` in the series' folder.

    Raises
    ------
    IncompleteError
        INCOMPLETE: an object is missing or forbidden, or there are fewer than expected.
    InputError
        CHECKSUM, IO_ERROR, DISK_FULL, EMPTY_INPUT.
    RetryExhaustedError
        RETRY_EXHAUSTED, with the number of tries.
    """
    check_uid(entry.series_instance_uid)
    check_uid(entry.study_instance_uid)
    stores = _Stores(settings.fetch)
    wanted = _expand(entry.instances, stores)
    if not wanted:
        raise InputError(Reason.EMPTY_INPUT, "no file was found for the series")
    expected = entry.expected_instances
    known = all(not i.url.endswith("/") for i in entry.instances)
    if known and expected is not None and len(wanted) < expected:
        message = f"{expected - len(wanted)} of {expected} objects are missing"
        raise IncompleteError(Reason.INCOMPLETE, message)
    issues: list[Issue] = []
    companions: list[_Wanted] = []
    for companion in entry.companions:
        try:
            companions += _expand((companion.instance,), stores)
        except IncompleteError as error:
            issues.append(_companion_issue(error))
    source = workspace.series_dir(entry.series_instance_uid) / "source"
    _check_disk([*wanted, *companions], source, settings.fetch, workspace)
    progress.start("fetch", len(wanted) + len(companions))
    files = _bring(wanted, source, stores, settings.fetch, workspace, progress)
    brought: list[FetchedFile] = []
    for item in companions:
        try:
            brought += _bring([item], source / "companions", stores, settings.fetch, workspace, progress)
        except (IncompleteError, InputError) as error:
            issues.append(_companion_issue(error))
    progress.finish("fetch")
    return FetchedSeries(
        series_instance_uid=entry.series_instance_uid,
        study_instance_uid=entry.study_instance_uid,
        files=tuple(_relative(f, entry, workspace) for f in files),
        companions=tuple(_relative(f, entry, workspace) for f in brought),
        expected_instances=expected,
        issues=tuple(issues),
    )


def prefetch_series(
    entries: Sequence[SeriesEntry], *, settings: Settings, workspace: Workspace, progress: Progress = SILENT
) -> int:
    """Download the objects of several series by one request, where their storage prefers that.

    Nothing is checked for completeness or recorded here: :func:`fetch_series` of each series finds its objects in its
    folder, checks them, and reports what is missing. Objects without a checksum are left to it, as are companions and
    series that would exceed the free space or the quota.

    Returns
    -------
    int
        Number of objects that were asked for.
    """
    urls = [i.url for e in entries for i in e.instances if prefers_batches(i.url)]
    schemes = sorted({urlsplit(url).scheme for url in urls})
    return sum(_prefetch_from(f"{scheme}://", entries, settings, workspace, progress) for scheme in schemes)


def _prefetch_from(
    root: str, entries: Sequence[SeriesEntry], settings: Settings, workspace: Workspace, progress: Progress
) -> int:
    """Download the objects of one storage; `root` is its scheme."""
    entries = [e for e in entries if any(i.url.startswith(root) for i in e.instances)]
    transfers: list[Transfer] = []
    accepted: list[_Wanted] = []
    try:
        store = cast(BatchStorage, open_storage(root, settings.fetch))
        folders = {i.url for e in entries for i in e.instances if i.url.startswith(root) and i.url.endswith("/")}
        listed = store.list_folders(sorted(folders))
        for entry in entries:
            wanted = [w for i in entry.instances if i.url.startswith(root) for w in _listed(i, listed)]
            source = workspace.series_dir(entry.series_instance_uid) / "source"
            _check_disk([*accepted, *wanted], source, settings.fetch, workspace)
            accepted += wanted
            moves = [Transfer(w.url, source / _name(w), w.size, w.md5, w.crc32c) for w in wanted if w.md5]
            transfers += [t for t in moves if not _is_whole(t)]
    except CtenrichError as error:
        progress.note(f"series are not all fetched together: {error}")
    if not transfers:
        return 0
    try:
        store.download_batch(transfers, _Meter(progress, transfers))
    except CtenrichError as error:
        progress.note(f"objects that did not come together with others are asked for again: {error}")
    return len(transfers)


def _listed(instance: Instance, listed: Mapping[str, Sequence[StoredObject]]) -> list[_Wanted]:
    if instance.url.endswith("/"):
        return [_from_store(o) for o in listed.get(instance.url, ())]
    return [_Wanted(instance.url, instance.size, instance.md5, instance.crc32c, instance.sop_instance_uid)]


class _Meter:
    """Passes progress on, and says every second how many files came, how fast, and how long the rest will take."""

    def __init__(self, progress: Progress, transfers: Sequence[Transfer], clock: Callable[[], float] = time.monotonic):
        self._progress = progress
        self._transfers = transfers
        self._clock = clock
        self._started = self._told = clock()
        self._files = 0
        self._lock = threading.Lock()

    def start(self, context: str, total: float | None = None) -> None:
        self._progress.start(context, total)

    def advance(self, context: str, amount: float = 1) -> None:
        self._progress.advance(context, amount)
        with self._lock:
            self._files += int(amount)
            now = self._clock()
            if now - self._told < 1 and self._files < len(self._transfers):
                return
            self._told = now
            text = self._text(max(now - self._started, 1e-9))
        self._progress.status(context, text)

    def _text(self, elapsed: float) -> str:
        arrived = sum(t.path.stat().st_size for t in self._transfers if t.path.is_file())
        rest = elapsed * (len(self._transfers) / max(self._files, 1) - 1)
        rate = arrived / elapsed / 1e6
        return f"{self._files} of {len(self._transfers)} files, {rate:.1f} MB/s, about {rest:.0f} s left"

    def note(self, message: str) -> None:
        self._progress.note(message)

    def status(self, context: str, text: str) -> None:
        self._progress.status(context, text)

    def finish(self, context: str) -> None:
        self._progress.finish(context)


class _Stores:
    """One storage a scheme, opened when first needed."""

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        self._open: dict[str, Storage] = {}

    def of(self, url: str) -> Storage:
        scheme = urlsplit(url).scheme
        if scheme not in self._open:
            self._open[scheme] = open_storage(url, self._settings)
        return self._open[scheme]


def _expand(instances: Iterable[Instance], stores: _Stores) -> list[_Wanted]:
    out: list[_Wanted] = []
    for instance in instances:
        if instance.url.endswith("/"):
            out += [_from_store(o) for o in stores.of(instance.url).list_objects(instance.url)]
        else:
            uid = instance.sop_instance_uid
            out.append(_Wanted(instance.url, instance.size, instance.md5, instance.crc32c, uid))
    return out


def _from_store(stored: StoredObject) -> _Wanted:
    return _Wanted(stored.url, stored.size, stored.md5, stored.crc32c, "")


def _bring(
    wanted: Sequence[_Wanted],
    source: Path,
    stores: _Stores,
    settings: FetchSettings,
    workspace: Workspace,
    progress: Progress,
) -> list[FetchedFile]:
    places: list[Path] = []
    transfers: dict[str, list[Transfer]] = {}
    for item in wanted:
        if item.local and not settings.copy_local:
            places.append(local_path(item.url))
            progress.advance("fetch")
            continue
        place = source / _name(item)
        places.append(place)
        transfer = Transfer(item.url, place, item.size, item.md5, item.crc32c)
        if _is_whole(transfer):
            progress.advance("fetch")
        else:
            transfers.setdefault(urlsplit(item.url).scheme, []).append(transfer)
    for group in transfers.values():
        stores.of(group[0].url).download(group, _Meter(progress, group))
    with ThreadPoolExecutor(_HASH_THREADS) as pool:
        return list(pool.map(_describe, wanted, places))


def _name(item: _Wanted) -> str:
    """File name in the folder: from the checked UID, else from the URL's hash; never from the URL as it stands."""
    if item.sop_instance_uid:
        return f"{check_uid(item.sop_instance_uid)}.dcm"
    return f"{hashlib.sha256(item.url.encode()).hexdigest()[:32]}.dcm"


def _is_whole(transfer: Transfer) -> bool:
    """Whether an earlier fetch brought this object; only where a checksum can tell."""
    if transfer.md5 is None and transfer.crc32c is None:
        return False
    try:
        check_regular(transfer.path)
        verify_file(transfer.path, transfer)
    except CtenrichError:
        return False
    return True


def _describe(item: _Wanted, path: Path) -> FetchedFile:
    status = check_regular(path)
    try:
        verify_file(path, Transfer(item.url, path, item.size, item.md5, item.crc32c))
        digest = sha256_of_file(path)
    except TransientError as error:
        raise InputError(error.reason, error.message) from error
    except OSError as error:
        raise InputError(Reason.IO_ERROR, f"a file could not be read: {error.strerror}") from error
    return FetchedFile(str(path), item.url, status.st_size, digest, item.sop_instance_uid)


def _relative(file: FetchedFile, entry: SeriesEntry, workspace: Workspace) -> FetchedFile:
    path = Path(file.path)
    if not path.is_relative_to(workspace.series_dir(entry.series_instance_uid)):
        return file
    relative = path.relative_to(workspace.series_dir(entry.series_instance_uid)).as_posix()
    return FetchedFile(relative, file.url, file.size, file.sha256, file.sop_instance_uid)


def _check_disk(wanted: Sequence[_Wanted], folder: Path, settings: FetchSettings, workspace: Workspace) -> None:
    """Refuse before the first byte where the objects and the volume made of them will not fit."""
    copied = sum(w.size or 0 for w in wanted if not w.local or settings.copy_local)
    need = copied + 2 * sum(w.size or 0 for w in wanted)  # the volume's array and its NIfTI
    if settings.disk_quota is not None:
        others = sum(fetched_bytes(other) for other in (workspace.root / "series").glob("*") if other != folder.parent)
        if others + need > settings.disk_quota:
            message = f"the series needs about {need} bytes; the quota is {settings.disk_quota}, {others} are taken"
            raise InputError(Reason.DISK_FULL, message, "raise fetch.disk_quota, or set fetch.delete_after_use")
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if need > free:
        raise InputError(Reason.DISK_FULL, f"the series needs about {need} bytes, {free} are free")


def fetched_bytes(folder: Path) -> int:
    """Bytes of the fetched objects in a series' folder."""
    return sum(p.stat().st_size for p in (folder / "source").rglob("*") if p.is_file())


def _companion_issue(error: CtenrichError) -> Issue:
    return Issue("fetch.companion", Severity.WARNING, "companion", f"a companion could not be fetched: {error}")
