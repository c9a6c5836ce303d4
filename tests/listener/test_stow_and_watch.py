"""STOW-RS, the state of a station over HTTP, and the watch folder."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.listener.test_store import open_store
from tests.support.listeners import CONFIG, Receiver, receiving, silent_connection, study_files, uid_of, wait_for
from tests.support.permissions import folder_of_plain_user

from ctenrich.listener.config import Peer
from ctenrich.listener.metrics import METRICS
from ctenrich.listener.stow import BadRequestError, boundary_of, chunks_of
from ctenrich.listener.watch import WatchFolder

WEB = replace(CONFIG, dicom="", web="127.0.0.1:0")
TYPE = 'multipart/related; type="application/dicom"; boundary=XX'


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with receiving(tmp_path / "station", WEB) as found:
        yield found


def request(receiver: Receiver, method: str, path: str, body: object = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", receiver.ports["web"], timeout=10)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)  # type: ignore[arg-type]
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def multipart(*parts: bytes) -> bytes:
    head = b"\r\n--XX\r\nContent-Type: application/dicom\r\n\r\n"
    return b"".join(head + part for part in parts) + b"\r\n--XX--\r\n"


def stow(receiver: Receiver, body: object, **headers: str) -> tuple[int, bytes]:
    token = receiver.station.token.read_text().strip()
    return request(
        receiver,
        "POST",
        "/dicom-web/studies",
        body,
        **{"Authorization": f"Bearer {token}", "Content-Type": TYPE, **headers},
    )


def test_stored_objects_have_the_bytes_that_were_posted(receiver: Receiver) -> None:
    files = study_files()
    status, body = stow(receiver, multipart(*(path.read_bytes() for path in files)))
    assert status == 200
    sequence = json.loads(body)["00081199"]["Value"]
    assert {item["00081155"]["Value"][0] for item in sequence} == {uid_of(path) for path in files}
    stored = {r["sop_instance_uid"]: (receiver.station.received / r["path"]).read_bytes() for r in receiver.rows()}
    assert stored == {uid_of(path): path.read_bytes() for path in files}
    assert [row["ending"] for row in receiver.rows("SELECT ending FROM associations")] == ["released"]


def test_a_chunked_body_is_read_too(receiver: Receiver) -> None:
    data = multipart(study_files()[0].read_bytes())
    chunks = (data[at : at + 777] for at in range(0, len(data), 777))
    assert stow(receiver, chunks)[0] == 200
    assert receiver.uids() == {uid_of(study_files()[0])}


def test_a_part_that_is_no_dicom_is_refused_alone(receiver: Receiver) -> None:
    status, body = stow(receiver, multipart(b"junk", study_files()[0].read_bytes()))
    assert status == 202
    assert json.loads(body)["00081198"]["Value"][0]["00081197"]["Value"] == [0xC000]
    assert stow(receiver, multipart(b"junk"))[0] == 409


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Authorization": "Bearer wrong"}, multipart(), 401),
        ({"Content-Type": "application/json"}, b"{}", 400),
        ({}, b"no multipart body", 400),
        ({}, multipart(b"x")[:-12], 400),
    ],
    ids=["token", "type", "boundary", "cut"],
)
def test_bad_requests(receiver: Receiver, headers: dict[str, str], body: bytes, status: int) -> None:
    assert stow(receiver, body, **headers)[0] == status
    assert receiver.rows() == []


def test_other_addresses_may_not_store(tmp_path: Path) -> None:
    config = replace(WEB, peers=(Peer(aet="*", host="10.0.0.1"),))
    with receiving(tmp_path / "station", config) as receiver:
        assert stow(receiver, multipart())[0] == 403


def test_slow_and_silent_requests_do_not_keep_others_out(tmp_path: Path) -> None:
    limits = replace(WEB.limits, max_associations=4, max_per_host=3, connect_seconds=1.0)
    with receiving(tmp_path / "station", replace(WEB, limits=limits)) as receiver:
        slow = [silent_connection(receiver.ports["web"], text) for text in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nA: ")]
        with silent_connection(receiver.ports["web"]) as fourth:
            fourth.settimeout(30)
            assert fourth.recv(1) == b""  # more than one address may have
        for connection in slow:
            wait_for(
                lambda connection=connection: is_closed(connection)
            )  # each byte would begin the limit of a read anew
            connection.close()
        wait_for(lambda: request_or_none(receiver) == (200, b"ok\n"))


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side has closed a connection, however many bytes it gets."""
    connection.settimeout(0.1)
    try:
        connection.sendall(b"x")
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def request_or_none(receiver: Receiver) -> tuple[int, bytes] | None:
    try:
        return request(receiver, "GET", "/healthz")
    except OSError:
        return None


