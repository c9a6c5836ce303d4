"""The process that delivers results: it works through the queue of the station."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from ctenrich.delivery.deliverer import Deliverer
from ctenrich.listener.audit import append_event
from ctenrich.listener.config import StationConfig
from ctenrich.listener.processes import child_main
from ctenrich.listener.station import Station


def _deliver(station: Station, _config: StationConfig, stop: threading.Event, ready: Callable[..., None]) -> None:
    def audit(event: str, **values: object) -> None:
        append_event(station.audit, event, **values)

    ready()
    Deliverer(station.deliveries, audit).run(stop)


if __name__ == "__main__":
    sys.exit(child_main(_deliver))
