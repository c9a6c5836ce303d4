"""Look at a run in OHIF with no PACS: on this computer only, this run only."""

from __future__ import annotations

from pathlib import Path

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.view.contents import RunView
from ctenrich.view.ohif import obtain_ohif
from ctenrich.view.server import DEFAULT_PORT, ViewServer
from ctenrich.workspace import Workspace

__all__ = ["DEFAULT_PORT", "RunView", "ViewServer", "serve"]


def serve(
    workspace: Workspace, *, series: str = "", ohif: Path | None = None, port: int = DEFAULT_PORT, pacs: str = ""
) -> ViewServer:
    """Make the server of a run (start it with ``with``); fetches OHIF if it is not here yet.

    Parameters
    ----------
    workspace : Workspace
        The run.
    series : str
        Series Instance UID that will be opened; empty: none in particular.
    ohif : Path, optional
        Folder or npm package with OHIF's build; none: fetched.
    port : int
        Port on the loopback; 0: any free one.
    pacs : str
        DICOMweb root of a PACS to show instead of the run's files.

    Raises
    ------
    UsageError
        BAD_RUN if the run has nothing to show, NOT_FOUND for a series that it does not have, BAD_PARAMETER for a PACS
        whose address is not one of http or https.
    """
    if pacs and not pacs.startswith(("http://", "https://")):
        raise UsageError(Reason.BAD_PARAMETER, "a PACS has an http or https address", "http://127.0.0.1:8042/dicom-web")
    view = RunView(workspace)
    if not view.series and not pacs:
        raise UsageError(Reason.BAD_RUN, "the run has no series to show", "run fetch and sort first")
    if series and series not in view.series:
        raise UsageError(Reason.NOT_FOUND, "the run has no such series", f"{len(view.series)} series can be shown")
    return ViewServer(view, obtain_ohif(ohif), port, pacs)
