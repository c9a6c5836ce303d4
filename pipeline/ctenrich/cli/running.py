"""``ctenrich run``: all stages of all series of a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ctenrich.run import Run

__all__ = ["Bodypart", "CohortFile", "Demo", "Device", "Out", "Segmenters", "SettingsFile", "make_run", "register"]

CohortFile = Annotated[Path, typer.Argument(help="Cohort file that select wrote.")]
Out = Annotated[Path, typer.Option(help="The run's folder; an existing run goes on where it stopped.")]
Segmenters = Annotated[
    list[str] | None,
    typer.Option(
        "--segmenter", help="expert, or nnunet:MODEL[:CONFIGURATION][:folds=0,1][:mirror=on|off]; repeatable."
    ),
]
Bodypart = Annotated[str, typer.Option(help="Body part regression model: a name, a folder, or none.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda:N.")]
SettingsFile = Annotated[Path | None, typer.Option("--settings", help="TOML file with settings.")]
Demo = Annotated[bool, typer.Option("--allow-demo-models", help="Accept models that have seen phantoms only.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        epilog="Examples:  ctenrich run cohort.parquet --out my-run --segmenter expert  \n"
        "ctenrich run cohort.parquet --out my-run --segmenter nnunet:/models/Dataset055:3d_fullres:folds=0:mirror=off "
        "--bodypart /models/bpr"
    )(run)


def make_run(
    cohort: Path, out: Path, segmenters: list[str] | None, bodypart: str, device: str, options: tuple[Path | None, bool]
) -> Run:
    """Create or update a run's folder from command line options."""
    from dataclasses import replace

    from ctenrich.run import Run
    from ctenrich.settings import load_settings

    settings_file, allow_demo = options
    settings = load_settings(settings_file)
    settings = replace(settings, segment=replace(settings.segment, device=device))
    return Run.create(
        cohort, out, segmenters=segmenters or [], bodypart=bodypart, settings=settings, allow_demo=allow_demo
    )


def run(
    cohort: CohortFile,
    out: Out,
    segmenter: Segmenters = None,
    bodypart: Bodypart = "none",
    device: Device = "auto",
    settings: SettingsFile = None,
    allow_demo_models: Demo = False,
) -> None:
    """Fetch, sort, convert, segment, score, measure, encode and validate every series; then tables and report."""
    from ctenrich import steps
    from ctenrich.cli.console import print_table, progress_bars

    made = make_run(cohort, out, segmenter, bodypart, device, (settings, allow_demo_models))
    with progress_bars() as progress:
        summary = steps.run_all(made, progress=progress)
    print_table("Outcomes", ("state", "series and products"), [(k, v) for k, v in summary.states.items() if v])
    if summary.reasons:
        print_table("Reasons", ("reason", "number"), sorted(summary.reasons.items()))
    typer.echo(f"{summary.ran} stages ran in {summary.seconds:.1f} s ({summary.ended})")
    typer.echo(f"Report: {made.workspace.report / 'index.html'}")
    raise typer.Exit(summary.exit_code)
