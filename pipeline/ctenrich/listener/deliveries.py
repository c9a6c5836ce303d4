"""Records by which association, request or folder objects came: in the database, the audit log and the counters."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from ctenrich.listener.admission import Ticket
from ctenrich.listener.audit import append_event
from ctenrich.listener.config import Peer
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.metrics import Counters
from ctenrich.listener.station import Station
from ctenrich.listener.store import Receipt, Result

__all__ = ["Deliveries"]

_REJECTIONS_PER_MINUTE = 60
"""Lines of the audit log about refused connections; more are counted only."""


@dataclass(kw_only=True)
class _Delivery:
    source: str
    host: str
    peer: Peer
    sender: str
    started: float
    written: bool = False
    results: Counter[str] = field(default_factory=Counter)


class Deliveries:
    """Numbers and records deliveries. One that brings no object, like a C-ECHO, leaves no row.

    Parameters
    ----------
    station : Station
        The station.
    database : StationDatabase
        Used by this object alone, in several threads.
    counters : Counters
        Gets the numbers.
    """

    def __init__(self, station: Station, database: StationDatabase, counters: Counters) -> None:
        self.counters = counters
        self._station = station
        self._database = database
        self._lock = threading.Lock()
        self._open: dict[int, _Delivery] = {}
        self._minute = (0, 0)
        self._last = database.value("SELECT max(id) FROM associations")
        self._last = max(self._last, database.value("SELECT max(association) FROM instances"))
        for result in Result:  # Prometheus sees no increase of a counter that appears with its first event
            counters.add("ctenrich_received_total", "result", result.value, amount=0)
        for ending in ("released", "aborted", "lost"):
            counters.add("ctenrich_associations_total", "ending", ending, amount=0)
        with database.transaction() as db:  # those of a listener that was killed
            db.execute("UPDATE associations SET ended = ?, ending = 'lost' WHERE ended IS NULL", (time.time(),))

    def begin(self, source: str, host: str, peer: Peer, sender: str = "") -> int:
        """Start a delivery.

        Parameters
        ----------
        source : str
            ``dicom``, ``web`` or ``watch``.
        host : str
            IP address.
        peer : Peer
            The sender as it is configured.
        sender : str
            Calling AE title.

        Returns
        -------
        int
            Its number, which no earlier one has.
        """
        with self._lock:
            self._last += 1
            self._open[self._last] = _Delivery(source=source, host=host, peer=peer, sender=sender, started=time.time())
            return self._last

    def started(self, ticket: Ticket) -> int:
        """Start the delivery of an association."""
        return self.begin("dicom", ticket.host, ticket.peer, ticket.aet)

    def received(self, association: int, receipt: Receipt) -> None:
        """Record an object.

        Parameters
        ----------
        association : int
            Number of the delivery.
        receipt : Receipt
            What became of it.
        """
        self.counters.add("ctenrich_received_total", "result", receipt.result.value)
        self.counters.add("ctenrich_received_bytes_total", amount=receipt.size)
        with self._lock:
            self._open[association].results[receipt.result.value] += 1

    def expect_object(self, association: int) -> None:
        """Write the row of a delivery, before its first object is stored."""
        with self._lock:
            one = self._open[association]
            if one.written:
                return
            one.written = True
            deadline = one.started + one.peer.deadline if one.peer.deadline else None
            with self._database.transaction(sync=False) as db:
                db.execute(
                    "INSERT INTO associations VALUES (?, ?, ?, ?, ?, ?, ?, NULL, '')",
                    (association, one.source, one.sender, one.host, one.peer.priority, deadline, one.started),
                )

    def ended(self, association: int, ending: str) -> None:
        """Record the end of a delivery.

        Parameters
        ----------
        association : int
            Its number.
        ending : str
            ``released``, ``aborted`` or ``lost``.
        """
        self.counters.add("ctenrich_associations_total", "ending", ending)
        with self._lock:
            one = self._open.pop(association)
            if not one.written:
                return
            with self._database.transaction() as db:
                db.execute(
                    "UPDATE associations SET ended = ?, ending = ? WHERE id = ?", (time.time(), ending, association)
                )
        append_event(
            self._station.audit,
            "received",
            association=association,
            source=one.source,
            sender=one.sender,
            host=one.host,
            ending=ending,
            objects=dict(one.results),
        )

    def rejected(self, host: str, why: str) -> None:
        """Record a refused connection.

        Parameters
        ----------
        host : str
            IP address.
        why : str
            Reason.
        """
        self.counters.add("ctenrich_refused_total", "reason", why)
        minute = int(time.monotonic() // 60)
        with self._lock:
            number = self._minute[1] + 1 if self._minute[0] == minute else 1
            self._minute = (minute, number)
        if number <= _REJECTIONS_PER_MINUTE:
            append_event(self._station.audit, "rejected", host=host, reason=why)
