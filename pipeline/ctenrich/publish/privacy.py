"""Keep patients who can be identified out of shared places, unless the user wants them there."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread

from ctenrich.dicom.quiet import quiet
from ctenrich.errors import InputError, UsageError
from ctenrich.publish.content import Publication
from ctenrich.reasons import Reason
from ctenrich.records import SortedSeries
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace

__all__ = ["check_files", "check_identity_removed"]

_PATIENT_IDENTITY_REMOVED = 0x00120062
_HINT = "add --identified (identified=True) if this place may hold patients who can be identified"


def check_identity_removed(workspace: Workspace, *, identified: bool = False) -> None:
    """Refuse to share a run unless Patient Identity Removed (0012,0062) is YES for all of its series.

    The objects of a series are read, which have the value of their source; where there is none, the first slice. A
    series of which neither was read (it could not be fetched, for instance) is taken as the others of the run.

    Parameters
    ----------
    workspace : Workspace
        The run.
    identified : bool
        Whether the user wants patients to be shared who can be identified; nothing is checked then.

    Raises
    ------
    UsageError
        IDENTITY_NOT_REMOVED, with the number of series.
    """
    if identified:
        return
    states = (_identity_removed(folder, workspace) for folder in workspace.series_dirs())
    stated = [state for state in states if state is not None]
    if not stated or not all(stated):
        message = f"Patient Identity Removed is not YES in {len(stated) - sum(stated)} of {len(stated)} series"
        raise UsageError(Reason.IDENTITY_NOT_REMOVED, message, _HINT)


def check_files(publication: Publication, *, identified: bool = False) -> None:
    """Refuse to share files unless Patient Identity Removed (0012,0062) is YES in each of them.

    A structure set or dose may state it otherwise than its images: the header of every file counts.

    Parameters
    ----------
    publication : Publication
        What is going to be sent.
    identified : bool
        Whether the user wants patients to be shared who can be identified; nothing is checked then.

    Raises
    ------
    UsageError
        IDENTITY_NOT_REMOVED, with the number of series.
    """
    if identified:
        return
    if isinstance(publication.source, Workspace):
        check_identity_removed(publication.source)
    series = {file.series_instance_uid for file in publication.files}
    without = {file.series_instance_uid for file in publication.files if not file.identity_removed}
    if without:
        message = f"Patient Identity Removed is not YES in {len(without)} of {len(series)} series"
        raise UsageError(Reason.IDENTITY_NOT_REMOVED, message, _HINT)


def _identity_removed(folder: Path, workspace: Workspace) -> bool | None:
    """Whether all objects of a series have YES; None where no header of it can be read."""
    objects = sorted(folder.glob("*/objects/*.dcm"))
    if not objects:
        source = SeriesStore(workspace).find(SortedSeries, folder.name)
        if source is None:
            return None
        objects = [workspace.resolve(source.series_instance_uid, source.slices[0].path)]
    return all(_states_removed(path) for path in objects)


def _states_removed(path: Path) -> bool:
    try:
        with quiet():
            data = dcmread(path, specific_tags=[_PATIENT_IDENTITY_REMOVED], stop_before_pixels=True, force=True)
            return str(data.get("PatientIdentityRemoved", "")) == "YES"
    except (OSError, InputError, ValueError, EOFError):
        return False
