"""``ctenrich export``: write results in the formats of other tools."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]


class Format(StrEnum):
    """Format of an export."""

    NIFTI = "nifti"
    NRRD = "nrrd"
    CSV = "csv"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Examples:  ctenrich export my-run nifti --out masks  \n"
        "ctenrich export others-objects/ nrrd --source their-ct/ --out masks"
    )(export)


def export(
    run: Annotated[Path, typer.Argument(help="The run's folder, or any folder or file of SEG and SR objects.")],
    fmt: Annotated[Format, typer.Argument(metavar="nifti|nrrd|csv", help="Format.")],
    out: Annotated[Path | None, typer.Option(help="Output folder; default: export/ in the run's folder.")] = None,
    source: Annotated[Path | None, typer.Option(help="SEGs from elsewhere: folder of their source CT.")] = None,
) -> None:
    """Export masks on the full grid of the CT (nifti, nrrd) or all measurements (csv), read from the DICOM objects."""
    from ctenrich import steps
    from ctenrich.cli.console import progress_bars
    from ctenrich.records import Issue, Severity

    with progress_bars() as progress:
        if (run / "run.json").is_file():
            target = out or run / "export"
            files = steps.export(steps.open_run(run), fmt.value, target, progress=progress)
            issues: tuple[Issue, ...] = ()
        else:
            target = out or Path("export")
            files, issues = steps.export_objects([run], fmt.value, target, source=source, progress=progress)
    for issue in issues:
        typer.echo(f"{issue.severity.value}: {issue.message} [{issue.rule}]", err=True)
    typer.echo(f"{len(files)} files in {target}")
    raise typer.Exit(1 if any(i.severity is Severity.ERROR for i in issues) else 0)
