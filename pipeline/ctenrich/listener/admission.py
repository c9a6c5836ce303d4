"""Decides which connections may become associations, before anything of them is kept."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from itertools import count
from typing import NamedTuple

from ctenrich.listener.config import Limits, Peer, StationConfig
from ctenrich.listener.pdus import wait_for_close

__all__ = ["Admission", "AssociateRequest", "FirstPdu", "Rejection", "Ticket", "read_pdu", "reject"]

_ASSOCIATE_RQ = 0x01
_LARGEST_REQUEST = 1024**2
"""Bytes of an A-ASSOCIATE-RQ; 128 presentation contexts with all transfer syntaxes take less than 100 kB."""
_HEADER = 6
"""Bytes of the header of a PDU: type, reserved, length (PS3.8 9.3.1)."""


class Rejection(Enum):
    """Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 table 9-21)."""

    CALLING_AE = (1, 1, 3)
    """Calling AE title not recognised: the title or the address belongs to no sender."""
    CALLED_AE = (1, 1, 7)
    """Called AE title not recognised."""
    APPLICATION_CONTEXT = (1, 1, 2)
    """Application context name not supported."""
    PROTOCOL_VERSION = (1, 2, 2)
    """Protocol version not supported."""
    TOO_MANY = (2, 3, 2)
    """Local limit exceeded; transient."""


class AssociateRequest(NamedTuple):
    """AE titles of an A-ASSOCIATE-RQ."""

    called: str
    calling: str


class FirstPdu(NamedTuple):
    """The first PDU of a connection, an A-ASSOCIATE-RQ."""

    pdu: bytes
    request: AssociateRequest


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """An admitted association."""

    number: int
    """No other ticket has it."""
    aet: str
    host: str
    peer: Peer


class Admission:
    """Counts connections and associations, and checks them against the senders and limits of a station.

    Parameters
    ----------
    config : StationConfig
        The station.
    """

    def __init__(self, config: StationConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._waiting = 0
        self._hosts: Counter[str] = Counter()
        self._numbers = count(1)
        self._open: set[int] = set()

    @property
    def limits(self) -> Limits:
        """Limits of the station."""
        return self._config.limits

    @property
    def open(self) -> int:
        """Associations at this moment."""
        return self._hosts.total()

    def connect(self) -> bool:
        """Count a connection; False if too many are waiting for their A-ASSOCIATE-RQ."""
        with self._lock:
            if self._waiting >= self.limits.max_waiting:
                return False
            self._waiting += 1
            return True

    def connected(self) -> None:
        """A connection has become an association, or was closed."""
        with self._lock:
            self._waiting -= 1

    def admit(self, request: AssociateRequest, host: str) -> Ticket | Rejection:
        """Decide about an association.

        Parameters
        ----------
        request : AssociateRequest
            Its AE titles.
        host : str
            IP address that it comes from.

        Returns
        -------
        Ticket or Rejection
            A ticket must be given back with :meth:`leave`.
        """
        peer = self._config.peer(request.calling, host)
        if peer is None:
            return Rejection.CALLING_AE
        if request.called != self._config.aet:
            return Rejection.CALLED_AE
        with self._lock:
            if self._hosts.total() >= self.limits.max_associations or self._hosts[host] >= self.limits.max_per_host:
                return Rejection.TOO_MANY
            self._hosts[host] += 1
            ticket = Ticket(number=next(self._numbers), aet=request.calling, host=host, peer=peer)
            self._open.add(ticket.number)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """An association has ended; what was given back before is no error."""
        with self._lock:
            if ticket.number not in self._open:
                return
            self._open.remove(ticket.number)
            self._hosts[ticket.host] -= 1
            if not self._hosts[ticket.host]:
                del self._hosts[ticket.host]


def read_pdu(connection: socket.socket, seconds: float) -> FirstPdu | None:
    """Read the first PDU of a connection.

    Parameters
    ----------
    connection : socket
        A connection; its timeout is changed.
    seconds : float
        Time for the whole PDU, however slowly it comes.

    Returns
    -------
    FirstPdu or None
        None if it did not arrive in time, or is no A-ASSOCIATE-RQ.
    """
    end = time.monotonic() + seconds
    data = bytearray()
    wanted = _HEADER
    try:
        while len(data) < wanted:
            connection.settimeout(max(0.001, end - time.monotonic()))
            part = connection.recv(wanted - len(data))
            if not part or time.monotonic() > end:
                return None
            data += part
            if len(data) == _HEADER:
                length = int.from_bytes(data[2:6], "big")
                if data[0] != _ASSOCIATE_RQ or not 68 <= length <= _LARGEST_REQUEST:
                    return None
                wanted += length
    except OSError:
        return None
    called, calling = (data[at : at + 16].decode("ascii", "replace").strip(" \0") for at in (10, 26))
    return FirstPdu(bytes(data), AssociateRequest(called, calling))


def reject(connection: socket.socket, rejection: Rejection, seconds: float) -> None:
    """Send an A-ASSOCIATE-RJ, and wait for the requestor to close the connection.

    Parameters
    ----------
    connection : socket
        A connection; its timeout is changed.
    rejection : Rejection
        Result, source and reason.
    seconds : float
        Longest wait for the requestor (ARTIM timer).
    """
    connection.sendall(bytes([0x03, 0, 0, 0, 0, 4, 0, *rejection.value]))
    wait_for_close(connection, seconds)
