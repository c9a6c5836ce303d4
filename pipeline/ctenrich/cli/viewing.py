"""``ctenrich view`` and ``publish``: show a run in OHIF, send its results elsewhere."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ctenrich.cli.options import OnlyAccepted, RunFolder

if TYPE_CHECKING:
    from ctenrich.runner.run import Run

__all__ = ["register", "show_run"]


class PublishMode(StrEnum):
    """How a BigQuery table that already exists is treated."""

    CREATE = "create"
    APPEND = "append"
    REPLACE = "replace"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        epilog="Examples:  ctenrich view my-run  \n"
        "ctenrich view my-run --series 1.2.3 --no-browser  \n"
        "ctenrich view my-run --host 0.0.0.0  \n"
        "ctenrich view my-run --series 1.2.3 --slicer"
    )(view)
    app.command(
        epilog="Examples:  ctenrich publish my-run bigquery:my-project.results  \n"
        "ctenrich publish my-run gs://my-bucket/results  \n"
        "ctenrich publish my-run http://127.0.0.1:8042/dicom-web  \n"
        "ctenrich publish my-run dicom://pacs.example:104/PACS  \n"
        "ctenrich publish my-run gs://my-bucket/results --only accepted  \n"
        "ctenrich publish my-run gs://my-bucket/results --verify"
    )(publish)


def view(
    run: RunFolder,
    series: Annotated[str, typer.Option(help="Series Instance UID to open; default: the list.")] = "",
    ohif: Annotated[Path | None, typer.Option(help="Folder or npm package of OHIF; default: downloaded.")] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on this computer; the next free one if it is in use; 0: any.")
    ] = 8790,
    orthanc: Annotated[str, typer.Option(help="DICOMweb root of a PACS to show instead of the run's files.")] = "",
    browser: Annotated[bool, typer.Option(help="Open the address in the browser.")] = True,
    host: Annotated[
        str,
        typer.Option(help="Address of this computer to listen on; 0.0.0.0: all, so that its network can reach it."),
    ] = "127.0.0.1",
    slicer: Annotated[
        bool,
        typer.Option("--slicer", help="Open the series in 3D Slicer (program Slicer on the PATH) instead of OHIF."),
    ] = False,
) -> None:
    """Show the CTs of a run with their SEGs in OHIF until interrupted; nothing is shown without the printed token."""
    if slicer:
        from ctenrich import steps
        from ctenrich.view.desktop import open_in_slicer

        open_in_slicer(steps.open_run(run).workspace, series)
        return
    server = ServerOptions(ohif=ohif, port=port, pacs=orthanc, host=host)
    show_run(run, series=series, server=server, browser=browser)


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Where the viewer's server listens, and what it serves."""

    ohif: Path | None = None
    port: int = 8790
    pacs: str = ""
    host: str = "127.0.0.1"


def show_run(run: Path, *, series: str = "", server: ServerOptions = ServerOptions(), browser: bool = True) -> None:
    """Serve the viewer of a run until interrupted."""
    import tempfile
    import threading
    import webbrowser

    from ctenrich import steps
    from ctenrich.view import serve
    from ctenrich.view.pages import forward_page

    opened = steps.open_run(run)
    with serve(opened.workspace, series=series, **asdict(server)) as running:
        typer.echo(f"Open {running.url(series)}")
        if not running.is_local:
            typer.echo("What is sent over the network is not encrypted; through SSH it is.")
        if not running.is_local or "SSH_CONNECTION" in os.environ:
            typer.echo(running.tunnel_hint(series))
        typer.echo(running.note)
        typer.echo("Ctrl+C ends it.")
        with tempfile.TemporaryDirectory() as private:  # only this user can read it
            if browser:
                start = Path(private, "view.html")
                start.write_text(forward_page(running.url(series)), "utf-8")
                webbrowser.open(start.as_uri())  # the address with the token is in no command line
            threading.Event().wait()


def publish(
    run: RunFolder,
    target: Annotated[
        str,
        typer.Argument(
            help="bigquery:PROJECT.DATASET, gs:// or s3://BUCKET/PREFIX, a DICOMweb root, or dicom://HOST:PORT/AET."
        ),
    ],
    mode: Annotated[PublishMode, typer.Option(help="BigQuery: how existing tables are treated.")] = (
        PublishMode.REPLACE
    ),
    location: Annotated[str, typer.Option(help="BigQuery: location of the dataset.")] = "US",
    identified: Annotated[
        bool,
        typer.Option("--identified", help="BigQuery, buckets: also where Patient Identity Removed is not YES."),
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Send nothing: read the published objects back and compare them.")
    ] = False,
    only: OnlyAccepted = None,
) -> None:
    """Send a run's tables or objects elsewhere; objects that were sent already are not sent again."""
    from ctenrich import steps
    from ctenrich.cli.console import progress_bars
    from ctenrich.errors import UsageError, count
    from ctenrich.publish.objects import publish_to
    from ctenrich.reasons import Reason

    opened = steps.open_run(run)
    if only is not None and (verify or target.startswith("bigquery:")):
        what = (
            "--verify compares everything that was written" if verify else "BigQuery gets whole tables, `reviews` too"
        )
        raise UsageError(Reason.BAD_PARAMETER, f"--only accepted is for objects that are sent: {what}")
    if verify:
        _verify(opened, target)
        return
    with progress_bars() as progress:
        if target.startswith("bigquery:"):
            from ctenrich.publish.bigquery import BigQueryOptions, Mode, publish_bigquery

            place = target.removeprefix("bigquery:")
            options = BigQueryOptions(mode=Mode(mode.value), location=location, identified=identified)
            rows = publish_bigquery(opened.workspace, place, options=options, progress=progress)
            typer.echo(f"{count(sum(rows.values()), 'row')} in {count(len(rows), 'table')}")
            return
        settings = opened.config.settings
        sent = publish_to(
            opened.workspace,
            target,
            settings=settings,
            identified=identified,
            accepted_only=only is not None,
            progress=progress,
        )
    typer.echo(f"{count(len(sent), 'object')}, {sum(1 for s in sent if s.status == 'sent')} of them sent now")


def _verify(opened: Run, target: str) -> None:
    """Compare what a target holds with the objects of a run; exit code 1 unless it has them all."""
    from collections import Counter

    from ctenrich.cli.console import print_table, progress_bars
    from ctenrich.errors import count
    from ctenrich.publish.verify import verify_published

    with progress_bars() as progress:
        found = verify_published(opened.workspace, target, settings=opened.config.settings, progress=progress)
    bad = [(one.name, one.status, one.detail) for one in found if not one.good]
    if bad:
        print_table("Not as published", ("file", "status", "what is wrong"), bad)
    counts = Counter(one.status for one in found)
    shown = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
    typer.echo(f"{count(len(found), 'object')}: {shown}")
    if counts["committed"]:
        typer.echo("committed: the node has taken responsibility for these objects (storage commitment)")
    if counts["listed"]:
        typer.echo("listed: a query finds these objects (C-FIND); the node has not committed to keep them")
    if counts["committed"] or counts["listed"]:
        typer.echo("their bytes were not compared: a DICOM node is not read back")
    raise typer.Exit(1 if bad else 0)
