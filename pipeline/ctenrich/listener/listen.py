"""The listener: a process that receives, one that runs cases, and between them the intake that sorts and closes."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ctenrich.errors import is_disk_full
from ctenrich.flows.folder import LoadedFlow
from ctenrich.listener.audit import append_event
from ctenrich.listener.case_flows import CaseFlows, case_flows
from ctenrich.listener.cases import count_death
from ctenrich.listener.catalog import StationCatalog
from ctenrich.listener.config import StationConfig
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.intake import Intake
from ctenrich.listener.processes import ChildProcess
from ctenrich.listener.retention import delete_old_objects
from ctenrich.listener.station import Station, StationLock
from ctenrich.tools import need_package

__all__ = ["Ports", "listen"]

_POLL_SECONDS = 0.25
_RETENTION_SECONDS = 600.0
_CATALOG_SECONDS = 30.0
"""Longest time for which arriving objects put off the catalog and the start of the worker."""
_FULL_SECONDS = 2.0
_RESTART_SECONDS = 2.0
"""Time before a process that died is started again."""
_TO_RUN = "SELECT count(*) FROM revisions WHERE state IN ('open', 'closed', 'running')"
_END_SECONDS = 6.0
"""Time that a process may take to end; then it is killed, and nothing is lost."""


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Ports on which a listener listens; 0: none."""

    dicom: int = 0
    web: int = 0


def listen(
    root: Path,
    config: StationConfig,
    *,
    stop: Callable[[], bool],
    started: Callable[[Ports], None] = lambda _: None,
    report: Callable[[LoadedFlow], None] = lambda _: None,
) -> None:
    """Receive objects, gather them into cases and run the cases, until `stop` returns True.

    Parameters
    ----------
    root : Path
        Folder of the station; created if it does not exist.
    config : StationConfig
        Addresses, senders, limits, when cases close, what runs.
    stop : callable
        Called a few times a second.
    started : callable
        Called once everything listens.
    report : callable
        Called with each flow file that was read, at the start and whenever it has changed.

    Raises
    ------
    UsageError
        BAD_SETTINGS, BAD_STATION; STATION_BUSY if another listener is at work; MISSING_EXTRA without pynetdicom.
    """
    config.check()
    if config.dicom:
        need_package("pynetdicom", extra="pacs", purpose="receiving with C-STORE")
    station = Station.create(root)
    with StationLock(station) as lock, StationDatabase(station.database) as database:
        append_event(station.audit, "listener started")
        flows = _flows(station, database, config, report)
        intake = Intake(station, database, config.close, flows=flows, peers=config.peers)
        catalog = StationCatalog(station, database)
        processes = _Processes(station, config, lock.handle)
        try:
            started(processes.start())
            next_retention = 0.0
            next_catalog = time.monotonic() + _CATALOG_SECONDS
            while not stop():
                try:
                    if processes.restart_dead():
                        count_death(database)
                    if time.monotonic() > next_retention:
                        delete_old_objects(station, database, config.keep)
                        next_retention = time.monotonic() + _RETENTION_SECONDS
                    arriving = intake.run_once() > 0
                    if not arriving or time.monotonic() > next_catalog:  # senders wait for the processor otherwise
                        if database.value(_TO_RUN):
                            processes.start_once("worker")  # before the case closes, if it has a quiet time
                        catalog.update()
                        next_catalog = time.monotonic() + _CATALOG_SECONDS
                    if station.deliveries.exists():
                        processes.start_once("deliverer")
                except (OSError, sqlite3.Error) as error:
                    if not is_disk_full(error):
                        raise
                    time.sleep(_FULL_SECONDS)  # until there is space again; objects are refused meanwhile
                time.sleep(_POLL_SECONDS)
        finally:
            processes.end()
            append_event(station.audit, "listener stopped")


def _flows(
    station: Station, database: StationDatabase, config: StationConfig, report: Callable[[LoadedFlow], None]
) -> CaseFlows | None:
    """The flows of a station; which files are read and refused is recorded in the audit log."""

    def changed(loaded: LoadedFlow) -> None:
        version = loaded.flow.sha256 if loaded.flow is not None else ""
        event = "flow file read" if loaded.error is None else "flow file refused"
        append_event(station.audit, event, file=loaded.path.name, sha256=version)
        report(loaded)

    return case_flows(station, database, config, changed)


class _Processes:
    """The processes: ``receiver``, ``worker`` once there is a case, ``deliverer`` once there are results to send."""

    def __init__(self, station: Station, config: StationConfig, lock: int) -> None:
        self._station = station
        self._config = config
        self._lock = lock
        self._running: dict[str, ChildProcess] = {}
        self._died: dict[str, float] = {}

    def start(self) -> Ports:
        """Start the process that receives; returns the ports."""
        self._running = {"receiver": self._new("receiver")}
        return Ports(**self._running["receiver"].ready())

    def _new(self, name: str) -> ChildProcess:
        return ChildProcess(f"ctenrich.listener.{name}", self._station, self._config, self._lock)

    def start_once(self, name: str) -> None:
        """Start a process, if it has not been started."""
        if name not in self._running:
            self._running[name] = self._new(name)

    def restart_dead(self) -> bool:
        """Start a process again that died, after a while; returns whether the worker has died since the last call."""
        worker_died = False
        for name, process in self._running.items():
            if process.alive:
                continue
            now = time.monotonic()
            if name not in self._died:
                self._died[name] = now
                process.end(0)
                append_event(self._station.audit, "process died", process=name)
                worker_died = worker_died or name == "worker"
            elif now - self._died[name] > _RESTART_SECONDS:
                self._running[name] = self._new(name)
                del self._died[name]
        return worker_died

    def end(self) -> None:
        """End them."""
        for process in self._running.values():
            process.ask_to_end()
        last = time.monotonic() + _END_SECONDS
        for process in self._running.values():
            process.end(max(0.1, last - time.monotonic()))
