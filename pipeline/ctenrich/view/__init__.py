"""Show one run in OHIF without a PACS: on this computer, or on its network where the user asks for it."""

from __future__ import annotations

from pathlib import Path

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.view.contents import RunView
from ctenrich.view.ohif import obtain_ohif
from ctenrich.view.server import DEFAULT_PORT, LOOPBACK, ViewServer
from ctenrich.workspace import Workspace

__all__ = ["DEFAULT_PORT", "RunView", "ViewServer", "serve"]


def serve(
    workspace: Workspace,
    *,
    series: str = "",
    ohif: Path | None = None,
    port: int = DEFAULT_PORT,
    pacs: str = "",
    host: str = LOOPBACK,
) -> ViewServer:
    """Make the server of a run, to be started by ``with``; OHIF is downloaded if needed.

    Parameters
    ----------
    workspace : Workspace
        The run.
    series : str
        Series Instance UID to open; empty: the list of series.
    ohif : Path, optional
        Folder or npm package with a build of OHIF; default: downloaded.
    port : int
        Port to listen on; 0: any free one.
    pacs : str
        DICOMweb root of a PACS to show instead of the run's files.
    host : str
        Address of this computer to listen on; 0.0.0.0: all of them. Requests without the token are refused on each.

    Returns
    -------
    ViewServer

    Raises
    ------
    UsageError
        BAD_RUN if the run has no sorted series, NOT_FOUND for a series that it does not have, BAD_PARAMETER for a PACS
        whose address is neither http nor https.
    """
    if pacs and not pacs.startswith(("http://", "https://")):
        raise UsageError(
            Reason.BAD_PARAMETER,
            "the address of a PACS begins with http:// or https://",
            "http://127.0.0.1:8042/dicom-web",
        )
    view = RunView(workspace)
    if not view.series and not pacs:
        raise UsageError(Reason.BAD_RUN, "the run has no series to show", "run fetch and sort first")
    if series and series not in view.series:
        raise UsageError(Reason.NOT_FOUND, "the run has no such series", f"{len(view.series)} series can be shown")
    return ViewServer(view, obtain_ohif(ohif), port, pacs, host)
