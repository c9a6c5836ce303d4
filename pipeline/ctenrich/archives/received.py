"""Check objects that archives send: an object is kept only if it is the one that was asked for."""

from __future__ import annotations

from pathlib import Path

from ctenrich.archives.archive import Place
from ctenrich.dicom.reader import open_dicom
from ctenrich.dicom.values import text
from ctenrich.errors import CtenrichError, InputError
from ctenrich.reasons import Reason

__all__ = ["check_received", "is_received"]

_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def check_received(path: Path, place: Place) -> None:
    """Compare the UIDs in a file with those that were asked for.

    Parameters
    ----------
    path : Path
        The file.
    place : Place
        Study, series and SOP instance.

    Raises
    ------
    InputError
        WRONG_OBJECT, or NOT_DICOM for what is no DICOM object.
    """
    with open_dicom(path, tags=_UIDS) as parsed:
        found = tuple(text(parsed.dataset, keyword) for keyword in _UIDS)
    for keyword, got, wanted in zip(_UIDS, found, place[1:], strict=True):
        if got != wanted:
            message = f"the archive sent an object with another {keyword} than the one that was requested"
            raise InputError(Reason.WRONG_OBJECT, message, "the archive's index and its files differ: report it there")


def is_received(path: Path, place: Place) -> bool:
    """Whether an interrupted retrieval has left the object: files get their name only when they are whole.

    Parameters
    ----------
    path : Path
        The file, which need not exist.
    place : Place
        Study, series and SOP instance.

    Returns
    -------
    bool
    """
    try:
        if path.is_symlink() or not path.is_file():
            return False
        check_received(path, place)
    except CtenrichError:
        return False
    return True
