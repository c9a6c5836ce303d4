"""An established association: answers C-ECHO, and writes the data sets of C-STORE to the store while they arrive.

One thread runs an association. A fragment goes from the buffer of the connection to the file of its object, and is not
parsed; the response is sent once the store has the object on disk.
"""

from __future__ import annotations

import socket
import sqlite3
from contextlib import suppress
from enum import StrEnum

from ctenrich.listener.commands import UNRECOGNISED_OPERATION, Command, CommandField, read_command, response_to
from ctenrich.listener.config import Limits
from ctenrich.listener.deliveries import Deliveries
from ctenrich.listener.incoming import FileMeta, IncomingFile, StoreStatus, encode_head
from ctenrich.listener.negotiation import Negotiated
from ctenrich.listener.pdus import (
    RELEASE_RESPONSE,
    AbortReason,
    ConnectionEndedError,
    Fragment,
    PduReader,
    PduType,
    ProtocolError,
    abort_pdu,
    command_pdus,
    fragments_of,
)
from ctenrich.listener.store import ObjectStore

__all__ = ["Association", "Ending"]

_LARGEST_COMMAND = 16 * 1024
"""Bytes of a command set; usual are 150."""
_ABORT_SECONDS = 1.0
"""Time for sending an A-ABORT to a requestor that may not read any more."""


class Ending(StrEnum):
    """How an association ended."""

    RELEASED = "released"
    ABORTED = "aborted"
    """By either side."""
    LOST = "lost"
    """The connection was closed without a release or an abort."""


