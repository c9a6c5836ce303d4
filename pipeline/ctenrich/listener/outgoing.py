"""Queues the results of a case for the destinations of the station, and for its senders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ctenrich.delivery.destination import Destination, OwnAddresses, sender_destination
from ctenrich.delivery.queue import DeliveryQueue
from ctenrich.delivery.records import Batch
from ctenrich.errors import UsageError
from ctenrich.listener.audit import append_event
from ctenrich.listener.cases import CaseRow
from ctenrich.listener.config import StationConfig, parse_address
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.station import Station

__all__ = ["queue_results"]


def queue_results(
    station: Station,
    database: StationDatabase,
    config: StationConfig,
    row: CaseRow,
    files: Sequence[Path],
    *,
    incomplete: bool = False,
) -> None:
    """Queue or hold the results of a revision; a second call changes nothing.

    Parameters
    ----------
    station : Station
        The station.
    database : StationDatabase
        Its database.
    config : StationConfig
        Destinations, hooks, and ports on which senders receive.
    row : CaseRow
        The revision.
    files : sequence of Path
        The objects that it made.
    incomplete : bool
        Whether a series or product failed: the objects are held at every destination.
    """
    destinations = [*config.destinations, *_senders(station, database, config, row)]
    if not destinations or not files:
        return
    own = OwnAddresses(
        ports=frozenset(parse_address(text).port for text in (config.dicom, config.web) if text), watch=config.watch
    )
    with DeliveryQueue(station.deliveries) as queue:
        for destination in destinations:
            batch = Batch(
                case=row.case,
                revision=row.revision,
                destination=destination,
                files=tuple(files),
                priority=row.priority,
                held="CASE_FAILED" if incomplete else "",
                hooks=config.hooks,
            )
            queue.add(batch, own=own)
    append_event(
        station.audit,
        "results queued",
        case=row.case,
        revision=row.revision,
        objects=len(files),
        destinations=[one.name for one in destinations],
    )


def _senders(station: Station, database: StationDatabase, config: StationConfig, row: CaseRow) -> list[Destination]:
    """Nodes that sent images of the case, at the ports on which they receive."""
    if not config.return_to_sender_on_ports:
        return []
    found = database.rows(
        "SELECT DISTINCT a.sender, a.host FROM instances i JOIN associations a ON a.id = i.association "
        "WHERE i.case_id = ? AND i.revision <= ? AND a.source = 'dicom' ORDER BY a.sender, a.host",
        (row.case, row.revision),
    )
    made = []
    for sender in found:
        for port in config.return_to_sender_on_ports:
            try:
                made.append(sender_destination(sender["sender"], sender["host"], port))
            except UsageError:
                append_event(station.audit, "sender cannot be called", case=row.case, host=sender["host"])
    return made
