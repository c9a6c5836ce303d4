"""Numbers of the deliveries for the metrics of a station; no label holds a name or identifier of a patient."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import MappingProxyType

from ctenrich.delivery.records import DeliveryState

__all__ = ["DELIVERY_METRICS", "delivery_numbers"]

DELIVERY_METRICS = MappingProxyType(
    {
        "ctenrich_deliveries": ("gauge", "Objects for destinations by state; each object counts once per destination."),
        "ctenrich_deliveries_confirmed": ("gauge", "Delivered objects by what the destination said afterwards."),
        "ctenrich_delivery_sends_total": ("counter", "Attempts that transmitted an object."),
        "ctenrich_delivery_repeats_total": ("counter", "Attempts that transmitted an object once more."),
        "ctenrich_delivery_wait_seconds": ("gauge", "Age of the oldest object that is queued or being sent."),
        "ctenrich_destination_failures": ("gauge", "Attempts to reach a destination since it last answered."),
        "ctenrich_notifications": ("gauge", "Notifications to hooks by state."),
    }
)
"""Name -> type and meaning."""
_CONFIRMED = {"": "waiting", "committed": "committed", "listed": "listed", "not offered": "not offered"}
_STATES = ("queued", "sent", "failed")
"""Of a notification."""


def delivery_numbers(path: Path, *, now: float | None = None) -> dict[tuple[str, str, str], float]:
    """Return the numbers of the deliveries.

    Parameters
    ----------
    path : Path
        The queue's file; it is only read. If it does not exist, nothing was delivered.
    now : float, optional
        Seconds since the epoch; default: the clock's.

    Returns
    -------
    dict
        (name, label, value) -> number.
    """
    found: dict[tuple[str, str, str], float] = {}
    if not path.is_file():
        return found
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)) as db:
        states = _counts(db, "SELECT state, count(*) FROM objects GROUP BY state")
        for state in DeliveryState:
            found["ctenrich_deliveries", "state", state.value] = states.get(state.value, 0)
        confirmed = _counts(
            db, "SELECT confirmed, count(*) FROM objects WHERE state IN ('sent', 'warning') GROUP BY confirmed"
        )
        for answer, name in _CONFIRMED.items():
            found["ctenrich_deliveries_confirmed", "answer", name] = confirmed.get(answer, 0)
        sends = db.execute("SELECT total(sends), total(max(sends - 1, 0)) FROM objects").fetchone()
        found["ctenrich_delivery_sends_total", "", ""], found["ctenrich_delivery_repeats_total", "", ""] = sends
        (oldest,) = db.execute("SELECT min(queued) FROM objects WHERE state IN ('queued', 'sending')").fetchone()
        wait = max(0.0, (time.time() if now is None else now) - oldest) if oldest is not None else 0.0
        found["ctenrich_delivery_wait_seconds", "", ""] = wait
        for name, failures in _counts(db, "SELECT name, failures FROM destinations").items():
            found["ctenrich_destination_failures", "destination", name] = failures
        notices = _counts(db, "SELECT state, count(*) FROM notifications GROUP BY state")
        for state_name in _STATES:
            found["ctenrich_notifications", "state", state_name] = notices.get(state_name, 0)
    return found


def _counts(db: sqlite3.Connection, sql: str) -> dict[str, float]:
    rows: Sequence[tuple[str, float]] = db.execute(sql).fetchall()
    return dict(rows)
