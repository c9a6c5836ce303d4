"""Options and output of ``ctenrich cases replay --flows`` and ``cases compare``: flows that run and send nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

if TYPE_CHECKING:
    from ctenrich.flows.comparison import ComparedResult
    from ctenrich.listener.database import StationDatabase
    from ctenrich.listener.station import Station

__all__ = ["ReplayOptions", "print_comparisons", "run_replay"]


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """Other flows for a case."""

    heading: ClassVar[str] = "Replay with other flows"

    flows: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Flow files that run on the case here and now; nothing is sent."),
    ] = None
    settings: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings of the products.  [default: those of station.toml]")
    ] = None
    device: Annotated[str | None, typer.Option(metavar="auto|cpu|cuda:N", help="Device of the networks.")] = None
    allow_demo_models: Annotated[
        bool, typer.Option("--allow-demo-models", help="Run demonstration models on any study.")
    ] = False

    @property
    def given(self) -> bool:
        """Whether any of them was given."""
        return any(getattr(self, one.name) for one in fields(self))


def run_replay(database: StationDatabase, station: Station, case: int | None, options: ReplayOptions) -> None:
    """Run flows on a case, print how they ended and how their results differ; exit with 1 if one failed, 3 if stopped.

    Parameters
    ----------
    database : StationDatabase
        Of the station.
    station : Station
        The station.
    case : int or None
        Number of the case.
    options : ReplayOptions
        The flows, and settings of their products.

    Raises
    ------
    UsageError
        BAD_PARAMETER without a case; the errors of `replay_with_flows`.
    """
    from ctenrich.cli.text import check_paths, printable
    from ctenrich.errors import UsageError
    from ctenrich.flows.running import EndState
    from ctenrich.listener.config import load_config
    from ctenrich.listener.replays import replay_with_flows
    from ctenrich.reasons import Reason

    assert options.flows is not None
    if case is None:
        message = "replay needs the number of a case"
        raise UsageError(Reason.BAD_PARAMETER, message, "ctenrich cases STATION lists them")
    check_paths(options.flows, *([options.settings] if options.settings else []))
    configured = load_config(station.config).run
    request = replace(
        configured,
        settings=str(options.settings.resolve()) if options.settings else configured.settings,
        device=options.device or configured.device,
        allow_demo_models=options.allow_demo_models or configured.allow_demo_models,
    )
    states = []
    for one in replay_with_flows(station, database, case, options.flows, request):
        states.append(one.end.state)
        why = " ".join(filter(None, (one.end.reason, one.end.message)))
        typer.echo(printable(f"flow {one.flow}: {one.end.state} {why}".rstrip()))
        if one.table is not None:
            _print(one.compared, csv=False)
            typer.echo(printable(f"table: {one.table}"))
        elif one.end.state is EndState.DONE:
            typer.echo(printable(f"the case has no results of a flow {one.flow}: nothing is compared"))
    if not states:
        typer.echo("no flow fires on this case")
    raise typer.Exit(3 if EndState.INTERRUPTED in states else 1 if EndState.FAILED in states else 0)


def print_comparisons(station: Station, case: int | None, *, csv: bool) -> None:
    """Print the comparisons of shadows and replays.

    Parameters
    ----------
    station : Station
        The station.
    case : int or None
        Number of a case; None: all.
    csv : bool
        Write CSV.
    """
    from ctenrich.flows.comparison import COMPARISON, read_comparison

    below = "*" if case is None else f"{case:06d}"
    rows = [
        (path.relative_to(station.cases).parent.as_posix(), one)
        for pattern in ("r*/flows/*", "replays/*/*")
        for path in sorted(station.cases.glob(f"{below}/{pattern}/{COMPARISON}"))
        for one in read_comparison(path)
    ]
    _print([one for _, one in rows], csv=csv, places=[place for place, _ in rows])


def _print(rows: Sequence[ComparedResult], *, csv: bool, places: Sequence[str] = ()) -> None:
    from ctenrich.cli.console import print_csv, print_table

    names = ("flow", "other", "series", "structure", "quantity", "unit", "old", "new", "difference", "dice", "note")
    columns = (*(("folder",) if places else ()), *names)
    table = []
    for number, row in enumerate(rows):
        values = ["" if getattr(row, name) is None else getattr(row, name) for name in names]
        table.append((*((places[number],) if places else ()), *values))
    if csv:
        print_csv(columns, table)
    else:
        print_table("Compared results", columns, table)
