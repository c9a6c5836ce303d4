"""``ctenrich view``: show a run in OHIF or 3D Slicer."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from ctenrich.cli.options import RunFolder

__all__ = ["register", "show_run"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Examples:  ctenrich view my-run  \n"
        "ctenrich view my-run --series 1.2.3 --no-browser  \n"
        "ctenrich view my-run --host 0.0.0.0  \n"
        "ctenrich view my-run --series 1.2.3 --slicer"
    )(view)


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
