"""``ctenrich release``: package the results of a run as a data set for publication."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctenrich.cli.options import OnlyAccepted

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Examples:  ctenrich release my-run --out release-1  \n"
        "ctenrich release my-run --out release-1 --about about.toml  \n"
        "ctenrich release my-run --out release-2 --about about.toml --previous release-1"
    )(release)


def release(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    out: Annotated[Path, typer.Option(help="Folder to write to; new or empty.")],
    about: Annotated[
        Path | None, typer.Option(help="TOML file with title, creators, licence, publisher, DOI, date, version.")
    ] = None,
    previous: Annotated[
        Path | None, typer.Option(help="Folder of the previous release: CHANGES.md lists what differs.")
    ] = None,
    only: OnlyAccepted = None,
    identified: Annotated[
        bool, typer.Option("--identified", help="Allow patients who can be identified in the data set.")
    ] = False,
) -> None:
    """Write objects, tables and metadata (RO-Crate, DataCite, Croissant, RDF) as a data set for publication."""
    from ctenrich import steps
    from ctenrich.cli.console import progress_bars
    from ctenrich.cli.text import check_paths, printable
    from ctenrich.errors import count
    from ctenrich.release.about import About, read_about
    from ctenrich.release.release import ReleaseOptions

    check_paths(run, about, previous)
    options = ReleaseOptions(
        about=read_about(about) if about is not None else About(),
        previous=previous,
        accepted_only=only is not None,
        identified=identified,
    )
    opened = steps.open_run(run)
    with progress_bars() as progress:
        made = steps.release(opened, out, options=options, progress=progress)
    kinds = ", ".join(f"{number} {kind}" for kind, number in made.kinds.items())
    typer.echo(f"{out}: {kinds} of {made.series} series; {made.features} values in features.ttl")
    if made.left_out:
        typer.echo(
            f"left out: {count(made.left_out, 'object')} of products that are not done or not accepted", err=True
        )
    if made.changes is not None:
        typer.echo(f"{count(sum(made.changes.values()), 'file')} differ from the previous release: CHANGES.md")
    if made.missing:
        typer.echo(printable(f"still to be stated in a file for --about: {', '.join(made.missing)}"), err=True)
