"""The process that runs closed cases, one after another, through the same stages as ``ctenrich run``."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ctenrich import steps
from ctenrich.errors import CtenrichError, is_disk_full
from ctenrich.listener.audit import append_event
from ctenrich.listener.cases import CaseRow, CaseState, deaths_of, end_revision, next_to_run, start_revision
from ctenrich.listener.config import RunRequest, StationConfig
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.outgoing import queue_results
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


class CaseWorker:
    """Freezes and runs closed cases.

    Parameters
    ----------
    station : Station
        The station.
    database : StationDatabase
        Used by this object alone.
    config : StationConfig
        What runs, and where results are sent.
    """

    def __init__(self, station: Station, database: StationDatabase, config: StationConfig) -> None:
        self._station = station
        self._database = database
        self._config = config
        self._request = config.run

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
            state, reason, message = self._run(row)
        except CtenrichError as error:
            if is_disk_full(error):
                self._put_back(row)
                return None
            state = CaseState.SKIPPED if error.reason in _NOTHING_USABLE else CaseState.FAILED
            reason = error.reason.value
            message = error.message.partition(" (")[0] if state is CaseState.SKIPPED else ""  # without the path
        except Exception as error:  # noqa: BLE001  a case never ends the process that runs the others
            if is_disk_full(error):
                self._put_back(row)
                return None
            state, reason, message = CaseState.FAILED, Reason.INTERNAL.value, type(error).__name__
        if state is CaseState.RUNNING:
            return None
        self._end(row, state, reason, message)
        return True

    def _put_back(self, row: CaseRow) -> None:
        end_revision(self._database, row, CaseState.CLOSED, reason=Reason.DISK_FULL.value)

    def _end(self, row: CaseRow, state: CaseState, reason: str, message: str) -> None:
        end_revision(self._database, row, state, reason=reason, message=message)
        append_event(self._station.audit, f"case {state.value}", case=row.case, revision=row.revision, reason=reason)

    def _run(self, row: CaseRow) -> tuple[CaseState, str, str]:
        """Run a revision; returns its state (RUNNING if it was interrupted), reason codes and a sentence."""
        folder = self._station.revision(row.case, row.revision)
        images = self.freeze(row, folder / "images")
        out = folder / "run"
        cohort = make_cohort(str(images), out / INPUT)
        if not self._request.asked:
            return CaseState.DONE, "", f"{cohort}; nothing was asked to run"
        asked = self._request
        run = Run.create(
            cohort.path,
            out,
            segmenters=asked.segmenters,
            bodypart=asked.bodypart,
            settings=settings_of(asked),
            allow_demo=asked.allow_demo_models,
        )
        summary = steps.run_all(run)
        if summary.ended is RunEnd.INTERRUPTED:
            return CaseState.RUNNING, "", ""
        if summary.ended is RunEnd.DISK:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        files = sorted((out / "series").glob("*/*/objects/*.dcm"))
        incomplete = bool(summary.exit_code)
        queue_results(self._station, self._database, self._config, row, files, incomplete=incomplete)
        reasons = ",".join(sorted(summary.reasons))
        counts = ", ".join(f"{number} {state}" for state, number in summary.states.items() if number)
        return (CaseState.FAILED if incomplete else CaseState.DONE), reasons, f"series and products: {counts}"

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
        images.mkdir(mode=0o700, parents=True, exist_ok=True)
        rows = self._database.rows(
            "SELECT path FROM instances WHERE case_id = ? AND revision <= ? AND conflict = 0 ORDER BY id",
            (row.case, row.revision),
        )
        for one in rows:
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
        worker = CaseWorker(station, database, config)
        ready()
        while not stop.is_set():
            ran = worker.run_next()
            if ran is None:
                stop.wait(_DISK_SECONDS)
            elif not ran:
                stop.wait(_POLL_SECONDS)


if __name__ == "__main__":
    sys.exit(child_main(_work))
