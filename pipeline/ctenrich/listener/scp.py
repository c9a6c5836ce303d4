"""The Storage SCP: accepts connections, and runs each that is admitted as an association in a thread of its own."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from contextlib import suppress
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from ctenrich.listener.admission import Admission, FirstPdu, Rejection, Ticket, read_pdu, reject
from ctenrich.listener.association import Association, Ending
from ctenrich.listener.config import ListenAddress, StationConfig
from ctenrich.listener.deliveries import Deliveries
from ctenrich.listener.negotiation import Negotiated, negotiate
from ctenrich.listener.pdus import ProtocolError, abort_pdu, wait_for_close
from ctenrich.listener.store import ObjectStore
from ctenrich.listener.tls import tls_context

__all__ = ["RunningScp", "start_scp"]

_ABORT_SECONDS = 1.0
"""Time that associations may take to end after they were told to."""


def start_scp(config: StationConfig, address: ListenAddress, store: ObjectStore, deliveries: Deliveries) -> RunningScp:
    """Start the Storage SCP in threads of this process.

    Parameters
    ----------
    config : StationConfig
        AE title, senders, limits, TLS.
    address : ListenAddress
        Where to listen; port 0: any free one.
    store : ObjectStore
        Gets the objects.
    deliveries : Deliveries
        Records the associations.

    Returns
    -------
    RunningScp
        Its port, and how to end it.

    Raises
    ------
    OSError
        If the address is in use.
    UsageError
        BAD_SETTINGS for files of TLS that cannot be used.
    """
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    server = _Server(config, address, store, deliveries)
    threading.Thread(target=server.serve_forever, args=(0.2,), name="scp", daemon=True).start()
    return RunningScp(server)


class RunningScp:
    """A running SCP.

    Parameters
    ----------
    server : _Server
        The server.
    """

    def __init__(self, server: _Server) -> None:
        self._server = server
        self.admission = server.admission
        self.port = int(server.server_address[1])

    def end(self, seconds: float) -> int:
        """Accept no new connection, give the associations some seconds, and abort the rest; returns how many."""
        self._server.shutdown()
        self._server.server_close()
        self._wait(seconds)
        left = self._server.associations()
        for association in left:
            association.stop()
        self._wait(_ABORT_SECONDS)
        return len(left)

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self.admission.open and time.monotonic() < end:
            time.sleep(0.02)


class _Server(ThreadingMixIn, TCPServer):
    """Accepts connections; a thread for each does the TLS handshake, the admission and the association."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(
        self, config: StationConfig, address: ListenAddress, store: ObjectStore, deliveries: Deliveries
    ) -> None:
        self.admission = Admission(config)
        self._store, self._deliveries = store, deliveries
        self._secure = tls_context(config)
        self._lock = threading.Lock()
        self._associations: set[Association] = set()
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        super().__init__((address.host, address.port), None)  # type: ignore[arg-type]  # connections have no handler

    def associations(self) -> list[Association]:
        """Associations at this moment."""
        with self._lock:
            return list(self._associations)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Refuse a connection if too many wait for their A-ASSOCIATE-RQ."""
        return self.admission.connect()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection to its end."""
        host, connection = str(client_address[0]), request
        limits = self.admission.limits
        try:
            try:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.settimeout(limits.connect_seconds)
                if self._secure is not None:
                    connection = self._secure.wrap_socket(connection, server_side=True)
                found = read_pdu(connection, limits.connect_seconds)
                if found is None:
                    self._deliveries.rejected(host, "no A-ASSOCIATE-RQ in time")
                    return
                decision = self.admission.admit(found.request, host)
            finally:
                self.admission.connected()
            if isinstance(decision, Rejection):
                self._reject(connection, decision, host)
            else:
                self._serve(connection, found, decision)
        except OSError as error:
            self._deliveries.rejected(host, "no TLS" if isinstance(error, ssl.SSLError) else "the connection was lost")
        finally:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _reject(self, connection: socket.socket, rejection: Rejection, host: str) -> None:
        self._deliveries.rejected(host, rejection.name)
        reject(connection, rejection, self.admission.limits.connect_seconds)

    def _serve(self, connection: socket.socket, found: FirstPdu, ticket: Ticket) -> None:
        """Negotiate an admitted association, and run it."""
        limits = self.admission.limits
        try:
            negotiated = negotiate(found.pdu, limits.max_pdu)
        except ProtocolError as error:
            self.admission.leave(ticket)
            self._deliveries.rejected(ticket.host, "an A-ASSOCIATE-RQ that cannot be read")
            connection.sendall(abort_pdu(error.reason))
            return
        if isinstance(negotiated, Rejection):
            self.admission.leave(ticket)
            self._reject(connection, negotiated, ticket.host)
            return
        self._run(connection, negotiated, ticket)
        wait_for_close(connection, limits.connect_seconds)

    def _run(self, connection: socket.socket, negotiated: Negotiated, ticket: Ticket) -> None:
        """Run an association to its end, and record it."""
        number, ending = self._deliveries.started(ticket), Ending.ABORTED
        association = Association(
            connection,
            negotiated,
            limits=self.admission.limits,
            store=self._store,
            deliveries=self._deliveries,
            number=number,
        )
        with self._lock:
            self._associations.add(association)
        try:
            ending = association.run()
        finally:
            with self._lock:
                self._associations.remove(association)
            self.admission.leave(ticket)  # before the sender hears of the release, and may open the next association
            if ending is Ending.RELEASED:
                association.confirm_release()
            self._deliveries.ended(number, ending.value)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do nothing: what ends a connection is recorded."""
