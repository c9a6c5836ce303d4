"""The Storage SCP: pynetdicom behind an admission of our own, with objects that go to the store as they arrive.

pynetdicom is configured as a whole: storage of all SOP classes, the first proposed transfer syntax, data sets written
in pieces. One process can have one such SCP. Only the module `receiver` imports this one, if it is asked for.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import socket
import sqlite3
import ssl
import threading
import time
from contextlib import suppress
from typing import Any

from pynetdicom import AE, _config, dimse_messages, evt
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from ctenrich.listener.admission import Admission, Rejection, Ticket, read_pdu, reject
from ctenrich.listener.config import ListenAddress, StationConfig
from ctenrich.listener.deliveries import Deliveries
from ctenrich.listener.incoming import FileMeta, IncomingFile, StoreStatus
from ctenrich.listener.store import ObjectStore
from ctenrich.listener.tls import tls_context

__all__ = ["RunningScp", "start_scp"]

_VERIFICATION = "1.2.840.10008.1.1"
_LINGER_SECONDS = 5.0
"""Time that the thread which receives for an association may take to end."""
_IDLE_SECONDS = 0.01
"""Time that the two threads of an association wait for an event, before they look at their time limits."""
_PDU_OVERHEAD = 1024
"""Bytes that a PDU may be longer than was agreed: senders count its header differently."""


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
    _config.UNRESTRICTED_STORAGE_SERVICE = True
    _config.STORE_RECV_CHUNKED_DATASET = True
    _config.LOG_HANDLER_LEVEL = "none"
    limits = config.limits
    entity = AE(ae_title=config.aet)
    entity.maximum_pdu_size = limits.max_pdu
    entity.maximum_associations = limits.max_associations + limits.max_waiting  # admission has the limit that counts
    entity.acse_timeout = limits.connect_seconds
    entity.network_timeout = entity.dimse_timeout = limits.idle_seconds
    entity.add_supported_context(_VERIFICATION)
    messages: Any = dimse_messages
    messages.NamedTemporaryFile = _new_file
    server: Any = entity.make_server(
        (address.host, address.port), evt_handlers=[(evt.EVT_C_STORE, _store_object)], server_class=_Server
    )
    server.admission, server.store, server.deliveries = Admission(config), store, deliveries
    server.secure = tls_context(config)
    entity._servers.append(server)
    threading.Thread(target=server.serve_forever, args=(0.2,), name="scp", daemon=True).start()
    return RunningScp(server)


class RunningScp:
    """A running SCP.

    Parameters
    ----------
    server : object
        The server of pynetdicom.
    """

    def __init__(self, server: Any) -> None:
        self._server = server
        self.admission: Admission = server.admission
        self.port = int(server.server_address[1])

    def end(self, seconds: float) -> int:
        """Accept no new connection, give the associations some seconds, and abort the rest; returns how many."""
        self._server.shutdown()
        end = time.monotonic() + seconds
        while self.admission.open and time.monotonic() < end:
            time.sleep(0.05)
        left = [one for one in self._server.active_associations if one.is_alive()]
        for association in left:
            with suppress(Exception):
                association.abort()
        return len(left)


# ---------------------------------------------------------------- objects


class _DataSetFile:
    """What pynetdicom takes for the temporary file of a data set."""

    def __init__(self, incoming: IncomingFile | None) -> None:
        self.incoming = incoming
        self.name = ""
        """pynetdicom deletes the file of this name after the response: there is none."""

    @property
    def file(self) -> _DataSetFile:
        return self

    def write(self, data: bytes) -> int:
        if self.incoming is not None:
            self.incoming.write(data)
        return len(data)

    def flush(self) -> None:
        """Nothing to do: what is not complete is not kept."""

    def close(self) -> None:
        """The store closes the file."""


def _new_file(**_: object) -> _DataSetFile:
    """Begin an object; called by pynetdicom in the thread that receives for an association."""
    association = threading.current_thread().assoc  # type: ignore[attr-defined]
    try:
        file = _DataSetFile(association._server.store.begin())
    except OSError:
        file = _DataSetFile(None)
    association.incoming_files.add(file)
    return file


def _store_object(event: Any) -> int:
    """Handle a C-STORE request; returns the status of the response."""
    file, association = event.request._dataset_file, event.assoc
    if file is None:
        return int(StoreStatus.CANNOT_UNDERSTAND)
    association.incoming_files.discard(file)
    if file.incoming is None:
        return int(StoreStatus.OUT_OF_RESOURCES)
    meta = FileMeta(
        str(event.request.AffectedSOPClassUID or ""),
        str(event.request.AffectedSOPInstanceUID or ""),
        str(event.context.transfer_syntax),
    )
    try:
        association._server.deliveries.expect_object(association.delivery)
    except sqlite3.Error:
        file.incoming.discard()
        return int(StoreStatus.OUT_OF_RESOURCES)
    receipt = association._server.store.commit(file.incoming, meta, association.delivery)
    association._server.deliveries.received(association.delivery, receipt)
    return int(receipt.status)


# ---------------------------------------------------------------- connections


class _MessageQueue(queue.Queue[Any]):
    """Messages for the thread that handles them: it waits here, where pynetdicom would sleep between two looks."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Return the next message; without `block` wait a short time."""
        return super().get(timeout=timeout if block else _IDLE_SECONDS)


