"""``ctenrich query`` and ``report``: ask the results, look at them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]

RunFolder = Annotated[Path, typer.Argument(help="The run's folder.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        epilog='Examples:  ctenrich query my-run "SELECT * FROM segmentations"  \n'
        "ctenrich query my-run features_of_series.sql --csv"
    )(query)
    app.command(epilog="Example:  ctenrich report my-run")(report)


def query(
    run: RunFolder,
    sql: Annotated[str, typer.Argument(help="SQL text, a .sql file, or the name of one in queries/.")],
    param: Annotated[list[str] | None, typer.Option(help="name=value of an @parameter; repeatable.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Write CSV to stdout instead of a table.")] = False,
) -> None:
    """Ask the result tables a question in SQL."""
    import sys

    from ctenrich import steps
    from ctenrich.cli.console import parse_parameters, print_table

    table = steps.query(steps.open_run(run), sql, parse_parameters(param or []))
    if csv:
        table.to_pandas().to_csv(sys.stdout, index=False)
        return
    print_table(f"{table.num_rows} rows", table.column_names, [tuple(r.values()) for r in table.to_pylist()])


def report(run: RunFolder) -> None:
    """Write the offline HTML report of a run."""
    from ctenrich import steps
    from ctenrich.cli.console import progress_bars

    opened = steps.open_run(run)
    with progress_bars() as progress:
        path = steps.finish(opened, progress=progress)
    typer.echo(str(path))
