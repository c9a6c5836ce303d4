"""``ctenrich check-mappings``: check the code mappings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check-mappings", epilog="Example:  ctenrich check-mappings my-mappings/")(check)


def check(
    folder: Annotated[Path | None, typer.Argument(help="Folder of CSV files; default: the package's own.")] = None,
) -> None:
    """Check every code of the CSV mappings: check digits, known meanings, units, one code per meaning."""
    from ctenrich.codes.mappings import check_mappings
    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason
    from ctenrich.records import Severity
    from ctenrich.resources import folder as own

    if folder is not None and not any(folder.glob("*.csv")):
        what = "holds no CSV file" if folder.is_dir() else "is not a folder"
        raise UsageError(Reason.NOT_FOUND, f"{folder} {what}", "name a folder with segments.csv and the other mappings")
    issues = check_mappings(folder or own("mappings"))
    for issue in issues:
        typer.echo(f"{issue.object}: {issue.severity.value}: {issue.message} [{issue.rule}]")
    errors = sum(i.severity is Severity.ERROR for i in issues)
    typer.echo(f"{errors} errors, {len(issues) - errors} warnings and notes")
    raise typer.Exit(1 if errors else 0)
