"""``ctenrich listen`` and ``cases``: receive DICOM objects as cases and run these; list cases and decide about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, cast, get_args

import typer

from ctenrich.cli.options import Csv, ProductOptions, SettingsFile
from ctenrich.cli.replaying import ReplayOptions, print_comparisons, run_replay

if TYPE_CHECKING:
    from ctenrich.flows.folder import LoadedFlow
    from ctenrich.listener.cases import CaseRow
    from ctenrich.listener.config import AfterAtMost, StationConfig
    from ctenrich.listener.database import StationDatabase
    from ctenrich.listener.listen import Ports

__all__ = ["register"]

StationFolder = Annotated[Path, typer.Argument(metavar="STATION", help="The station's folder.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        epilog="Examples:  ctenrich listen station --peer SCANNER1@10.1.2.3 --segmenter nnunet:/models/Dataset055  \n"
        "ctenrich listen station --peer '*@127.0.0.1' --segmenter nnunet:demo-organs --bodypart demo-bodypart "
        "--close quiet:10s --web 127.0.0.1:8080  \n"
        "ctenrich listen station --peer SCANNER1@10.1.2.3 --flows flows"
    )(listen)
    app.command(
        epilog="Examples:  ctenrich cases station  \n"
        "ctenrich cases station --state held  \n"
        "ctenrich cases station show 12  \n"
        "ctenrich cases station release 12  \n"
        "ctenrich cases station replay 12 --flows new-flows  \n"
        "ctenrich cases station compare --csv  \n"
        "ctenrich cases station audit"
    )(cases)


@dataclass(frozen=True, kw_only=True)
class ReceiveOptions:
    """Where and from whom objects are received; each replaces a setting of ``station.toml``."""

    heading: ClassVar[str] = "Receiving"

    aet: Annotated[str | None, typer.Option(metavar="AET", help="AE title.  [default: CTENRICH]")] = None
    dicom: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Storage SCP; none: no SCP.  [default: 127.0.0.1:11112]"),
    ] = None
    web: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="STOW-RS, status page, JSON and metrics.  [default: none]"),
    ] = None
    watch: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder whose DICOM files are taken in and deleted there.")
    ] = None
    peer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AET@ADDRESS[=PRIORITY]",
            help="A sender that may store: AE title (* for any), IP address or network, and priority 0 to 5. "
            "Repeatable. Nobody else may.",
        ),
    ] = None
    insecure: Annotated[bool, typer.Option("--insecure", help="Accept connections of other computers without TLS.")] = (
        False
    )


@dataclass(frozen=True, kw_only=True)
class CloseOptions:
    """When a case is complete, and which flows decide about it."""

    heading: ClassVar[str] = "Cases"

    close: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="quiet:SECONDS (no image for so long), association (all were released), or "
            "expect:MODALITY,...[:SECONDS] (each is there).  [default: quiet:60s]",
        ),
    ] = None
    at_most: Annotated[
        str | None, typer.Option(metavar="TIME", help="Longest time that a case is open, e.g. 6h.  [default: no limit]")
    ] = None
    then: Annotated[
        str | None, typer.Option(metavar="run|discard|wait", help="What follows after that.  [default: run]")
    ] = None
    flows: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Flow files, which decide what runs on which case; see ctenrich flow."),
    ] = None
    keep_days: Annotated[
        float | None,
        typer.Option(min=0, metavar="DAYS", help="Delete received objects this long after the end of their case."),
    ] = None


def listen(
    station: StationFolder,
    receive: ReceiveOptions,
    close: CloseOptions,
    products: ProductOptions,
    settings: SettingsFile = None,
    device: Annotated[str | None, typer.Option(metavar="auto|cpu|cuda:N", help="Device of the networks.")] = None,
) -> None:
    """Receive objects with C-STORE, STOW-RS or from a folder, gather each study into a case, and run the cases.

    An object is acknowledged once it is on disk. SIGTERM or Ctrl+C ends the listener within 10 s; nothing is lost, and
    the same command goes on. STATION/station.toml holds settings that have no option here (TLS, limits).
    """
    from ctenrich.listener.listen import listen as run_listener
    from ctenrich.listener.station import Station
    from ctenrich.runner.forecast import products_of
    from ctenrich.runner.stopping import StopSignal

    config = _config(Station(station).config, receive, close)
    request = replace(
        config.run,
        segmenters=tuple(products.segmenters) or config.run.segmenters,
        bodypart=products.bodypart if products.bodypart != "none" else config.run.bodypart,
        settings=str(settings.resolve()) if settings else config.run.settings,
        device=device or config.run.device,
        rois=tuple(products.roi or config.run.rois),
        mappings=str(products.mappings.resolve()) if products.mappings else config.run.mappings,
        allow_demo_models=products.allow_demo_models or config.run.allow_demo_models,
    )
    products_of(request.segmenters, request.bodypart)
    with StopSignal() as stop:
        config = replace(config, run=request)
        run_listener(station, config, stop=stop, started=_started(config), report=_show_flow)
    raise typer.Exit(3)


def _config(path: Path, receive: ReceiveOptions, close: CloseOptions) -> StationConfig:
    """Settings of the station's file, with what the options change."""
    from ctenrich.listener.config import load_config, parse_close, parse_duration, parse_peer

    config = load_config(path)
    rule = config.close
    if close.close is not None:
        when, seconds, roles = parse_close(close.close)
        rule = replace(rule, when=when, seconds=seconds, roles=roles)
    if close.at_most is not None:
        rule = replace(rule, at_most=parse_duration(close.at_most))
    if close.then is not None:
        rule = replace(rule, then=_then(close.then))
    keep = config.keep if close.keep_days is None else replace(config.keep, days=close.keep_days)
    return replace(
        config,
        aet=receive.aet if receive.aet is not None else config.aet,
        dicom=_address(receive.dicom, config.dicom),
        web=_address(receive.web, config.web),
        watch=str(receive.watch.resolve()) if receive.watch else config.watch,
        insecure=receive.insecure or config.insecure,
        peers=(*config.peers, *map(parse_peer, receive.peer or ())),
        close=rule,
        keep=keep,
        flows=str(close.flows.resolve()) if close.flows else config.flows,
    )


