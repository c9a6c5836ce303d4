"""``ctenrich demo``: run the whole job on a small generated study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example:  ctenrich demo --out demo-run")(demo)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the study, the catalog and the run.")] = Path("demo-run"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:N.")] = "auto",
) -> None:
    """Run the whole job on a small generated chest CT study: no account, no server, no GPU, no download."""
    from ctenrich.cli.console import print_table, progress_bars
    from ctenrich.demo import run_demo

    with progress_bars() as progress:
        result = run_demo(out, device=device, progress=progress)
    print_table("Selection", ("verdict", "reason", "series"), result.selection)
    print_table("Outcomes", ("product", "state", "reason", "seconds"), result.outcomes)
    print_table(
        "Shape of the segments", ("segment", "volume, mL", "surface, cm2", "sphericity", "voxels"), result.shapes
    )
    print_table("Landmarks", ("landmark", "slice", "position, mm", "true, mm"), result.landmarks)
    verdict = "proven and valid" if result.exit_code == 0 else "not all of them are proven: see the outcomes above"
    typer.echo(f"DICOM objects: {result.objects} written, {verdict}")
    typer.echo("The models of the demo were trained on generated phantoms only. Not a medical device.")
    typer.echo(f"Report: {result.report}")
    raise typer.Exit(result.exit_code)