def test_the_state_is_served(receiver: Receiver) -> None:
    stow(receiver, multipart(study_files()[0].read_bytes()))
    assert request(receiver, "GET", "/healthz") == (200, b"ok\n")
    assert json.loads(request(receiver, "GET", "/cases")[1])["totals"]["planned"] == 0
    assert request(receiver, "GET", "/cases/7")[0] == 404
    assert request(receiver, "GET", "/etc/passwd")[0] == 404
    page, following = (request(receiver, "GET", path)[1] for path in ("/", "/?follow"))
    assert b"<h1>Station CTENRICH</h1>" in page
    assert (b"http-equiv" in page, b"http-equiv" in following) == (False, True)
    described = json.loads(request(receiver, "GET", "/openapi.json")[1])["paths"]
    assert set(described) == {"/healthz", "/metrics", "/cases", "/cases/{case}", "/dicom-web/studies"}
    assert request(receiver, "GET", "/", Host="evil.example")[0] == 401


def test_metrics_are_prometheus_text(receiver: Receiver) -> None:
    stow(receiver, multipart(study_files()[0].read_bytes()))
    text = request(receiver, "GET", "/metrics")[1].decode()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r'[a-z_]+(\{[a-z]+="[^"]+"\})? [0-9.e+]+', line) for line in lines)
    assert {re.split(r"[{ ]", line)[0] for line in lines} == set(METRICS)
    assert 'ctenrich_received_total{result="stored"} 1' in lines
    assert f"ctenrich_received_bytes_total {study_files()[0].stat().st_size}" in lines


@pytest.mark.parametrize(
    "text",
    [
        "application/dicom",
        "multipart/related",
        'multipart/related; type="image/png"; boundary=x',
        'multipart/related; type="application/dicom"',
    ],
)
def test_other_content_types(text: str) -> None:
    with pytest.raises(BadRequestError):
        boundary_of(text)


def test_chunks_that_lie() -> None:
    from io import BytesIO

    assert b"".join(chunks_of(BytesIO(b"3\r\nabc\r\n0\r\n\r\n"), None, 100)) == b"abc"
    for body in (b"zz\r\nabc\r\n", b"5\r\nab", b"ffffff\r\n", b"3\r\nabcX\r\n"):
        with pytest.raises(BadRequestError):
            list(chunks_of(BytesIO(body), None, 100))


# ---------------------------------------------------------------- watch folder


