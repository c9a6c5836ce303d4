"""A storage of another package: one file and one entry point."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.plugins import install_plugin

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Instance, SeriesEntry
from ctenrich.settings import Settings
from ctenrich.stages.fetch import fetch_series, prefetch_series
from ctenrich.storage import GROUP, is_storage_url, open_storage, prefers_batches
from ctenrich.storage.base import BatchStorage, Transfer
from ctenrich.workspace import Workspace

SOURCE = """
from pathlib import Path
from urllib.parse import urlsplit

from ctenrich.errors import IncompleteError
from ctenrich.reasons import Reason
from ctenrich.storage.base import BatchStorage, StoredObject, verify_file


class MemoryStorage(BatchStorage):
    objects = {}

    def list_objects(self, url):
        return [StoredObject(u, len(content)) for u, content in sorted(self.objects.items()) if u.startswith(url)]

    def list_folders(self, urls):
        return {url: self.list_objects(url) for url in urls}

    def download(self, transfers, progress=None):
        for transfer in transfers:
            if transfer.url not in self.objects:
                raise IncompleteError(Reason.INCOMPLETE, "there is no such object")
            transfer.path.parent.mkdir(parents=True, exist_ok=True)
            transfer.path.write_bytes(self.objects[transfer.url])
            verify_file(transfer.path, transfer)

    download_batch = download

    def upload(self, source, url, *, replace=False):
        self.objects[url] = Path(source).read_bytes()
        return StoredObject(url, len(self.objects[url]), version=str(self._settings.tries))
"""


@pytest.fixture
def memory_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    install_plugin(site, "memory-storages", GROUP, "memory1 = ctenrich_memory:MemoryStorage", ctenrich_memory=SOURCE)
    monkeypatch.syspath_prepend(str(site))


def test_a_storage_of_another_package_is_used(memory_storage: None, tmp_path: Path) -> None:
    storage = open_storage("memory1://", replace(Settings().fetch, tries=7))
    source = tmp_path / "a.dcm"
    source.write_bytes(b"bytes")
    assert storage.upload(source, "memory1://b/a.dcm").version == "7"
    (found,) = storage.list_objects("memory1://b/")
    copy = tmp_path / "copy.dcm"
    storage.download([Transfer(found.url, copy, found.size)])
    assert copy.read_bytes() == b"bytes"
    assert is_storage_url("memory1://b/a.dcm")
    assert prefers_batches("memory1://b/a.dcm"), "it derives from BatchStorage"
    assert isinstance(storage, BatchStorage)


def test_its_series_are_fetched_together(memory_storage: None, tmp_path: Path) -> None:
    storage = open_storage("memory1://", Settings().fetch)
    (tmp_path / "x").write_bytes(b"slice")
    digest = hashlib.md5(b"slice", usedforsecurity=False).hexdigest()
    entries = []
    for uid in ("1.2.3", "1.2.4"):
        storage.upload(tmp_path / "x", f"memory1://b/{uid}/1.dcm")
        instance = Instance(f"{uid}.1", f"memory1://b/{uid}/1.dcm", 5, digest)
        entries.append(SeriesEntry("c", "p", "1.2", uid, (instance,)))
    workspace = Workspace(tmp_path / "run")
    assert prefetch_series(entries, settings=Settings(), workspace=workspace) == 2
    fetched = fetch_series(entries[0], settings=Settings(), workspace=workspace)
    assert [(file.url, file.size) for file in fetched.files] == [("memory1://b/1.2.3/1.dcm", 5)]


@pytest.mark.parametrize(
    ("url", "batches"), [("s3://b/x", True), ("gs://b/x", False), ("file:///x", False), ("ftp://b/x", False)]
)
def test_which_storages_prefer_batches(url: str, batches: bool) -> None:
    assert prefers_batches(url) is batches


def test_an_unknown_scheme_names_all_that_there_are(memory_storage: None) -> None:
    assert not is_storage_url("ftp://b/x")
    with pytest.raises(UsageError, match="no storage for ftp://") as caught:
        open_storage("ftp://b/x", Settings().fetch)
    schemes = (
        "file, gs, s3, dicom, dicomweb+https, dicomweb+http, xnat+https, xnat+http, nbia+https, nbia+http, memory1"
    )
    assert caught.value.hint == schemes


def test_a_class_that_is_no_storage_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(tmp_path, "wrong-storages", GROUP, "wrong = pathlib:Path")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match="not a class that derives") as caught:
        open_storage("wrong://x", Settings().fetch)
    assert caught.value.reason is Reason.BAD_PLUGIN
