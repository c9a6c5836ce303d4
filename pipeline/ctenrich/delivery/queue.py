"""The durable queue of deliveries: one row per object and destination, with its state and every attempt.

An object is HELD until a person releases it, or QUEUED. It is SENDING while its bytes are on their way, and ends as
SENT, WARNING (the destination has it and reported a warning), FAILED or DROPPED. A process that is killed leaves
SENDING rows, which are queued again: the destination recognises the second copy by its SOP Instance UID. No object is
queued for a destination that has the same bytes, whichever revision made them.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from ctenrich.delivery.database import DeliveryDatabase
from ctenrich.delivery.destination import Destination, OwnAddresses
from ctenrich.delivery.headers import ObjectHeader, read_header
from ctenrich.delivery.hooks import backoff, notify
from ctenrich.delivery.records import Batch, DeliveryState, FlowNotice, QueuedObject
from ctenrich.reasons import Reason

__all__ = ["DeliveryQueue"]

_MOST_REVISIONS = 20
"""Revisions of one case that are delivered to one destination without a person: more look like a loop."""
_INSERT = """
INSERT INTO objects (batch, destination, sop_instance_uid, sop_class_uid, series_instance_uid, study_instance_uid,
  transfer_syntax, sha256, path, size, priority, state, reason, queued)
VALUES (:batch, :destination, :sop_instance_uid, :sop_class_uid, :series_instance_uid, :study_instance_uid,
  :transfer_syntax, :sha256, :path, :size, :priority, :state, :reason, :queued)
"""
_UPDATE = """
UPDATE objects SET state = :state, reason = :reason, detail = :detail, status = :status, not_before = :not_before,
  sent = :sent, confirmed = :confirmed, asks = :asks, losses = :losses WHERE id = :id