def _address(given: str | None, before: str) -> str:
    return before if given is None else "" if given == "none" else given


def _then(text: str) -> AfterAtMost:
    from ctenrich.errors import UsageError, did_you_mean
    from ctenrich.listener.config import AfterAtMost
    from ctenrich.reasons import Reason

    if text not in get_args(AfterAtMost):
        hint = did_you_mean(text, get_args(AfterAtMost), "choose run, discard or wait")
        raise UsageError(Reason.BAD_PARAMETER, f"--then {text} is not known", hint)
    return cast("AfterAtMost", text)


def _show_flow(loaded: LoadedFlow) -> None:
    """Print which version of a flow file is active, and why a new one is not."""
    from ctenrich.cli.text import printable

    if loaded.error is not None:
        typer.echo(printable(f"error: {loaded.error.message}"), err=True)
    if loaded.flow is not None:
        kept = " (the last good version)" if loaded.error is not None else ""
        typer.echo(printable(f"flow {loaded.flow.name}: {loaded.path.name} {loaded.flow.sha256[:12]}{kept}"))


def _started(config: StationConfig) -> Callable[[Ports], None]:
    def show(ports: Ports) -> None:
        if ports.dicom:
            typer.echo(f"Storage SCP {config.aet} on {config.dicom.rpartition(':')[0]}:{ports.dicom}")
        if ports.web:
            typer.echo(f"Status page http://{config.web.rpartition(':')[0]}:{ports.web}/")
        if config.watch:
            typer.echo(f"Watching {config.watch}")
        if not config.peers:
            typer.echo("no --peer is named: all senders are refused", err=True)
        typer.echo("Ctrl+C ends it.")

    return show


# ---------------------------------------------------------------- cases


class Action(StrEnum):
    """What ``ctenrich cases`` does."""

    LIST = "list"
    SHOW = "show"
    HOLD = "hold"
    RELEASE = "release"
    REPLAY = "replay"
    COMPARE = "compare"
    DROP = "drop"
    AUDIT = "audit"


