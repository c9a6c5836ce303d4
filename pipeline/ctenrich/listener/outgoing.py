"""Queues the results of a case for the destinations of the station, and for its senders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ctenrich.delivery.destination import Destination, HookEvent, OwnAddresses, sender_destination
from ctenrich.delivery.queue import DeliveryQueue
from ctenrich.delivery.records import Batch, FlowNotice
from ctenrich.errors import UsageError
from ctenrich.flows.records import Flow
from ctenrich.listener.audit import append_event
from ctenrich.listener.cases import CaseRow
from ctenrich.listener.config import StationConfig, parse_address
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.flow_rows import FlowRow, FlowState
from ctenrich.listener.flow_sending import flow_destinations, flow_hooks, name_for_flow
from ctenrich.listener.station import Station

__all__ = ["Results", "queue_notices", "queue_results"]


@dataclass(frozen=True, kw_only=True)
class Results:
    """What a revision, or one of its flows, has made."""

    files: Sequence[Path]
    """The objects."""
    incomplete: bool = False
    """Whether a series or product failed: the objects are held at every destination."""
    flow: Flow | None = None
    """The flow that made them, whose destinations get them besides those of the station."""


def queue_results(
    station: Station, database: StationDatabase, config: StationConfig, row: CaseRow, results: Results
) -> None:
    """Queue or hold the results of a revision or flow; a second call changes nothing.

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
    results : Results
        The objects, and the flow that made them.
    """
    flow = results.flow
    destinations = [*config.destinations, *_senders(station, database, config, row, flow)]
    hooks, priority = config.hooks, row.priority
    if flow is not None:  # several flows of a case may send to one node: each has a queue of its own
        destinations = [replace(one, name=name_for_flow(flow.name, one.name)) for one in destinations]
        destinations = list({one.name: one for one in (*destinations, *flow_destinations(flow, config))}.values())
        hooks, priority = (*hooks, *flow_hooks(flow)), max(priority, flow.priority)
    if not destinations or not results.files:
        return
    own = OwnAddresses(
        ports=frozenset(parse_address(text).port for text in (config.dicom, config.web) if text), watch=config.watch
    )
    with DeliveryQueue(station.deliveries) as queue:
        for destination in destinations:
            batch = Batch(
                case=row.case,
                revision=row.revision,
                flow=flow.name if flow is not None else "",
                destination=destination,
                files=tuple(results.files),
                priority=priority,
                held="CASE_FAILED" if results.incomplete else "",
                hooks=hooks,
            )
            queue.add(batch, own=own)
    append_event(
        station.audit,
        "results queued",
        case=row.case,
        revision=row.revision,
        objects=len(results.files),
        destinations=[one.name for one in destinations],
    )


def queue_notices(station: Station, config: StationConfig, flow: Flow, row: FlowRow) -> None:
    """Queue the messages about the end of a flow to its hooks and those of the station.

    Parameters
    ----------
    station : Station
        The station.
    config : StationConfig
        Its hooks.
    flow : Flow
        The flow.
    row : FlowRow
        How it ended; only that it is done or failed is an event.
    """
    if row.state not in (FlowState.DONE, FlowState.FAILED):
        return
    hooks = (*config.hooks, *flow_hooks(flow))
    event: HookEvent = "done" if row.state is FlowState.DONE else "failed"
    if not any(event in hook.events for hook in hooks):
        return
    reasons = tuple(filter(None, row.reason.split(",")))
    with DeliveryQueue(station.deliveries) as queue:
        queue.add_notice(
            FlowNotice(case=row.case, revision=row.revision, flow=flow.name, event=event, reasons=reasons, hooks=hooks)
        )


def _senders(
    station: Station, database: StationDatabase, config: StationConfig, row: CaseRow, flow: Flow | None
) -> list[Destination]:
    """Nodes that sent images of the case, at the ports on which they receive."""
    ports = dict.fromkeys((*config.return_to_sender_on_ports, *(flow.return_to_sender_ports if flow else ())))
    if not ports:
        return []
    found = database.rows(
        "SELECT DISTINCT a.sender, a.host FROM instances i JOIN associations a ON a.id = i.association "
        "WHERE i.case_id = ? AND i.revision <= ? AND a.source = 'dicom' ORDER BY a.sender, a.host",
        (row.case, row.revision),
    )
    made = []
    for sender in found:
        for port in ports:
            try:
                made.append(sender_destination(sender["sender"], sender["host"], port))
            except UsageError:
                append_event(station.audit, "sender cannot be called", case=row.case, host=sender["host"])
    return made
