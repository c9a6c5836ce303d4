"""``ctenrich export``: results in the formats of other tools."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]


class Format(StrEnum):
    """What can be exported."""

    NIFTI = "nifti"
    NRRD = "nrrd"
    CSV = "csv"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example:  ctenrich export my-run nifti --out masks")(export)


def export(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    fmt: Annotated[Format, typer.Argument(metavar="nifti|nrrd|csv", help="Format.")],
    out: Annotated[Path | None, typer.Option(help="Folder; default: export/ in the run's folder.")] = None,
) -> None:
    """Export masks on the full grid of the CT (nifti, nrrd) or all measurements (csv), read from the DICOM objects."""
    from ctenrich import steps
    from ctenrich.cli.console import progress_bars

    opened = steps.open_run(run)
    target = out or opened.root / "export"
    with progress_bars() as progress:
        files = steps.export(opened, fmt.value, target, progress=progress)
    typer.echo(f"{len(files)} files in {target}")
