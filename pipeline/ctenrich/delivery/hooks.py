"""Notifications about deliveries: a JSON document that is posted to a web address, or an e-mail.

A notification has the numbers of case and objects, states and reason codes, and nothing about the patient. A hook with
`identifiers` adds Patient ID, Study Instance UID and Accession Number; each such notification is recorded in the audit
log. A hook whose address fails is tried again for a day.
"""

from __future__ import annotations

import json
import os
import smtplib
import sqlite3
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import replace
from email.message import EmailMessage
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ctenrich.delivery.destination import Hook
from ctenrich.delivery.records import DeliveryState
from ctenrich.dicom.quiet import quiet

if TYPE_CHECKING:
    from ctenrich.delivery.database import DeliveryDatabase

__all__ = ["backoff", "notify", "send_notifications"]

_SECONDS = 30.0
"""Time for the answer of a hook."""
_FIRST_WAIT = 10.0
_ATTEMPTS = 100
"""About a day, with the longest time between two attempts."""
_IDENTIFIERS = {
    "patient_id": "PatientID",
    "study_instance_uid": "StudyInstanceUID",
    "accession_number": "AccessionNumber",
}


def backoff(first: float, failures: int, longest: float = 900.0) -> float:
    """Return the time before the next attempt, which doubles with each failure.

    Parameters
    ----------
    first : float
        Seconds after the first failure.
    failures : int
        Failures before this one.
    longest : float
        Seconds at most.

    Returns
    -------
    float
    """
    return min(first * 2.0 ** min(failures, 30), max(first, longest))


def notify(db: sqlite3.Connection, batch: int, event: str, *, reasons: Sequence[str] = ()) -> None:
    """Queue the notifications of an event, inside a transaction.

    Parameters
    ----------
    db : sqlite3.Connection
        From :meth:`DeliveryDatabase.transaction`.
    batch : int
        Number of the batch.
    event : str
        ``done``, ``delivered``, ``failed`` or ``held``.
    reasons : sequence of str
        Reason codes besides those of the objects.
    """
    row = db.execute("SELECT * FROM batches WHERE id = ?", (batch,)).fetchone()
    hooks: Sequence[dict[str, object]] = json.loads(row["hooks"])
    if not hooks:
        return
    states = db.execute("SELECT state, reason FROM objects WHERE batch = ?", (batch,)).fetchall()
    message = {
        "event": event,
        "case": row["case_id"],
        "revision": row["revision"],
        "flow": row["flow"],
        "destination": row["destination"],
        "objects": {name: number for name in DeliveryState if (number := sum(one["state"] == name for one in states))},
        "reasons": sorted({*reasons, *(one["reason"] for one in states if one["reason"])}),
    }
    for hook in hooks:
        if event in hook["events"]:  # type: ignore[operator]
            db.execute(
                "INSERT INTO notifications (batch, event, hook, message) VALUES (?, ?, ?, ?)",
                (batch, event, json.dumps(hook), json.dumps(message)),
            )


def send_notifications(database: DeliveryDatabase, now: float, audit: Callable[..., None]) -> int:
    """Send the notifications that are due; returns how many were sent.

    Parameters
    ----------
    database : DeliveryDatabase
        Of the deliveries.
    now : float
        Seconds since the epoch.
    audit : callable
        Gets the name of an event and its values.

    Returns
    -------
    int
    """
    rows = database.rows(
        "SELECT n.*, b.case_id FROM notifications n JOIN batches b ON b.id = n.batch "
        "WHERE n.state = 'queued' AND n.not_before <= ? ORDER BY n.id LIMIT 50",
        (now,),
    )
    sent = 0
    for row in rows:
        hook = Hook(**{**json.loads(row["hook"]), "events": (row["event"],)})
        hook = replace(hook, to=tuple(hook.to))
        message = json.loads(row["message"])
        if hook.identifiers:
            audit("identifiers sent", hook=hook.name, case=row["case_id"])  # before: a crash leaves no silent one
            message |= _identifiers_of(database, row["batch"])
        problem = _send(hook, message)
        sent += not problem
        given_up = problem and row["attempts"] + 1 >= _ATTEMPTS
        wait = backoff(_FIRST_WAIT, row["attempts"])
        with database.transaction() as db:
            db.execute(
                "UPDATE notifications SET state = ?, attempts = attempts + 1, not_before = ?, problem = ? WHERE id = ?",
                ("failed" if given_up else "queued" if problem else "sent", now + wait, problem, row["id"]),
            )
        if given_up:
            audit("notification failed", hook=hook.name, case=row["case_id"])
    return sent


def _identifiers_of(database: DeliveryDatabase, batch: int) -> dict[str, str]:
    """Identifiers in an object of the batch or its case; empty if there is none."""
    from pydicom import dcmread

    rows = database.rows(
        "SELECT o.path FROM objects o JOIN batches b ON b.id = o.batch WHERE b.case_id = "
        "(SELECT case_id FROM batches WHERE id = ?) ORDER BY o.batch = ? DESC, o.id LIMIT 1",
        (batch, batch),
    )
    try:
        with quiet():
            data = dcmread(Path(rows[0]["path"]), stop_before_pixels=True)
    except (OSError, IndexError):
        return {}
    return {name: str(data.get(keyword, "")) for name, keyword in _IDENTIFIERS.items()}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A notification goes to the address that was configured, and nowhere else."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        return None


def _send(hook: Hook, message: dict[str, Any]) -> str:
    """Send a message; returns what went wrong, or nothing."""
    try:
        if urlsplit(hook.address).scheme == "smtp":
            _mail(hook, message)
        else:
            _post(hook, message)
    except urllib.error.HTTPError as error:
        error.close()
        return f"HTTP status {error.code}"
    except (OSError, HTTPException, smtplib.SMTPException) as error:
        return type(error).__name__
    return ""


def _post(hook: Hook, message: dict[str, Any]) -> None:
    headers = {"Content-Type": "application/json"}
    if token := os.environ.get(hook.token_variable, "") if hook.token_variable else "":
        headers["Authorization"] = f"Bearer {token}"
    body = json.dumps(message).encode()
    request = urllib.request.Request(hook.address, body, headers, method="POST")  # noqa: S310 - checked by Hook.check
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=_SECONDS) as answer:
        answer.read(1024)


def _mail(hook: Hook, message: dict[str, Any]) -> None:
    parts = urlsplit(hook.address)
    mail = EmailMessage()
    mail["From"], mail["To"] = hook.sender, ", ".join(hook.to)
    mail["Subject"] = f"ctenrich: case {message['case']} {message['event']}"
    mail.set_content(json.dumps(message, indent=2))
    with smtplib.SMTP(parts.hostname or "", parts.port or 25, timeout=_SECONDS) as relay:
        relay.ehlo()
        if relay.has_extn("starttls"):
            relay.starttls(context=ssl.create_default_context())
        relay.send_message(mail)
