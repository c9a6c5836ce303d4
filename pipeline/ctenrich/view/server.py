"""Web server of the viewer, with a token: OHIF, DICOMweb of the run or of a PACS, our own pages."""

from __future__ import annotations

import errno
import hmac
import http.client
import mimetypes
import re
import secrets
import socket
import sys
import threading
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from ctenrich.errors import InputError, UsageError
from ctenrich.reasons import Reason
from ctenrich.view.contents import RunView
from ctenrich.view.dicomweb import DicomWeb
from ctenrich.view.headers import OHIF_POLICY, OWN_POLICY, asked_range, for_notebooks, security_headers
from ctenrich.view.ohif import app_config, clean_index, ohif_style, overlap_note, repaired
from ctenrich.view.overview import OverviewRequest, overview_page
from ctenrich.view.pages import banner, closed_page, forward_page
from ctenrich.view.pictures import SeriesPictures
from ctenrich.view.report_page import report_page
from ctenrich.workspace import check_uid

__all__ = ["DEFAULT_PORT", "LOOPBACK", "ViewServer"]

LOOPBACK = "127.0.0.1"
_EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - only if the user asks for it
DEFAULT_PORT = 8790
"""The port that local links in the report use."""
_COOKIE = "ctenrich_view_{port}"
"""Browsers send a cookie to every port of a host: the name tells two viewers apart."""
_PORTS_TRIED = 20
"""Ports that are tried from the wanted one on."""
_SOCKET_TIMEOUT = 30.0
"""Seconds that a connection may be silent."""
_WEB = "dicom-web"


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
    host: str = LOOPBACK
    """Address to listen on: the loopback, or an address of this computer, or ``0.0.0.0`` for all of them."""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    framed: bool = False
    """Whether a notebook on this computer, or Colab, may show the pages in a frame."""
    proxied: bool = False
    """Whether requests come through Colab's proxy: under another host name, in a frame of another site."""

    def __post_init__(self) -> None:
        self.web = DicomWeb(self.view)
        self.pictures = SeriesPictures(self.view)

    def __enter__(self) -> ViewServer:
        self._server = _open_port(self.host, self.port)
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

    @cached_property
    def names(self) -> frozenset[str]:
        """Host names that requests may have; beside them the address on which a request arrives."""
        own = {LOOPBACK, "localhost", self.host.lower()}
        return frozenset(own if self.is_local else own | {socket.gethostname().lower(), socket.getfqdn().lower()})

    @property
    def is_local(self) -> bool:
        """Whether only this computer can reach the server."""
        return self.host == LOOPBACK

    @property
    def root(self) -> str:
        """Address without the token."""
        name = socket.gethostname() if self.host == _EVERY_ADDRESS else self.host
        return f"http://{name}:{self.port}"

    @property
    def cookie(self) -> str:
        """Name of the cookie that holds the token."""
        return _COOKIE.format(port=self.port)

    def url(self, series: str = "", product: str = "") -> str:
        """Address to open first, with the token that becomes the browser's cookie; without a series: the overview."""
        asked = urlencode({**({"product": product} if product else {}), "token": self.token}, safe=":,")
        return f"{self.root}{f'/open/{series}' if series else '/'}?{asked}"

    def tunnel_hint(self, series: str = "") -> str:
        """How to open the viewer from another computer through SSH, which encrypts what is sent."""
        address = f"http://localhost:{self.port}{self.url(series).removeprefix(self.root)}"
        tunnel = f"ssh -L {self.port}:{LOOPBACK if self.is_local else self.host}:{self.port} {socket.gethostname()}"
        return f"From another computer: {tunnel}  and open {address}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = sys.platform != "win32"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore closed connections, which every closed page causes."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _open_port(host: str, wanted: int) -> _Server:
    """Listen on a port of an address, or on the next one that is free."""
    for port in range(wanted, min(wanted + _PORTS_TRIED, 65536)) if wanted else (0,):
        try:
            return _Server((host, port), _Handler)
        except socket.gaierror:
            raise _bad_host(host) from None
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise _bad_host(host) from None
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
    last = min(wanted + _PORTS_TRIED, 65536) - 1
    raise UsageError(
        Reason.BAD_PARAMETER, f"the ports {wanted} to {last} are in use", "give another --port, or 0 for any"
    )


