"""Web server of the viewer, on the loopback and with a token: OHIF, DICOMweb of the run or of a PACS, our pages."""

from __future__ import annotations

import hmac
import mimetypes
import re
import secrets
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ctenrich.errors import InputError, UsageError
from ctenrich.reasons import Reason
from ctenrich.records import ObjectKind
from ctenrich.view.contents import RunView
from ctenrich.view.dicomweb import DicomWeb
from ctenrich.view.ohif import app_config, clean_index, overlap_note, repaired
from ctenrich.view.pages import front_page, report_page
from ctenrich.workspace import check_uid

__all__ = ["DEFAULT_PORT", "ViewServer"]

DEFAULT_PORT = 8790
"""The port that local links in the report use."""
_COOKIE = "ctenrich_view"
_WEB = "dicom-web"
_POLICY = (
    "default-src 'self' blob: data:; script-src 'self' 'unsafe-inline' 'unsafe-eval' 'wasm-unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; frame-ancestors 'none'"
)
_OWN_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""Policy of our own pages, which have no scripts."""


@dataclass
class ViewServer:
    """A web server; ``with ViewServer(...) as server`` runs it in a thread.

    Parameters
    ----------
    view : RunView
        Contents of the run.
    ohif : Path
        Folder with a build of OHIF.
    port : int
        0: any free port.
    pacs : str
        DICOMweb root of a PACS to show instead of the run, through this server.
    """

    view: RunView
    ohif: Path
    port: int = DEFAULT_PORT
    pacs: str = ""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def __post_init__(self) -> None:
        self.web = DicomWeb(self.view)

    def __enter__(self) -> ViewServer:
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.owner = self  # type: ignore[attr-defined]
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @cached_property
    def note(self) -> str:
        """Note for the reader about this build of OHIF."""
        return overlap_note(self.ohif)

    @property
    def root(self) -> str:
        """Address without the token."""
        return f"http://127.0.0.1:{self.port}"

    def url(self, series: str = "") -> str:
        """Address to open first, with the token that becomes the browser's cookie."""
        return f"{self.root}{f'/open/{series}' if series else '/'}?token={self.token}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore closed connections, which every closed page causes."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "ctenrich"
    sys_version = ""
    disable_nagle_algorithm = True

    @property
    def owner(self) -> ViewServer:
        found: ViewServer = self.server.owner  # type: ignore[attr-defined]
        return found

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that the base class has
        return None

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        try:
            self._answer()
        except (InputError, UsageError) as error:
            self._send_text(str(error.message), HTTPStatus.NOT_FOUND)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        asked = parse_qs(parts.query)
        hosts = {f"127.0.0.1:{self.owner.port}", f"localhost:{self.owner.port}"}
        if self.headers.get("Host") not in hosts:
            return self._send_text("This server answers requests from this computer only.", HTTPStatus.FORBIDDEN)
        token = (asked.get("token") or [""])[0]
        if token and hmac.compare_digest(token.encode(), self.owner.token.encode()):
            rest = "&".join(f"{k}={v[0]}" for k, v in asked.items() if k != "token")
            return self._redirect(parts.path + (f"?{rest}" if rest else ""), cookie=True)
        if not self._has_cookie():
            return self._send_text("Open the address that ctenrich view printed.", HTTPStatus.FORBIDDEN)
        return self._route(parts.path, asked)

    def _has_cookie(self) -> bool:
        pairs = (c.strip().partition("=") for c in self.headers.get("Cookie", "").split(";"))
        found = next((value for name, _, value in pairs if name == _COOKIE), "")
        return hmac.compare_digest(found.encode(), self.owner.token.encode())

    def _route(self, path: str, asked: dict[str, list[str]]) -> None:
        view = self.owner.view
        words = path.strip("/").split("/")
        if path == "/" and not self.owner.pacs:
            return self._send_page(
                front_page(_links(view), view.workspace.root.name, _has_report(view), self.owner.note)
            )
        if path == "/app-config.js":
            return self._send_text(app_config(pacs=bool(self.owner.pacs)), kind="text/javascript")
        if words[0] == _WEB and self.owner.pacs:
            return self._proxy(path)
        if words[0] == _WEB:
            found = self.owner.web.answer(words[1:], asked)
            return self._send_bytes(found.content, found.kind)
        if words[0] == "report":
            return self._send_file(view.workspace.report, "/".join(words[1:]))
        if len(words) > 1 and words[0] in ("open", "sr"):
            uid = check_uid(words[1])
            if uid not in view.series:
                raise UsageError(Reason.NOT_FOUND, "the run has no such series")
            return self._send_series(words, uid, (asked.get("product") or [""])[0])
        return self._send_ohif(path)

    def _send_series(self, words: list[str], uid: str, product: str) -> None:
        view = self.owner.view
        if words[0] == "open":
            return self._redirect(view.opening(uid, product))
        path = view.object_file(uid, words[2] if len(words) > 2 else "")
        return self._send_page(report_page(path))

    def _send_page(self, text: str) -> None:
        self._send_bytes(text.encode(), "text/html; charset=utf-8", policy=_OWN_POLICY)

    def _send_ohif(self, path: str) -> None:
        """Send a file of OHIF; any other address is a page of the application."""
        if re.search(r"\.\w{2,5}$", path) and "service-worker" not in path:
            return self._send_file(self.owner.ohif, path.strip("/"))
        index = clean_index((self.owner.ohif / "index.html").read_text("utf-8"))
        return self._send_text(index, kind="text/html")

    def _send_file(self, root: Path, name: str) -> None:
        path = (root / name).resolve()
        if not path.is_relative_to(root.resolve()) or not path.is_file():
            return self._send_text("There is no such file.", HTTPStatus.NOT_FOUND)
        kind = {".wasm": "application/wasm", ".js": "text/javascript"}.get(path.suffix)
        content = path.read_bytes()
        if root == self.owner.ohif and path.suffix == ".js":
            content = repaired(content)
        return self._send_bytes(content, kind or mimetypes.guess_type(path.name)[0] or "application/octet-stream")

    def _proxy(self, path: str) -> None:
        """Forward a request to the PACS below its DICOMweb root; its addresses in the answer become ours."""
        rest, query = path.removeprefix(f"/{_WEB}"), urlsplit(self.path).query
        if ".." in unquote(rest).split("/"):
            raise UsageError(Reason.NOT_FOUND, "the PACS has no such resource")
        pacs = self.owner.pacs.rstrip("/")
        address = f"{pacs}{rest}{f'?{query}' if query else ''}"
        request = urllib.request.Request(address, headers={"Accept": self.headers.get("Accept", "*/*")})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                content, kind = answer.read(), answer.headers.get("Content-Type", "application/octet-stream")
                if "json" in kind:
                    content = content.replace(pacs.encode(), f"{self.owner.root}/{_WEB}".encode())
                return self._send_bytes(content, kind)
        except urllib.error.HTTPError as error:
            return self._send_text(f"The PACS answered {error.code}.", HTTPStatus(error.code))
        except urllib.error.URLError:
            return self._send_text("The PACS cannot be reached.", HTTPStatus.BAD_GATEWAY)

    def _redirect(self, target: str, *, cookie: bool = False) -> None:
        self.send_response(HTTPStatus.FOUND)
        self.send_header("Location", target)
        if cookie:
            self.send_header("Set-Cookie", f"{_COOKIE}={self.owner.token}; HttpOnly; SameSite=Strict; Path=/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_text(self, text: str, status: HTTPStatus = HTTPStatus.OK, kind: str = "text/plain") -> None:
        self._send_bytes(text.encode(), f"{kind}; charset=utf-8", status)

    def _send_bytes(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK, policy: str = _POLICY) -> None:
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(content))), *_security_headers(policy)):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _has_report(view: RunView) -> bool:
    return (view.workspace.report / "index.html").is_file()


def _links(view: RunView) -> list[tuple[str, list[tuple[str, str]]]]:
    """Links (address, text) of each series."""
    out = []
    for uid in view.series:
        links = [(f"/open/{uid}", "CT")]
        for shown in view.objects(uid):
            if shown.item.kind == ObjectKind.SEG:
                links.append((f"/open/{uid}?product={shown.product}", f"CT with {shown.product}"))
            else:
                text = f"{shown.item.kind.replace('_', ' ')}, {shown.product}"
                links.append((f"/sr/{uid}/{shown.item.sop_instance_uid}", text))
        out.append((uid, links))
    return out


def _security_headers(policy: str) -> Iterator[tuple[str, str]]:
    """Headers that keep requests on this computer and other pages from reading them."""
    yield "Cross-Origin-Opener-Policy", "same-origin"
    yield "Cross-Origin-Embedder-Policy", "require-corp"
    yield "Cross-Origin-Resource-Policy", "same-origin"
    yield "X-Content-Type-Options", "nosniff"
    yield "Referrer-Policy", "no-referrer"
    yield "Cache-Control", "private, max-age=60"
    yield "Content-Security-Policy", policy
