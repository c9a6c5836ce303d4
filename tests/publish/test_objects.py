from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.conftest import need_package, need_program, skip_or_fail
from tests.services.failing_proxy import failing_proxy
from tests.support.cohorts import make_cohort
from tests.support.storage_servers import gcs_bucket, gcs_server, s3_bucket, s3_server

from ctenrich import steps
from ctenrich.archives.web import bearer_of
from ctenrich.errors import TransientError, UsageError
from ctenrich.publish import objects
from ctenrich.publish.log import Sent, read_log
from ctenrich.publish.options import PublishOptions
from ctenrich.reasons import Reason
from ctenrich.results.tables import build_tables
from ctenrich.settings import Settings
from ctenrich.storage import open_storage
from ctenrich.workspace import Workspace

publish_to = partial(objects.publish_to, options=PublishOptions(identified=True))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("publish")
    made = steps.start(make_cohort(folder, 2), folder / "run", segmenters=["expert"])
    for stage in (steps.fetch, steps.sort, steps.convert, steps.segment, steps.measure, steps.encode):
        stage(made)
    build_tables(made.workspace)
    return made.workspace


@pytest.fixture(autouse=True)
def no_log(run: Workspace) -> Iterator[None]:
    yield
    for path in (run.root / "publish").glob("*.jsonl"):
        path.unlink()


