"""Stage fetch: download all files of one series and its companions, and verify that they are complete."""

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
from ctenrich.records import Companion, FetchedFile, FetchedSeries, Instance, Issue, SeriesEntry, Severity
from ctenrich.settings import FetchSettings, Settings
from ctenrich.stages.source_sizes import fits_quota
from ctenrich.storage import BatchStorage, open_storage, prefers_batches
from ctenrich.storage.base import Storage, StoredObject, Transfer, verify_file
from ctenrich.storage.local import check_regular, local_path
from ctenrich.workspace import Workspace, check_uid, sha256_of_file

__all__ = ["fetch_series", "prefetch_series"]

_HASH_THREADS = 4


@dataclass(frozen=True)
class _Wanted:
    """One object, with size and checksums from the catalog or the store."""

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
    """Fetch the files of one series.

    Local files are read in place, or copied with `fetch.copy_local`; remote objects are written to the series' folder
    under names made of checked identifiers. Objects that are there already, with the right checksum, are not fetched
    again.

    Parameters
    ----------
    entry : SeriesEntry
        Each instance has a URL; one that ends in ``/`` stands for every object below it.
    settings : Settings
        ``settings.fetch``: parallel objects, attempts, time limit, disk quota.
    workspace : Workspace
        Folder of the run.
    progress : Progress
        Receives one step per object.

    Returns
    -------
    FetchedSeries
        The caller saves it as ``fetched.json`` in the series' folder.

    Raises
    ------
    IncompleteError
        INCOMPLETE: an object is missing or forbidden, or there are fewer than expected.
    InputError
        CHECKSUM, IO_ERROR, DISK_FULL, EMPTY_INPUT.
    RetryExhaustedError
        RETRY_EXHAUSTED, with the number of attempts.
    """
    check_uid(entry.series_instance_uid)
    check_uid(entry.study_instance_uid)
    stores = _Stores(settings.fetch)
    wanted = _list_objects(entry.instances, stores)
    if not wanted:
        raise InputError(Reason.EMPTY_INPUT, "no file was found for the series")
    expected = entry.expected_instances
    known = all(not i.url.endswith("/") for i in entry.instances)
    if known and expected is not None and len(wanted) < expected:
        message = f"{expected - len(wanted)} of {expected} objects are missing"
        raise IncompleteError(Reason.INCOMPLETE, message)
    issues: list[Issue] = list(entry.notes)
    companions: list[tuple[Companion, _Wanted]] = []
    for companion in entry.companions:
        try:
            companions += [(companion, item) for item in _list_objects((companion.instance,), stores)]
        except (IncompleteError, InputError) as error:
            issues.append(_companion_issue(companion, error))
    source = workspace.series_dir(entry.series_instance_uid) / "source"
    _check_disk([*wanted, *(item for _, item in companions)], source, settings.fetch, workspace)
    progress.start("fetch", len(wanted) + len(companions))
    files = _download_missing(wanted, source, stores, settings.fetch, workspace, progress)
    fetched_companions: list[FetchedFile] = []
    for companion, item in companions:
        try:
            fetched_companions += _download_missing(
                [item], source / "companions", stores, settings.fetch, workspace, progress
            )
        except (IncompleteError, InputError) as error:
            issues.append(_companion_issue(companion, error))
    progress.finish("fetch")
    return FetchedSeries(
        series_instance_uid=entry.series_instance_uid,
        study_instance_uid=entry.study_instance_uid,
        files=tuple(_with_relative_path(f, entry, workspace) for f in files),
        companions=tuple(_with_relative_path(f, entry, workspace) for f in fetched_companions),
        expected_instances=expected,
        issues=tuple(issues),
    )


def prefetch_series(
    entries: Sequence[SeriesEntry], *, settings: Settings, workspace: Workspace, progress: Progress = SILENT
) -> int:
    """Download the objects of several series in one batch, if their storage supports that.

    Completeness is not checked and nothing is recorded: :func:`fetch_series` finds the objects in the folder of its
    series, checks them, and reports missing ones. Objects without a checksum, companions, and series that would exceed
    the free space or the quota are left to it.

    Parameters
    ----------
    entries : sequence of SeriesEntry
        The series.
    settings : Settings
        ``settings.fetch``.
    workspace : Workspace
        Folder of the run.
    progress : Progress
        Receives one step per object.

    Returns
    -------
    int
        Number of objects that were requested.
    """
    urls = [i.url for e in entries for i in e.instances if prefers_batches(i.url)]
    schemes = sorted({urlsplit(url).scheme for url in urls})
    return sum(_prefetch_from(f"{scheme}://", entries, settings, workspace, progress) for scheme in schemes)


def _prefetch_from(
    root: str, entries: Sequence[SeriesEntry], settings: Settings, workspace: Workspace, progress: Progress
) -> int:
    """Download the objects of one storage, given by its scheme `root`."""
    entries = [e for e in entries if any(i.url.startswith(root) for i in e.instances)]
    transfers: list[Transfer] = []
    accepted: list[_Wanted] = []
    try:
        store = cast(BatchStorage, open_storage(root, settings.fetch))
        folders = {i.url for e in entries for i in e.instances if i.url.startswith(root) and i.url.endswith("/")}
        listed = store.list_folders(sorted(folders))
        for entry in entries:
            wanted = [w for i in entry.instances if i.url.startswith(root) for w in _listed_objects(i, listed)]
            source = workspace.series_dir(entry.series_instance_uid) / "source"
            _check_disk([*accepted, *wanted], source, settings.fetch, workspace)
            accepted += wanted
            moves = [Transfer(w.url, source / _object_file_name(w), w.size, w.md5, w.crc32c) for w in wanted if w.md5]
            transfers += [t for t in moves if not _is_whole(t)]
    except CtenrichError as error:
        progress.note(f"not all series are downloaded in one batch: {error}")
    if not transfers:
        return 0
    try:
        store.download_batch(transfers, _TransferProgress(progress, transfers))
    except CtenrichError as error:
        progress.note(f"objects that are missing from the batch are requested again: {error}")
    return len(transfers)


