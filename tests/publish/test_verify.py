"""What was published is read back and compared: equal, changed, gone, never sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import pydicom
import pytest
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    SegmentationStorage,
)
from tests.conftest import need_package
from tests.publish.test_objects import orthanc
from tests.support.cohorts import make_cohort
from tests.support.storage_servers import gcs_bucket, gcs_server
from typer.testing import CliRunner

from ctenrich import steps
from ctenrich.cli.main import app
from ctenrich.errors import TransientError, UsageError
from ctenrich.publish.content import gather
from ctenrich.publish.objects import publish_to
from ctenrich.publish.options import PublishOptions
from ctenrich.publish.verify import verify_published
from ctenrich.reasons import Reason
from ctenrich.settings import Settings
from ctenrich.storage import open_storage
from ctenrich.workspace import Workspace

__all__ = ["orthanc"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("verify")
    made = steps.start(make_cohort(folder, 1), folder / "run", segmenters=["expert"])
    for stage in (steps.fetch, steps.sort, steps.convert, steps.segment, steps.measure, steps.encode):
        stage(made)
    return made.workspace


@pytest.fixture(autouse=True)
def no_log(run: Workspace) -> Iterator[None]:
    yield
    for path in (run.root / "publish").glob("*.jsonl"):
        path.unlink()


class _Archive(BaseHTTPRequestHandler):
    """A DICOMweb store that keeps objects in memory and writes file meta information of its own."""

    held: ClassVar[dict[str, bytes]] = {}

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        content = body.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0]
        data = pydicom.dcmread(BytesIO(content))
        data.file_meta.ImplementationVersionName = "ARCHIVE"
        out = BytesIO()
        data.save_as(out)
        self.held[str(data.SOPInstanceUID)] = out.getvalue()
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def do_GET(self) -> None:
        content = self.held.get(self.path.rpartition("/")[2])
        part = b"--x y\r\nContent-Type: application/dicom\r\n\r\n" + (content or b"") + b"\r\n--x y--\r\n"
        self.send_response(200 if content else 404)
        self.send_header("Content-Type", 'multipart/related; type="application/dicom"; boundary="x y"')
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        return None


@contextmanager
def archive() -> Iterator[str]:
    _Archive.held.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Archive)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
    finally:
        server.shutdown()
        server.server_close()


def paths_of(run: Workspace) -> list[Path]:
    return [file.path for file in gather(run).files]


def statuses(run: Workspace, target: str) -> list[str]:
    return [one.status for one in verify_published(run, target)]


def test_a_dicomweb_store(run: Workspace) -> None:
    with archive() as url:
        assert statuses(run, url) == ["not sent", "not sent"]
        publish_to(run, url)
        assert statuses(run, url) == ["equal", "equal"]
        first, second = _Archive.held
        data = pydicom.dcmread(BytesIO(_Archive.held[first]))
        data.SeriesDescription = "changed on the way"
        out = BytesIO()
        data.save_as(out)
        _Archive.held[first] = out.getvalue()
        del _Archive.held[second]
        assert sorted(statuses(run, url)) == ["differs", "missing"]
        result = CliRunner().invoke(app, ["publish", str(run.root), url, "--verify"])
        assert result.exit_code == 1
        assert "2 objects: 1 differs, 1 missing" in result.output
    assert statuses(run, url) == ["failed", "failed"]


def test_orthanc(run: Workspace, orthanc: tuple[str, int]) -> None:
    root = f"{orthanc[0]}/dicom-web"
    publish_to(run, root)
    assert statuses(run, root) == ["equal", "equal"]


def test_a_bucket(run: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with gcs_server() as root:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", root)
        gcs_bucket(root, "results")
        url = "gs://results/run1"
        publish_to(run, url, options=PublishOptions(identified=True))
        assert statuses(run, url) == ["equal", "equal"]
        first, second = paths_of(run)
        storage = open_storage(url, replace(Settings().fetch, anonymous=False))
        storage.upload(second, f"{url}/{first.relative_to(run.root).as_posix()}", replace=True)
        assert statuses(run, url) == ["differs", "equal"]


@contextmanager
def node(*, commits: bool, queries: bool, lost: frozenset[str] = frozenset()) -> Iterator[int]:
    """A DICOM node that stores objects, reports its commitment on the same association, and answers queries."""
    need_package("orthanc", "pynetdicom")
    from pynetdicom import AE, evt
    from pynetdicom.sop_class import StorageCommitmentPushModel, StudyRootQueryRetrieveInformationModelFind

    held: dict[str, str] = {}

    def store(event: Any) -> int:
        held[str(event.request.AffectedSOPInstanceUID)] = str(event.request.AffectedSOPClassUID)
        return 0

    def find(event: Any) -> Iterator[tuple[int, pydicom.Dataset | None]]:
        if event.identifier.SOPInstanceUID in held.keys() - lost:
            yield 0xFF00, event.identifier

    def act(event: Any) -> tuple[int, None]:
        wanted = event.action_information
        answer = pydicom.Dataset()
        answer.TransactionUID = wanted.TransactionUID
        answer.ReferencedSOPSequence = [
            item for item in wanted.ReferencedSOPSequence if item.ReferencedSOPInstanceUID in held.keys() - lost
        ]

        def report() -> None:
            event.assoc.send_n_event_report(answer, 1, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1")

        threading.Timer(0.2, report).start()
        return 0, None

    entity = AE(ae_title="NODE")
    for storage in (SegmentationStorage, EnhancedSRStorage, ComprehensiveSRStorage, Comprehensive3DSRStorage):
        entity.add_supported_context(storage)
    if commits:
        entity.add_supported_context(StorageCommitmentPushModel)
    if queries:
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    handlers = [(evt.EVT_C_STORE, store), (evt.EVT_C_FIND, find), (evt.EVT_N_ACTION, act)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    ("commits", "queries", "status"), [(True, True, "committed"), (True, False, "committed"), (False, True, "listed")]
)
def test_a_node_is_asked(run: Workspace, commits: bool, queries: bool, status: str) -> None:
    with node(commits=commits, queries=queries) as port:
        url = f"dicom://127.0.0.1:{port}/NODE"
        assert statuses(run, url) == ["not sent", "not sent"]
        publish_to(run, url)
        assert statuses(run, url) == [status, status]
        done = CliRunner().invoke(app, ["publish", str(run.root), url, "--verify"])
        assert done.exit_code == 0, done.output
        assert f"2 objects: 2 {status}" in done.output
        assert "bytes were not compared" in done.output


@pytest.mark.parametrize("commits", [True, False])
def test_a_node_that_has_lost_an_object(run: Workspace, commits: bool) -> None:
    gone = str(pydicom.dcmread(paths_of(run)[0]).SOPInstanceUID)
    with node(commits=commits, queries=True, lost=frozenset({gone})) as port:
        url = f"dicom://127.0.0.1:{port}/NODE"
        publish_to(run, url)
        assert sorted(statuses(run, url)) == ["committed" if commits else "listed", "missing"]
        assert CliRunner().invoke(app, ["publish", str(run.root), url, "--verify"]).exit_code == 1


def test_a_node_that_cannot_be_asked(run: Workspace) -> None:
    with node(commits=False, queries=False) as port:
        url = f"dicom://127.0.0.1:{port}/NODE"
        publish_to(run, url)
        with pytest.raises(TransientError) as caught:
            verify_published(run, url)
    assert caught.value.reason is Reason.RETRY_EXHAUSTED
    with pytest.raises(UsageError) as wrong:
        verify_published(run, "dicom://127.0.0.1/PACS")
    assert "dicom://HOST:PORT/AET" in wrong.value.hint


def test_orthanc_lists_what_it_has(run: Workspace, orthanc: tuple[str, int]) -> None:
    """It reports its commitment to nodes that it knows, on an association of its own: a query answers here."""
    need_package("orthanc", "pynetdicom")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ctenrich.publish.node._REPORT_SECONDS", 3)
        url = f"dicom://127.0.0.1:{orthanc[1]}/ORTHANC"
        publish_to(run, url)
        assert set(statuses(run, url)) <= {"committed", "listed"}


def test_an_object_of_a_later_run_was_not_sent(run: Workspace) -> None:
    path: Path = paths_of(run)[0]
    content = path.read_bytes()
    with archive() as url:
        publish_to(run, url)
        try:
            data = pydicom.dcmread(path)
            data.SeriesDescription = "made again"
            data.save_as(path)
            assert sorted(statuses(run, url)) == ["equal", "not sent"]
        finally:
            path.write_bytes(content)
