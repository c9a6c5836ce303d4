"""Header of an object of any maker -> its SOP class, and the series and instances that it refers to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from ctenrich.dicom.frames import read_frames
from ctenrich.dicom.objects import claims_to_be_dicom, header, quiet
from ctenrich.errors import CtenrichError, InputError
from ctenrich.reasons import Reason

__all__ = ["ObjectHeader", "read_object_header", "sources_of_frames"]

_TAGS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "ReferencedSeriesSequence")


@dataclass(frozen=True, kw_only=True)
class ObjectHeader:
    """What an object is, and what it was made from."""

    sop_class: str
    sop_instance_uid: str
    """As it is stored; not checked."""
    source_series: str
    """Series Instance UID of the first item of the Referenced Series Sequence; empty without one."""
    referenced: frozenset[str]
    """SOP Instance UIDs of the Referenced Series Sequence."""


def read_object_header(path: Path) -> ObjectHeader | None:
    """Read what an object is, and what it refers to.

    Parameters
    ----------
    path : Path
        Any file.

    Returns
    -------
    ObjectHeader or None
        None for a file that is not DICOM and does not claim to be.

    Raises
    ------
    InputError
        NOT_DICOM, TRUNCATED, IO_ERROR or DECODE_ERROR for a damaged object.
    UnsafeInputError
        DECOMPRESSION_BOMB.
    """
    try:
        with quiet():
            return _references_of(header(path, _TAGS))
    except CtenrichError as error:
        if error.reason is Reason.NOT_DICOM and not claims_to_be_dicom(path):
            return None
        raise
    except Exception as error:  # pydicom parses late and raises many kinds
        raise InputError(Reason.DECODE_ERROR, f"the header is damaged ({type(error).__name__})") from error


def _references_of(head: Dataset) -> ObjectHeader:
    sop_class = head.get("SOPClassUID") or head.file_meta.get("MediaStorageSOPClassUID")
    if not sop_class:
        raise InputError(Reason.TRUNCATED, "the header has no SOP Class UID")
    references = head.get("ReferencedSeriesSequence") or ()
    referenced = [
        str(instance.get("ReferencedSOPInstanceUID", ""))
        for series in references
        for instance in series.get("ReferencedInstanceSequence") or ()
    ]
    return ObjectHeader(
        sop_class=str(sop_class),
        sop_instance_uid=str(head.get("SOPInstanceUID", "")),
        source_series=str(references[0].get("SeriesInstanceUID", "")) if references else "",
        referenced=frozenset(referenced),
    )


def sources_of_frames(path: Path) -> frozenset[str]:
    """SOP Instance UIDs that the frames of a multi-frame object were derived from (PS3.3 C.7.6.16.2.6).

    Raises
    ------
    InputError
        NOT_DICOM, TRUNCATED, IO_ERROR or DECODE_ERROR for a damaged object; MISSING_GEOMETRY for frames without a
        position.
    UnsafeInputError
        DECOMPRESSION_BOMB.
    """
    try:
        with quiet():
            return frozenset(uid for frame in read_frames(header(path)) for uid in frame.sources)
    except CtenrichError:
        raise
    except Exception as error:  # as above
        raise InputError(Reason.DECODE_ERROR, f"the header is damaged ({type(error).__name__})") from error
