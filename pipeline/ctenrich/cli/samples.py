"""``ctenrich samples``: sample objects of every kind, to try viewers and other programs with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example:  ctenrich samples --out samples")(samples)


def samples(
    out: Annotated[Path, typer.Option(help="Folder to write to; new or empty.")] = Path("ctenrich-samples"),
) -> None:
    """Write a generated CT with one object of every kind, and what viewers must show of them (CC0)."""
    from ctenrich.cli.console import progress_bars
    from ctenrich.errors import count
    from ctenrich.samples import make_samples

    with progress_bars() as progress:
        made = make_samples(out, progress=progress)
    for file in made.left_out:
        typer.echo(f"{file} is left out: it needs pyradiomics, of the extra reference", err=True)
    typer.echo(f"{out}: {count(len(made.contents), 'object')}; README.md lists what must be seen of each")
