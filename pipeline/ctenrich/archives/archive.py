"""What archives have in common: searches, the series that are found, and URLs of series and instances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from urllib.parse import unquote

from ctenrich.errors import UsageError
from ctenrich.progress import Progress
from ctenrich.reasons import Reason
from ctenrich.workspace import check_uid

__all__ = [
    "SERIES_ATTRIBUTES",
    "Archive",
    "ArchiveSearch",
    "ArchiveSeries",
    "Place",
    "instance_url",
    "place_of",
    "series_url",
]

SERIES_ATTRIBUTES = (
    "Manufacturer",
    "ManufacturerModelName",
    "BodyPartExamined",
    "SeriesDescription",
    "StudyDate",
    "PatientAge",
    "PatientSex",
)
"""Attributes of patient, study and series by which users select; all instances of a series have the same value."""


@dataclass(frozen=True, kw_only=True)
class ArchiveSearch:
    """Which series are searched for; an empty field does not restrict the search."""

    patients: tuple[str, ...] = ()
    """Patient IDs."""
    series: tuple[str, ...] = ()
    """Series Instance UIDs."""
    first_date: str = ""
    """Earliest Study Date, YYYYMMDD."""
    last_date: str = ""
    """Latest Study Date, YYYYMMDD."""
    modalities: tuple[str, ...] = ("CT",)


@dataclass(frozen=True, kw_only=True)
class ArchiveSeries:
    """A series as an archive lists it."""

    collection_id: str
    """Title of the node, name of the DICOMweb server, project in XNAT, or collection of TCIA."""
    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    modality: str = "CT"
    url: str
    """Ends in ``/``; the storage of its scheme lists the instances."""
    instances: int | None = None
    """Number of instances; None where the archive does not state one."""
    size: int | None = None
    """Bytes; None where the archive does not state them."""
    sop_class_uid: str = ""
    """Empty where the archive does not state it, or where instances differ."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Value by keyword, of `SERIES_ATTRIBUTES`; without those that the archive does not return."""
    image_type: tuple[str, ...] = ()
    """Image Type; empty where it is not known of every instance, or where instances differ."""
    licence: str = ""
    """Short name of the licence, e.g. ``CC BY-NC 3.0``; empty where the archive does not state one."""
    doi: str = ""
    """DOI of the collection; empty where the archive does not state one."""
    slice_thickness: float | None = None
    """Largest Slice Thickness, mm; None where it is not known of every instance."""


class Archive(Protocol):
    """An archive that can be searched."""

    name: str
    """Kind: dicom, dicomweb, xnat or nbia."""

    def find_series(self, search: ArchiveSearch, notes: list[str], progress: Progress) -> list[ArchiveSeries]:
        """List series, sorted by UID; what the user should know of the answers is added to `notes`."""


class Place(NamedTuple):
    """What the URL of a series or instance names."""

    root: str
    """Address of the archive, without ``/`` at its end."""
    study: str
    series: str
    instance: str
    """Empty in the URL of a series."""


def series_url(root: str, study: str, series: str) -> str:
    """Return the URL of a series: the address of its archive with the path of DICOMweb (PS3.18 table 10.4.1-1).

    Parameters
    ----------
    root : str
        Address of the archive.
    study, series : str
        Study and Series Instance UID.

    Returns
    -------
    str

    Raises
    ------
    UnsafeInputError
        UNSAFE_IDENTIFIER where one of them is not a UID.
    """
    return f"{root.rstrip('/')}/studies/{check_uid(study)}/series/{check_uid(series)}/"


def instance_url(series: str, uid: str) -> str:
    """Return the URL of an instance.

    Parameters
    ----------
    series : str
        URL of its series.
    uid : str
        SOP Instance UID.

    Returns
    -------
    str

    Raises
    ------
    UnsafeInputError
        UNSAFE_IDENTIFIER where it is not a UID.
    """
    return f"{series.rstrip('/')}/instances/{check_uid(uid)}"


def place_of(url: str) -> Place:
    """Split the URL of a series or instance.

    Raises
    ------
    UsageError
        BAD_PARAMETER for another form.
    UnsafeInputError
        UNSAFE_IDENTIFIER where a UID is none.
    """
    root, found, rest = url.rpartition("/studies/")
    parts = rest.strip("/").split("/")
    if not found or len(parts) not in (3, 5) or parts[1] != "series" or (len(parts) == 5 and parts[3] != "instances"):
        raise UsageError(Reason.BAD_PARAMETER, f"{url[:160]} is not the URL of a series or instance of an archive")
    uids = [check_uid(unquote(part)) for part in parts[::2]]
    return Place(root, uids[0], uids[1], uids[2] if len(uids) == 3 else "")
