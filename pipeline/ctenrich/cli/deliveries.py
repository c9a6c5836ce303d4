"""``ctenrich deliveries``: the results of a station on their way to destinations; release, retry or drop them."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ctenrich.cli.listening import StationFolder
from ctenrich.cli.options import Csv

if TYPE_CHECKING:
    from ctenrich.delivery.queue import DeliveryQueue
    from ctenrich.delivery.records import DeliveryRow
    from ctenrich.listener.station import Station

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Examples:  ctenrich deliveries station  \n"
        "ctenrich deliveries station --state held  \n"
        "ctenrich deliveries station release 12  \n"
        "ctenrich deliveries station retry 12 --destination pacs"
    )(deliveries)


class DeliveryAction(StrEnum):
    """What ``ctenrich deliveries`` does."""

    LIST = "list"
    RELEASE = "release"
    RETRY = "retry"
    DROP = "drop"


def deliveries(
    station: StationFolder,
    action: Annotated[
        DeliveryAction,
        typer.Argument(help="list; release the held, retry the failed or drop the unsent results of a CASE."),
    ] = DeliveryAction.LIST,
    case: Annotated[int | None, typer.Argument(metavar="CASE", help="Number of the case.")] = None,
    destination: Annotated[
        str, typer.Option(metavar="NAME", help="Only for this destination.  [default: for all]")
    ] = "",
    state: Annotated[
        list[str] | None,
        typer.Option(metavar="STATE", help="held, queued, sending, sent, warning, failed or dropped; repeatable."),
    ] = None,
    csv: Csv = False,
) -> None:
    """List the results of a station and what became of them at each destination, or decide about those of a case.

    Results for DICOM nodes and DICOMweb stores are held until they are released, unless the destination is configured
    otherwise. Also while the listener is at work, which sends what is released.
    """
    from ctenrich.delivery.decisions import delivery_rows
    from ctenrich.delivery.queue import DeliveryQueue
    from ctenrich.listener.station import Station

    opened = Station.open(station)
    if action is DeliveryAction.LIST and not opened.deliveries.exists():
        _print([], csv=csv)
        return
    with DeliveryQueue(opened.deliveries) as queue:
        if action is DeliveryAction.LIST:
            _print(delivery_rows(queue, states=_states(state or []), case=case), csv=csv)
            if not csv:
                _print_totals(queue)
        else:
            _decide(queue, opened, action, case, destination)
            _print(delivery_rows(queue, case=case), csv=csv)


def _decide(queue: DeliveryQueue, station: Station, action: DeliveryAction, case: int | None, destination: str) -> None:
    from ctenrich.delivery.decisions import drop, release, retry
    from ctenrich.errors import UsageError, count
    from ctenrich.listener.audit import append_event
    from ctenrich.reasons import Reason

    if case is None:
        hint = "ctenrich deliveries STATION lists them"
        raise UsageError(Reason.BAD_PARAMETER, f"{action} needs the number of a case", hint)
    decide = {DeliveryAction.RELEASE: release, DeliveryAction.RETRY: retry, DeliveryAction.DROP: drop}[action]
    changed = decide(queue, case, destination)
    append_event(station.audit, f"results {action}", case=case, destination=destination, objects=changed)
    typer.echo(f"{action}: {count(changed, 'object')}", err=True)


def _states(given: list[str]) -> tuple[str, ...]:
    from ctenrich.delivery.records import DeliveryState
    from ctenrich.errors import UsageError, did_you_mean
    from ctenrich.reasons import Reason

    known = [one.value for one in DeliveryState]
    for text in given:
        if text not in known:
            hint = did_you_mean(text, known, f"choose from {', '.join(known)}")
            raise UsageError(Reason.BAD_PARAMETER, f"there is no state {text}", hint)
    return tuple(given)


def _print(rows: list[DeliveryRow], *, csv: bool) -> None:
    from ctenrich.cli.console import print_csv, print_table

    columns = ("case", "revision", "destination", "state", "objects", "attempts", "confirmed", "reason")
    table = [
        (
            row.case,
            row.revision,
            row.destination,
            row.state.value,
            row.objects,
            row.sends,
            row.confirmed,
            " ".join(filter(None, (row.reason, row.detail))),
        )
        for row in rows
    ]
    if csv:
        print_csv(columns, table)
    else:
        print_table("Deliveries", columns, table)


def _print_totals(queue: DeliveryQueue) -> None:
    from ctenrich.delivery.decisions import delivery_totals

    found = delivery_totals(queue)
    typer.echo(
        f"{found.planned} objects = {found.held} held + {found.queued} queued + {found.sending} sending + "
        f"{found.sent} sent + {found.warning} sent with a warning + {found.failed} failed + {found.dropped} dropped"
    )