def _bad_host(host: str) -> UsageError:
    hint = "give an address of this computer, or 0.0.0.0 for all of its addresses"
    return UsageError(Reason.BAD_PARAMETER, f"this computer has no address {host!r}", hint)


class _Handler(BaseHTTPRequestHandler):
    timeout = _SOCKET_TIMEOUT
    _answered = False
    _new_cookie = False
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
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:  # noqa: BLE001  every request has an answer; the log gets one line
            self._answer_fault(error)

    def _answer_fault(self, error: Exception) -> None:
        """Send 500 where nothing was sent yet; print one line without values of the request."""
        kind = urlsplit(self.path).path.split("/")[1][:20] if self.path.startswith("/") else ""
        place = kind if kind.isalnum() or kind == _WEB else "a page"
        sys.stderr.write(f"view: {place} could not be answered ({type(error).__name__})\n")
        self.close_connection = True
        if not self._answered:
            with suppress(OSError):
                self._send_text("This page could not be made.", HTTPStatus.INTERNAL_SERVER_ERROR)

    def send_response(self, code: int, message: str | None = None) -> None:
        """Send the status line; from then on no other answer can be given."""
        self._answered = True
        super().send_response(code, message)

    def _answer(self) -> None:
        self._answered = False
        parts = urlsplit(self.path)
        asked = parse_qs(parts.query)
        if not self._is_own_name(self.headers.get("Host", "")) and not self.owner.proxied:
            return self._send_text("This server does not answer under this name.", HTTPStatus.FORBIDDEN)
        token = (asked.get("token") or [""])[0]
        if token and hmac.compare_digest(token.encode(), self.owner.token.encode()):
            rest = urlencode({k: v[0] for k, v in asked.items() if k != "token"}, safe=":,")
            target = f"/{parts.path.lstrip('/')}" + (f"?{rest}" if rest else "")
            if self.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin"):
                return self._redirect(target, cookie=True)
            # from another page (the file that starts the browser): a redirect would not send the new cookie
            return self._send_page(forward_page(target), cookie=True)
        if not self._has_cookie():
            if parts.path.startswith(f"/{_WEB}") or "text/html" not in self.headers.get("Accept", ""):
                return self._send_text("Open the address that ctenrich view printed.", HTTPStatus.FORBIDDEN)
            view = self.owner.view
            page = closed_page(view.workspace.root.name, f"/{self.path.lstrip('/')}", view.demonstration)
            return self._send_bytes(page.encode(), "text/html; charset=utf-8", HTTPStatus.FORBIDDEN, OWN_POLICY)
        return self._route(parts.path, asked)

    def _is_own_name(self, host: str) -> bool:
        """Whether a Host header names this computer; the port may be another one, that of an SSH tunnel."""
        name = re.sub(r":\d+$", "", host).lower()
        return name in self.owner.names or (not self.owner.is_local and name == self.connection.getsockname()[0])

    def _cookie_value(self) -> str:
        in_frame = self.owner.framed or self.owner.proxied  # a notebook at 127.0.0.1 is another site than localhost
        site = "SameSite=None; Secure; Partitioned" if in_frame else "SameSite=Strict"
        return f"{self.owner.cookie}={self.owner.token}; HttpOnly; {site}; Path=/"

    def _policy(self, policy: str) -> str:
        """The policy, with the pages of notebooks as frames if allowed."""
        return for_notebooks(policy) if self.owner.framed else policy

    def _has_cookie(self) -> bool:
        pairs = (c.strip().partition("=") for c in self.headers.get("Cookie", "").split(";"))
        found = next((value for name, _, value in pairs if name == self.owner.cookie), "")
        return hmac.compare_digest(found.encode(), self.owner.token.encode())

    def _route(self, path: str, asked: dict[str, list[str]]) -> None:
        view = self.owner.view
        words = path.strip("/").split("/")
        if path == "/" and not self.owner.pacs:
            page = (asked.get("page") or [""])[0]
            part = OverviewRequest(find=(asked.get("find") or [""])[0], number=int(page) if page.isdecimal() else 1)
            text = overview_page(view, part, has_report=_has_report(view), note=self.owner.note)
            return self._send_page(text)
        if path == "/app-config.js":
            return self._send_text(app_config(pacs=bool(self.owner.pacs)), kind="text/javascript")
        if words[0] == _WEB and self.owner.pacs:
            return self._proxy(path)
        if words[0] == _WEB:
            found = self.owner.web.answer(words[1:], asked)
            return self._send_bytes(found.content, found.kind)
        if words[0] == "report":
            return self._send_file(view.workspace.report, "/".join(words[1:]))
        if len(words) > 1 and words[0] in ("open", "picture", "sr"):
            uid = check_uid(words[1])
            if uid not in view.series:
                raise UsageError(Reason.NOT_FOUND, "the run has no such series")
            return self._send_series(words, uid, {name: values[0] for name, values in asked.items()})
        return self._send_ohif(path)

    def _send_series(self, words: list[str], uid: str, asked: dict[str, str]) -> None:
        view = self.owner.view
        if words[0] == "open":
            slice_uid, planes = asked.get("slice", ""), asked.get("layout") == "mpr"
            return self._redirect(view.opening(uid, asked.get("product", ""), instance=slice_uid, planes=planes))
        third = words[2] if len(words) > 2 else ""
        if words[0] == "picture":
            return self._send_bytes(*self.owner.pictures.draw(uid, asked.get("product", ""), third))
        return self._send_page(report_page(view, uid, view.find_object(uid, third)))

    def _send_page(self, text: str, *, cookie: bool = False) -> None:
        self._new_cookie = cookie
        self._send_bytes(text.encode(), "text/html; charset=utf-8", policy=OWN_POLICY)

    def _send_ohif(self, path: str) -> None:
        """Send a file of OHIF; any other address is a page of the application."""
        if re.search(r"\.\w{2,5}$", path) and "service-worker" not in path:
            return self._send_file(self.owner.ohif, path.strip("/"))
        index = clean_index((self.owner.ohif / "index.html").read_text("utf-8"))
        models = () if self.owner.pacs else self.owner.view.demonstration
        head, end, tail = index.rpartition("</body>") if "</body>" in index else (index, "", "")
        return self._send_text(f"{head}{ohif_style()}{banner(models)}{end}{tail}", kind="text/html")

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
        except (OSError, http.client.HTTPException):
            host = urlsplit(pacs).hostname
            return self._send_text(f"The PACS at {host} cannot be reached.", HTTPStatus.BAD_GATEWAY)

    def _redirect(self, target: str, *, cookie: bool = False) -> None:
        self.send_response(HTTPStatus.FOUND)
        self.send_header("Location", target)
        if cookie:
            self.send_header("Set-Cookie", self._cookie_value())
        for name, value in security_headers(self._policy(OWN_POLICY)):
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_text(self, text: str, status: HTTPStatus = HTTPStatus.OK, kind: str = "text/plain") -> None:
        self._send_bytes(text.encode(), f"{kind}; charset=utf-8", status)

    def _send_bytes(
        self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK, policy: str = OHIF_POLICY
    ) -> None:
        part = asked_range(self.headers.get("Range", ""), len(content)) if status is HTTPStatus.OK else None
        if part is not None and part[0] >= len(content):
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            part, extra, content = None, [("Content-Range", f"bytes */{len(content)}")], b""
        elif part is not None:
            self.send_response(HTTPStatus.PARTIAL_CONTENT)
            extra = [("Content-Range", f"bytes {part[0]}-{part[1] - 1}/{len(content)}")]
            content = content[part[0] : part[1]]
        else:
            self.send_response(status)
            extra = [("Accept-Ranges", "bytes")]
        headers = (
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            *security_headers(self._policy(policy)),
            *extra,
        )
        if self._new_cookie:
            self._new_cookie = False
            self.send_header("Set-Cookie", self._cookie_value())
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _has_report(view: RunView) -> bool:
    return (view.workspace.report / "index.html").is_file()