def _listed_objects(instance: Instance, listed: Mapping[str, Sequence[StoredObject]]) -> list[_Wanted]:
    if instance.url.endswith("/"):
        return [_from_store(o) for o in listed.get(instance.url, ())]
    return [_Wanted(instance.url, instance.size, instance.md5, instance.crc32c, instance.sop_instance_uid)]


class _TransferProgress:
    """Forwards progress, and reports number of files, transfer rate and remaining time every second."""

    def __init__(self, progress: Progress, transfers: Sequence[Transfer], clock: Callable[[], float] = time.monotonic):
        self._progress = progress
        self._transfers = transfers
        self._clock = clock
        self._started = self._reported = clock()
        self._files = 0
        self._lock = threading.Lock()

    def start(self, context: str, total: float | None = None) -> None:
        self._progress.start(context, total)

    def advance(self, context: str, amount: float = 1) -> None:
        self._progress.advance(context, amount)
        with self._lock:
            self._files += int(amount)
            now = self._clock()
            if now - self._reported < 1 and self._files < len(self._transfers):
                return
            self._reported = now
            text = self._status_text(max(now - self._started, 1e-9))
        self._progress.status(context, text)

    def _status_text(self, elapsed: float) -> str:
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
    """The storages by scheme, each opened on first use."""

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        self._open: dict[str, Storage] = {}

    def of(self, url: str) -> Storage:
        scheme = urlsplit(url).scheme
        if scheme not in self._open:
            self._open[scheme] = open_storage(url, self._settings)
        return self._open[scheme]


def _list_objects(instances: Iterable[Instance], stores: _Stores) -> list[_Wanted]:
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


def _download_missing(
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
        place = source / _object_file_name(item)
        places.append(place)
        transfer = Transfer(item.url, place, item.size, item.md5, item.crc32c)
        if _is_whole(transfer):
            progress.advance("fetch")
        else:
            transfers.setdefault(urlsplit(item.url).scheme, []).append(transfer)
    for group in transfers.values():
        stores.of(group[0].url).download(group, _TransferProgress(progress, group))
    with ThreadPoolExecutor(_HASH_THREADS) as pool:
        return list(pool.map(_verified_file, wanted, places))


def _object_file_name(item: _Wanted) -> str:
    """Return the file name in the folder: from the checked UID, or from a hash of the URL."""
    if item.sop_instance_uid:
        return f"{check_uid(item.sop_instance_uid)}.dcm"
    return f"{hashlib.sha256(item.url.encode()).hexdigest()[:32]}.dcm"


def _is_whole(transfer: Transfer) -> bool:
    """Whether an earlier fetch has downloaded this object; False if there is no checksum to compare."""
    if transfer.md5 is None and transfer.crc32c is None:
        return False
    try:
        check_regular(transfer.path)
        verify_file(transfer.path, transfer)
    except CtenrichError:
        return False
    return True


def _verified_file(item: _Wanted, path: Path) -> FetchedFile:
    status = check_regular(path)
    try:
        verify_file(path, Transfer(item.url, path, item.size, item.md5, item.crc32c))
        digest = sha256_of_file(path)
    except TransientError as error:
        raise InputError(error.reason, error.message) from error
    except OSError as error:
        raise InputError(Reason.IO_ERROR, f"a file could not be read: {error.strerror}") from error
    return FetchedFile(str(path), item.url, status.st_size, digest, item.sop_instance_uid)


def _with_relative_path(file: FetchedFile, entry: SeriesEntry, workspace: Workspace) -> FetchedFile:
    path = Path(file.path)
    if not path.is_relative_to(workspace.series_dir(entry.series_instance_uid)):
        return file
    relative = path.relative_to(workspace.series_dir(entry.series_instance_uid)).as_posix()
    return FetchedFile(relative, file.url, file.size, file.sha256, file.sop_instance_uid)


def _check_disk(wanted: Sequence[_Wanted], folder: Path, settings: FetchSettings, workspace: Workspace) -> None:
    """Refuse a series whose objects and volume will not fit on the disk, before the first byte is fetched."""
    copied = sum(w.size or 0 for w in wanted if not w.local or settings.copy_local)
    need = copied + 2 * sum(w.size or 0 for w in wanted)  # the volume's array and its NIfTI
    if settings.disk_quota is not None:
        fits, others = fits_quota(need, settings.disk_quota, folder.parent, workspace)
        if not fits:
            message = f"the series needs about {need} bytes; the quota is {settings.disk_quota}, {others} are used"
            raise InputError(Reason.DISK_FULL, message, "raise fetch.disk_quota, or set fetch.delete_after_use")
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if need > free:
        raise InputError(Reason.DISK_FULL, f"the series needs about {need} bytes; {free} are free")


def _companion_issue(companion: Companion, error: CtenrichError) -> Issue:
    """A warning that names the kind of the companion and the reason code; the segmenter ``expert`` repeats both."""
    text = f"the {companion.modality} that belongs to the series could not be fetched: {error}"
    return Issue("fetch.companion", Severity.WARNING, companion.instance.sop_instance_uid or "companion", text)
