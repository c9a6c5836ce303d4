"""The web server of a station: STOW-RS for senders; status page, JSON and metrics, which change nothing."""

from __future__ import annotations

import hmac
import ipaddress
import json
import os
import secrets
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ctenrich.delivery.metrics import delivery_numbers
from ctenrich.errors import UsageError
from ctenrich.listener.cases import case_of, cases_of, totals
from ctenrich.listener.config import ListenAddress, StationConfig
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.deliveries import Deliveries
from ctenrich.listener.metrics import Counters, render
from ctenrich.listener.pages import case_json, openapi, status_page
from ctenrich.listener.station import Station
from ctenrich.listener.store import ObjectStore
from ctenrich.listener.stow import BadRequestError, boundary_of, chunks_of, response_body, store_parts
from ctenrich.listener.tls import tls_context

__all__ = ["StationServer", "station_token"]

_SHOWN = 200
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


def station_token(path: Path) -> str:
    """Return the bearer token of a station, which is made once and can be read by its owner only."""
    with suppress(FileExistsError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
    return path.read_text("ascii").strip()


class StationServer(ThreadingHTTPServer):
    """The server; :meth:`start` runs it in a thread.

    Parameters
    ----------
    station : Station
        The station.
    config : StationConfig
        Senders, limits and TLS.
    address : ListenAddress
        Where to listen; port 0: any free one.
    store : ObjectStore
        Gets the objects.
    deliveries : Deliveries
        Records requests, and holds the counters.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(
        self,
        station: Station,
        config: StationConfig,
        address: ListenAddress,
        *,
        store: ObjectStore,
        deliveries: Deliveries,
    ) -> None:
        self.station, self.config, self.store, self.deliveries = station, config, store, deliveries
        self.counters: Counters = deliveries.counters
        self.gauges: Callable[[], dict[tuple[str, str, str], float]] = dict
        self.token = station_token(station.token)
        self._context = tls_context(config)
        self._lock = threading.Lock()
        self._hosts: Counter[str] = Counter()
        self._waiting: dict[socket.socket, float] = {}
        """Connections whose request line and headers have not arrived, and since when."""
        super().__init__((address.host, address.port), _Handler)

    def start(self) -> int:
        """Serve in a thread; returns the port."""
        threading.Thread(target=self.serve_forever, args=(0.2,), name="web", daemon=True).start()
        return int(self.server_address[1])

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Refuse a connection beyond the limits."""
        host, limits = str(client_address[0]), self.config.limits
        with self._lock:
            if self._hosts.total() >= limits.max_associations or self._hosts[host] >= limits.max_per_host:
                return False
            self._hosts[host] += 1
        return True

    def service_actions(self) -> None:
        """Close the connections whose headers did not arrive in time; called a few times a second."""
        last = time.monotonic() - self.config.limits.connect_seconds
        with self._lock:
            late = [connection for connection, since in self._waiting.items() if since < last]
        for connection in late:
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)  # also below TLS

    def wait_for_headers(self, connection: socket.socket) -> None:
        """Start the time limit for the headers of the next request of a connection."""
        with self._lock:
            self._waiting[connection] = time.monotonic()

    def stop_waiting(self, connection: socket.socket) -> None:
        """The headers are there, or the connection has ended."""
        with self._lock:
            self._waiting.pop(connection, None)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection; the TLS handshake has its own time limit."""
        try:
            request.settimeout(self.config.limits.connect_seconds)
            if self._context is not None:
                request = self._context.wrap_socket(request, server_side=True)
            super().process_request_thread(request, client_address)
        except (OSError, ssl.SSLError):
            self.deliveries.rejected(str(client_address[0]), "no TLS")
            self.shutdown_request(request)
        finally:
            host = str(client_address[0])
            self.stop_waiting(request)
            with self._lock:
                self._hosts[host] -= 1
                if not self._hosts[host]:
                    del self._hosts[host]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was lost is no error."""

    def reads(self, host: str, token: str) -> bool:
        """Whether a client may see the state: from this computer, or with the token."""
        try:
            local = ipaddress.ip_address(host.partition("%")[0]).is_loopback
        except ValueError:
            local = False
        return local or hmac.compare_digest(token.encode(), self.token.encode())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StationServer

    @property
    def timeout(self) -> float:  # type: ignore[override]
        """Seconds that a connection may be silent."""
        return self.server.config.limits.pdu_seconds

    @property
    def _host(self) -> str:
        return str(self.client_address[0])

    @property
    def _token(self) -> str:
        kind, _, token = (self.headers.get("Authorization") or "").partition(" ")
        return token.strip() if kind.lower() == "bearer" else ""

    def handle_one_request(self) -> None:
        """Read a request, whose headers have a time limit as a whole, and answer it."""
        self.server.wait_for_headers(self.connection)
        super().handle_one_request()

    def parse_request(self) -> bool:
        """Read the headers."""
        good = super().parse_request()
        self.server.stop_waiting(self.connection)
        return good

    # ------------------------------------------------------------ state

    def do_GET(self) -> None:
        """Answer with the state of the station."""
        path = urlsplit(self.path).path
        if not self.server.reads(self._host, self._token) or not self._own_name():
            self._send(401, "text/plain", b"a token is needed\n")
            return
        with StationDatabase(self.server.station.database, read_only=True) as database:
            self._answer(path, database)

    def _own_name(self) -> bool:
        """Whether the Host header is an address or localhost, and not a name that a web site points here."""
        name = urlsplit(f"//{self.headers.get('Host') or ''}").hostname or ""
        if name in ("localhost", self.server.config.web.rpartition(":")[0]) or self._token:
            return True
        with suppress(ValueError):
            return bool(ipaddress.ip_address(name))
        return False

    def _answer(self, path: str, database: StationDatabase) -> None:
        server = self.server
        if path == "/healthz":
            full = server.store.full()
            self._send(503 if full else 200, "text/plain", b"the disk is full\n" if full else b"ok\n")
        elif path == "/metrics":
            numbers = {**server.gauges(), **delivery_numbers(server.station.deliveries)}
            text = render(server.counters, database, numbers)
            self._send(200, "text/plain; version=0.0.4; charset=utf-8", text.encode())
        elif path == "/openapi.json":
            self._json(200, openapi())
        elif path == "/cases":
            rows = cases_of(database, limit=_SHOWN)
            self._json(200, {"totals": vars(totals(database)), "cases": [case_json(row) for row in rows]})
        elif path.startswith("/cases/") and path[7:].isdecimal():
            try:
                self._json(200, [case_json(row) for row in case_of(database, int(path[7:]))])
            except UsageError:
                self._json(404, {"error": "there is no such case"})
        elif path == "/":
            rows = cases_of(database, limit=_SHOWN)
            free = int(server.gauges().get(("ctenrich_disk_free_bytes", "", ""), 0))
            disk = (free, server.config.limits.reserve)
            follow = urlsplit(self.path).query == "follow"
            page = status_page(server.config.aet, rows, totals(database), disk=disk, follow=follow)
            self._send(200, "text/html; charset=utf-8", page.encode())
        else:
            self._send(404, "text/plain", b"not found\n")

    # ------------------------------------------------------------ STOW-RS

    def do_POST(self) -> None:
        """Store the objects of a request."""
        self.close_connection = True
        server = self.server
        if urlsplit(self.path).path.rstrip("/") != "/dicom-web/studies":
            self._send(404, "text/plain", b"not found\n")
            return
        peer = next((one for one in server.config.peers if one.has_address(self._host)), None)
        if peer is None:
            server.deliveries.rejected(self._host, "CALLING_AE")
            self._send(403, "text/plain", b"this address is none of the senders\n")
            return
        if not hmac.compare_digest(self._token.encode(), server.token.encode()):
            server.deliveries.rejected(self._host, "token")
            self._send(401, "text/plain", b"a token is needed\n")
            return
        association = server.deliveries.begin("web", self._host, peer)
        ending = "aborted"
        try:
            boundary = boundary_of(self.headers.get("Content-Type") or "")
            server.deliveries.expect_object(association)
            chunks = chunks_of(self.rfile, self._length(), 2 * server.config.limits.max_object)
            parts = store_parts(chunks, boundary, server.store, association)
            for part in parts:
                server.deliveries.received(association, part.receipt)
            status, body = response_body(parts)
            ending = "released"
            self._json(status, body, "application/dicom+json")
        except BadRequestError as error:
            self._send(400, "text/plain", f"{error}\n".encode())
        finally:
            server.deliveries.ended(association, ending)

    def _length(self) -> int | None:
        if "chunked" in (self.headers.get("Transfer-Encoding") or "").lower():
            return None
        text = self.headers.get("Content-Length") or ""
        if not text.isdecimal():
            raise BadRequestError("there is no content length")
        return int(text)

    # ------------------------------------------------------------ answers

    def _json(self, status: int, value: object, kind: str = "application/json") -> None:
        self._send(status, kind, json.dumps(value).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        """Name of the server in answers."""
        return "ctenrich"

    def log_message(self, *_: object) -> None:
        """Requests are counted, not logged."""
