"""What a person sees of the queue, and decides: release, retry or drop the results of a case."""

from __future__ import annotations

from ctenrich.delivery.queue import DeliveryQueue
from ctenrich.delivery.records import DeliveryRow, DeliveryState, DeliveryTotals
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason

__all__ = ["delivery_rows", "delivery_totals", "drop", "open_cases", "release", "retry"]

_CHOSEN = """
SELECT o.id, o.batch, o.destination FROM objects o JOIN batches b ON b.id = o.batch
WHERE b.case_id = :case AND (:destination = '' OR b.destination = :destination)
  AND instr(:states, ',' || o.state || ',') AND o.reason <> 'CONFLICTING_DUPLICATE'
"""
"""Objects that a decision is about; other bytes under a UID that the destination has are never sent."""


def release(queue: DeliveryQueue, case: int, destination: str = "") -> int:
    """Queue the held objects of a case; returns how many.

    Parameters
    ----------
    queue : DeliveryQueue
        The queue.
    case : int
        Number of the case.
    destination : str
        Only those for this destination; empty: for all.

    Raises
    ------
    UsageError
        BAD_PARAMETER if none is held.
    """
    return _decide(queue, case, destination, ("held",), "queued")


def retry(queue: DeliveryQueue, case: int, destination: str = "") -> int:
    """Queue the failed objects of a case again; returns how many.

    Parameters
    ----------
    queue : DeliveryQueue
        The queue.
    case : int
        Number of the case.
    destination : str
        Only those for this destination; empty: for all.

    Raises
    ------
    UsageError
        BAD_PARAMETER if none has failed. Objects that would have replaced others at the destination stay failed.
    """
    return _decide(queue, case, destination, ("failed",), "queued")


def drop(queue: DeliveryQueue, case: int, destination: str = "") -> int:
    """Drop the objects of a case that have not been sent; returns how many.

    Parameters
    ----------
    queue : DeliveryQueue
        The queue.
    case : int
        Number of the case.
    destination : str
        Only those for this destination; empty: for all.

    Raises
    ------
    UsageError
        BAD_PARAMETER if there is none.
    """
    return _decide(queue, case, destination, ("held", "queued", "failed"), "dropped")


def _decide(queue: DeliveryQueue, case: int, destination: str, states: tuple[str, ...], state: str) -> int:
    values = {"case": case, "destination": destination, "states": f",{','.join(states)},"}
    reason = "DROPPED" if state == "dropped" else ""
    with queue.database.transaction() as db:
        chosen = db.execute(_CHOSEN, values).fetchall()
        for row in chosen:
            db.execute(
                "UPDATE objects SET state = ?, reason = ?, detail = '', queued = ?, not_before = 0, asks = 0, "
                "losses = 0 WHERE id = ?",
                (state, reason, queue.clock(), row["id"]),
            )
            db.execute("UPDATE batches SET notified = 0 WHERE id = ?", (row["batch"],))
            db.execute("UPDATE destinations SET not_before = 0, failures = 0 WHERE name = ?", (row["destination"],))
    if not chosen:
        what = " or ".join(states)
        raise UsageError(
            Reason.BAD_PARAMETER,
            f"case {case} has no object that is {what}" + (f" for {destination}" if destination else ""),
            "ctenrich deliveries STATION lists them",
        )
    return len(chosen)


def delivery_rows(queue: DeliveryQueue, *, states: tuple[str, ...] = (), case: int | None = None) -> list[DeliveryRow]:
    """Return the objects by case, revision, destination, state and reason, the newest case first.

    Parameters
    ----------
    queue : DeliveryQueue
        The queue.
    states : tuple of str
        Only these states; empty: all.
    case : int, optional
        Only this case.

    Returns
    -------
    list of DeliveryRow
    """
    found = queue.database.rows(
        "SELECT b.case_id, b.revision, b.flow, o.destination, o.state, o.reason, max(o.detail) AS detail, "
        "count(*) AS objects, sum(o.sends) AS sends, sum(o.confirmed IN ('committed', 'listed')) AS confirmed, "
        "min(CASE WHEN o.state = 'queued' THEN max(o.not_before, d.not_before) END) AS next_attempt "
        "FROM objects o JOIN batches b ON b.id = o.batch JOIN destinations d ON d.name = o.destination "
        "WHERE (? = '' OR instr(?, ',' || o.state || ',')) AND (? IS NULL OR b.case_id = ?) "
        "GROUP BY b.case_id, b.revision, b.flow, o.destination, o.state, o.reason "
        "ORDER BY b.case_id DESC, b.revision DESC, o.destination, o.state",
        (*2 * (f",{','.join(states)}," if states else "",), case, case),
    )
    return [
        DeliveryRow(
            case=row["case_id"],
            revision=row["revision"],
            flow=row["flow"],
            destination=row["destination"],
            state=DeliveryState(row["state"]),
            reason=row["reason"],
            detail=row["detail"],
            objects=row["objects"],
            sends=row["sends"],
            confirmed=row["confirmed"],
            next_attempt=row["next_attempt"] or None,
        )
        for row in found
    ]


def delivery_totals(queue: DeliveryQueue) -> DeliveryTotals:
    """Count the objects by state, in one statement."""
    found = queue.database.rows("SELECT state, count(*) AS number FROM objects GROUP BY state")
    states = {row["state"]: int(row["number"]) for row in found}
    return DeliveryTotals(planned=sum(states.values()), **states)


def open_cases(queue: DeliveryQueue) -> set[int]:
    """Cases with objects that are held, wait or are being sent."""
    found = queue.database.rows(
        "SELECT DISTINCT b.case_id FROM objects o JOIN batches b ON b.id = o.batch "
        "WHERE o.state IN ('held', 'queued', 'sending')"
    )
    return {int(row["case_id"]) for row in found}
