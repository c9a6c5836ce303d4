"""Open a series of a run in 3D Slicer: masks as NRRD files, and the script that loads them beside the CT."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ctenrich.dicom.seg import read_seg
from ctenrich.errors import ToolError, UsageError
from ctenrich.publish.mask_files import write_masks
from ctenrich.reasons import Reason
from ctenrich.tools import find_tool, run_tool
from ctenrich.view.contents import RunView
from ctenrich.workspace import Workspace

__all__ = ["SCRIPT", "open_in_slicer", "slicer_arguments"]

SCRIPT = Path(__file__).with_name("slicer_script.py")
"""The script that Slicer runs."""
_LONGEST = 7 * 24 * 3600.0
"""Seconds after which a Slicer that is still open is ended."""


def slicer_arguments(view: RunView, uid: str, folder: Path) -> list[Path]:
    """Write the masks of a series, and return what the script is to load: the CT, then a folder for each product.

    Parameters
    ----------
    view : RunView
        The run.
    uid : str
        Series Instance UID of the CT.
    folder : Path
        Gets a folder for each product with a SEG.

    Returns
    -------
    list of Path

    Raises
    ------
    UsageError
        NOT_FOUND if the run has no such series, or no CT of it on disk.
    InputError
        If a SEG cannot be read.
    """
    series, volume = view.record(uid), view.volume(uid)
    nifti = view.workspace.resolve(uid, volume.nifti_path) if volume and volume.nifti_path else None
    folders = {path.parent for path in view.slices(uid) if path.is_file()}
    ct = nifti if nifti and nifti.is_file() else next(iter(folders), None)
    if ct is None:
        raise UsageError(Reason.NOT_FOUND, "neither the volume nor the slices of the series are on disk")
    targets = []
    for shown in view.segmentations(uid):
        target = folder / shown.path.parent.parent.name
        write_masks(read_seg(shown.path, series), "nrrd", target)
        targets.append(target)
    return [ct, *targets]


def open_in_slicer(workspace: Workspace, series: str = "") -> None:
    """Show a series with the masks of all its products in 3D Slicer, until Slicer is closed.

    Parameters
    ----------
    workspace : Workspace
        The run.
    series : str
        Series Instance UID; empty: the only series of the run.

    Raises
    ------
    UsageError
        BAD_PARAMETER if the run has several series and none is named, NOT_FOUND for a series that it does not have.
    ToolError
        TOOL_MISSING if the program ``Slicer`` is not on the PATH.
    """
    view = RunView(workspace)
    if not series and len(view.series) != 1:
        raise UsageError(Reason.BAD_PARAMETER, f"the run has {len(view.series)} series", "name one with --series")
    try:
        program = find_tool("Slicer")
    except ToolError as error:
        hint = f"put Slicer on the PATH, or: ctenrich export RUN nrrd, then Slicer --python-script {SCRIPT} CT MASKS"
        raise ToolError(error.reason, "3D Slicer is not installed", hint) from None
    with tempfile.TemporaryDirectory() as private:
        arguments = slicer_arguments(view, series or view.series[0], Path(private))
        run_tool([program, "--python-script", SCRIPT, *arguments], timeout=_LONGEST)