class _AnswerQueue(queue.Queue[Any]):
    """Answers for the thread that sends them; each wakes it."""

    wake: int
    """Descriptor to write to."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an answer."""
        super().put(item, block, timeout)
        with suppress(OSError):  # a pipe that is full wakes too
            os.write(self.wake, b"x")


class _BufferedSocket(AssociationSocket):
    """Reads whole PDUs, each within a time limit, after the A-ASSOCIATE-RQ that was read before."""

    preread: bytearray
    max_pdu: int
    pdu_seconds: float
    woken: int
    """Descriptor that can be read if there is something to send."""

    @property
    def ready(self) -> bool:
        """Whether there is something to read; waits a short time for it, or for something to send."""
        if self.preread:
            return True
        connection: Any = self.socket
        if connection is None or not self._is_connected:
            return False
        try:
            if isinstance(connection, ssl.SSLSocket) and connection.pending():
                return True
            waiting = select.poll()
            waiting.register(connection, select.POLLIN)
            waiting.register(self.woken, select.POLLIN)
            seconds = _IDLE_SECONDS if self.event_queue.empty() else 0
            found = {descriptor for descriptor, _ in waiting.poll(1000 * seconds)}
            if self.woken in found:
                os.read(self.woken, 4096)
            return connection.fileno() in found
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # the connection is closed (PS3.8 table 9-10)
            return False

    def recv(self, nr_bytes: int) -> bytearray:
        """Read some bytes; fewer if the connection ends."""
        if self.preread:
            first = self.preread[:nr_bytes]
            del self.preread[:nr_bytes]
            return first
        if nr_bytes > self.max_pdu + _PDU_OVERHEAD:
            raise OSError("a PDU is larger than was agreed")
        connection: Any = self.socket
        data, filled = bytearray(nr_bytes), 0
        end = time.monotonic() + self.pdu_seconds
        with memoryview(data) as view:
            while filled < nr_bytes:
                number = connection.recv_into(view[filled:])
                if not number:
                    break
                filled += number
                if filled < nr_bytes and time.monotonic() > end:
                    raise TimeoutError("a PDU takes too long")
        return data if filled == nr_bytes else data[:filled]


class _Handler(RequestHandler):
    """Runs one admitted association to its end."""

    def __init__(self, connection: socket.socket, address: Any, server: Any, *, ticket: Ticket, pdu: bytes) -> None:
        self.ticket, self.pdu = ticket, pdu
        super().__init__(connection, address, server)

    def handle(self) -> None:
        """Start the association, wait for its end, and delete what did not arrive whole."""
        server: Any = self.server
        association: Any = self._create_association()
        limits = server.admission.limits
        reader = association.dul.socket  # made by pynetdicom, which has no parameter for its class
        reader.__class__ = _BufferedSocket
        reader.preread, reader.max_pdu, reader.pdu_seconds = bytearray(self.pdu), limits.max_pdu, limits.pdu_seconds
        woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        reader.woken = woken
        association.dul._run_loop_delay = 0
        association.dul.to_provider_queue = _AnswerQueue()
        association.dul.to_provider_queue.wake = wake
        association.dimse.msg_queue = _MessageQueue()
        association.incoming_files = set()
        association.delivery = server.deliveries.started(self.ticket)
        try:
            association.start()
            association.join()
        finally:
            server.admission.leave(self.ticket)  # at once: a sender may open the next association now
            if association.dul.is_alive():
                association.dul.join(_LINGER_SECONDS)
            for file in association.incoming_files:
                if file.incoming is not None:
                    file.incoming.discard()
            for descriptor in (woken, wake):
                os.close(descriptor)
            ending = "released" if association.is_released else "aborted" if association.is_aborted else "lost"
            server.deliveries.ended(association.delivery, ending)


class _Server(ThreadedAssociationServer):
    """Accepts connections; a thread for each does the TLS handshake, the admission and the association."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    admission: Admission
    store: ObjectStore
    deliveries: Deliveries
    secure: ssl.SSLContext | None

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        listening: Any = self.socket
        connection, address = listening.accept()
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Refuse a connection if too many wait for their A-ASSOCIATE-RQ."""
        return self.admission.connect()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection to its end."""
        host, connection, ticket = str(client_address[0]), request, None
        limits = self.admission.limits
        try:
            try:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.settimeout(limits.connect_seconds)
                if self.secure is not None:
                    connection = self.secure.wrap_socket(connection, server_side=True)
                found = read_pdu(connection, limits.connect_seconds)
                if found is None:
                    self.deliveries.rejected(host, "no A-ASSOCIATE-RQ in time")
                    return
                decision = self.admission.admit(found.request, host)
                if isinstance(decision, Rejection):
                    self.deliveries.rejected(host, decision.name)
                    reject(connection, decision, limits.connect_seconds)
                    return
            finally:
                self.admission.connected()
            ticket = decision
            connection.settimeout(limits.pdu_seconds)
            _Handler(connection, client_address, self, ticket=ticket, pdu=found.pdu)
        except OSError as error:
            self.deliveries.rejected(host, "no TLS" if isinstance(error, ssl.SSLError) else "the connection was lost")
        finally:
            if ticket is not None:
                self.admission.leave(ticket)
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do nothing: what ends a connection is recorded."""