def cases(
    station: StationFolder,
    action: Annotated[
        Action,
        typer.Argument(
            help="list; show, hold, release, replay or drop a CASE; compare: results of shadows and replays beside the "
            "others, of a CASE or of all; audit: check the chain of the log."
        ),
    ] = Action.LIST,
    case: Annotated[int | None, typer.Argument(metavar="CASE", help="Number of the case.")] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATE", help="open, waiting, closed, running, done, skipped, failed or held; repeatable."
        ),
    ] = None,
    csv: Csv = False,
    *,
    replay: ReplayOptions,
) -> None:
    """List the cases of a station, or decide about one; also while the listener is at work.

    hold keeps a case from closing and running until it is released. replay runs it again, with all images that it has;
    with --flows it runs other flows on it at once, sends nothing, and compares their results with the earlier ones.
    drop ends a case that has not run. A case with two objects of one SOP Instance UID is held: release uses the first.
    """
    from ctenrich.errors import UsageError
    from ctenrich.listener.cases import cases_of
    from ctenrich.listener.database import StationDatabase
    from ctenrich.listener.station import Station
    from ctenrich.reasons import Reason

    opened = Station.open(station)
    if action is Action.AUDIT:
        _check_audit(opened.audit)
        return
    if action is Action.COMPARE:
        print_comparisons(opened, case, csv=csv)
        return
    if replay.given and (action is not Action.REPLAY or replay.flows is None):
        raise UsageError(Reason.BAD_PARAMETER, "--flows and the options of its products are for replay --flows FOLDER")
    with StationDatabase(opened.database) as database:
        if action is Action.LIST:
            _print(cases_of(database, states=_states(state or [])), csv=csv)
            if not csv:
                _print_totals(database)
        elif replay.flows is not None:
            run_replay(database, opened, case, replay)
        else:
            _decide(database, opened, action, case, csv=csv)


def _decide(database: StationDatabase, station: object, action: Action, case: int | None, *, csv: bool) -> None:
    from ctenrich.errors import UsageError
    from ctenrich.listener import cases as book
    from ctenrich.listener.audit import append_event
    from ctenrich.reasons import Reason

    if case is None:
        raise UsageError(
            Reason.BAD_PARAMETER, f"{action} needs the number of a case", "ctenrich cases STATION lists them"
        )
    if action is Action.SHOW:
        rows = book.case_of(database, case)
        _print(rows, csv=csv)
        if not csv:
            for row in rows:
                typer.echo(f"revision {row.revision}: {station.revision(row.case, row.revision)}")  # type: ignore[attr-defined]
                _print_flows(database, row)
        return
    {Action.HOLD: book.hold, Action.RELEASE: book.release, Action.DROP: book.drop, Action.REPLAY: book.replay}[action](
        database, case
    )
    append_event(station.audit, f"case {action}", case=case)  # type: ignore[attr-defined]
    _print(book.case_of(database, case)[:1], csv=csv)


def _print_flows(database: StationDatabase, row: CaseRow) -> None:
    """Print how the flows of a revision ended, and which pattern kept the others from firing."""
    from ctenrich.cli.text import printable
    from ctenrich.errors import count
    from ctenrich.listener.flow_rows import flow_rows

    for one in flow_rows(database, row.case, row.revision):
        reason = " ".join(filter(None, (one.reason, one.message)))
        typer.echo(printable(f"  flow {one.flow}: {one.state} {count(len(one.files), 'image')} {reason}".rstrip()))
        for failure in one.failures:
            pattern = f"{failure['attribute']} {failure['pattern']!r}" if failure["pattern"] else ""
            text = "absent" if failure["text"] is None else repr(failure["text"])
            typer.echo(printable(f"    {failure['part']}" + (f": {pattern} in {text}" if pattern else "")))


def _states(given: list[str]) -> tuple[str, ...]:
    from ctenrich.errors import UsageError, did_you_mean
    from ctenrich.listener.cases import CaseState
    from ctenrich.reasons import Reason

    known = [*(one.value for one in CaseState), "held"]
    for text in given:
        if text not in known:
            hint = did_you_mean(text, known, f"choose from {', '.join(known)}")
            raise UsageError(Reason.BAD_PARAMETER, f"there is no state {text}", hint)
    return tuple(given)


def _print(rows: list[CaseRow], *, csv: bool) -> None:
    import time

    from ctenrich.cli.console import print_csv, print_table

    columns = ("case", "revision", "state", "held", "images", "series", "conflicts", "priority", "opened", "reason")
    table = [
        (
            row.case,
            row.revision,
            row.state.value,
            row.held,
            row.images,
            row.series,
            row.conflicts,
            row.priority,
            time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(row.created)),
            " ".join(filter(None, (row.reason, row.message))),
        )
        for row in rows
    ]
    if csv:
        print_csv(columns, table)
    else:
        print_table("Cases", columns, table)


def _print_totals(database: StationDatabase) -> None:
    from ctenrich.listener.cases import totals

    found = totals(database)
    typer.echo(
        f"{found.planned} planned = {found.done} done + {found.skipped} skipped + {found.failed} failed + "
        f"{found.open} open; {found.held} held"
    )


def _check_audit(path: Path) -> None:
    from ctenrich.errors import count
    from ctenrich.listener.audit import check_log

    found = check_log(path)
    if found.broken:
        typer.echo(f"the audit log was changed at line {found.broken}")
        raise typer.Exit(1)
    typer.echo(f"{count(found.events, 'event')}, each follows from the one before")
