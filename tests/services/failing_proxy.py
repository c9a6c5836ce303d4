"""A service in front of another one: passes requests on until it is told to fail."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_SKIPPED = {"transfer-encoding", "connection", "content-encoding", "content-length", "host"}


@dataclass
class Seen:
    """What went through."""

    root: str = ""
    requests: list[tuple[str, str, bytes]] = field(default_factory=list)
    """Method, path with query, body."""


@contextmanager
def failing_proxy(target: str, fault: Callable[[str, str, int], tuple[int, str] | None]) -> Iterator[Seen]:
    """Pass requests on to `target`; `fault(method, path, number of the request)` may give a status and a reason."""
    seen = Seen()
    place = urlsplit(target)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                parts = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _pass(self) -> None:
            body = self._body()
            seen.requests.append((self.command, self.path, body))
            failed = fault(self.command, self.path, len(seen.requests))
            if failed:
                status, reason = failed
                error = {"reason": reason, "message": f"{reason}: planted", "domain": "global"}
                self._answer(status, [("Content-Type", "application/json")], json.dumps(
                    {"error": {"code": status, "message": error["message"], "errors": [error]}}).encode())  # fmt: skip
                return
            there = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
            kept = {k: v for k, v in self.headers.items() if k.lower() not in _SKIPPED | {"accept-encoding"}}
            there.request(self.command, self.path, body, kept | {"Content-Length": str(len(body))})
            answer = there.getresponse()
            content = answer.read()
            headers = [(k, v.replace(target, seen.root)) for k, v in answer.getheaders() if k.lower() not in _SKIPPED]
            self._answer(answer.status, headers, content)
            there.close()

        def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self.send_response(status)
            for key, value in headers:
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    seen.root = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
