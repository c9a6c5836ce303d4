"""The report and the viewer inside a notebook: in a frame, through Colab's proxy, or IDC's public viewer."""

from __future__ import annotations

import secrets
from functools import partial
from html import escape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

from ctenrich.errors import UsageError
from ctenrich.notebook.output import html, on_colab, show
from ctenrich.reasons import Reason
from ctenrich.results.rows import viewer_url
from ctenrich.runner.run import Run
from ctenrich.view import serve

__all__ = ["show_report", "show_viewer"]

_open: dict[str, Any] = {}
"""Servers of this kernel by what they show; they end with it."""


def show_report(run: Run, height: int = 700) -> Any:
    """Show the report of a run in a frame.

    The files are served on the loopback, below an address that cannot be guessed; on Colab through its proxy.

    Parameters
    ----------
    run : Run
        A run with a report.
    height : int
        Of the frame, in pixels.

    Returns
    -------
    IPython.display.HTML

    Raises
    ------
    UsageError
        NOT_PREPARED if the run has no report.
    """
    folder = run.workspace.report
    if not (folder / "index.html").is_file():
        raise UsageError(Reason.NOT_PREPARED, "the run has no report yet", "run: ctenrich report RUN")
    key = f"report {folder.resolve()}"
    if key not in _open:
        _open[key] = _serve(folder)
    port, secret = _open[key]
    return _frame(port, f"/{secret}/index.html", height, f"the report, {folder / 'index.html'}")


def show_viewer(run: Run, series: str, height: int = 700, product: str = "") -> Any:
    """Show a series with its results in OHIF, in a frame; for a series of IDC also a link to IDC's public viewer.

    OHIF is downloaded once, by npm.

    Parameters
    ----------
    run : Run
        The run.
    series : str
        Series Instance UID.
    height : int
        Of the frame, in pixels.
    product : str
        Key of the product whose SEG is laid over the CT; empty: the first that has one.

    Returns
    -------
    IPython.display.HTML

    Raises
    ------
    ToolError
        TOOL_MISSING, TOOL_FAILED: OHIF could not be downloaded.
    """
    (entry,) = (e for e in run.cohort.series if e.series_instance_uid == series)
    if entry.crdc_series_uuid:
        public = viewer_url(entry.study_instance_uid, series)
        show(html(f'<a href="{escape(public)}" target="_blank">The CT in the public viewer of IDC</a>'))
    key = f"viewer {run.root.resolve()}"
    if key not in _open:
        server = serve(run.workspace, port=0)
        server.framed, server.proxied = True, on_colab()
        server.__enter__()
        _open[key] = server
    server = _open[key]
    return _frame(server.port, server.url(series, product).partition(str(server.port))[2], height, "the viewer")


def _frame(port: int, path: str, height: int, name: str) -> Any:
    """A frame with a page of this machine; in a notebook on another machine only Colab's proxy reaches it."""
    if on_colab():
        output: Any = import_module("google.colab.output")
        output.serve_kernel_port_as_iframe(port, path=path, height=str(height))
        return html(f"<small>{escape(name)}</small>")
    address = f"http://localhost:{port}{path}"
    return html(
        f'<iframe src="{escape(address)}" width="100%" height="{height}" title="{escape(name)}"></iframe>'
        f'<small><a href="{escape(address)}" target="_blank">{escape(name)}</a></small>'
    )


class _Handler(SimpleHTTPRequestHandler):
    """Files of one folder, below a secret."""

    def __init__(self, *arguments: Any, secret: str, **options: Any) -> None:
        self.secret = secret
        super().__init__(*arguments, **options)

    def translate_path(self, path: str) -> str:
        """Return the file; a path that does not exist for an address without the secret."""
        prefix = f"/{self.secret}/"
        if not path.startswith(prefix):
            return str(Path(self.directory) / "no such file")
        return super().translate_path(path.removeprefix(prefix[:-1]))

    def list_directory(self, path: Any) -> None:
        """Refuse: folders have no list."""
        self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that the base class has
        """Keep the notebook free of one line per request."""


def _serve(folder: Path) -> tuple[int, str]:
    secret = secrets.token_urlsafe(24)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder), secret=secret))
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_address[1]), secret
