"""Delivery to DICOMweb stores, folders and buckets; notifications; destinations and hooks that are refused."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from tests.publish.test_objects import free_port
from tests.support.listeners import study_files, uid_of, wait_for
from tests.support.nodes import Post, changed_copy, node

from ctenrich.delivery import senders
from ctenrich.delivery.decisions import delivery_rows, release
from ctenrich.delivery.deliverer import Deliverer
from ctenrich.delivery.destination import Destination, Hook, OwnAddresses, sender_destination
from ctenrich.delivery.hooks import send_notifications
from ctenrich.delivery.queue import DeliveryQueue
from ctenrich.errors import UsageError

FILES = study_files()[:3]
UIDS = [uid_of(path) for path in FILES]


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    made = Post(tmp_path)
    yield made
    made.queue.close()


class _Server(ThreadingHTTPServer):
    """Keeps requests; answers with the next status and body, the last one again and again."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[tuple[int, bytes]] = [(200, b"{}")]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/here"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, dict(self.headers), body))
        answers = self.server.answers
        status, content = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        if status == 307:
            self.send_header("Location", content.decode())
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        return None


@contextmanager
def server() -> Iterator[_Server]:
    made = _Server()
    threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield made
    finally:
        made.shutdown()
        made.server_close()


def refusal(reason: int) -> bytes:
    item = {"00081197": {"vr": "US", "Value": [reason]}}
    return json.dumps({"00081198": {"vr": "SQ", "Value": [item]}}).encode()


def warning(reason: int) -> bytes:
    item = {"00081196": {"vr": "US", "Value": [reason]}}
    return json.dumps({"00081199": {"vr": "SQ", "Value": [item]}}).encode()


def to(address: str, **values: object) -> Destination:
    return Destination(**{"name": "store", "address": address, "hold": False, **values})  # type: ignore[arg-type]


