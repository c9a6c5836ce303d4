"""The process that runs closed cases, one after another, through the same stages as ``ctenrich run``."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ctenrich import steps
from ctenrich.errors import CtenrichError, is_disk_full
from ctenrich.flows.builtin import flow_folder_name, products_by_source
from ctenrich.flows.reader import parse_flow
from ctenrich.flows.records import SRC, Flow
from ctenrich.listener.audit import append_event
from ctenrich.listener.case_flows import CaseFlows, case_flows
from ctenrich.listener.cases import CaseRow, CaseState, deaths_of, end_revision, next_to_run, start_revision
from ctenrich.listener.config import RunRequest, StationConfig
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
from ctenrich.listener.station import Station
from ctenrich.reasons import Reason
from ctenrich.runner.recorder import RunEnd
from ctenrich.runner.run import INPUT, Run
from ctenrich.select.sources import make_cohort
from ctenrich.settings import Settings, load_settings
from ctenrich.workspace import sync_folders

__all__ = ["CaseWorker"]

_POLL_SECONDS = 0.3
_DISK_SECONDS = 30.0
"""Time before a case is tried again after the disk was full."""
_DEATHS = 3
"""Deaths of this process after which a revision is given up; that the whole listener was killed does not count."""
_NOTHING_USABLE = frozenset({Reason.EMPTY_INPUT, Reason.NO_CT, Reason.EMPTY_COHORT})


@dataclass(frozen=True)
class _End:
    """How a revision or one of its flows ended."""

    state: CaseState
    """RUNNING if it was interrupted."""
    reason: str = ""
    message: str = ""


_SEVERITY = {CaseState.SKIPPED: 0, CaseState.DONE: 1, CaseState.FAILED: 2}


def _end_of_error(error: CtenrichError) -> _End:
    if error.reason in _NOTHING_USABLE:
        return _End(CaseState.SKIPPED, error.reason.value, error.message.partition(" (")[0])  # without the path
    return _End(CaseState.FAILED, error.reason.value)


def _end_of_flows(rows: Sequence[FlowRow]) -> _End:
    """How a revision ended by its flows: FAILED if one failed, SKIPPED if none gave a result."""
    told = [f"{one.flow}: {one.state.value}" + (f" ({one.message})" if one.message else "") for one in rows]
    shown = "; ".join(
        text for one, text in zip(rows, told, strict=True) if one.state != FlowState.NOT_FIRED or one.message
    )
    states = {one.state for one in rows}
    reasons = ",".join(sorted({one.reason for one in rows if one.reason and one.state is FlowState.FAILED}))
    if FlowState.FAILED in states:
        return _End(CaseState.FAILED, reasons, shown)
    if states & {FlowState.DONE, FlowState.UNCHANGED}:
        return _End(CaseState.DONE, "", shown)
    fired = FlowState.SKIPPED in states
    return _End(CaseState.SKIPPED, "" if fired else "NO_FLOW", shown or "no flow wants it")


def objects_of(run: Path) -> list[Path]:
    """The objects of a run."""
    return sorted((run / "series").glob("*/*/objects/*.dcm"))


def run_products(images: Path, out: Path, request: RunRequest) -> _End:
    """Run segmenters and body part regression on a folder of images, like ``ctenrich run``."""
    cohort = make_cohort(str(images), out / INPUT)
    if not request.asked:
        return _End(CaseState.DONE, "", f"{cohort}; nothing was asked to run")
    run = Run.create(
        cohort.path,
        out,
        segmenters=request.segmenters,
        bodypart=request.bodypart,
        settings=settings_of(request),
        allow_demo=request.allow_demo_models,
    )
    summary = steps.run_all(run)
    if summary.ended is RunEnd.INTERRUPTED:
        return _End(CaseState.RUNNING)
    if summary.ended is RunEnd.DISK:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    counts = ", ".join(f"{number} {state}" for state, number in summary.states.items() if number)
    state = CaseState.FAILED if summary.exit_code else CaseState.DONE
    return _End(state, ",".join(sorted(summary.reasons)), f"series and products: {counts}")


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
    """

    def __init__(
        self, station: Station, database: StationDatabase, config: StationConfig, flows: CaseFlows | None = None
    ) -> None:
        self._station = station
        self._database = database
        self._config = config
        self._request = config.run
        self._flows = flows

    def run_next(self) -> bool | None:
        """Run the next case; returns whether there was one, or None if it was interrupted or the disk is full."""
        row = next_to_run(self._database)
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
            end = _end_of_error(error)
        except Exception as error:  # noqa: BLE001  a case never ends the process that runs the others
            if is_disk_full(error):
                self._put_back(row)
                return None
            end = _End(CaseState.FAILED, Reason.INTERNAL.value, type(error).__name__)
        if end.state is CaseState.RUNNING:
            return None
        self._end(row, end.state, end.reason, end.message)
        return True

    def _put_back(self, row: CaseRow) -> None:
        end_revision(self._database, row, CaseState.CLOSED, reason=Reason.DISK_FULL.value)

    def _end(self, row: CaseRow, state: CaseState, reason: str, message: str) -> None:
        if state is CaseState.FAILED and self._flows is not None:
            self._give_up_flows(row, reason)
        end_revision(self._database, row, state, reason=reason, message=message)
        append_event(self._station.audit, f"case {state.value}", case=row.case, revision=row.revision, reason=reason)

    def _run(self, row: CaseRow) -> _End:
        """Run a revision."""
        folder = self._station.revision(row.case, row.revision)
        if self._flows is not None:
            return self._run_flows(row, folder)
        images = self.freeze(row, folder / "images")
        out = folder / "run"
        end = run_products(images, out, self._request)
        if end.state is not CaseState.RUNNING:
            self._queue(row, Results(files=objects_of(out), incomplete=end.state is CaseState.FAILED))
        return end

    def _queue(self, row: CaseRow, results: Results) -> None:
        queue_results(self._station, self._database, self._config, row, results)

    # ------------------------------------------------------------ flows

    def _run_flows(self, row: CaseRow, folder: Path) -> _End:
        """Run the flows that fired on a revision, those of higher priority first; what has ended is not repeated."""
        assert self._flows is not None
        if not flow_rows(self._database, row.case, row.revision):  # it was asked for again, with the flows of today
            self._flows.reload()
            decisions = self._flows.decide_now(row.case, row.revision)
            with self._database.transaction() as db:
                write_decisions(db, row.case, row.revision, decisions, again=True)
        for one in flow_rows(self._database, row.case, row.revision):
            if one.state in (FlowState.PLANNED, FlowState.RUNNING) and not self._run_flow(row, one, folder):
                return _End(CaseState.RUNNING)
        rows = flow_rows(self._database, row.case, row.revision)
        self._notify(rows)
        return _end_of_flows(rows)

    def _notify(self, rows: Sequence[FlowRow]) -> None:
        """Queue the messages about flows that have ended; a second call changes nothing."""
        for one in rows:
            if one.state in (FlowState.DONE, FlowState.FAILED):
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
            end = _end_of_error(error)
        if end.state is CaseState.RUNNING:
            return False
        end_flow(self._database, one, FlowState(end.state.value), reason=end.reason, message=end.message)
        event = f"flow {end.state.value}"
        append_event(self._station.audit, event, case=row.case, revision=row.revision, flow=one.flow, reason=end.reason)
        return True

    def _run_steps(self, row: CaseRow, one: FlowRow, folder: Path) -> _End:
        """Run the built-in products of a flow, those that read the same input in one run, and queue the results."""
        flow = self._flow(one)
        check_for_listener(flow, self._config)
        ends, files = [], []
        for name, products in products_by_source(flow).items():
            numbers = one.files if name == SRC else one.roles[name]
            images = self.freeze(row, folder / "images" / name, numbers)
            run = "run" if name == SRC else f"run-{name}"
            ends.append(run_products(images, folder / run, replace(self._request, **vars(products))))
            if ends[-1].state is CaseState.RUNNING:
                return ends[-1]
            files += objects_of(folder / run)
        failed = any(end.state is CaseState.FAILED for end in ends)
        self._queue(row, Results(files=files, incomplete=failed, flow=flow))
        worst = max(ends, key=lambda end: _SEVERITY[end.state])
        return replace(worst, message="; ".join(end.message for end in ends if end.message))

    def freeze(self, row: CaseRow, images: Path, numbers: Collection[int] | None = None) -> Path:
        """Make the folder of a revision's images: hard links to the received files, in the order of their arrival.

        Parameters
        ----------
        row : CaseRow
            The revision; which images it has does not change any more.
        images : Path
            The folder; links that are there are kept.
        numbers : collection of int, optional
            Only these objects, by their number in the station.

        Returns
        -------
        Path
            The folder.
        """
        images.mkdir(mode=0o700, parents=True, exist_ok=True)
        rows = self._database.rows(
            "SELECT id, path FROM instances WHERE case_id = ? AND revision <= ? AND conflict = 0 ORDER BY id",
            (row.case, row.revision),
        )
        for one in rows:
            if numbers is not None and one["id"] not in numbers:
                continue
            source = self._station.received / one["path"]
            target = images / source.name
            try:
                os.link(source, target)
            except FileExistsError:
                continue
            except PermissionError:  # a file system without hard links
                shutil.copyfile(source, target)
        sync_folders([images, images.parent])
        return images


def settings_of(request: RunRequest) -> Settings:
    """Return the settings of a request.

    Raises
    ------
    UsageError
        BAD_SETTINGS.
    """
    settings = load_settings(Path(request.settings) if request.settings else None)
    if request.device:
        settings = replace(settings, segment=replace(settings.segment, device=request.device))
    if request.rois:
        rois = tuple(dict.fromkeys((*settings.contours.rois, *request.rois)))
        settings = replace(settings, contours=replace(settings.contours, rois=rois))
    if request.mappings:
        settings = replace(settings, codes=replace(settings.codes, mappings=request.mappings))
    return settings


def _work(station: Station, config: StationConfig, stop: threading.Event, ready: Callable[..., None]) -> None:
    with StationDatabase(station.database) as database:
        worker = CaseWorker(station, database, config, case_flows(station, database, config))
        ready()
        while not stop.is_set():
            ran = worker.run_next()
            if ran is None:
                stop.wait(_DISK_SECONDS)
            elif not ran:
                stop.wait(_POLL_SECONDS)


if __name__ == "__main__":
    sys.exit(child_main(_work))
