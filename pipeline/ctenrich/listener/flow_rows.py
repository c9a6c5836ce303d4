"""Rows of a station's database about flows: which flow fired on which revision of a case, why, and how it ended."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from ctenrich.flows.attributes import identifies_patient
from ctenrich.flows.records import Flow
from ctenrich.flows.triggers import Failure
from ctenrich.listener.database import StationDatabase
from ctenrich.reasons import Reason

__all__ = [
    "FlowDecision",
    "FlowRow",
    "FlowState",
    "end_flow",
    "flow_content",
    "flow_rows",
    "start_flow",
    "write_decisions",
]


class FlowState(StrEnum):
    """State of a flow on a revision."""

    NOT_FIRED = "not fired"
    PLANNED = "planned"
    RUNNING = "running"
    DONE = "done"
    SKIPPED = "skipped"
    """Nothing in its input can be used."""
    UNCHANGED = "unchanged"
    """An earlier revision has the results of the same input and the same flow file."""
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class FlowDecision:
    """Whether a flow runs on a revision, decided when the case closes."""

    flow: Flow
    content: bytes
    """The flow file."""
    fires: bool
    wanted: bool = False
    """Whether a file of the case matches one of its triggers or roles."""
    files: tuple[int, ...] = ()
    """Objects of its input, by their number in the station."""
    roles: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()
    reason: str = ""
    """Reason code; empty: it fires, or its triggers do not match."""


@dataclass(frozen=True, kw_only=True)
class FlowRow:
    """A flow on a revision of a case."""

    case: int
    revision: int
    flow: str
    sha256: str
    """Of the flow file."""
    priority: int
    state: FlowState
    reason: str
    message: str
    files: tuple[int, ...]
    roles: Mapping[str, tuple[int, ...]]
    failures: tuple[Mapping[str, Any], ...]
    """Why it did not fire."""
    started: float | None
    ended: float | None


def write_decisions(
    db: sqlite3.Connection, case: int, revision: int, decisions: Sequence[FlowDecision], *, again: bool = False
) -> None:
    """Write what was decided about a revision, inside a transaction; earlier decisions about it are replaced.

    Parameters
    ----------
    db : sqlite3.Connection
        From :meth:`StationDatabase.transaction`.
    case, revision : int
        Numbers.
    decisions : sequence of FlowDecision
        One for each active flow.
    again : bool
        Run flows also where an earlier revision has the results of the same input.
    """
    db.execute("DELETE FROM case_flows WHERE case_id = ? AND revision = ?", (case, revision))
    for one in decisions:
        files = json.dumps(one.files)
        state = (
            FlowState.PLANNED
            if one.fires
            else FlowState.FAILED
            if one.reason == Reason.SLOW_PATTERN
            else FlowState.NOT_FIRED
        )
        if state is FlowState.PLANNED and not again and _has_results(db, case, one, files):
            state = FlowState.UNCHANGED
        db.execute("INSERT OR IGNORE INTO flow_files VALUES (?, ?)", (one.flow.sha256, one.content))
        db.execute(
            "INSERT INTO case_flows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
            (
                case,
                revision,
                one.flow.name,
                one.flow.sha256,
                one.flow.priority,
                state.value,
                one.reason,
                _missing(one.failures) if one.wanted else "",
                files,
                json.dumps({name: list(places) for name, places in one.roles.items()}),
                json.dumps([_without_identifiers(failure) for failure in one.failures]),
            ),
        )


def _has_results(db: sqlite3.Connection, case: int, one: FlowDecision, files: str) -> bool:
    """Whether the last run of a flow on a case had the same input and flow file, and ended well."""
    row = db.execute(
        "SELECT files, sha256, state FROM case_flows WHERE case_id = ? AND flow = ? "
        "AND state NOT IN ('not fired', 'planned') ORDER BY revision DESC LIMIT 1",
        (case, one.flow.name),
    ).fetchone()
    return row is not None and tuple(row) in {(files, one.flow.sha256, state) for state in ("done", "unchanged")}


def _missing(failures: Sequence[Failure]) -> str:
    return f"no match: {', '.join(failure.part for failure in failures)}" if failures else ""


def _without_identifiers(failure: Failure) -> dict[str, Any]:
    """A failure as plain data; what is about the patient is left out."""
    values = asdict(failure)
    if identifies_patient(failure.attribute):
        values["text"] = None if failure.text is None else "(withheld)"
    return values


_SELECT = (
    "SELECT case_id, revision, flow, sha256, priority, state, reason, message, files, roles, failures, started, ended "
)


def flow_rows(database: StationDatabase, case: int, revision: int) -> list[FlowRow]:
    """Return what is known about the flows of a revision.

    Parameters
    ----------
    database : StationDatabase
        The station.
    case, revision : int
        Numbers.

    Returns
    -------
    list of FlowRow
        Those of higher priority first; empty if nothing has been decided.
    """
    rows = database.rows(
        _SELECT + "FROM case_flows WHERE case_id = ? AND revision = ? ORDER BY priority DESC, flow", (case, revision)
    )
    return [
        FlowRow(
            case=row["case_id"],
            revision=row["revision"],
            flow=row["flow"],
            sha256=row["sha256"],
            priority=row["priority"],
            state=FlowState(row["state"]),
            reason=row["reason"],
            message=row["message"],
            files=tuple(json.loads(row["files"])),
            roles={name: tuple(places) for name, places in json.loads(row["roles"]).items()},
            failures=tuple(json.loads(row["failures"])),
            started=row["started"],
            ended=row["ended"],
        )
        for row in rows
    ]


def flow_content(database: StationDatabase, sha256: str) -> bytes:
    """Return the content of a flow file that was decided upon.

    Parameters
    ----------
    database : StationDatabase
        The station.
    sha256 : str
        Of the file.

    Returns
    -------
    bytes
    """
    return bytes(database.rows("SELECT content FROM flow_files WHERE sha256 = ?", (sha256,))[0]["content"])


def start_flow(database: StationDatabase, row: FlowRow) -> None:
    """Note that a flow runs.

    Parameters
    ----------
    database : StationDatabase
        The station.
    row : FlowRow
        The flow.
    """
    with database.transaction() as db:
        db.execute(
            "UPDATE case_flows SET state = 'running', started = coalesce(started, ?) "
            "WHERE case_id = ? AND revision = ? AND flow = ?",
            (time.time(), row.case, row.revision, row.flow),
        )


def end_flow(database: StationDatabase, row: FlowRow, state: FlowState, *, reason: str = "", message: str = "") -> None:
    """Record how a flow ended.

    Parameters
    ----------
    database : StationDatabase
        The station.
    row : FlowRow
        The flow.
    state : FlowState
        DONE, SKIPPED or FAILED.
    reason : str
        Reason codes.
    message : str
        One sentence, without identifiers.
    """
    with database.transaction() as db:
        db.execute(
            "UPDATE case_flows SET state = ?, reason = ?, message = ?, ended = ? "
            "WHERE case_id = ? AND revision = ? AND flow = ?",
            (state.value, reason, message, time.time(), row.case, row.revision, row.flow),
        )
