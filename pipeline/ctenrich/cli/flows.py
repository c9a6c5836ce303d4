"""``ctenrich flow``: check flow files, try them on a catalog of headers, and run one on a cohort."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from ctenrich.cli.options import Csv, Out, SettingsFile

if TYPE_CHECKING:
    from datetime import date

    from ctenrich.flows.folder import LoadedFlow
    from ctenrich.flows.reader import Machine
    from ctenrich.flows.records import Flow
    from ctenrich.flows.trial import FlowTrial

__all__ = ["register"]

flow_app = typer.Typer(
    no_args_is_help=True, help="Flow files, which state what runs on received images: check, try, run."
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    flow_app.command(
        epilog="Examples:  ctenrich flow check flows  \nctenrich flow check lungs.yaml pet.yaml",
    )(check)
    flow_app.command(
        "try",
        epilog="Examples:  ctenrich flow try flows --catalog folder:catalog.duckdb --since 2025-01-01  \n"
        "ctenrich flow try lungs.yaml --catalog folder:station/catalog.duckdb --csv",
    )(try_on_catalog)
    flow_app.command(
        epilog="Examples:  ctenrich flow run lungs.yaml cohort.parquet --out lungs  \n"
        "ctenrich flow run petct.yaml /data/studies --out petct --device cuda:0  \n"
        "ctenrich flow run petct.yaml cohort.parquet --out petct --executor ray --address 10.1.2.3:6379",
    )(run)
    app.add_typer(flow_app, name="flow")


FlowFiles = Annotated[list[Path], typer.Argument(metavar="FLOWS...", help="Flow files, or folders of flow files.")]


def check(files: FlowFiles) -> None:
    """Check flow files: all faults with line and column, spellings that are taken as others, and risks.

    Ends with 1 if a file cannot be used.
    """
    loaded = load(files)
    bad = 0
    for one in loaded:
        bad += one.flow is None
        _print(one)
    typer.echo(f"{len(loaded) - bad} of {len(loaded)} flow files can be used")
    raise typer.Exit(1 if bad else 0)


def try_on_catalog(
    files: FlowFiles,
    catalog: Annotated[
        str, typer.Option(metavar="CATALOG", help="folder:FILE (ctenrich index, or of a station) or parquet:URI.")
    ],
    since: Annotated[str | None, typer.Option(metavar="DATE", help="Only studies since this Study Date.")] = None,
    until: Annotated[str | None, typer.Option(metavar="DATE", help="Only studies up to this Study Date.")] = None,
    examples: Annotated[int, typer.Option(min=0, help="Studies and near misses that are named for each flow.")] = 3,
    csv: Csv = False,
) -> None:
    """Show which studies of a catalog flows would have fired on, by month, and which single pattern kept others out.

    Each study counts as complete. Nothing runs. --csv writes the counts alone.
    """
    from ctenrich.catalog import open_catalog
    from ctenrich.cli.console import print_csv, print_table
    from ctenrich.flows.catalog_files import studies_of
    from ctenrich.flows.trial import try_flows

    flows = _good_flows(files)
    first, last = _date(since, "--since"), _date(until, "--until")
    opened = open_catalog(catalog)
    try:
        studies = (
            one
            for one in studies_of(opened, flows)
            if (first is None or (one.date is not None and one.date >= first))
            and (last is None or (one.date is not None and one.date <= last))
        )
        trial = try_flows(flows, studies, examples=examples)
    finally:
        opened.close()
    columns = ("flow", "month", "studies", "fired", "images", "near_misses", "failed")
    rows = [tuple(getattr(one, name) for name in columns) for one in trial.months]
    if csv:
        print_csv(columns, rows)
        return
    print_table("Flows by month", columns, rows)
    _print_details(trial, examples)


def _good_flows(files: list[Path]) -> list[Flow]:
    """Flows of files of which each can be used, as a listener orders them."""
    loaded = load(files)
    for one in loaded:
        if one.error is not None:
            raise one.error
    flows = [one.flow for one in loaded if one.flow is not None]
    return sorted(flows, key=lambda flow: (-flow.priority, flow.name))


def _date(text: str | None, option: str) -> date | None:
    from datetime import date

    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason

    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        message = f"{option} {text} is no date"
        raise UsageError(Reason.BAD_PARAMETER, message, "write it as 2025-01-31") from None


def _print_details(trial: FlowTrial, examples: int) -> None:
    """Print studies on which flows fire, and what kept them from firing on others."""
    from ctenrich.cli.text import printable
    from ctenrich.errors import count

    for name, uids in trial.examples.items():
        typer.echo(printable(f"flow {name}: " + (f"fires on {', '.join(uids)}" if uids else "fires on no study")))
        misses = [one for one in trial.near_misses if one.flow == name]
        for one in misses[:examples]:
            failure = one.failure
            found = "found in" if failure.part.startswith("never") else "not found in"
            text = "an absent value" if failure.text is None else repr(failure.text)
            why = f"{failure.attribute} {failure.pattern!r} {found} {text}" if failure.pattern else "is not fulfilled"
            typer.echo(printable(f"  nearly {count(one.studies, 'study')}: {failure.part}: {why}, as {one.example}"))
        if len(misses) > examples:
            typer.echo(f"  and {count(len(misses) - examples, 'other reason')}")


@dataclass(frozen=True, kw_only=True)
class FlowComputeOptions:
    """Where and with what the steps of a flow run."""

    heading: ClassVar[str] = "Computing"

    device: Annotated[str | None, typer.Option(metavar="auto|cpu|cuda:N", help="Device of the networks.")] = None
    allow_demo_models: Annotated[
        bool, typer.Option("--allow-demo-models", help="Run demonstration models on any study.")
    ] = False
    executor: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Where jobs of built-in products run: serial, processes or ray; the results are the same.",
        ),
    ] = "serial"
    address: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Address of a Ray cluster.")] = None
    resource: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=NUMBER",
            help="What containers that run at the same time may have: cpu=8, gpu=1, or a tag of your own; repeatable.",
        ),
    ] = None
    allow_command: Annotated[
        list[str] | None,
        typer.Option(metavar="PROGRAM", help="Absolute path of a program that steps may run; repeatable."),
    ] = None
    static: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of the static files that flows mount.")
    ] = None


def run(
    flow: Annotated[Path, typer.Argument(metavar="FLOW", help="Flow file.")],
    cohort: Annotated[
        str, typer.Argument(metavar="COHORT", help="Cohort file, folder of DICOM files, or folder:FILE (a catalog).")
    ],
    out: Out,
    compute: FlowComputeOptions,
    settings: SettingsFile = None,
) -> None:
    """Run a flow on each study of a cohort, as a listener runs it on those that arrive: same bytes, nothing is sent.

    Ends with 1 if it failed on a study. Ctrl+C ends it; the same command goes on.
    """
    from ctenrich.cli.console import progress_bars
    from ctenrich.cli.text import check_paths, printable
    from ctenrich.flows.cohort_run import run_on_cohort
    from ctenrich.flows.request import RunRequest
    from ctenrich.flows.running import EndState
    from ctenrich.flows.step_graph import machine_of

    check_paths(*map(Path, compute.allow_command or ()), compute.static)
    request = RunRequest(
        settings=str(settings.resolve()) if settings else "",
        device=compute.device or "",
        allow_demo_models=compute.allow_demo_models,
        resources=tuple(compute.resource or ()),
        commands=tuple(compute.allow_command or ()),
        static=str(compute.static.resolve()) if compute.static else "",
        executor=compute.executor,
        address=compute.address or "",
    )
    (loaded,) = load([flow], machine_of(request))
    if loaded.flow is None:
        assert loaded.error is not None
        raise loaded.error
    states: Counter[str] = Counter()
    with progress_bars() as progress:
        for end in run_on_cohort(loaded.flow, loaded.content, cohort, out, request, progress=progress):
            states[end.state] += 1
            why = " ".join(filter(None, (end.reason, end.message)))
            typer.echo(printable(f"{end.study_instance_uid}: {end.state} {why}".rstrip()))
    typer.echo(", ".join(f"{number} {state}" for state, number in sorted(states.items())) or "no study")
    raise typer.Exit(3 if states[EndState.INTERRUPTED] else 1 if states[EndState.FAILED] else 0)


def load(files: list[Path], machine: Machine | None = None) -> list[LoadedFlow]:
    """Read flow files, and those of folders."""
    from ctenrich.cli.text import check_paths
    from ctenrich.errors import UsageError
    from ctenrich.flows.folder import flow_files, load_flows
    from ctenrich.reasons import Reason

    check_paths(*files)
    paths = [path for file in files for path in (flow_files(file) if file.is_dir() else [file])]
    if not paths:
        raise UsageError(Reason.NOT_FOUND, "there is no flow file", "flow files end with .yaml or .yml")
    return load_flows(paths, machine)


def _print(one: LoadedFlow) -> None:
    from ctenrich.cli.text import printable
    from ctenrich.flows.errors import BadFlowError

    if one.flow is not None:
        typer.echo(printable(f"{one.path}: flow {one.flow.name} can be used"))
        for note in one.flow.notes:
            typer.echo(printable(f"  line {note.place.line}, column {note.place.column}: note: {note.message}"))
        return
    typer.echo(printable(f"{one.path}: cannot be used"))
    if isinstance(one.error, BadFlowError):
        for fault in one.error.faults:
            typer.echo(printable(f"  {fault}"))
    elif one.error is not None:
        typer.echo(printable(f"  {one.error.message}"))
