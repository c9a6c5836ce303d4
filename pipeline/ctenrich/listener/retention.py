"""Deletes the received objects of cases that ended long enough ago."""

from __future__ import annotations

import shutil
import time

from ctenrich.delivery.decisions import open_cases
from ctenrich.delivery.queue import DeliveryQueue
from ctenrich.listener.audit import append_event
from ctenrich.listener.config import KeepRule
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.station import Station

__all__ = ["delete_old_objects"]

_AT_ONCE = 100
"""Cases whose objects are deleted by one call."""
_IMAGES = (
    "r*/images",
    *(f"{top}/*/{below}" for top in ("r*/flows", "replays/*") for below in ("images", "steps/*/in")),
)
"""Folders with links to received objects, or copies of them."""


def delete_old_objects(station: Station, database: StationDatabase, rule: KeepRule) -> list[int]:
    """Delete the received objects of cases whose last revision ended longer ago than the rule says.

    Results stay. A case whose results are held or wait to be sent keeps its objects.
    An object that is sent again afterwards is received as new, and reopens its case.

    Parameters
    ----------
    station : Station
        The station.
    database : StationDatabase
        Its database.
    rule : KeepRule
        How long objects are kept.

    Returns
    -------
    list of int
        The cases.
    """
    if not rule.days:
        return []
    rows = database.rows(
        "SELECT c.id FROM cases c WHERE c.held = '' AND EXISTS (SELECT 1 FROM instances i WHERE i.case_id = c.id) "
        "AND NOT EXISTS (SELECT 1 FROM revisions r WHERE r.case_id = c.id AND "
        "(r.ended IS NULL OR r.ended > ?)) ORDER BY c.id",
        (time.time() - 86400 * rule.days,),
    )
    cases = [int(row["id"]) for row in rows]
    if cases and station.deliveries.exists():
        with DeliveryQueue(station.deliveries) as queue:
            undelivered = open_cases(queue)
        cases = [case for case in cases if case not in undelivered]
    for case in cases[:_AT_ONCE]:
        paths = [row["path"] for row in database.rows("SELECT path FROM instances WHERE case_id = ?", (case,))]
        with database.transaction() as db:  # first the rows: a file without a row is deleted at the next start
            db.execute("DELETE FROM resent WHERE instance IN (SELECT id FROM instances WHERE case_id = ?)", (case,))
            db.execute("DELETE FROM instances WHERE case_id = ?", (case,))
        for path in paths:
            (station.received / path).unlink(missing_ok=True)
        for pattern in _IMAGES:
            for folder in station.revision(case, 1).parent.glob(pattern):
                shutil.rmtree(folder, ignore_errors=True)
        append_event(station.audit, "objects deleted", case=case, objects=len(paths))
    return cases[:_AT_ONCE]
