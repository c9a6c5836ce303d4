"""Protocol data units of an association that is established (PS3.8 9.3): read in bounded memory, and written."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from enum import IntEnum
from typing import NamedTuple

__all__ = [
    "RELEASE_RESPONSE",
    "AbortReason",
    "ConnectionEndedError",
    "Fragment",
    "PduReader",
    "PduType",
    "ProtocolError",
    "abort_pdu",
    "command_pdus",
    "fragments_of",
    "wait_for_close",
]

_HEADER = 6
"""Bytes of the header of a PDU: type, reserved, length (PS3.8 9.3.1)."""
_VALUE_HEADER = 6
"""Bytes before the fragment of a presentation data value: length, context ID, message control header."""
_OVERHEAD = 1024
"""Bytes that a PDU may be longer than was agreed: senders count its header differently."""
_COMMAND, _LAST = 0x01, 0x02
"""Bits of the message control header (PS3.8 annex E.2)."""
RELEASE_RESPONSE = b"\x06\0\0\0\0\x04\0\0\0\0"


class PduType(IntEnum):
    """Types of PDUs that an acceptor gets on an association (PS3.8 9.3)."""

    P_DATA = 0x04
    RELEASE_REQUEST = 0x05
    ABORT = 0x07


class AbortReason(IntEnum):
    """Reason of an A-ABORT that the service provider sends (PS3.8 table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNISED_PDU = 1
    UNEXPECTED_PDU = 2
    INVALID_PARAMETER = 6


class ProtocolError(Exception):
    """What came does not follow the protocol, or not in time: the association is aborted.

    Parameters
    ----------
    reason : AbortReason
        For the A-ABORT.
    """

    def __init__(self, reason: AbortReason = AbortReason.NOT_SPECIFIED) -> None:
        super().__init__(reason.name)
        self.reason = reason


class ConnectionEndedError(Exception):
    """The connection was closed without a release or an abort."""


class Fragment(NamedTuple):
    """A presentation data value: a piece of the command set or data set of a message."""

    context: int
    is_command: bool
    is_last: bool
    data: memoryview
    """Valid until the next PDU is read."""


class PduReader:
    """Reads the PDUs of one connection.

    Parameters
    ----------
    connection : socket
        The connection; its timeout is changed.
    max_pdu : int
        Largest length of a PDU that was agreed, bytes.
    idle_seconds : float
        Longest time without the beginning of a PDU.
    pdu_seconds : float
        Longest time from the first byte of a PDU to its last one.
    """

    def __init__(self, connection: socket.socket, *, max_pdu: int, idle_seconds: float, pdu_seconds: float) -> None:
        self._connection = connection
        self._largest = max_pdu + _OVERHEAD
        self._idle_seconds, self._pdu_seconds = idle_seconds, pdu_seconds
        self._buffer = memoryview(bytearray(_HEADER + self._largest))
        self._start = self._end = 0
        """What is in the buffer and was not returned yet."""

    def next_pdu(self) -> tuple[int, memoryview]:
        """Return type and content of the next PDU; the content is valid until the next call.

        Raises
        ------
        ConnectionEndedError
            If the connection is closed.
        ProtocolError
            If a PDU is too large, or does not come in time.
        """
        self._buffer[: self._end - self._start] = self._buffer[self._start : self._end]
        self._start, self._end = 0, self._end - self._start
        if not self._end:
            self._receive(self._idle_seconds)
        deadline = time.monotonic() + self._pdu_seconds
        self._fill(_HEADER, deadline)
        kind, length = self._buffer[0], int.from_bytes(self._buffer[2:_HEADER], "big")
        if length > self._largest:
            raise ProtocolError(AbortReason.INVALID_PARAMETER)
        self._fill(_HEADER + length, deadline)
        self._start = _HEADER + length
        return kind, self._buffer[_HEADER : _HEADER + length]

    def _fill(self, size: int, deadline: float) -> None:
        """Read until so many bytes are in the buffer, or the time of the PDU is over."""
        while self._end < size:
            left = deadline - time.monotonic()
            if left <= 0:
                raise ProtocolError
            self._receive(left)

    def _receive(self, seconds: float) -> None:
        self._connection.settimeout(seconds)
        try:
            number = self._connection.recv_into(self._buffer[self._end :])
        except TimeoutError:
            raise ProtocolError from None
        except OSError:
            raise ConnectionEndedError from None
        if not number:
            raise ConnectionEndedError
        self._end += number


def fragments_of(content: memoryview) -> Iterator[Fragment]:
    """Yield the presentation data values of a P-DATA-TF PDU (PS3.8 9.3.5).

    Raises
    ------
    ProtocolError
        If their lengths do not fit the PDU.
    """
    at = 0
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        end = at + 4 + length
        if length < 2 or end > len(content):
            raise ProtocolError(AbortReason.INVALID_PARAMETER)
        control = content[at + 5]
        yield Fragment(
            content[at + 4], bool(control & _COMMAND), bool(control & _LAST), content[at + _VALUE_HEADER : end]
        )
        at = end


def command_pdus(context: int, command: bytes, max_pdu: int) -> bytes:
    """Return a command set as P-DATA-TF PDUs.

    Parameters
    ----------
    context : int
        Presentation context of the message.
    command : bytes
        The encoded command set.
    max_pdu : int
        Largest length of a PDU that the other side accepts, bytes; 0: any.

    Returns
    -------
    bytes
    """
    size = max(1, max_pdu - _VALUE_HEADER) if max_pdu else len(command)
    found = []
    for at in range(0, len(command), size):
        piece = command[at : at + size]
        control = _COMMAND | (_LAST if at + size >= len(command) else 0)
        value = (len(piece) + 2).to_bytes(4, "big") + bytes([context, control]) + piece
        found.append(bytes([PduType.P_DATA, 0]) + len(value).to_bytes(4, "big") + value)
    return b"".join(found)


def abort_pdu(reason: AbortReason | None = None) -> bytes:
    """Return an A-ABORT of the service provider with a reason, or one of the service user (PS3.8 9.3.8)."""
    source = b"\0\0" if reason is None else bytes([2, reason])
    return b"\x07\0\0\0\0\x04\0\0" + source


def wait_for_close(connection: socket.socket, seconds: float) -> None:
    """Wait for the other side to close the connection (PS3.8 9.2.3, state 13); what still comes is ignored.

    A requestor that finds the connection closed before it has read our last PDU reports an abort without a reason.

    Parameters
    ----------
    connection : socket
        The connection; its timeout is changed.
    seconds : float
        Longest wait (ARTIM timer).
    """
    end = time.monotonic() + seconds
    with suppress(OSError):
        while (left := end - time.monotonic()) > 0:
            connection.settimeout(left)
            if not connection.recv(65536):
                return
