"""What was published is read back and compared: equal, changed, gone, never sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import ClassVar

import pydicom
import pytest
from tests.publish.test_objects import orthanc
from tests.support.cohorts import make_cohort
from tests.support.storage_servers import gcs_bucket, gcs_server
from typer.testing import CliRunner

from ctenrich import steps
from ctenrich.cli.main import app
from ctenrich.errors import UsageError
from ctenrich.publish.objects import files_of, publish_bucket, publish_dicomweb
from ctenrich.publish.verify import verify_published
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


def statuses(run: Workspace, target: str) -> list[str]:
    return [one.status for one in verify_published(run, target)]


def test_a_dicomweb_store(run: Workspace) -> None:
    with archive() as url:
        assert statuses(run, url) == ["not sent", "not sent"]
        publish_dicomweb(run, url)
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
    publish_dicomweb(run, root)
    assert statuses(run, root) == ["equal", "equal"]


def test_a_bucket(run: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with gcs_server() as root:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", root)
        gcs_bucket(root, "results")
        url = "gs://results/run1"
        publish_bucket(run, url, identified=True)
        assert statuses(run, url) == ["equal", "equal"]
        first, second = files_of(run)
        storage = open_storage(url, replace(Settings().fetch, anonymous=False))
        storage.upload(second, f"{url}/{first.relative_to(run.root).as_posix()}", replace=True)
        assert statuses(run, url) == ["differs", "equal"]


def test_a_node_cannot_be_read_back(run: Workspace) -> None:
    with pytest.raises(UsageError) as caught:
        verify_published(run, "dicom://127.0.0.1:104/PACS")
    assert "C-STORE" in caught.value.hint


def test_an_object_of_a_later_run_was_not_sent(run: Workspace) -> None:
    path: Path = files_of(run)[0]
    content = path.read_bytes()
    with archive() as url:
        publish_dicomweb(run, url)
        try:
            data = pydicom.dcmread(path)
            data.SeriesDescription = "made again"
            data.save_as(path)
            assert sorted(statuses(run, url)) == ["equal", "not sent"]
        finally:
            path.write_bytes(content)
