"""The process that receives objects: Storage SCP, web server and watch folder on one store."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from ctenrich.errors import UsageError
from ctenrich.listener.config import ListenAddress, Peer, StationConfig, parse_address
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.deliveries import Deliveries
from ctenrich.listener.metrics import Counters
from ctenrich.listener.processes import child_main
from ctenrich.listener.station import Station
from ctenrich.listener.store import ObjectStore
from ctenrich.listener.watch import WatchFolder
from ctenrich.listener.web import StationServer
from ctenrich.reasons import Reason

__all__ = ["receive"]

T = TypeVar("T")
_SCAN_SECONDS = 1.0
_WATCHED = Peer(aet="*", host="127.0.0.1")
"""The watch folder as a sender."""
_RELEASE_SECONDS = 3.0
"""Time that associations get to end after the listener was asked to stop."""


def receive(station: Station, config: StationConfig, stop: threading.Event, ready: Callable[..., None]) -> None:
    """Receive until `stop` is set.

    Parameters
    ----------
    station : Station
        The station; its lock is held by the parent.
    config : StationConfig
        What is received, and from whom.
    stop : threading.Event
        Ends it.
    ready : callable
        Called with the ports once everything listens.

    Raises
    ------
    UsageError
        BAD_SETTINGS if an address is in use.
    """
    with StationDatabase(station.database) as rows, StationDatabase(station.database) as events:
        store = ObjectStore(station, rows, config.limits)
        deliveries = Deliveries(station, events, Counters())
        ports: dict[str, int] = {}
        gauges: dict[tuple[str, str, str], Callable[[], float]] = {
            ("ctenrich_disk_free_bytes", "", ""): lambda: shutil.disk_usage(station.received).free,
            ("ctenrich_disk_reserve_bytes", "", ""): lambda: config.limits.reserve,
        }
        ends: list[Callable[[], object]] = []
        watch = WatchFolder(Path(config.watch), store) if config.watch else None
        try:
            if config.dicom:
                from ctenrich.listener.scp import start_scp  # pynetdicom is optional

                scp = _listen(config.dicom, lambda address: start_scp(config, address, store, deliveries))
                ends.append(lambda: scp.end(_RELEASE_SECONDS))
                ports["dicom"] = scp.port
                gauges["ctenrich_associations_open", "", ""] = lambda: scp.admission.open
            if watch is not None:
                gauges["ctenrich_watch_files", "state", "growing"] = lambda: watch.growing
                gauges["ctenrich_watch_files", "state", "junk"] = lambda: watch.junk
                gauges["ctenrich_watch_files", "state", "closed"] = lambda: watch.closed
                gauges["ctenrich_watch_files", "state", "taken"] = lambda: watch.taken
            if config.web:
                make = partial(StationServer, station, config, store=store, deliveries=deliveries)
                server = _listen(config.web, make)
                server.gauges = lambda: {key: float(value()) for key, value in gauges.items()}
                ports["web"] = server.start()
                ends += [server.server_close, server.shutdown]
            ready(**ports)
            while not stop.wait(_SCAN_SECONDS):
                if watch is not None:
                    _scan(watch, deliveries)
        finally:
            for end in reversed(ends):
                end()
            store.close()


def _listen(address: str, make: Callable[[ListenAddress], T]) -> T:
    try:
        return make(parse_address(address))
    except OSError as error:
        hint = "another program listens there, or the address is not of this computer"
        raise UsageError(Reason.BAD_SETTINGS, f"{address}: {error.strerror}", hint) from error


def _scan(watch: WatchFolder, deliveries: Deliveries) -> None:
    begun: list[int] = []

    def begin() -> int:
        begun.append(deliveries.begin("watch", "", _WATCHED))
        deliveries.expect_object(begun[0])
        return begun[0]

    try:
        receipts = watch.scan(begin)
    except OSError:  # the disk of the watch folder is away, or that of the station is full: the next scan tries again
        receipts = []
    for receipt in receipts:
        deliveries.received(begun[0], receipt)
    for number in begun:
        deliveries.ended(number, "released" if watch.is_complete else "aborted")


if __name__ == "__main__":
    sys.exit(child_main(receive))
