"""Cases: the received objects of one study, and the states that its revisions go through.

A case has revisions. A revision is OPEN while images arrive, CLOSED when it waits for its run, then RUNNING, and ends
as DONE, SKIPPED or FAILED. An image that comes after the start of a run opens the next revision, which has all images
of the study. A held case neither closes nor runs.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from enum import StrEnum

from ctenrich.errors import UsageError
from ctenrich.listener.database import StationDatabase
from ctenrich.reasons import Reason

__all__ = [
    "ENDED",
    "OFF_PEAK",
    "CaseRow",
    "CaseState",
    "Totals",
    "case_of",
    "cases_of",
    "count_death",
    "deaths_of",
    "drop",
    "end_revision",
    "hold",
    "next_to_run",
    "release",
    "replay",
    "start_revision",
    "totals",
]


OFF_PEAK = "OFF_PEAK"
"""Reason of a closed revision of which only flows are left that wait for off-peak hours."""


class CaseState(StrEnum):
    """State of a revision."""

    OPEN = "open"
    WAITING = "waiting"
    """Still open after the longest time; it goes on waiting."""
    CLOSED = "closed"
    RUNNING = "running"
    DONE = "done"
    SKIPPED = "skipped"
    """Discarded, dropped, or nothing in it can be used."""
    FAILED = "failed"


ENDED = frozenset({CaseState.DONE, CaseState.SKIPPED, CaseState.FAILED})


@dataclass(frozen=True, kw_only=True)
class CaseRow:
    """A revision of a case, as commands and pages show it."""

    case: int
    revision: int
    state: CaseState
    held: str
    """Why the case is held; empty: it is not."""
    reason: str
    message: str
    priority: int
    images: int
    series: int
    conflicts: int
    """Objects with other bytes than an earlier one of their SOP Instance UID; they are kept, and not used."""
    created: float
    closed: float | None
    started: float | None
    ended: float | None


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Numbers of revisions; ``planned = done + skipped + failed + open`` at any moment."""

    planned: int
    done: int
    skipped: int
    failed: int
    open: int
    """Open, waiting, closed or running."""
    held: int
    """Cases that are held; their last revision is among the open ones, or has ended."""


_SELECT = """
SELECT r.case_id AS "case", r.revision, r.state, c.held, r.reason, r.message, c.priority,
  r.created, r.closed, r.started, r.ended,
  (SELECT count(*) FROM instances i WHERE i.case_id = r.case_id AND i.revision <= r.revision AND i.conflict = 0)
    AS images,
  (SELECT count(DISTINCT i.series_instance_uid) FROM instances i
   WHERE i.case_id = r.case_id AND i.revision <= r.revision) AS series,
  (SELECT count(*) FROM instances i WHERE i.case_id = r.case_id AND i.revision <= r.revision AND i.conflict = 1)
    AS conflicts
FROM revisions r JOIN cases c ON c.id = r.case_id
"""


def _row(row: sqlite3.Row) -> CaseRow:
    values = dict(zip(row.keys(), row, strict=True))
    return CaseRow(**{**values, "state": CaseState(values["state"])})


def cases_of(database: StationDatabase, *, states: tuple[str, ...] = (), limit: int = 1000) -> list[CaseRow]:
    """Return the newest revisions of cases.

    Parameters
    ----------
    database : StationDatabase
        The station.
    states : tuple of str
        Only these states; ``held`` is every held case. Empty: all.
    limit : int
        How many at most.

    Returns
    -------
    list of CaseRow
        Newest first.
    """
    rows = database.rows(
        _SELECT + "WHERE (? = '' OR instr(?, ',' || r.state || ',') OR (instr(?, ',held,') AND c.held <> '')) "
        "ORDER BY r.case_id DESC, r.revision DESC LIMIT ?",
        (*3 * (f",{','.join(states)}," if states else "",), limit),
    )
    return [_row(row) for row in rows]


def case_of(database: StationDatabase, case: int) -> list[CaseRow]:
    """Return all revisions of a case, the last one first.

    Parameters
    ----------
    database : StationDatabase
        The station.
    case : int
        Number of the case.

    Returns
    -------
    list of CaseRow

    Raises
    ------
    UsageError
        NOT_FOUND.
    """
    rows = database.rows(_SELECT + "WHERE r.case_id = ? ORDER BY r.revision DESC", (case,))
    if not rows:
        hint = "ctenrich cases STATION lists the cases"
        raise UsageError(Reason.NOT_FOUND, f"there is no case {case}", hint)
    return [_row(row) for row in rows]


def totals(database: StationDatabase) -> Totals:
    """Count the revisions of all cases by how they ended, in one statement."""
    row = database.rows(
        "SELECT count(*) AS planned, sum(state = 'done') AS done, sum(state = 'skipped') AS skipped, "
        "sum(state = 'failed') AS failed, sum(state IN ('open', 'waiting', 'closed', 'running')) AS open, "
        "(SELECT count(*) FROM cases WHERE held <> '') AS held FROM revisions"
    )[0]
    return Totals(**{name: int(row[name] or 0) for name in row.keys()})  # noqa: SIM118 - a row of SQLite is no mapping


# ---------------------------------------------------------------- what a person decides


def hold(database: StationDatabase, case: int) -> None:
    """Hold a case: it neither closes nor runs until it is released.

    Parameters
    ----------
    database : StationDatabase
        The station.
    case : int
        Number of the case.

    Raises
    ------
    UsageError
        NOT_FOUND.
    """
    case_of(database, case)
    with database.transaction() as db:
        db.execute("UPDATE cases SET held = 'BY_HAND' WHERE id = ? AND held = ''", (case,))


