"""The process that runs closed cases, one after another, through the same stages as ``ctenrich run``."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from datetime import time as time_of_day
from pathlib import Path

from ctenrich.errors import CtenrichError, is_disk_full
from ctenrich.flows.builtin import flow_folder_name
from ctenrich.flows.hours import parse_hours
from ctenrich.flows.reader import parse_flow
from ctenrich.flows.records import SRC, Flow, When
from ctenrich.flows.running import (
    End,
    EndState,
    end_left_steps,
    end_of_error,
    link_images,
    objects_of,
    owner_of,
    run_flow,
    run_products,
)
from ctenrich.listener.audit import append_event
from ctenrich.listener.case_flows import CaseFlows, case_flows
from ctenrich.listener.cases import (
    OFF_PEAK,
    CaseRow,
    CaseState,
    deaths_of,
    end_revision,
    next_to_run,
    start_revision,
)
from ctenrich.listener.config import StationConfig
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.flow_rows import (
    FlowRow,
    FlowState,
    end_flow,
    flow_content,
    flow_rows,
    start_flow,
    write_decisions,
)
from ctenrich.listener.flow_sending import check_for_listener
from ctenrich.listener.outgoing import Results, queue_notices, queue_results
from ctenrich.listener.processes import child_main
from ctenrich.listener.replays import compare_shadow
from ctenrich.listener.station import Station
from ctenrich.reasons import Reason

__all__ = ["CaseWorker"]

_POLL_SECONDS = 0.3
_DISK_SECONDS = 30.0
"""Time before a case is tried again after the disk was full."""
_DEATHS = 3
"""Deaths of this process after which a revision is given up; that the whole listener was killed does not count."""


def _local_time() -> time_of_day:
    return datetime.now().astimezone().time()


def _end_of_flows(rows: Sequence[FlowRow]) -> End:
    """How a revision ended by its flows: FAILED if one failed, SKIPPED if none gave a result."""
    told = [f"{one.flow}: {one.state.value}" + (f" ({one.message})" if one.message else "") for one in rows]
    shown = "; ".join(
        text for one, text in zip(rows, told, strict=True) if one.state != FlowState.NOT_FIRED or one.message
    )
    states = {one.state for one in rows}
    reasons = ",".join(sorted({one.reason for one in rows if one.reason and one.state is FlowState.FAILED}))
    if FlowState.FAILED in states:
        return End(EndState.FAILED, reasons, shown)
    if states & {FlowState.DONE, FlowState.UNCHANGED}:
        return End(EndState.DONE, "", shown)
    fired = FlowState.SKIPPED in states
    return End(EndState.SKIPPED, "" if fired else "NO_FLOW", shown or "no flow wants it")


class CaseWorker:
    """Freezes and runs closed cases.

    Parameters
    ----------
    station : Station
        The station.
    database : StationDatabase
        Used by this object alone.
    config : StationConfig
        What runs, and where results are sent; with flows, the settings of their products.
    flows : CaseFlows, optional
        Flows that state what runs.
    clock : callable
        The time of the day, for flows that wait for off-peak hours.
    """

    def __init__(
        self,
        station: Station,
        database: StationDatabase,
        config: StationConfig,
        flows: CaseFlows | None = None,
        *,
        clock: Callable[[], time_of_day] = _local_time,
    ) -> None:
        self._station = station
        self._database = database
        self._config = config
        self._request = replace(config.run, owner=owner_of(station.root))
        self._flows = flows
        self._clock = clock

    def end_left_steps(self) -> None:
        """End the containers and programs of flows that a killed process of this station left."""
        if self._flows is not None and (ended := end_left_steps(self._request)):
            append_event(self._station.audit, "left steps ended", number=ended)

    def run_next(self) -> bool | None:
        """Run the next case; returns whether there was one, or None if it was interrupted or the disk is full."""
        row = next_to_run(self._database, off_peak=self._is_off_peak())
        if row is None:
            return False
        if not start_revision(self._database, row):
            return True
        append_event(self._station.audit, "case running", case=row.case, revision=row.revision)
        if deaths_of(self._database, row) >= _DEATHS:
            self._end(row, CaseState.FAILED, Reason.WORKER_DIED.value, "the process that ran it ended each time")
            return True
        try:
            end = self._run(row)
        except CtenrichError as error:
            if is_disk_full(error):
                self._put_back(row)
                return None
            end = end_of_error(error)
        except Exception as error:  # noqa: BLE001  a case never ends the process that runs the others
            if is_disk_full(error):
                self._put_back(row)
                return None
            end = End(EndState.FAILED, Reason.INTERNAL.value, type(error).__name__)
        if end is None:
            end_revision(self._database, row, CaseState.CLOSED, reason=OFF_PEAK)
            append_event(self._station.audit, "case waits", case=row.case, revision=row.revision, reason=OFF_PEAK)
            return True
        if end.state is EndState.INTERRUPTED:
            return None
        self._end(row, CaseState(end.state.value), end.reason, end.message)
        return True

    def _is_off_peak(self) -> bool:
        hours = self._request.off_peak
        return not hours or parse_hours(hours).contain(self._clock())

    def _put_back(self, row: CaseRow) -> None:
        end_revision(self._database, row, CaseState.CLOSED, reason=Reason.DISK_FULL.value)

    def _end(self, row: CaseRow, state: CaseState, reason: str, message: str) -> None:
        if state is CaseState.FAILED and self._flows is not None:
            self._give_up_flows(row, reason)
        end_revision(self._database, row, state, reason=reason, message=message)
        append_event(self._station.audit, f"case {state.value}", case=row.case, revision=row.revision, reason=reason)

    def _run(self, row: CaseRow) -> End | None:
        """Run a revision; None if flows of it wait for off-peak hours."""
        folder = self._station.revision(row.case, row.revision)
        if self._flows is not None:
            return self._run_flows(row, folder)
        images = self.freeze(row, folder / "images")
        out = folder / "run"
        end = run_products(images, out, self._request)
        if end.state is not EndState.INTERRUPTED:
            self._queue(row, Results(files=objects_of(out), incomplete=end.state is EndState.FAILED))
        return end

    def _queue(self, row: CaseRow, results: Results) -> None:
        queue_results(self._station, self._database, self._config, row, results)

    # ------------------------------------------------------------ flows

    def _run_flows(self, row: CaseRow, folder: Path) -> End | None:
        """Run the flows that fired on a revision, those of higher priority first; what has ended is not repeated."""
        assert self._flows is not None
        if not flow_rows(self._database, row.case, row.revision):  # it was asked for again, with the flows of today
            self._flows.reload()
            decisions = self._flows.decide_now(row.case, row.revision)
            with self._database.transaction() as db:
                write_decisions(db, row.case, row.revision, decisions, again=True)
        known = flow_rows(self._database, row.case, row.revision)
        shadows = frozenset(one.flow for one in known if self._flow(one).shadow)
        waiting = self._waiting(known)
        for one in sorted(known, key=lambda one: one.flow in shadows):  # stable: shadows after all others
            if one.flow in waiting:
                continue
            if one.state in (FlowState.PLANNED, FlowState.RUNNING) and not self._run_flow(row, one, folder):
                return End(EndState.INTERRUPTED)
        rows = flow_rows(self._database, row.case, row.revision)
        self._notify(rows)
        if waiting:
            return None
        return _end_of_flows([one for one in rows if one.flow not in shadows])

    def _waiting(self, known: Sequence[FlowRow]) -> frozenset[str]:
        """Flows that have not begun, and do not start at this time of the day."""
        if self._is_off_peak():
            return frozenset()
        planned = (one for one in known if one.state is FlowState.PLANNED)
        return frozenset(one.flow for one in planned if self._flow(one).when is When.OFF_PEAK)

    def _notify(self, rows: Sequence[FlowRow]) -> None:
        """Queue the messages about flows that have ended; a second call changes nothing."""
        for one in rows:
            if one.state in (FlowState.DONE, FlowState.FAILED) and not self._flow(one).shadow:
                queue_notices(self._station, self._config, self._flow(one), one)

    def _flow(self, one: FlowRow) -> Flow:
        return parse_flow(flow_content(self._database, one.sha256), Path(one.flow))

    def _give_up_flows(self, row: CaseRow, reason: str) -> None:
        """End the flows of a revision that was given up."""
        for one in flow_rows(self._database, row.case, row.revision):
            if one.state in (FlowState.PLANNED, FlowState.RUNNING):
                end_flow(self._database, one, FlowState.FAILED, reason=reason)
        self._notify(flow_rows(self._database, row.case, row.revision))

    def _run_flow(self, row: CaseRow, one: FlowRow, folder: Path) -> bool:
        """Run one flow; returns False if it was interrupted."""
        start_flow(self._database, one)
        append_event(self._station.audit, "flow running", case=row.case, revision=row.revision, flow=one.flow)
        try:
            end = self._run_steps(row, one, folder / "flows" / flow_folder_name(one.flow))
        except CtenrichError as error:
            if is_disk_full(error):
                raise
            end = end_of_error(error)
        if end.state is EndState.INTERRUPTED:
            return False
        end_flow(self._database, one, FlowState(end.state.value), reason=end.reason, message=end.message)
        event = f"flow {end.state.value}"
        append_event(self._station.audit, event, case=row.case, revision=row.revision, flow=one.flow, reason=end.reason)
        return True

    def _run_steps(self, row: CaseRow, one: FlowRow, folder: Path) -> End:
        """Run the steps of a flow, and queue the results."""
        flow = self._flow(one)
        check_for_listener(flow, self._config)
        sources = {SRC: self._paths(row, one.files)}
        sources |= {name: self._paths(row, numbers) for name, numbers in one.roles.items()}
        found = run_flow(flow, sources, folder, self._request)
        if flow.shadow:
            return compare_shadow(self._station, self._database, one, found)
        if found.end.state is not EndState.INTERRUPTED:
            failed = found.end.state is EndState.FAILED
            self._queue(row, Results(files=found.files, incomplete=failed, flow=flow))
        return found.end

    def freeze(self, row: CaseRow, images: Path) -> Path:
        """Make the folder of a revision's images: hard links to the received files, in the order of their arrival.

        Parameters
        ----------
        row : CaseRow
            The revision; which images it has does not change any more.
        images : Path
            The folder; links that are there are kept.

        Returns
        -------
        Path
            The folder.
        """
        return link_images(self._paths(row), images)

    def _paths(self, row: CaseRow, numbers: Collection[int] | None = None) -> dict[str, Path]:
        """Received files of a revision by name, in the order of their arrival; all, or those with these numbers."""
        rows = self._database.rows(
            "SELECT id, path FROM instances WHERE case_id = ? AND revision <= ? AND conflict = 0 ORDER BY id",
            (row.case, row.revision),
        )
        chosen = (self._station.received / one["path"] for one in rows if numbers is None or one["id"] in numbers)
        return {path.name: path for path in chosen}


def _work(station: Station, config: StationConfig, stop: threading.Event, ready: Callable[..., None]) -> None:
    with StationDatabase(station.database) as database:
        worker = CaseWorker(station, database, config, case_flows(station, database, config))
        ready()
        worker.end_left_steps()
        while not stop.is_set():
            ran = worker.run_next()
            if ran is None:
                stop.wait(_DISK_SECONDS)
            elif not ran:
                stop.wait(_POLL_SECONDS)


if __name__ == "__main__":
    sys.exit(child_main(_work))
