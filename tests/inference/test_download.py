"""Downloads resume, are bounded in number, and never leave a partial file under the final name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ctenrich.errors import ModelError, RetryExhaustedError
from ctenrich.inference.download import download
from ctenrich.reasons import Reason

CONTENT = bytes(range(256)) * 40

Answer = Callable[[BaseHTTPRequestHandler, int], None]


class Server(ThreadingHTTPServer):
    """Answers request n with the n-th answer (the last one from then on) and keeps the Range headers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = []
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/model.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        start = self.headers.get("Range")
        self.server.ranges.append(start)
        answer = self.server.answers[min(len(self.server.ranges), len(self.server.answers)) - 1]
        answer(self, int(start.removeprefix("bytes=").rstrip("-")) if start else 0)

    def log_message(self, *_: object) -> None:
        return None


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, length: int | None = None) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


def whole(handler: BaseHTTPRequestHandler, start: int) -> None:
    send(handler, 206 if start else 200, CONTENT[start:])


def without_ranges(handler: BaseHTTPRequestHandler, start: int) -> None:
    send(handler, 200, CONTENT)


def broken_off(handler: BaseHTTPRequestHandler, start: int) -> None:
    send(handler, 206 if start else 200, CONTENT[start : start + 3000], len(CONTENT) - start)
    handler.close_connection = True


def status(code: int) -> Answer:
    return lambda handler, start: send(handler, code, b"")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_an_interrupted_download_resumes_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.answers = [broken_off, broken_off, whole]
    download(server.url, tmp_path / "new" / "m.zip", pause=0)
    assert (tmp_path / "new" / "m.zip").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=3000-", "bytes=6000-"]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["m.zip"]


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.answers = [broken_off, without_ranges]
    download(server.url, tmp_path / "m.zip", pause=0)
    assert (tmp_path / "m.zip").read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_dropped(server: Server, tmp_path: Path) -> None:
    (tmp_path / "m.zip.part").write_bytes(CONTENT + b"more")
    server.answers = [status(416), whole]
    download(server.url, tmp_path / "m.zip", pause=0)
    assert server.ranges[1] is None
    assert (tmp_path / "m.zip").read_bytes() == CONTENT


def test_attempts_are_counted_and_bytes_are_kept(server: Server, tmp_path: Path) -> None:
    server.answers = [broken_off, status(503)]
    with pytest.raises(RetryExhaustedError, match="3 times") as caught:
        download(server.url, tmp_path / "m.zip", tries=3, pause=0)
    assert caught.value.reason is Reason.RETRY_EXHAUSTED
    assert len(server.ranges) == 3
    assert not (tmp_path / "m.zip").exists()
    assert (tmp_path / "m.zip.part").read_bytes() == CONTENT[:3000]


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_an_unknown_address_is_not_tried_again(server: Server, tmp_path: Path, code: int) -> None:
    server.answers = [status(code)]
    with pytest.raises(ModelError) as caught:
        download(server.url, tmp_path / "m.zip", pause=0)
    assert caught.value.reason is Reason.NOT_FOUND
    assert len(server.ranges) == 1


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/m.zip", "/etc/hostname"])
def test_only_http(url: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        download(url, tmp_path / "m.zip")
    assert caught.value.reason is Reason.NOT_FOUND
    assert not list(tmp_path.iterdir())


def test_pauses_double(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("ctenrich.inference.download.time.sleep", pauses.append)
    server.answers = [status(500)]
    with pytest.raises(RetryExhaustedError):
        download(server.url, tmp_path / "m.zip", tries=4, pause=1.5)
    assert pauses == [1.5, 3.0, 6.0]
