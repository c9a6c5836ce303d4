"""``ctenrich flow``: check flow files, and try them on a catalog of headers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ctenrich.flows.folder import LoadedFlow

__all__ = ["register"]

flow_app = typer.Typer(no_args_is_help=True, help="Flow files, which state what runs on received images: check.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    flow_app.command(
        epilog="Examples:  ctenrich flow check flows  \nctenrich flow check lungs.yaml pet.yaml",
    )(check)
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


def load(files: list[Path]) -> list[LoadedFlow]:
    """Read flow files, and those of folders."""
    from ctenrich.cli.text import check_paths
    from ctenrich.errors import UsageError
    from ctenrich.flows.folder import flow_files, load_flows
    from ctenrich.reasons import Reason

    check_paths(*files)
    paths = [path for file in files for path in (flow_files(file) if file.is_dir() else [file])]
    if not paths:
        raise UsageError(Reason.NOT_FOUND, "there is no flow file", "flow files end with .yaml or .yml")
    return load_flows(paths)


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
