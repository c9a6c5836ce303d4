"""``ctenrich prepare``, and one command per stage on a run's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ctenrich.cli.options import SettingsFile
from ctenrich.cli.running import (
    Bodypart,
    CohortFile,
    Demo,
    Device,
    Mappings,
    Out,
    Rois,
    RunOptions,
    Segmenters,
    make_run,
)

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


def prepare(
    cohort: CohortFile,
    out: Out,
    segmenter: Segmenters = None,
    bodypart: Bodypart = "none",
    device: Device = "auto",
    settings: SettingsFile = None,
    roi: Rois = None,
    mappings: Mappings = None,
    allow_demo_models: Demo = False,
) -> None:
    """Create a run's folder without running anything, to continue stage by stage."""
    made = make_run(cohort, out, RunOptions(segmenter, bodypart, device, settings, allow_demo_models, roi, mappings))
    products = ", ".join(str(p.product) for p in made.config.products)
    typer.echo(f"{len(made.cohort.series)} series, products: {products}")


def _command(name: str) -> Callable[[Path], None]:
    def command(run: Annotated[Path, typer.Argument(help="The run's folder.")]) -> None:
        from ctenrich import steps
        from ctenrich.cli.console import progress_bars

        with progress_bars() as progress:
            report = steps.run_command(steps.open_run(run), name, progress=progress)
        parts = [f"{report.records} records"]
        if report.failures:
            parts.append(f"{len(report.failures)} failed")
        if report.left_alone:
            parts.append(f"{report.left_alone} series or products have not reached this stage")
        typer.echo(f"{name}: {', '.join(parts)}")
        raise typer.Exit(report.exit_code)

    return command