def release(database: StationDatabase, case: int) -> None:
    """Release a held case; objects in conflict stay where they are, and the first of each is used.

    Parameters
    ----------
    database : StationDatabase
        The station.
    case : int
        Number of the case.

    Raises
    ------
    UsageError
        BAD_PARAMETER if it is not held.
    """
    if not case_of(database, case)[0].held:
        raise UsageError(Reason.BAD_PARAMETER, f"case {case} is not held")
    with database.transaction() as db:
        db.execute("UPDATE cases SET held = '' WHERE id = ?", (case,))


def drop(database: StationDatabase, case: int) -> None:
    """End a case that has not run as SKIPPED; its objects are kept as those of any case.

    Parameters
    ----------
    database : StationDatabase
        The station.
    case : int
        Number of the case.

    Raises
    ------
    UsageError
        BAD_PARAMETER if it is running or has ended.
    """
    last = case_of(database, case)[0]
    if last.state in ENDED or last.state is CaseState.RUNNING:
        raise UsageError(Reason.BAD_PARAMETER, f"case {case} is {last.state}, and cannot be dropped")
    with database.transaction() as db:
        db.execute(
            "UPDATE revisions SET state = 'skipped', reason = 'DROPPED', ended = ? "
            "WHERE case_id = ? AND revision = ? AND state IN ('open', 'waiting', 'closed')",
            (time.time(), case, last.revision),
        )
        db.execute("UPDATE cases SET held = '' WHERE id = ?", (case,))


def replay(database: StationDatabase, case: int) -> int:
    """Run a case again with the images that it has, as a new revision; returns its number.

    Parameters
    ----------
    database : StationDatabase
        The station.
    case : int
        Number of the case.

    Raises
    ------
    UsageError
        BAD_PARAMETER if its last revision has not ended.
    """
    last = case_of(database, case)[0]
    if last.state not in ENDED:
        raise UsageError(Reason.BAD_PARAMETER, f"case {case} is {last.state}; it runs anyway")
    now = time.time()
    with database.transaction() as db:
        new_revision(db, case, last.revision + 1)
        db.execute(
            "UPDATE revisions SET state = 'closed', closed = ? WHERE case_id = ? AND revision = ?",
            (now, case, last.revision + 1),
        )
    return last.revision + 1


def new_revision(db: sqlite3.Connection, case: int, revision: int) -> None:
    """Open a revision, inside a transaction.

    Parameters
    ----------
    db : sqlite3.Connection
        From :meth:`StationDatabase.transaction`.
    case, revision : int
        Numbers.
    """
    db.execute(
        "INSERT INTO revisions (case_id, revision, state, created) VALUES (?, ?, 'open', ?)",
        (case, revision, time.time()),
    )
    db.execute("UPDATE cases SET revision = ?, deadline = NULL WHERE id = ?", (revision, case))


# ---------------------------------------------------------------- running


def next_to_run(database: StationDatabase, *, off_peak: bool = True) -> CaseRow | None:
    """Return the revision that runs next: one that was interrupted, else by priority, deadline and time of closing.

    Parameters
    ----------
    database : StationDatabase
        The station.
    off_peak : bool
        Whether revisions of which only flows with ``when: off_peak`` are left may run now.

    Returns
    -------
    CaseRow or None
    """
    rows = database.rows(
        _SELECT + "WHERE c.held = '' AND r.state IN ('closed', 'running') "
        "AND (? OR r.state = 'running' OR r.reason <> ?) "
        "ORDER BY r.state = 'running' DESC, c.priority DESC, c.deadline IS NULL, c.deadline, r.closed, r.case_id "
        "LIMIT 1",
        (off_peak, OFF_PEAK),
    )
    return _row(rows[0]) if rows else None


def start_revision(database: StationDatabase, row: CaseRow) -> bool:
    """Note that a revision runs.

    Parameters
    ----------
    database : StationDatabase
        The station.
    row : CaseRow
        The revision.

    Returns
    -------
    bool
        False if it was held or reopened meanwhile.
    """
    with database.transaction() as db:
        changed = db.execute(
            "UPDATE revisions SET state = 'running', started = coalesce(started, ?) "
            "WHERE case_id = ? AND revision = ? AND state IN ('closed', 'running') "
            "AND (SELECT held FROM cases WHERE id = case_id) = ''",
            (time.time(), row.case, row.revision),
        ).rowcount
    return changed > 0


def count_death(database: StationDatabase) -> None:
    """Note that the process which runs cases died by itself: the case that was running may be the cause."""
    with database.transaction() as db:
        db.execute("UPDATE revisions SET deaths = deaths + 1 WHERE state = 'running'")


def deaths_of(database: StationDatabase, row: CaseRow) -> int:
    """Return how often the process died that ran a revision.

    Parameters
    ----------
    database : StationDatabase
        The station.
    row : CaseRow
        The revision.

    Returns
    -------
    int
    """
    return database.value("SELECT deaths FROM revisions WHERE case_id = ? AND revision = ?", (row.case, row.revision))


def end_revision(
    database: StationDatabase, row: CaseRow, state: CaseState, *, reason: str = "", message: str = ""
) -> None:
    """Record how a revision ended.

    Parameters
    ----------
    database : StationDatabase
        The station.
    row : CaseRow
        The revision.
    state : CaseState
        DONE, SKIPPED or FAILED; CLOSED puts it back, to be run again later.
    reason : str
        Reason codes.
    message : str
        One sentence, without identifiers.
    """
    with database.transaction() as db:
        db.execute(
            "UPDATE revisions SET state = ?, reason = ?, message = ?, ended = ? WHERE case_id = ? AND revision = ?",
            (state.value, reason, message, time.time() if state in ENDED else None, row.case, row.revision),
        )
