"""Sorts received objects into cases by their study, and closes the cases that are complete."""

from __future__ import annotations

import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ctenrich.catalog.headers import read_header
from ctenrich.listener.audit import append_event
from ctenrich.listener.case_flows import CaseFlows, CaseTimes, Decision
from ctenrich.listener.cases import CaseState, new_revision
from ctenrich.listener.companions import Companions, referenced_series
from ctenrich.listener.config import CloseRule, Peer
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.flow_rows import write_decisions
from ctenrich.listener.station import Station

__all__ = ["Intake"]

_AT_ONCE = 256
"""Objects whose headers are read before their cases are written."""
_UID = re.compile(r"[0-9.]{1,64}")
_SAVE_SECONDS = 10.0
"""How often the time that cases have been open is written; after a kill it is behind by no more."""


@dataclass(frozen=True, kw_only=True)
class _Object:
    """A received object with what its header states."""

    number: int
    conflict: bool
    association: int
    study: str
    series: str
    modality: str
    fault: str
    references: frozenset[str]
    """Series of the images of a structure set or segmentation."""


class Intake:
    """Assigns objects to cases and closes cases.

    Quiet times are measured with a clock that never jumps, and begin anew when the listener starts.

    Parameters
    ----------
    station : Station
        The station.
    database : StationDatabase
        Used by this object alone.
    rule : CloseRule
        When cases close.
    flows : CaseFlows, optional
        Flows that decide when cases close, and what runs on them.
    peers : tuple of Peer
        Senders, some of which have a quiet time of their own; flows have theirs.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        station: Station,
        database: StationDatabase,
        rule: CloseRule,
        *,
        flows: CaseFlows | None = None,
        peers: tuple[Peer, ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._station = station
        self._database = database
        self._rule = rule
        self._slow = tuple(peer for peer in peers if peer.quiet)
        self._flows = flows
        self._clock = clock
        self._started = self._saved = clock()
        self._last: dict[int, float] = {}
        self._companions = Companions(station, database)

    def run_once(self) -> int:
        """Assign all objects that have no case, then close what is complete; returns the number of objects."""
        number = 0
        while rows := self._database.rows(
            "SELECT id, sop_instance_uid, path, association, conflict FROM instances WHERE case_id IS NULL "
            "AND id NOT IN (SELECT instance FROM unsettled) ORDER BY id LIMIT ?",
            (_AT_ONCE,),
        ):
            self._assign([self._read(row) for row in rows])
            number += len(rows)
        self._close()
        return number

    # ------------------------------------------------------------ assigning

    def _read(self, row: sqlite3.Row) -> _Object:
        header = read_header(self._station.received / row["path"])
        values = header.row or header.withheld or {}
        study = str(values.get("StudyInstanceUID") or "")
        fault = header.faults[0][0].value if header.faults else ""
        if header.row is not None and values.get("SOPInstanceUID") != row["sop_instance_uid"]:
            fault = "OTHER_SOP_INSTANCE"
        return _Object(
            number=row["id"],
            conflict=bool(row["conflict"]),
            association=row["association"],
            study=study if _UID.fullmatch(study) else "",
            series=str(values.get("SeriesInstanceUID") or ""),
            modality=str(values.get("Modality") or "")[:16],
            fault=fault,
            references=referenced_series(values),
        )

    def _assign(self, objects: list[_Object]) -> None:
        now, events = self._clock(), []
        moved: list[tuple[int, int]] = []
        with self._database.transaction() as db:
            for one in objects:
                study = one.study
                if one.references:
                    study = self._companions.study_of(db, one.number, study, one.references)
                case, revision, opened = _revision_for(db, study)
                if opened:
                    events.append((case, revision))
                db.execute(
                    "UPDATE instances SET case_id = ?, revision = ?, series_instance_uid = ?, modality = ?, fault = ? "
                    "WHERE id = ?",
                    (case, revision, one.series, one.modality, one.fault, one.number),
                )
                why = "CONFLICT" if one.conflict else "OTHER_SOP_INSTANCE" if one.fault == "OTHER_SOP_INSTANCE" else ""
                why = why or ("" if one.study else "NO_STUDY")
                if why:
                    db.execute("UPDATE cases SET held = ? WHERE id = ? AND held = ''", (why, case))
                db.execute(
                    "UPDATE cases SET priority = max(priority, coalesce("
                    "(SELECT priority FROM associations WHERE id = ?), 0)) WHERE id = ?",
                    (one.association, case),
                )
                db.execute(
                    "UPDATE cases SET deadline = min(coalesce(cases.deadline, a.deadline), a.deadline) "
                    "FROM associations a WHERE a.id = ? AND a.deadline IS NOT NULL AND cases.id = ?",
                    (one.association, case),
                )
                moved += [(case, before) for before in self._companions.arrived(db, one.series, case, revision)]
                self._last[case] = now
        for case, revision in events:
            append_event(self._station.audit, "case opened", case=case, revision=revision)
        for case, before in moved:
            append_event(self._station.audit, "companion moved", case=case, before=before)

    # ------------------------------------------------------------ closing

    def _close(self) -> None:
        now = self._clock()
        passed = now - self._saved
        rows = self._database.rows(
            "SELECT r.case_id, r.revision, r.state, r.open_seconds FROM revisions r JOIN cases c ON c.id = r.case_id "
            "WHERE r.state IN ('open', 'waiting') AND c.held = ''"
        )
        if self._flows is not None:
            self._flows.reload()
            self._flows.forget({row["case_id"] for row in rows})
        for row in rows:
            decision = self._decide(row, now, row["open_seconds"] + passed)
            if decision.state is not None:
                self._change(row, decision.state, decision)
        if passed >= _SAVE_SECONDS:
            with self._database.transaction() as db:
                db.execute("UPDATE revisions SET open_seconds = open_seconds + ? WHERE state = 'open'", (passed,))
            self._saved = now
        if len(self._last) > 10 * len(rows) + 1000:
            kept = {row["case_id"] for row in rows}
            self._last = {case: last for case, last in self._last.items() if case in kept}

    def _decide(self, row: sqlite3.Row, now: float, open_seconds: float) -> Decision:
        """What becomes of an open revision now."""
        case = row["case_id"]
        quiet = now - self._last.get(case, self._started)
        waiting = row["state"] == CaseState.WAITING
        if self._flows is not None:
            times = CaseTimes(quiet=quiet, open=open_seconds, released=lambda: self._released(case), waiting=waiting)
            return self._flows.decide(case, row["revision"], times)
        if self._complete(case, quiet):
            return Decision(state=CaseState.CLOSED)
        rule = self._rule
        if not rule.at_most or open_seconds < rule.at_most or waiting:
            return Decision(state=None)
        if rule.then == "run":
            return Decision(state=CaseState.CLOSED, reason="AT_MOST")
        return Decision(state=CaseState.SKIPPED if rule.then == "discard" else CaseState.WAITING, reason="AT_MOST")

    def _complete(self, case: int, quiet: float) -> bool:
        if self._rule.when == "association":
            return self._released(case)
        if quiet < self._quiet_seconds(case):
            return False
        return self._rule.when == "quiet" or self._has_roles(case)

    def _quiet_seconds(self, case: int) -> float:
        """Time without an image after which a case closes: the longest of its senders, else that of the rule."""
        if not self._slow:
            return self._rule.seconds
        senders = self._database.rows(
            "SELECT DISTINCT a.sender, a.host FROM associations a WHERE a.id IN ("
            "SELECT association FROM instances WHERE case_id = ?)",
            (case,),
        )
        own = [peer.quiet for peer in self._slow if any(peer.matches(row["sender"], row["host"]) for row in senders)]
        return max(own, default=self._rule.seconds)

    def _released(self, case: int) -> bool:
        """Whether no association with objects of a case is open, and the last one of them was released."""
        if self._database.value(
            "SELECT count(*) FROM unsettled u JOIN instances n ON n.id = u.instance WHERE n.association IN ("
            "SELECT association FROM instances WHERE case_id = ?)",
            (case,),
        ):
            return False  # the last objects have no case yet
        rows = self._database.rows(
            "SELECT a.ended, a.ending FROM associations a WHERE a.id IN ("
            "SELECT association FROM instances WHERE case_id = ? UNION "
            "SELECT s.association FROM resent s JOIN instances i ON i.id = s.instance WHERE i.case_id = ?) "
            "ORDER BY a.ended IS NULL, a.ended, a.id",
            (case, case),
        )
        return bool(rows) and rows[-1]["ending"] == "released" and rows[-1]["ended"] is not None

    def _has_roles(self, case: int) -> bool:
        rows = self._database.rows(
            "SELECT modality, count(DISTINCT series_instance_uid) AS series FROM instances WHERE case_id = ? "
            "GROUP BY modality",
            (case,),
        )
        there = {row["modality"]: row["series"] for row in rows}
        return all(there.get(role, 0) >= number for role, number in Counter(self._rule.roles).items())

    def _change(self, row: sqlite3.Row, state: CaseState, decision: Decision) -> None:
        now, reason = time.time(), decision.reason
        with self._database.transaction() as db:
            changed = db.execute(
                "UPDATE revisions SET state = ?, reason = ?, closed = ?, ended = ? WHERE case_id = ? AND revision = ? "
                "AND state = ?",
                (
                    state.value,
                    reason,
                    now if state is CaseState.CLOSED else None,
                    now if state is CaseState.SKIPPED else None,
                    row["case_id"],
                    row["revision"],
                    row["state"],
                ),
            ).rowcount
            if changed and decision.flows:
                write_decisions(db, row["case_id"], row["revision"], decision.flows)
        append_event(
            self._station.audit, f"case {state.value}", case=row["case_id"], revision=row["revision"], reason=reason
        )


def _revision_for(db: sqlite3.Connection, study: str) -> tuple[int, int, bool]:
    """Case and revision that an object of a study belongs to, and whether it was opened or reopened for it."""
    found = db.execute("SELECT id, revision FROM cases WHERE study_instance_uid = ?", (study,)).fetchone()
    if found is None:
        case = db.execute(
            "INSERT INTO cases (study_instance_uid, revision, priority) VALUES (?, 1, 0)", (study,)
        ).lastrowid
        assert case is not None
        new_revision(db, case, 1)
        return case, 1, True
    case, revision = int(found["id"]), int(found["revision"])
    state, started = db.execute(
        "SELECT state, started FROM revisions WHERE case_id = ? AND revision = ?", (case, revision)
    ).fetchone()
    if state in (CaseState.OPEN, CaseState.WAITING):
        return case, revision, False
    if state == CaseState.CLOSED and started is None:  # one that was put back has results of its images already
        db.execute(
            "UPDATE revisions SET state = 'open', closed = NULL, reason = '' WHERE case_id = ? AND revision = ?",
            (case, revision),
        )
        return case, revision, True
    new_revision(db, case, revision + 1)
    return case, revision + 1, True
