"""``ctenrich publish``: results to BigQuery, to a bucket, to a DICOM store or a DICOM node."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Examples:  ctenrich publish my-run bigquery:my-project.results --mode replace  \n"
        "ctenrich publish my-run gs://my-bucket/run1  \n"
        "ctenrich publish my-run https://healthcare.example/dicomWeb  \n"
        "ctenrich publish my-run dicom://127.0.0.1:4242/ORTHANC"
    )(publish)


def publish(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    target: Annotated[
        str,
        typer.Argument(help="bigquery:PROJECT.DATASET, gs://BUCKET/PREFIX, a DICOMweb root or dicom://HOST:PORT/AET."),
    ],
    mode: Annotated[str, typer.Option(help="BigQuery: create, append or replace (this run's rows).")] = "replace",
    location: Annotated[str, typer.Option(help="BigQuery: where the dataset is.")] = "US",
) -> None:
    """Send tables or objects; what is there already is not sent again, and a broken publish goes on."""
    from collections import Counter

    from ctenrich import steps
    from ctenrich.cli.console import print_table, progress_bars
    from ctenrich.errors import UsageError
    from ctenrich.publish import publish_to
    from ctenrich.publish_tables import Mode, publish_bigquery
    from ctenrich.reasons import Reason

    workspace = steps.open_run(run).workspace
    kind, _, place = target.partition(":")
    if kind != "bigquery":
        with progress_bars() as progress:
            sent = publish_to(workspace, target, progress=progress)
        print_table("Objects", ("status", "number"), sorted(Counter(s.status for s in sent).items()))
        raise typer.Exit(1 if any(s.status == "failed" for s in sent) else 0)
    try:
        chosen = Mode(mode)
    except ValueError:
        hint = f"choose one of {', '.join(m.value for m in Mode)}"
        raise UsageError(Reason.BAD_PARAMETER, f"there is no mode {mode!r}", hint) from None
    with progress_bars() as progress:
        rows = publish_bigquery(workspace, place, mode=chosen, location=location, progress=progress)
    print_table("Rows of this run", ("table", "rows"), sorted(rows.items()))
