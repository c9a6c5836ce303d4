"""Real object stores on the loopback, and a proxy before them that breaks things on purpose."""

from __future__ import annotations

import atexit
import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

LATENCY = 0.05
"""Seconds that the fault "late" lets every request wait: a store that is some hundred kilometres away."""
Fault = Callable[[str, str, int], str]
"""(method, path, how many times this was asked before) -> '' or the name of a fault."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def program(name: str, *arguments: str, port: int) -> Iterator[str]:
    """Run a server beside this Python until the block ends; gives its URL."""
    command = [str(Path(sys.executable).parent / name), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise RuntimeError(f"{name} did not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


_running = ExitStack()
_idle: defaultdict[str, list[str]] = defaultdict(list)
"""Program -> URLs of its servers that are started, empty, and in nobody's use."""


@contextmanager
def _empty_server(name: str, start: Callable[[str], tuple[str, ...]], empty: tuple[str, str]) -> Iterator[str]:
    """Give a server without any object, and keep it for the next test: a start takes seconds."""
    if _idle[name]:
        url = _idle[name].pop()
    else:
        port = free_port()
        url = _running.enter_context(program(name, *start(str(port)), port=port))
    yield url  # what a failed test leaves behind is not used again
    method, path = empty
    request(f"{url}{path}", method)
    _idle[name].append(url)


def end_servers() -> None:
    """End the servers that are kept."""
    _idle.clear()
    _running.close()


atexit.register(end_servers)


@contextmanager
def s3_server() -> Iterator[str]:
    """A server of S3 without a bucket."""
    with _empty_server("moto_server", lambda port: ("-H", "127.0.0.1", "-p", port), ("POST", "/moto-api/reset")) as url:
        yield url


@contextmanager
def gcs_server() -> Iterator[str]:
    """A server of Cloud Storage without a bucket."""
    with _empty_server(
        "gcp-storage-emulator",
        lambda port: ("start", "--host", "127.0.0.1", "--port", port, "--in-memory"),
        ("GET", "/wipe"),
    ) as url:
        yield url