"""


class DeliveryQueue:
    """The queue of a station, in ``deliveries.sqlite``.

    Parameters
    ----------
    path : Path
        The file; created if it does not exist.
    clock : callable
        Seconds since the epoch.

    Raises
    ------
    UsageError
        BAD_STATION.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.database = DeliveryDatabase(path)
        self.clock = clock

    def close(self) -> None:
        """Close the connection."""
        self.database.close()

    def __enter__(self) -> DeliveryQueue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------ filling

    def add(self, batch: Batch, *, own: OwnAddresses | None = None) -> None:
        """Queue or hold the objects of a batch; a second call with the same batch changes nothing.

        Objects of earlier revisions that have not been sent are replaced. Objects that the destination has already
        are not queued again. Other bytes under a SOP Instance UID that was sent are not sent. Objects for this station
        itself are sent once per case.

        Parameters
        ----------
        batch : Batch
            What is delivered, and where.
        own : OwnAddresses, optional
            Where this station receives.

        Raises
        ------
        InputError
            NOT_DICOM for a file that is no DICOM object.
        OSError
        """
        headers = [read_header(path) for path in batch.files]
        is_own = own is not None and own.includes(batch.destination)
        with self.database.transaction() as db:
            self._define(db, batch.destination)
            found = db.execute(
                "SELECT id FROM batches WHERE case_id = ? AND revision = ? AND destination = ?",
                (batch.case, batch.revision, batch.destination.name),
            ).fetchone()
            if found is not None:
                return
            state, reason = self._first_state(db, batch, is_own)
            number = db.execute(
                "INSERT INTO batches (case_id, revision, destination, flow, hooks, own, created) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    batch.case,
                    batch.revision,
                    batch.destination.name,
                    batch.flow,
                    json.dumps([asdict(hook) for hook in batch.hooks]),
                    int(is_own),
                    self.clock(),
                ),
            ).lastrowid
            assert number is not None
            for header in headers:
                self._insert(db, batch, number, header, (state, reason))
            db.execute(
                "UPDATE objects SET state = 'dropped', reason = 'SUPERSEDED' WHERE state IN ('held', 'queued') "
                "AND batch IN (SELECT id FROM batches WHERE case_id = ? AND destination = ? AND revision < ?)",
                (batch.case, batch.destination.name, batch.revision),
            )
            if state is DeliveryState.HELD:
                notify(db, number, "held")

    @staticmethod
    def _define(db: sqlite3.Connection, destination: Destination) -> None:
        db.execute(
            "INSERT INTO destinations (name, settings) VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET settings = excluded.settings",
            (destination.name, json.dumps(asdict(destination))),
        )

    @staticmethod
    def _first_state(db: sqlite3.Connection, batch: Batch, is_own: bool) -> tuple[DeliveryState, str]:
        if (
            is_own
            and db.execute(
                "SELECT 1 FROM batches WHERE case_id = ? AND own = 1 AND revision < ?", (batch.case, batch.revision)
            ).fetchone()
        ):
            return DeliveryState.DROPPED, "LOOP"
        if batch.held:
            return DeliveryState.HELD, batch.held
        earlier = db.execute(
            "SELECT count(*) FROM batches WHERE case_id = ? AND destination = ?", (batch.case, batch.destination.name)
        ).fetchone()[0]
        if earlier >= _MOST_REVISIONS:
            return DeliveryState.HELD, "LOOP"
        return (DeliveryState.HELD, "") if batch.destination.holds else (DeliveryState.QUEUED, "")

    def _insert(
        self, db: sqlite3.Connection, batch: Batch, number: int, header: ObjectHeader, first: tuple[DeliveryState, str]
    ) -> None:
        state, reason = first
        rows = db.execute(
            "SELECT id, batch, sha256, state FROM objects WHERE destination = ? AND sop_instance_uid = ?",
            (batch.destination.name, header.sop_instance_uid),
        ).fetchall()
        now = self.clock()
        for row in rows:
            if row["sha256"] != header.sha256:
                continue
            if row["state"] in ("held", "queued", "failed", "dropped") and row["batch"] != number:
                db.execute(
                    "UPDATE objects SET batch = ?, path = ?, state = ?, reason = ?, detail = '', queued = ?, "
                    "not_before = 0 WHERE id = ?",
                    (number, str(header.path), state.value, reason, now, row["id"]),
                )
            return
        if any(row["state"] in ("sending", "sent", "warning") or row["batch"] == number for row in rows):
            state, reason = DeliveryState.FAILED, Reason.CONFLICTING_DUPLICATE.value
        values = {
            "batch": number,
            "destination": batch.destination.name,
            **header.columns(),
            "priority": batch.priority,
            "state": state.value,
            "reason": reason,
            "queued": now,
        }
        db.execute(_INSERT, values)

    def add_notice(self, notice: FlowNotice) -> None:
        """Queue the notifications about the end of a flow; a second call changes nothing.

        Parameters
        ----------
        notice : FlowNotice
            How the flow ended on a revision.
        """
        if not any(notice.event in hook.events for hook in notice.hooks):
            return
        hooks = json.dumps([asdict(hook) for hook in notice.hooks])
        with self.database.transaction() as db:
            made = db.execute(
                "INSERT OR IGNORE INTO batches (case_id, revision, destination, flow, hooks, own, created, notified) "
                "VALUES (?, ?, ?, ?, ?, 0, ?, 1)",
                (notice.case, notice.revision, f"{notice.flow}:", notice.flow, hooks, self.clock()),
            )
            if made.rowcount:
                assert made.lastrowid is not None
                notify(db, made.lastrowid, notice.event, reasons=notice.reasons)

    # ------------------------------------------------------------ sending

    def recover(self) -> int:
        """Queue the objects again that a killed process was sending; returns how many."""
        with self.database.transaction() as db:
            return db.execute("UPDATE objects SET state = 'queued' WHERE state = 'sending'").rowcount

    def due(self) -> list[Destination]:
        """Destinations with objects to send, or to ask about, now."""
        now = self.clock()
        found = self.database.rows(
            "SELECT settings FROM destinations d WHERE d.not_before <= ? AND EXISTS (SELECT 1 FROM objects o "
            "WHERE o.destination = d.name AND o.not_before <= ? AND (o.state = 'queued' "
            "OR (o.state IN ('sent', 'warning') AND o.confirmed = '')))",
            (now, now),
        )
        return [Destination(**json.loads(row["settings"])) for row in found]

    def to_send(self, destination: str, limit: int) -> list[QueuedObject]:
        """Return objects that may be sent to a destination now, in their order.

        Parameters
        ----------
        destination : str
            Its name.
        limit : int
            How many at most.

        Returns
        -------
        list of QueuedObject
            By priority, then in the order in which they were queued.
        """
        return self._objects(destination, limit, sent=False)

    def to_confirm(self, destination: str, limit: int) -> list[QueuedObject]:
        """Return sent objects that the destination should be asked about now.

        Parameters
        ----------
        destination : str
            Its name.
        limit : int
            How many at most.

        Returns
        -------
        list of QueuedObject
        """
        return self._objects(destination, limit, sent=True)

    def _objects(self, destination: str, limit: int, *, sent: bool) -> list[QueuedObject]:
        found = self.database.rows(
            "SELECT * FROM objects WHERE destination = ? AND not_before <= ? AND "
            "CASE WHEN ? THEN state IN ('sent', 'warning') AND confirmed = '' ELSE state = 'queued' END "
            "ORDER BY priority DESC, id LIMIT ?",
            (destination, self.clock(), sent, limit),
        )
        return [
            QueuedObject(
                number=row["id"],
                destination=row["destination"],
                header=ObjectHeader.of_row(row),
                sends=row["sends"],
                asks=row["asks"],
                losses=row["losses"],
            )
            for row in found
        ]

    def begin(self, one: QueuedObject) -> bool:
        """Note that an object is being sent; returns False if a person dropped it meanwhile."""
        with self.database.transaction() as db:
            return (
                db.execute(
                    "UPDATE objects SET state = 'sending', sends = sends + 1 WHERE id = ? AND state = 'queued'",
                    (one.number,),
                ).rowcount
                > 0
            )

    def update(self, number: int, **values: object) -> None:
        """Set columns of an object that change while it is sent.

        Parameters
        ----------
        number : int
            Its number.
        **values
            Column -> value.
        """
        with self.database.transaction() as db:
            row = db.execute("SELECT * FROM objects WHERE id = ?", (number,)).fetchone()
            db.execute(_UPDATE, {**dict(zip(row.keys(), row, strict=True)), **values})
            if values.get("state") == "queued":
                db.execute(
                    "UPDATE batches SET notified = 0 WHERE id = (SELECT batch FROM objects WHERE id = ?)", (number,)
                )

    def reached(self, destination: str) -> None:
        """Note that a destination answered."""
        with self.database.transaction() as db:
            db.execute(
                "UPDATE destinations SET failures = 0, not_before = 0, problem = '' WHERE name = ? AND failures > 0",
                (destination,),
            )

    def failed(self, destination: Destination, problem: str) -> float:
        """Note that a destination could not be reached or takes nothing now.

        Parameters
        ----------
        destination : Destination
            The destination.
        problem : str
            Why, without identifiers of patients.

        Returns
        -------
        float
            Seconds until the next attempt.
        """
        with self.database.transaction() as db:
            row = db.execute("SELECT failures FROM destinations WHERE name = ?", (destination.name,)).fetchone()
            wait = backoff(destination.retry_seconds, row["failures"])
            db.execute(
                "UPDATE destinations SET failures = failures + 1, not_before = ?, problem = ? WHERE name = ?",
                (self.clock() + wait, problem, destination.name),
            )
            db.execute(
                "UPDATE objects SET state = 'failed', reason = ?, detail = ? "
                "WHERE destination = ? AND state = 'queued' AND queued < ?",
                (
                    Reason.DELIVERY_FAILED.value,
                    problem,
                    destination.name,
                    self.clock() - 86400 * destination.give_up_days,
                ),
            )
        return wait

    def finish_batches(self) -> None:
        """Queue the notifications of batches of which each object has ended."""
        with self.database.transaction() as db:
            ended = db.execute(
                "SELECT b.id, b.hooks, sum(o.state = 'failed') AS failed, sum(o.state IN ('sent', 'warning')) AS sent "
                "FROM batches b LEFT JOIN objects o ON o.batch = b.id WHERE b.notified = 0 GROUP BY b.id "
                "HAVING coalesce(sum(o.state IN ('held', 'queued', 'sending') "
                "OR (o.state IN ('sent', 'warning') AND o.confirmed = '')), 0) = 0"
            ).fetchall()
            for row in ended:
                db.execute("UPDATE batches SET notified = 1 WHERE id = ?", (row["id"],))
                if row["failed"] or row["sent"]:
                    notify(db, row["id"], "failed" if row["failed"] else "delivered")