class Association:
    """An association from its acceptance to its end.

    Parameters
    ----------
    connection : socket
        The connection, from which the A-ASSOCIATE-RQ was read; not closed here.
    negotiated : Negotiated
        What was agreed.
    limits : Limits
        Times and sizes.
    store : ObjectStore
        Gets the objects.
    deliveries : Deliveries
        Records them.
    number : int
        Number of the association there.
    """

    def __init__(
        self,
        connection: socket.socket,
        negotiated: Negotiated,
        *,
        limits: Limits,
        store: ObjectStore,
        deliveries: Deliveries,
        number: int,
    ) -> None:
        self._connection, self._negotiated, self._limits = connection, negotiated, limits
        self._store, self._deliveries, self._number = store, deliveries, number
        self._stopping = False
        self._context = 0
        self._encoded = bytearray()
        """The command set that arrives."""
        self._command: Command | None = None
        """The command whose data set arrives."""
        self._incoming: IncomingFile | None = None
        """The object of a C-STORE; None if no file can be created."""

    def stop(self) -> None:
        """Abort it from another thread: at once while it waits, else after the response to the current request."""
        self._stopping = True
        with suppress(OSError):
            socket.socket.shutdown(self._connection, socket.SHUT_RD)  # ends a read, also below TLS

    def run(self) -> Ending:
        """Accept it and serve it to its end; returns how it ended. An object that is not whole is deleted."""
        limits = self._limits
        reader = PduReader(
            self._connection,
            max_pdu=limits.max_pdu,
            idle_seconds=limits.idle_seconds,
            pdu_seconds=limits.pdu_seconds,
        )
        try:
            self._send(self._negotiated.answer)
            while True:
                kind, content = reader.next_pdu()
                if kind == PduType.P_DATA:
                    for fragment in fragments_of(content):
                        self._take(fragment)
                elif kind == PduType.RELEASE_REQUEST:
                    return Ending.RELEASED
                elif kind == PduType.ABORT:
                    return Ending.ABORTED
                else:
                    known = kind in range(1, 8)
                    raise ProtocolError(AbortReason.UNEXPECTED_PDU if known else AbortReason.UNRECOGNISED_PDU)
        except ProtocolError as error:
            self._abort(abort_pdu(error.reason))
            return Ending.ABORTED
        except ConnectionEndedError:
            if not self._stopping:
                return Ending.LOST
            self._abort(abort_pdu())
            return Ending.ABORTED
        finally:
            if self._incoming is not None:
                self._incoming.discard()

    def confirm_release(self) -> None:
        """Send the A-RELEASE-RP, once the association counts no more: its sender may open the next one at once."""
        with suppress(ConnectionEndedError):
            self._send(RELEASE_RESPONSE)

    def _send(self, data: bytes) -> None:
        try:
            self._connection.settimeout(self._limits.pdu_seconds)
            self._connection.sendall(data)
        except OSError:
            raise ConnectionEndedError from None

    def _abort(self, pdu: bytes) -> None:
        with suppress(OSError):
            self._connection.settimeout(_ABORT_SECONDS)
            self._connection.sendall(pdu)

    # ------------------------------------------------------------ messages

    def _take(self, fragment: Fragment) -> None:
        """Take the next fragment: one of a command set, and after it those of its data set if it has one."""
        if fragment.context not in self._negotiated.transfer_syntaxes:
            raise ProtocolError(AbortReason.INVALID_PARAMETER)
        if fragment.is_command:
            if self._command is not None:
                raise ProtocolError(AbortReason.INVALID_PARAMETER)
            self._encoded += fragment.data
            if len(self._encoded) > _LARGEST_COMMAND:
                raise ProtocolError(AbortReason.INVALID_PARAMETER)
            if fragment.is_last:
                self._begin(fragment.context)
            return
        if self._command is None or fragment.context != self._context:
            raise ProtocolError(AbortReason.INVALID_PARAMETER)
        if self._incoming is not None:
            self._incoming.write(fragment.data)
        if fragment.is_last:
            self._end_of_data_set(self._command)

    def _begin(self, context: int) -> None:
        """Begin a message whose command set has arrived."""
        try:
            command = read_command(self._encoded)
        except ValueError:
            raise ProtocolError(AbortReason.INVALID_PARAMETER) from None
        self._encoded.clear()
        self._context = context
        if command.has_data_set:
            self._command = command
            if command.field == CommandField.C_STORE:
                with suppress(OSError):  # the object is refused at its end
                    self._incoming = self._store.begin()
                    self._incoming.write(encode_head(self._meta(command)))
        elif command.field == CommandField.C_STORE:
            self._respond(command, StoreStatus.CANNOT_UNDERSTAND)
        elif command.field == CommandField.C_ECHO:
            self._respond(command, StoreStatus.SUCCESS)
        elif command.wants_response:
            self._respond(command, UNRECOGNISED_OPERATION)

    def _end_of_data_set(self, command: Command) -> None:
        self._command = None
        if command.field == CommandField.C_STORE:
            self._respond(command, self._commit(command))
        elif command.wants_response:
            self._respond(command, UNRECOGNISED_OPERATION)

    def _commit(self, command: Command) -> int:
        """Store the object that has arrived; returns the status of the response."""
        incoming = self._incoming
        if incoming is None:
            return StoreStatus.OUT_OF_RESOURCES
        meta = self._meta(command)
        if incoming.status is StoreStatus.SUCCESS and not (meta.sop_class_uid and meta.sop_instance_uid):
            incoming.status = StoreStatus.CANNOT_UNDERSTAND
        try:
            self._deliveries.expect_object(self._number)
        except sqlite3.Error:
            incoming.status = StoreStatus.OUT_OF_RESOURCES
        self._incoming = None  # from here it is the store's, which deletes it unless it is stored
        receipt = self._store.commit(incoming, meta, self._number)
        self._deliveries.received(self._number, receipt)
        return receipt.status

    def _meta(self, command: Command) -> FileMeta:
        return FileMeta(
            command.sop_class_uid, command.sop_instance_uid, self._negotiated.transfer_syntaxes[self._context]
        )

    def _respond(self, command: Command, status: int) -> None:
        self._send(command_pdus(self._context, response_to(command, status), self._negotiated.max_pdu))
