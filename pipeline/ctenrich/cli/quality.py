"""``ctenrich quality``: check segmentations without ground truth, and rank what to look at first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Examples:  ctenrich quality my-run  \n"
        "ctenrich quality my-run --top 50  \n"
        "ctenrich quality my-run --limits my-limits.toml --csv"
    )(quality)


def quality(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    top: Annotated[int, typer.Option(min=1, help="Series and products to print, the gravest first.")] = 20,
    notes: Annotated[
        bool, typer.Option("--notes", help="Print notes too: worth knowing, no sign of a mistake.")
    ] = False,
    limits: Annotated[Path | None, typer.Option(help="TOML file whose limits replace those of the package.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Write all findings as CSV to stdout instead of a list.")] = False,
) -> None:
    """Check masks without ground truth: shape, place, attenuation, sides, other products; findings become tables."""
    from ctenrich import steps
    from ctenrich.cli.console import print_csv, progress_bars
    from ctenrich.cli.text import printable

    opened = steps.open_run(run)
    with progress_bars() as progress:
        ranked = steps.quality(opened, limits=limits, progress=progress)
    if csv:
        import pyarrow.parquet as pq

        table = pq.read_table(opened.workspace.tables / "quality.parquet")
        print_csv(table.column_names, [tuple("" if v is None else v for v in r.values()) for r in table.to_pylist()])
        return
    found = [case for case in ranked if case.score > 0 or notes]
    typer.echo(f"{len(ranked)} products of series checked, {sum(case.score > 0 for case in ranked)} with findings")
    for rank, case in enumerate(found[:top], 1):
        typer.echo(printable(f"{rank}. {case.series_instance_uid}, {case.product}: score {case.score:.1f}"))
        for finding in case.findings:
            if finding.weight > 0 or notes:
                typer.echo(printable(f"   {finding.severity.value}: {finding.sentence}"))
    if len(found) > top:
        typer.echo(f"{len(found) - top} more: --top, or the table quality_ranking")
    typer.echo("tables: quality, quality_ranking; query them with ctenrich query", err=True)
