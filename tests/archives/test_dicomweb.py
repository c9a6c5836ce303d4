"""DICOMweb stores: QIDO-RS as a catalog, WADO-RS as a storage, against Orthanc and answers that are cut."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest
from pydicom import dcmread

from ctenrich.archives.catalog import ArchiveCatalog
from ctenrich.archives.multipart import first_part_of
from ctenrich.catalog import open_catalog
from ctenrich.errors import IncompleteError, InputError, RetryExhaustedError, UsageError
from ctenrich.publish.objects import publish_to
from ctenrich.reasons import Reason
from ctenrich.select.selection import select_cohort
from ctenrich.settings import FetchSettings, Settings
from ctenrich.stages.fetch import fetch_series
from ctenrich.stages.sort import sort_series
from ctenrich.storage import open_storage
from ctenrich.storage.base import Transfer
from ctenrich.workspace import Workspace
from tests.archives.conftest import Held
from tests.support.small_series import SERIES, STUDY, write_small

QUICK = FetchSettings(tries=2, timeout=5, backoff=0.01)


@pytest.mark.long
def test_orthanc(held: Held, tmp_path: Path) -> None:
    catalog = open_catalog(held.orthanc.web, fetch=QUICK)
    whole = select_cohort("select_idc_series", catalog, {})
    assert {one.series_instance_uid for one in whole.cohort.series} == {*held.series, SERIES}
    selection = select_cohort("select_idc_series", catalog, {"patients": ["CANARY-ID"]})
    (entry,) = selection.cohort.series
    assert entry.expected_instances == 6
    workspace = Workspace(tmp_path)
    fetched = fetch_series(entry, settings=Settings(fetch=QUICK), workspace=workspace)
    assert sort_series(fetched, settings=Settings(), workspace=workspace).shape[0] == 6
    for file in fetched.files:
        got = dcmread(tmp_path / "series" / SERIES / file.path)
        stored = dcmread(held.files[got.SOPInstanceUID])
        assert got.file_meta.TransferSyntaxUID == stored.file_meta.TransferSyntaxUID
        assert got == stored
    catalog.close()


# ---------------------------------------------------------------- a store that misbehaves

Answer = Callable[[str, int], tuple[int, str, bytes]]
PLACE = f"/studies/{STUDY}/series/{SERIES}"


@contextmanager
def store(answer: Answer) -> Iterator[str]:
    """A server whose answers (status, content type, body) a test gives, by path and number of earlier requests."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            path = self.path.removeprefix("/web")
            status, kind, body = answer(path, asked.count(path))
            asked.append(path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"dicomweb+http://127.0.0.1:{server.server_address[1]}/web"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def multipart(content: bytes) -> bytes:
    return b"--b\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n--b--\r\n"


KIND = 'multipart/related; type="application/dicom"; boundary="b"'


def test_an_answer_that_is_cut_is_asked_for_again(tmp_path: Path) -> None:
    content = write_small(tmp_path / "held")[0].read_bytes()
    body = multipart(content)
    with store(lambda path, times: (200, KIND, body if times else body[:-20])) as root:
        target = tmp_path / "a.dcm"
        open_storage(root, QUICK).download([Transfer(f"{root}{PLACE}/instances/1.2.3.4.1", target)])
        assert target.read_bytes() == content
    with store(lambda path, times: (200, KIND, body[:-20])) as root:
        with pytest.raises((InputError, RetryExhaustedError)) as caught:
            open_storage(root, QUICK).download([Transfer(f"{root}{PLACE}/instances/1.2.3.4.1", tmp_path / "b.dcm")])
        assert caught.value.reason is Reason.CHECKSUM
        assert not (tmp_path / "b.dcm").exists()


def test_another_object_than_was_asked_for(tmp_path: Path) -> None:
    content = write_small(tmp_path / "held")[1].read_bytes()
    with store(lambda path, times: (200, KIND, multipart(content))) as root:
        with pytest.raises(InputError) as caught:
            open_storage(root, QUICK).download([Transfer(f"{root}{PLACE}/instances/1.2.3.4.1", tmp_path / "a.dcm")])
        assert caught.value.reason is Reason.WRONG_OBJECT
        assert not (tmp_path / "a.dcm").exists()


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        (401, UsageError, Reason.NO_CREDENTIALS),
        (404, IncompleteError, Reason.INCOMPLETE),
        (406, InputError, Reason.RETRIEVE_REFUSED),
        (503, RetryExhaustedError, Reason.RETRY_EXHAUSTED),
    ],
)
def test_statuses(tmp_path: Path, status: int, error: type[Exception], reason: Reason) -> None:
    with store(lambda path, times: (status, "text/plain", b"")) as root, pytest.raises(error) as caught:
        open_storage(root, QUICK).download([Transfer(f"{root}{PLACE}/instances/1.2.3", tmp_path / "a.dcm")])
    assert caught.value.reason is reason  # type: ignore[attr-defined]


def test_pages_end_where_a_store_ignores_the_offset() -> None:
    row = (
        '{"00200011": {}, "00080060": {"vr": "CS", "Value": ["CT"]}, "00100020": {"vr": "LO", "Value": ["P"]},'
        f'"0020000D": {{"vr": "UI", "Value": ["{STUDY}"]}}, "0020000E": {{"vr": "UI", "Value": ["{SERIES}"]}},'
        '"00080018": {"vr": "UI", "Value": ["1.2.3"]}, "00201209": {"vr": "IS", "Value": [7]}}'
    )
    with store(lambda path, times: (200, "application/dicom+json", f"[{row}]".encode())) as root:
        catalog = open_catalog(root, fetch=QUICK)
        (one,) = select_cohort("select_idc_series", catalog, {}).cohort.series
        assert one.expected_instances == 7  # the larger of two numbers
        assert one.patient_id == "P"


@pytest.mark.parametrize("target", ["dicomweb+https://h/root", "xnat+https://h/project"])
def test_archives_that_are_fetched_from_are_no_targets(tmp_path: Path, target: str) -> None:
    with pytest.raises(UsageError, match="fetched from") as caught:
        publish_to(tmp_path, target)
    assert caught.value.reason is Reason.BAD_PARAMETER
    assert not open_storage(target, QUICK).refuses_overwriting(f"{target}/x")
    with pytest.raises(UsageError):
        open_storage(target, QUICK).upload(tmp_path, f"{target}/x")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (multipart(b"abc"), b"abc"),
        (b"preamble\r\n" + multipart(b"a\r\n--x\r\nb"), b"a\r\n--x\r\nb"),
        (multipart(b"abc")[:-9], None),
        (b"--b\r\nContent-Length: 12\r\n\r\nabc\r\n--b--", None),
        (b"--b\r\nContent-Length: 11\r\n\r\nabc\r\n--b-xy\r\n--b--", b"abc\r\n--b-xy"),
        (b"", None),
    ],
)
def test_parts(body: bytes, expected: bytes | None) -> None:
    assert first_part_of(KIND, body) == expected
    assert first_part_of("application/dicom", body) == body


def test_queries_read_no_files() -> None:
    catalog = ArchiveCatalog(SimpleNamespace(name="archive"), FetchSettings())
    with pytest.raises(duckdb.Error, match="disabled"):
        catalog.connection.execute("SELECT * FROM read_csv('/etc/hostname')")