def test_answers_of_a_dicomweb_store(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_TOKEN", "a-token")
    with server() as store:
        store.answers = [(200, b"{}"), (202, warning(0xB000)), (409, refusal(0xC122))]
        post.add(to(store.url, token_variable="STORE_TOKEN"), *FILES)
        assert post.work() == {"sent": 1, "warning": 1, "failed": 1}
        assert post.column("status") == [None, 0xB000, 0xC122]
        assert {path for path, _, _ in store.requests} == {"/here/studies"}
        assert all(headers["Authorization"] == "Bearer a-token" for _, headers, _ in store.requests)
        assert all(path.read_bytes() in body for path, (_, _, body) in zip(FILES, store.requests, strict=True))


def test_a_dicomweb_store_that_is_busy_or_refuses_us_gets_the_objects_later(post: Post) -> None:
    with server() as store:
        store.answers = [(503, b""), (401, b""), (200, b"{}")]
        post.add(to(store.url), *FILES)
        assert [post.work(seconds) for seconds in (0, 11, 21)] == [{"queued": 3}, {"queued": 3}, {"sent": 3}]
        assert len(store.requests) == 5
    post.add(to(store.url), FILES[0], case=2)
    assert post.work(100) == {"sent": 3}


def test_folders_get_each_object_once_and_nothing_is_replaced(post: Post, tmp_path: Path) -> None:
    target = tmp_path / "out"
    post.add(to(target.as_uri(), hold=None), *FILES)
    assert post.work() == {"sent": 3}
    placed = sorted(target.rglob("*.dcm"))
    assert sorted(path.read_bytes() for path in placed) == sorted(path.read_bytes() for path in FILES)
    data = dcmread(FILES[0])
    assert target / data.StudyInstanceUID / data.SeriesInstanceUID / f"{data.SOPInstanceUID}.dcm" in placed
    post.add(to(target.as_uri(), name="again"), FILES[0], changed_copy(FILES[1], tmp_path / "other.dcm"))
    assert post.work() == {"sent": 4, "failed": 1}
    assert "another object under this name" in delivery_rows(post.queue, states=("failed",))[0].detail
    assert sorted(path.read_bytes() for path in placed) == sorted(path.read_bytes() for path in FILES)


def test_a_folder_that_cannot_be_written(post: Post, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    post.add(to((tmp_path / "file" / "out").as_uri()), FILES[0])
    assert post.work() == {"queued": 1}
    assert ("destination failed", "store") in [(event, values["destination"]) for event, values in post.events]


class _Bucket:
    def __init__(self) -> None:
        self.urls: list[str] = []

    def upload(self, _source: Path, url: str, **_: object) -> None:
        self.urls.append(url)


def test_buckets_get_no_patient_who_can_be_identified(
    post: Post, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = _Bucket()
    monkeypatch.setattr(senders, "open_storage", lambda *_: bucket)
    identified = tmp_path / "identified.dcm"
    data = dcmread(FILES[0])
    data.PatientIdentityRemoved = "NO"
    data.save_as(identified)
    post.add(to("gs://bucket/prefix"), identified)
    assert post.work() == {"failed": 1}
    assert "IDENTITY_NOT_REMOVED" in delivery_rows(post.queue)[0].detail
    post.add(to("gs://bucket/prefix", name="allowed", identified=True), identified)
    assert post.work() == {"failed": 1, "sent": 1}
    name = f"{data.StudyInstanceUID}/{data.SeriesInstanceUID}/{data.SOPInstanceUID}.dcm"
    assert bucket.urls == [f"gs://bucket/prefix/{name}"]


def test_a_deliverer_sends_what_is_queued_and_a_slow_or_full_destination_delays_no_other(tmp_path: Path) -> None:
    silent = socket.create_server(("127.0.0.1", 0))  # accepts connections, and never answers
    path, stop = tmp_path / "deliveries.sqlite", threading.Event()
    with server() as hook, node() as full, DeliveryQueue(path) as queue:
        full.answer = lambda _: 0xA700
        post = Post(tmp_path)
        post.add(to(full.address, name="full"), *FILES)
        post.add(to(f"dicom://127.0.0.1:{silent.getsockname()[1]}/SLOW", name="slow"), FILES[0])
        hooks = (Hook(name="web", address=hook.url),)
        post.add(to((tmp_path / "out").as_uri(), name="folder"), *FILES, hooks=hooks)
        post.queue.close()
        deliverer = Deliverer(path, post.audit)
        thread = threading.Thread(target=deliverer.run, args=(stop,))
        thread.start()
        wait_for(lambda: hook.requests)
        states = {(row.destination, row.state.value): row.objects for row in delivery_rows(queue)}
        assert states[("folder", "sent")] == 3
        assert ("slow", "sent") not in states
        assert wait_for(lambda: sum(full.sends.values())) == 1
        wait_for(lambda: any(row.destination == "full" and row.detail for row in delivery_rows(queue)))
        assert {row.detail for row in delivery_rows(queue) if row.destination == "full"} == {
            "status A700: out of resources"
        }
        stop.set()
        silent.close()
        thread.join(20)
        assert not thread.is_alive()


# ---------------------------------------------------------------- notifications


def notified(post: Post) -> int:
    """Send what is due now; returns how many were sent."""
    return send_notifications(post.queue.database, post.now, post.audit)


def test_notifications_hold_nothing_of_the_patient(post: Post, tmp_path: Path) -> None:
    with server() as web:
        post.add(to((tmp_path / "out").as_uri(), hold=True), *FILES, hooks=(Hook(name="web", address=web.url),))
        assert notified(post) == 1
        release(post.queue, 1)
        post.work()
        assert notified(post) == 1
        assert notified(post) == 0
        held, delivered = (json.loads(body) for _, _, body in web.requests)
    assert (held["event"], held["objects"]) == ("held", {"held": 3})
    assert delivered == {
        "event": "delivered",
        "case": 1,
        "revision": 1,
        "flow": "",
        "destination": "store",
        "objects": {"sent": 3},
        "reasons": [],
    }
    assert post.events == []


def test_a_hook_with_identifiers_is_recorded_each_time(post: Post, tmp_path: Path) -> None:
    with server() as web:
        hook = Hook(name="registry", address=web.url, events=("delivered",), identifiers=True)
        post.add(to((tmp_path / "out").as_uri(), hold=True), *FILES, hooks=(hook,), case=7)
        assert notified(post) == 0
        release(post.queue, 7)
        post.work()
        assert notified(post) == 1
        message = json.loads(web.requests[0][2])
    data = dcmread(FILES[0])
    assert (message["patient_id"], message["study_instance_uid"]) == (data.PatientID, data.StudyInstanceUID)
    assert post.events == [("identifiers sent", {"hook": "registry", "case": 7})]


def test_a_notification_is_tried_again_and_never_follows_a_redirect(post: Post, tmp_path: Path) -> None:
    with server() as web, server() as elsewhere:
        web.answers = [(500, b""), (307, elsewhere.url.encode()), (200, b"")]
        post.add(to((tmp_path / "out").as_uri()), FILES[0], hooks=(Hook(name="web", address=web.url),))
        post.work()
        assert [notified(post), len(web.requests)] == [0, 1]
        assert [notified(post), len(web.requests)] == [0, 1]
        post.now += 11
        assert [notified(post), len(web.requests)] == [0, 2]
        post.now += 30
        assert [notified(post), len(web.requests)] == [1, 3]
        assert elsewhere.requests == []


def test_failures_are_notified(post: Post, tmp_path: Path) -> None:
    with server() as web, server() as store:
        store.answers = [(200, b"{}"), (400, b"")]
        post.add(to(store.url), *FILES, hooks=(Hook(name="web", address=web.url),))
        post.work()
        assert notified(post) == 1
        message = json.loads(web.requests[0][2])
    assert (message["event"], message["objects"]) == ("failed", {"sent": 1, "failed": 2})
    assert message["reasons"] == ["DELIVERY_REFUSED"]


class _Relay(threading.Thread):
    """A mail relay that takes one message."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.lines: list[str] = []

    def run(self) -> None:
        connection, _ = self.socket.accept()
        with connection, connection.makefile("rwb") as stream:

            def say(text: str) -> None:
                stream.write(text.encode() + b"\r\n")
                stream.flush()

            say("220 relay")
            in_data = False
            for raw in stream:
                line = raw.decode().rstrip("\r\n")
                self.lines.append(line)
                if in_data:
                    if line == ".":
                        in_data = False
                        say("250 taken")
                elif line.upper() == "DATA":
                    in_data = True
                    say("354 go on")
                else:
                    say("250 fine" if line != "QUIT" else "221 bye")
                    if line == "QUIT":
                        return


def test_a_notification_by_e_mail(post: Post, tmp_path: Path) -> None:
    relay = _Relay()
    relay.start()
    address = f"smtp://127.0.0.1:{relay.socket.getsockname()[1]}"
    hook = Hook(name="mail", address=address, sender="ctenrich@example.org", to=("physicist@example.org",))
    post.add(to((tmp_path / "out").as_uri()), FILES[0], hooks=(hook,))
    post.work()
    assert notified(post) == 1
    relay.join(10)
    relay.socket.close()
    assert "Subject: ctenrich: case 1 delivered" in relay.lines
    assert "To: physicist@example.org" in relay.lines
    assert str(dcmread(FILES[0]).PatientID) not in "\n".join(relay.lines)


# ---------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": ""}, "name of letters"),
        ({"address": "dicom://host/AET"}, "dicom://HOST:PORT/AET"),
        ({"address": "dicom://host:104/A_TITLE_OF_17_CHAR"}, "dicom://HOST:PORT/AET"),
        ({"address": "dicom://host:99999/AET"}, "no number up to 65535"),
        ({"address": "dcom://host:104/AET"}, "no known kind"),
        ({"address": "https://user:secret@host/dicom-web"}, "no user name or password"),
        ({"address": "file://folder"}, "file:///absolute/path"),
        ({"calling": "A\\B"}, "no AE title"),
        ({"token_variable": "a secret!"}, "not the token"),
        ({"tls_certificate": "a.pem"}, "tls_ca, tls_certificate and tls_key"),
        ({"retry_seconds": 0.0}, "above 0"),
    ],
)
def test_destinations_that_cannot_be_right(values: dict[str, Any], message: str) -> None:
    good = Destination(name="pacs", address="dicom://127.0.0.1:104/PACS")
    good.check()
    with pytest.raises(UsageError, match=message):
        replace(good, **values).check()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"address": "ftp://host"}, "https://"),
        ({"address": "http://registry.example.org/", "identifiers": True}, "https only"),
        ({"address": "smtp://mail.example.org:25", "identifiers": True}, "relay on this computer"),
        ({"address": "smtp://127.0.0.1:25"}, "sender and to"),
        ({"address": "https://a:b@host/"}, "no user name or password"),
        ({"sender": "a@b\r\nBcc: c@d"}, "one line"),
    ],
)
def test_hooks_that_cannot_be_right(values: dict[str, Any], message: str) -> None:
    good = Hook(name="web", address="https://host/")
    good.check()
    with pytest.raises(UsageError, match=message):
        replace(good, **values).check()


def test_which_destinations_hold() -> None:
    addresses = ("dicom://h:1/A", "https://h/dicom-web", "file:///a", "gs://b/c", "s3://b/c")
    assert [Destination(name="a", address=one).holds for one in addresses] == [True, True, False, False, False]
    assert not Destination(name="a", address=addresses[0], hold=False).holds


def test_return_to_sender() -> None:
    made = sender_destination("SCANNER 1", "fd00::1", 104)
    assert (made.address, made.holds) == ("dicom://[fd00::1]:104/SCANNER 1", True)
    with pytest.raises(UsageError, match="AE title of the sender"):
        sender_destination("A#B", "10.0.0.1", 104)


def test_a_watch_folder_of_this_listener_is_its_own_address(tmp_path: Path) -> None:
    own = OwnAddresses(ports=frozenset({free_port()}), watch=str(tmp_path / "in"))
    assert own.includes(to((tmp_path / "in" / "deep").as_uri()))
    assert not own.includes(to((tmp_path / "inner").as_uri()))
