"""``ctenrich prepare``, and one command per stage on a run's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer

from ctenrich.cli.options import CohortFile, ComputeOptions, Out, ProductOptions, RunFolder
from ctenrich.cli.running import make_run, product_names

__all__ = ["register"]

_HELP = {
    "fetch": "Download the files of every series and verify them.",
    "sort": "Order the slices and check their geometry.",
    "convert": "Convert every series to a volume.",
    "segment": "Run the segmenters.",
    "score": "Score the slices with body part regression.",
    "measure": "Measure shapes, find landmarks and regions.",
    "encode": "Write DICOM SEG and SR objects.",
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example:  ctenrich prepare cohort.parquet --out my-run --segmenter expert")(prepare)
    for name, text in _HELP.items():
        app.command(name, help=text, epilog=f"Example:  ctenrich {name} my-run")(_command(name))


def prepare(cohort: CohortFile, out: Out, products: ProductOptions, compute: ComputeOptions) -> None:
    """Create a run's folder without running anything, to continue stage by stage."""
    from ctenrich.errors import count

    made = make_run(cohort, out, products, compute)
    typer.echo(f"{count(len(made.cohort.series), 'series')}, products: {product_names(made)}")


def _command(name: str) -> Callable[[Path], None]:
    def command(run: RunFolder) -> None:
        from ctenrich import steps
        from ctenrich.cli.console import progress_bars
        from ctenrich.errors import count

        with progress_bars() as progress:
            report = steps.run_command(steps.open_run(run), name, progress=progress)
        parts = [count(report.records, "record")]
        if report.failures:
            parts.append(f"{len(report.failures)} failed")
        if report.left_alone:
            parts.append(f"{report.left_alone} not at this stage yet (series and products)")
        typer.echo(f"{name}: {', '.join(parts)}")
        raise typer.Exit(report.exit_code)

    return command