def test_files_that_have_stopped_growing_are_taken(tmp_path: Path) -> None:
    store, database = open_store(tmp_path / "station")
    inbox, clock = tmp_path / "inbox", [100.0]
    (inbox / "sub").mkdir(parents=True)
    watch = WatchFolder(inbox, store, clock=lambda: clock[0])

    def scan(seconds: float) -> int:
        clock[0] += seconds
        return len(watch.scan(lambda: 7))

    copied, linked, growing = (study_files()[at] for at in range(3))
    shutil.copyfile(copied, inbox / "a.dcm")
    shutil.copyfile(linked, tmp_path / "elsewhere.dcm")
    os.link(tmp_path / "elsewhere.dcm", inbox / "sub" / "linked")
    (inbox / "b.dcm").write_bytes(growing.read_bytes()[:-500])
    (inbox / "readme.txt").write_text("junk")
    (inbox / "c.dcm.part").write_bytes(b"partial")
    (inbox / "link.dcm").symlink_to(copied)
    assert scan(0) == 0
    assert scan(3) == 2
    assert database.value("SELECT count(*) FROM instances WHERE association = 7") == 2
    assert sorted(path.name for path in inbox.rglob("*") if path.is_file()) == [
        "b.dcm", "c.dcm.part", "link.dcm", "readme.txt",
    ]  # fmt: skip
    assert (tmp_path / "elsewhere.dcm").read_bytes() == linked.read_bytes()
    assert (watch.junk, watch.growing) == (1, 1)
    shutil.copyfile(growing, inbox / "b.dcm")
    scan(1)
    assert scan(3) == 1
    store.close()  # the trailers of the files are cut off
    stored = {
        (tmp_path / "station/received" / r["path"]).read_bytes() for r in database.rows("SELECT * FROM instances")
    }
    assert stored == {path.read_bytes() for path in (copied, linked, growing)}
    database.close()


def test_what_cannot_be_read_is_tried_again() -> None:
    contents = [path.read_bytes() for path in study_files()[:3]]
    with folder_of_plain_user() as folder:
        store, database = open_store(folder / "station")
        inbox, clock = folder / "inbox", [0.0]
        watch = WatchFolder(inbox, store, clock=lambda: clock[0])

        def scan() -> int:
            clock[0] += 200.0
            return len(watch.scan(lambda: 1))

        (inbox / "sub").mkdir(parents=True)
        for content, place in zip(contents, ("a.dcm", "b.dcm", "sub/c.dcm"), strict=True):
            (inbox / place).write_bytes(content)
        (inbox / "a.dcm").chmod(0)
        (inbox / "sub").chmod(0)
        assert (scan(), scan()) == (0, 1)
        assert (watch.closed, watch.growing, watch.junk, watch.is_complete) == (2, 0, 0, False)
        (inbox / "a.dcm").chmod(0o600)
        (inbox / "sub").chmod(0o700)
        assert (scan(), scan()) == (1, 1)
        assert (watch.closed, watch.is_complete) == (0, True)
        store.close()
        database.close()


def test_a_file_that_cannot_be_deleted_is_taken_once() -> None:
    contents = [path.read_bytes() for path in study_files()[:3]]
    with folder_of_plain_user() as folder:
        store, database = open_store(folder / "station")
        inbox, clock = folder / "inbox", [0.0]
        inbox.mkdir()
        for number, content in enumerate(contents):
            (inbox / f"{number}.dcm").write_bytes(content)
        inbox.chmod(0o500)
        watch = WatchFolder(inbox, store, clock=lambda: clock[0])
        found = []
        for _ in range(4):
            found.append(len(watch.scan(lambda: 1)))
            clock[0] += 200.0
        assert found == [0, 3, 0, 0]
        assert (watch.taken, watch.is_complete) == (3, True)
        assert database.value("SELECT count(*) FROM instances") == 3
        store.close()
        database.close()


def test_a_dicomdir_stays(tmp_path: Path) -> None:
    from pydicom import dcmread

    store, database = open_store(tmp_path / "station")
    directory = dcmread(study_files()[0])
    directory.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    (tmp_path / "inbox").mkdir()
    directory.save_as(tmp_path / "inbox" / "DICOMDIR")
    clock = [0.0]
    watch = WatchFolder(tmp_path / "inbox", store, clock=lambda: clock[0])
    watch.scan(lambda: 1)
    clock[0] = 500.0
    assert watch.scan(lambda: 1) == []
    assert (tmp_path / "inbox" / "DICOMDIR").is_file()
    store.close()
    database.close()