def no_credentials(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """A machine that nobody logged in on, and that is none of Google's."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(home))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NO_GCE_CHECK", "true")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def program(arguments: list[str], port: int, seconds: float = 60) -> Iterator[None]:
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + seconds
        while True:
            assert process.poll() is None, "the program ended by itself"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < end, "the program does not listen"
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait(20)


# ---------------------------------------------------------------- DICOM stores


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """(HTTP root, DICOM port) of an Orthanc with its DICOMweb plugin."""
    binary = need_program("orthanc", "Orthanc", "orthanc", "/usr/sbin/Orthanc")
    plugin = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
    if not plugin.exists():
        skip_or_fail("orthanc", "Orthanc's DICOMweb plugin is not installed")
    http, dicom = free_port(), free_port()
    settings = {
        "StorageDirectory": str(tmp_path / "db"),
        "IndexDirectory": str(tmp_path / "db"),
        "HttpPort": http,
        "DicomPort": dicom,
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "UnknownSopClassAccepted": True,
        "Plugins": [str(plugin)],
    }
    config = tmp_path / "orthanc.json"
    config.write_text(json.dumps(settings))
    with program([binary, str(config)], http):
        yield f"http://127.0.0.1:{http}", dicom


def instances(root: str) -> set[str]:
    with urllib.request.urlopen(f"{root}/instances?expand", timeout=10) as answer:
        return {i["MainDicomTags"]["SOPInstanceUID"] for i in json.load(answer)}


def test_stow_to_orthanc_and_resume(run: Workspace, orthanc: tuple[str, int]) -> None:
    root, _ = orthanc
    sent = publish_to(run, f"{root}/dicom-web")
    assert len(sent) == 4
    assert {s.status for s in sent} == {"sent"}
    assert instances(root) == {s.name for s in sent}
    again = publish_to(run, f"{root}/dicom-web")
    assert {s.status for s in again} == {"already there"}


def test_a_dicomweb_store_that_fails_in_the_middle(run: Workspace, orthanc: tuple[str, int]) -> None:
    root, _ = orthanc
    broken = [True]

    def fault(_method: str, _path: str, number: int) -> tuple[int, str] | None:
        return (503, "backendError") if broken[0] and number > 1 else None

    with failing_proxy(root, fault) as proxy:
        with pytest.raises(TransientError) as caught:
            publish_to(run, f"{proxy.root}/dicom-web")
        assert "3 of 4" in str(caught.value)
        assert sorted(s.detail.split(":")[0] for s in read_log(run, f"{proxy.root}/dicom-web")) == [
            "",
            *["HTTPError"] * 3,
        ]
        broken[0] = False
        sent = publish_to(run, f"{proxy.root}/dicom-web")
        assert sorted(s.status for s in sent) == ["already there", "sent", "sent", "sent"]
        assert instances(root) == {s.name for s in sent}


class _Stow(BaseHTTPRequestHandler):
    """A store that wants a token, and refuses the first object as PS3.18 says: 409 and a Failed SOP Sequence."""

    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append(self.headers.get("Authorization", ""))
        failed = {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [272]}}]}}
        body = json.dumps(failed if len(self.asked) == 1 else {}).encode()
        self.send_response(409 if len(self.asked) == 1 else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        return None


def test_a_store_with_a_token_says_why_it_refuses(run: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTENRICH_DICOMWEB_TOKEN", "secret-token")
    monkeypatch.setattr(_Stow, "asked", [])
    with ThreadingHTTPServer(("127.0.0.1", 0), _Stow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/dicomWeb"
        with pytest.raises(TransientError) as caught:
            publish_to(run, url)
        server.shutdown()
    assert "409" in str(caught.value)
    assert "refused with reason 272" in str(caught.value)
    assert sorted(s.status for s in read_log(run, url)) == ["failed", "sent", "sent", "sent"]
    assert set(_Stow.asked) == {"Bearer secret-token"}
    assert not [p for p in run.root.rglob("*.jsonl") if "secret-token" in p.read_text()]


def test_google_healthcare_gets_a_fresh_token_and_nobody_else_does(
    run: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    need_package("cloud", "google.auth")
    import google.auth

    class Credentials:
        valid, token = False, ""

        def refresh(self, _: Any) -> None:
            self.valid, self.token = True, f"{self.token}x"

    made = Credentials()
    monkeypatch.setattr(google.auth, "default", lambda scopes: (made, "project"))
    store = "https://healthcare.googleapis.com/v1/projects/p/dicomStores/d/dicomWeb"
    fresh = bearer_of(store, "")
    assert [fresh(), fresh()] == ["x", "x"]
    made.valid = False
    assert fresh() == "xx", "an hour later"
    assert bearer_of(store, "mine")() == "mine"
    for other in (store.replace("https", "http"), "https://healthcare.googleapis.com.evil.example/x"):
        assert bearer_of(other, "")() == ""
    monkeypatch.undo()
    no_credentials(monkeypatch, tmp_path)
    with pytest.raises(UsageError) as caught:
        publish_to(run, store)
    assert caught.value.reason is Reason.NO_CREDENTIALS


def test_c_store_to_orthanc(run: Workspace, orthanc: tuple[str, int]) -> None:
    need_package("orthanc", "pynetdicom")
    root, port = orthanc
    sent = publish_to(run, f"dicom://127.0.0.1:{port}/ORTHANC")
    assert {s.status for s in sent} == {"sent"}
    assert instances(root) == {s.name for s in sent}


def test_a_node_that_refuses_one_object(run: Workspace) -> None:
    need_package("orthanc", "pynetdicom")
    from pynetdicom import AE, evt
    from pynetdicom.presentation import AllStoragePresentationContexts

    refused: list[str] = []
    stored: list[str] = []

    def store(event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        if not refused:
            refused.append(uid)
            return 0xA700
        stored.append(uid)
        return 0

    entity = AE(ae_title="NODE")
    entity.supported_contexts = AllStoragePresentationContexts
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        port = server.socket.getsockname()[1]
        with pytest.raises(TransientError) as caught:
            publish_to(run, f"dicom://127.0.0.1:{port}/NODE")
        assert caught.value.reason is Reason.RETRY_EXHAUSTED
        log = read_log(run, f"dicom://127.0.0.1:{port}/NODE")
        assert [s.detail for s in log if s.status == "failed"] == ["status A700"]
        publish_to(run, f"dicom://127.0.0.1:{port}/NODE")
        assert sorted(stored) == sorted(s.name for s in log), "what was sent is not sent twice"
    finally:
        server.shutdown()


class _Store:
    """A bucket that fails after some uploads."""

    def __init__(self, after: int) -> None:
        self.after, self.names = after, []

    def upload(self, source: Path, url: str, *, replace: bool = False) -> None:
        assert replace
        assert source.is_file()
        if len(self.names) >= self.after:
            raise ConnectionError("the store went away")
        self.names.append(url)

    def take(self, run: Workspace, url: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Sent, ...]:
        """Publish to this store, one object after the other."""
        monkeypatch.setattr("ctenrich.publish.objects.open_storage", lambda *_: self)
        monkeypatch.setattr("ctenrich.publish.objects._AT_ONCE", 1)
        return publish_to(run, url)


def test_a_store_that_fails_in_the_middle(run: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = _Store(2), _Store(99)
    with pytest.raises(TransientError):
        first.take(run, "gs://b/x", monkeypatch)
    assert [s.status for s in read_log(run, "gs://b/x")] == ["sent", "sent", "failed", "failed"]
    second.take(run, "gs://b/x", monkeypatch)
    assert len(second.names) == 2
    assert not set(first.names) & set(second.names)


def check_bucket(run: Workspace, url: str, settings: Settings) -> None:
    """Publish to a real bucket, again, and again after somebody else wrote other bytes there."""
    storage = open_storage(url, settings.fetch)
    sent = publish_to(run, url, settings=settings)
    found = storage.list_objects(f"{url}/")
    assert len(found) == len(sent) == 4
    assert all(o.url.startswith(f"{url}/series/") and o.url.endswith(".dcm") for o in found)
    assert {s.status for s in publish_to(run, url, settings=settings)} == {"already there"}

    shutil.rmtree(run.root / "publish")
    other = run.root / "other.dcm"
    other.write_bytes(b"\0" * (found[0].size or 1))
    storage.upload(other, found[0].url, replace=True)
    publish_to(run, url, settings=settings)
    again = storage.list_objects(f"{url}/")
    assert [o.md5 for o in again] == [o.md5 for o in found], "what a run wrote replaces what was there"
    assert [o.version == f.version for o, f in zip(again, found, strict=True)][1:] == [True] * 3, (
        "sent only if it differs"
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning")
def test_a_bucket(run: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with gcs_server() as root:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", root)
        gcs_bucket(root, "results")
        check_bucket(run, "gs://results/run1", Settings())


def test_a_bucket_on_s3(run: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    need_package("cloud", "botocore")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with s3_server() as root:
        s3_bucket(root, "results")
        fetch = replace(Settings().fetch, s3_endpoint=root)
        check_bucket(run, "s3://results/run1", replace(Settings(), fetch=fetch))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning")
def test_a_real_bucket_that_fails_in_the_middle(run: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads, broken = [], [True]

    def fault(method: str, path: str, _: int) -> tuple[int, str] | None:
        if not (method in {"POST", "PUT"} and path.startswith("/upload")):
            return None
        uploads.append(path)
        return (403, "quotaExceeded") if broken[0] and len(uploads) > 2 else None

    with gcs_server() as root, failing_proxy(root, fault) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.root)
        gcs_bucket(root, "results")
        monkeypatch.setattr("ctenrich.publish.objects._AT_ONCE", 1)
        with pytest.raises(TransientError) as caught:
            publish_to(run, "gs://results")
        assert caught.value.reason is Reason.RETRY_EXHAUSTED
        assert "2 of 4" in str(caught.value)
        log = read_log(run, "gs://results")
        assert [s.status for s in log] == ["sent", "sent", "failed", "failed"]
        assert "403" in log[2].detail
        broken[0] = False
        sent = publish_to(run, "gs://results")
        assert [s.status for s in sent] == ["already there", "already there", "sent", "sent"]
        assert len(open_storage("gs://results", Settings().fetch).list_objects("gs://results/")) == 4


def test_a_store_that_is_gone_is_not_asked_for_every_object(run: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctenrich.publish.sending._GIVE_UP", 2)
    with pytest.raises(TransientError):
        _Store(0).take(run, "gs://b/y", monkeypatch)
    details = [s.detail for s in read_log(run, "gs://b/y")]
    assert [d.startswith("not tried") for d in details] == [False, False, True, True]


def test_a_torn_line_of_the_log_is_no_loss(run: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    _Store(9).take(run, "gs://b/z", monkeypatch)
    (path,) = (run.root / "publish").glob("*.jsonl")
    text = path.read_text()
    path.write_text(text[: len(text) - 30])
    again = _Store(9).take(run, "gs://b/z", monkeypatch)
    assert [s.status for s in again] == ["already there"] * 3 + ["sent"]
    assert len(read_log(run, "gs://b/z")) == 4


@pytest.mark.parametrize(("url", "hint"), [("gs://results", "gcloud auth"), ("s3://results", "aws configure")])
def test_no_credentials_for_a_bucket(
    run: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, hint: str
) -> None:
    need_package("cloud", "google.cloud.storage")
    need_package("cloud", "botocore")
    no_credentials(monkeypatch, tmp_path)
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(UsageError) as caught:
        publish_to(run, url)
    assert caught.value.reason is Reason.NO_CREDENTIALS
    assert hint in str(caught.value)


def test_targets(run: Workspace) -> None:
    for target in ("ftp://x/y", "dicom://host/AET", "gs://", "results"):
        with pytest.raises(UsageError) as caught:
            publish_to(run, target)
        assert caught.value.reason is Reason.BAD_PARAMETER


def test_no_objects(workspace: Workspace) -> None:
    with pytest.raises(UsageError):
        publish_to(workspace, "http://127.0.0.1:1/dicom-web")
    with pytest.raises(UsageError):
        publish_to(workspace, "file:///etc")
