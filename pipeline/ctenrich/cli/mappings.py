"""``ctenrich check-mappings``, ``ctenrich codes``: check the code mappings, and list the codes of published models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]

codes_app = typer.Typer(no_args_is_help=True, help="Codes of the classes of published models: list, show.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("check-mappings", epilog="Example:  ctenrich check-mappings my-mappings/")(check)
    app.add_typer(codes_app, name="codes")


def check(
    folder: Annotated[Path | None, typer.Argument(help="Folder of CSV files; default: the package's own.")] = None,
) -> None:
    """Check every code of the CSV mappings: check digits, known meanings, units, sides, one code per meaning."""
    from ctenrich.codes.lint import check_mappings
    from ctenrich.errors import UsageError, count
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
    typer.echo(f"{count(errors, 'error')}, {count(len(issues) - errors, 'warning or note')}")
    raise typer.Exit(1 if errors else 0)


@codes_app.command("list", epilog="Example:  ctenrich codes list")
def list_tasks() -> None:
    """List the tasks of published models whose classes have codes, with the number of classes."""
    from ctenrich.cli.console import print_table
    from ctenrich.codes.tasks import load_tasks

    rows = [(task, sum(not item.auxiliary for item in classes)) for task, classes in load_tasks().items()]
    print_table("Tasks", ("task", "classes"), rows)


@codes_app.command("show", epilog="Example:  ctenrich codes show totalsegmentator:total")
def show(task: Annotated[str, typer.Argument(help="Task, as `codes list` prints it.")]) -> None:
    """Show every class of a task: label number, name, code, side, anatomic region."""
    from ctenrich.cli.console import print_table
    from ctenrich.codes.describe import describe_task

    rows = [(c.number, c.label, c.code, c.side, c.region, c.note) for c in describe_task(task)]
    print_table(task, ("label", "class", "code", "side", "region", "note"), rows)