def request(url: str, method: str, body: bytes = b"", kind: str = "application/octet-stream", acl: str = "") -> bytes:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    headers = {"Content-Type": kind, "Content-Length": str(len(body))} | ({"x-amz-acl": acl} if acl else {})
    connection.request(method, parts.path + ("?" + parts.query if parts.query else ""), body, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    assert answer.status < 300, (answer.status, content[:300])
    return content


class FaultyProxy:
    """Forwards to a server; `fault` says for each request what goes wrong.

    Parameters
    ----------
    target : str
        URL of the server.
    fault : callable
        Kind of fault of a request; "" for none. "drop" hangs up without an answer, and nothing is forwarded; "lost"
        hangs up after the server has done what it was asked; "mute" never answers; "503" and the like, or
        "400:BadDigest", answer so.
    retry_after : str
        What answers of 429 and 503 ask for.
    at_once : int
        Requests that the server is given at the same time; 1 makes one that looks and writes in two steps safe.
    strip : str
        Header, in lower case, that the server never sees.
    refuse : callable
        (path, body) of a POST -> whether it is answered with 412: for a server that knows no preconditions.
    rewrite : (bytes, bytes)
        What is replaced in the headers of requests, backwards, and in all answers: a store with other ETags.
    """

    def __init__(
        self,
        target: str,
        fault: Fault,
        retry_after: str = "0",
        *,
        at_once: int = 4,
        strip: str = "connection",
        refuse: Callable[[str, bytes], bool] | None = None,
        rewrite: tuple[str, str] = ("", ""),
    ) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.faults: Counter[str] = Counter()
        self.ranges: list[str] = []
        self.requests: list[tuple[float, str, str, dict[str, str]]] = []
        """(monotonic seconds, method, path, headers in lower case), as they came."""
        netloc = urlsplit(target).netloc
        proxy = self
        lock = threading.Lock()
        gate = threading.Semaphore(at_once)  # the emulators queue only a few connections
        self._over = threading.Event()
        over = self._over

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                return None

            def _forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with lock:
                    key = (self.command, self.path)
                    kind = fault(self.command, self.path, proxy.counts[key])
                    proxy.counts[key] += 1
                    proxy.faults[kind] += 1
                    proxy.ranges += [self.headers["Range"]] if self.headers.get("Range") else []
                    headers = {k.lower(): v for k, v in self.headers.items()}
                    proxy.requests.append((time.monotonic(), self.command, self.path, headers))
                if kind == "drop":
                    self.close_connection = True
                    return
                if kind == "mute":
                    over.wait()
                    self.close_connection = True
                    return
                if kind[:3].isdigit():
                    self._refuse(kind)
                    return
                if kind == "late":
                    time.sleep(LATENCY)
                headers = {k: v for k, v in self.headers.items() if k.lower() not in {"connection", strip}}
                theirs, ours = rewrite
                headers = {k: v.replace(ours, theirs) if ours else v for k, v in headers.items()}
                with gate:
                    if refuse is not None and self.command == "POST" and refuse(self.path, body):
                        self._refuse("412")
                        return
                    upstream = http.client.HTTPConnection(netloc, timeout=30)
                    upstream.request(self.command, self.path, body, headers)
                    answer = upstream.getresponse()
                    content = answer.read().replace(theirs.encode(), ours.encode()) if theirs else answer.read()
                    upstream.close()
                if kind == "lost":
                    self.close_connection = True
                    return
                self._answer(answer, content, kind)

            def _refuse(self, kind: str) -> None:
                status, _, code = kind.partition(":")
                content = f"<Error><Code>{code}</Code></Error>".encode() if code else b""
                self.send_response(int(status))
                self.send_header("Retry-After", retry_after)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(b"" if self.command == "HEAD" else content)

            def _answer(self, answer: http.client.HTTPResponse, content: bytes, kind: str) -> None:
                if kind == "flip" and content:
                    content = content[:-1] + bytes([content[-1] ^ 1])
                if kind == "short":
                    content = content[: len(content) // 2]
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in {"transfer-encoding", "content-length", "connection"}:
                        self.send_header(name, value.replace(*rewrite) if rewrite[0] else value)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else None
                self.send_header("Content-Length", length or str(len(content)))
                self.end_headers()
                if self.command == "HEAD":
                    return
                if kind == "reset":
                    self.wfile.write(content[: len(content) // 2])
                    self.wfile.flush()
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    self.connection.close()
                    self.close_connection = True
                    return
                if kind == "cut":
                    self.wfile.write(content[: len(content) // 2])
                    self.close_connection = True
                    return
                if kind == "stall":
                    self.wfile.write(content[: len(content) // 2])
                    self.wfile.flush()
                    time.sleep(8)
                    self.close_connection = True
                    return
                self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:
                return None

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> FaultyProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()


def s3_put(url: str, bucket: str, key: str, content: bytes) -> None:
    request(f"{url}/{bucket}/{key}", "PUT", content, acl="public-read")


def s3_bucket(url: str, bucket: str) -> None:
    request(f"{url}/{bucket}", "PUT", acl="public-read-write")


def gcs_bucket(url: str, bucket: str) -> None:
    request(f"{url}/storage/v1/b?project=test", "POST", f'{{"name":"{bucket}"}}'.encode(), "application/json")


def gcs_put(url: str, bucket: str, key: str, content: bytes) -> None:
    request(f"{url}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(key, safe='')}", "POST", content)


def gcs_precondition(url: str) -> Callable[[str, bytes], bool]:
    """Google's `ifGenerationMatch` of small uploads, which the emulator ignores: to stand in a proxy before it."""

    def differs(path: str, body: bytes) -> bool:
        parts = urlsplit(path)
        wanted, name = parse_qs(parts.query).get("ifGenerationMatch"), re.search(rb'"name": *"([^"]+)"', body)
        if wanted is None or name is None:
            return False
        place = parts.path.removeprefix("/upload") + "/" + quote(name[1].decode(), safe="")
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
        connection.request("GET", place)
        answer = connection.getresponse()
        there = json.loads(answer.read())["generation"] if answer.status == 200 else "0"
        connection.close()
        return str(there) != wanted[0]

    return differs
