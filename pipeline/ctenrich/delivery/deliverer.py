"""Works through the queue of deliveries: each destination in a thread of its own, so that none waits for another."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ctenrich.delivery.destination import Destination
from ctenrich.delivery.hooks import backoff, send_notifications
from ctenrich.delivery.queue import DeliveryQueue
from ctenrich.delivery.records import DeliveryState, QueuedObject
from ctenrich.delivery.senders import Answer, Outcome, Send, UnreachableError, node_of_destination, open_sender
from ctenrich.errors import CtenrichError, TransientError, is_disk_full
from ctenrich.publish.node import Held, NodeObject, ask_node
from ctenrich.reasons import Reason
from ctenrich.workspace import sha256_of_file

__all__ = ["Audit", "Deliverer"]

_POLL_SECONDS = 0.3
_AT_ONCE = 100
"""Objects of one association."""
_ATTEMPTS = 4
"""Attempts for an object that a destination fails to process, while it takes others."""
_ASKS = 3
"""How often a node is asked about an object that it does not have, before the object is sent again."""
_LOSSES = 2
"""Times that an object may be accepted and be missing afterwards."""
Audit = Callable[..., None]
"""Gets the name of an event and its values."""


class Deliverer:
    """Sends what is queued, asks about what was sent, and sends notifications.

    Parameters
    ----------
    path : Path
        The queue's file; one deliverer works on it.
    audit : callable
        Gets the name of an event and its values, without identifiers of patients.
    clock : callable
        Seconds since the epoch.
    """

    def __init__(self, path: Path, audit: Audit, *, clock: Callable[[], float] = time.time) -> None:
        self._path, self._audit, self._clock = path, audit, clock
        self._threads: dict[str, threading.Thread] = {}

    def run(self, stop: threading.Event) -> None:
        """Work until the event is set; then objects that are on their way may end."""
        with DeliveryQueue(self._path, clock=self._clock) as queue:
            queue.recover()
            while not stop.is_set():
                try:
                    self._start_threads(queue, stop)
                    queue.finish_batches()
                    self._start("", self._notify)
                except (OSError, sqlite3.Error) as error:
                    if not is_disk_full(error):
                        raise
                stop.wait(_POLL_SECONDS)
        for thread in self._threads.values():
            thread.join(5.0)

    def _start_threads(self, queue: DeliveryQueue, stop: threading.Event) -> None:
        for destination in queue.due():

            def work(destination: Destination = destination) -> None:
                with DeliveryQueue(self._path, clock=self._clock) as own:
                    try:
                        self.work_on(own, destination, stop)
                    except Exception as error:  # noqa: BLE001  recorded; one destination never ends the others
                        self._failed(own, destination, type(error).__name__)

            self._start(destination.name, work)

    def _start(self, name: str, body: Callable[[], None]) -> None:
        """Start a thread, unless the last one of this name still works."""
        if name not in self._threads or not self._threads[name].is_alive():
            self._threads[name] = threading.Thread(target=body, daemon=True, name=f"deliver {name}")
            self._threads[name].start()

    def _notify(self) -> None:
        with DeliveryQueue(self._path, clock=self._clock) as queue:
            send_notifications(queue.database, self._clock(), self._audit)

    # ------------------------------------------------------------ one destination

    def work_on(self, queue: DeliveryQueue, destination: Destination, stop: threading.Event | None = None) -> None:
        """Send the objects that are due for a destination, then ask about those that were sent.

        Parameters
        ----------
        queue : DeliveryQueue
            The queue, with a connection of this thread.
        destination : Destination
            The destination.
        stop : threading.Event, optional
            Ends the work after the current object.
        """
        try:
            objects = queue.to_send(destination.name, _AT_ONCE)
            if objects:
                with open_sender(destination, [one.header for one in objects]) as send:
                    for one in objects:
                        if (stop is not None and stop.is_set()) or not self._send(queue, destination, one, send):
                            break
            sent = [] if stop is not None and stop.is_set() else queue.to_confirm(destination.name, _AT_ONCE)
            if sent:
                self._confirm(queue, destination, sent)
        except CtenrichError as error:
            detail = error.message if isinstance(error, UnreachableError) else f"{error.reason.value}: {error.message}"
            self._failed(queue, destination, detail)

    def _failed(self, queue: DeliveryQueue, destination: Destination, detail: str) -> None:
        queue.failed(destination, detail)
        self._audit("destination failed", destination=destination.name, problem=detail)

    def _send(self, queue: DeliveryQueue, destination: Destination, one: QueuedObject, send: Send) -> bool:
        """Send one object; returns whether the next one may follow."""
        if problem := _changed(one):
            queue.update(one.number, state="failed", reason=problem.value, detail="the file has changed or is gone")
            return True
        if not queue.begin(one):
            return True
        try:
            answer = send(one.header)
        except BaseException:  # it may have arrived: the second copy has the same SOP Instance UID
            queue.update(one.number, state="queued")
            raise
        if answer.outcome is Outcome.BUSY:
            queue.update(one.number, state="queued", status=answer.status, detail=answer.detail)
            self._failed(queue, destination, answer.detail)
            return False
        queue.reached(destination.name)
        self._note(queue, destination, one, answer)
        return True

    def _note(self, queue: DeliveryQueue, destination: Destination, one: QueuedObject, answer: Answer) -> None:
        known = {"status": answer.status, "detail": answer.detail}
        now = self._clock()
        if answer.outcome in (Outcome.DELIVERED, Outcome.WARNING):
            state = DeliveryState.SENT if answer.outcome is Outcome.DELIVERED else DeliveryState.WARNING
            asked = destination.confirm and destination.scheme == "dicom"
            queue.update(
                one.number,
                state=state.value,
                reason="",
                sent=now,
                confirmed="" if asked else "not asked",
                asks=0,
                not_before=now + destination.confirm_seconds,
                **known,
            )
        elif answer.outcome is Outcome.REFUSED or one.sends + 1 >= _ATTEMPTS:
            queue.update(one.number, state="failed", reason=Reason.DELIVERY_REFUSED.value, **known)
        else:
            wait = backoff(destination.retry_seconds, one.sends)
            queue.update(one.number, state="queued", not_before=now + wait, **known)

    # ------------------------------------------------------------ what the node has

    def _confirm(self, queue: DeliveryQueue, destination: Destination, objects: list[QueuedObject]) -> None:
        """Ask a node about sent objects; one that it does not have is sent again."""
        asked = [
            NodeObject(
                sop_class=one.header.sop_class_uid,
                sop_instance_uid=one.header.sop_instance_uid,
                series_instance_uid=one.header.series_instance_uid,
                study_instance_uid=one.header.study_instance_uid,
            )
            for one in objects
        ]
        try:
            held = ask_node(asked, node_of_destination(destination))
        except TransientError:  # it took the objects, and offers neither storage commitment nor queries
            held = {}
        for one in objects:
            answer = held.get(one.header.sop_instance_uid, Held(status="failed"))
            if answer.status != "missing":
                confirmed = answer.status if answer.status in ("committed", "listed") else "not offered"
                queue.update(one.number, confirmed=confirmed)
            else:
                self._missing(queue, destination, one)

    def _missing(self, queue: DeliveryQueue, destination: Destination, one: QueuedObject) -> None:
        now = self._clock()
        detail = "the destination accepted it, and does not have it"
        if one.asks + 1 < _ASKS:  # it may need time until a query finds the object
            wait = backoff(destination.confirm_seconds, 2 * (one.asks + 1))
            queue.update(one.number, asks=one.asks + 1, not_before=now + wait)
        elif one.losses + 1 < _LOSSES:
            queue.update(one.number, state="queued", asks=0, losses=one.losses + 1, not_before=now, detail=detail)
        else:
            queue.update(one.number, state="failed", reason=Reason.DELIVERY_LOST.value, detail=detail)
            self._audit("object lost", destination=destination.name)


def _changed(one: QueuedObject) -> Reason | None:
    """Why the file of an object must not be sent; None: it has the bytes that were queued."""
    try:
        return None if sha256_of_file(one.header.path) == one.header.sha256 else Reason.CHECKSUM
    except OSError:
        return Reason.NOT_FOUND
