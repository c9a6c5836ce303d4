"""The images that a map was made from: their order and positions, and what an object states of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from ctenrich.dicom.objects import header, quiet
from ctenrich.dicom.series import ImageReference, SourceFolder
from ctenrich.encode.context import clean_attributes
from ctenrich.errors import InputError
from ctenrich.reasons import Reason
from ctenrich.records import Issue, SortedSeries

__all__ = ["MapSource", "open_source"]


@dataclass(frozen=True, kw_only=True)
class MapSource:
    """A series of CT, MR or PET images, single-frame or multi-frame."""

    series: SortedSeries
    """Slices in the order of their positions; the frames of a multi-frame image are slices."""
    references: tuple[tuple[ImageReference, ...], ...]
    """Images or frames at the position of each slice."""
    patient_and_study: Dataset
    modality: str
    issues: tuple[Issue, ...]


def open_source(folder: Path, series_instance_uid: str = "") -> MapSource:
    """Read the headers of a source.

    Parameters
    ----------
    folder : Path
        Searched with its sub-folders.
    series_instance_uid : str
        The series, where the folder holds several.

    Returns
    -------
    MapSource

    Raises
    ------
    InputError
        NO_CT, NO_REFERENCE or a geometry reason, as :meth:`ctenrich.dicom.series.SourceFolder.find_series`;
        MISSING_FRAME_OF_REFERENCE without a frame of reference, which a map must share.
    EncodingError
        UNSAFE_IDENTIFIER for a Patient ID that DICOM does not allow.
    """
    found = SourceFolder(folder)
    series = found.find_series(series_instance_uid)
    if series_instance_uid and series.series_instance_uid != series_instance_uid:
        raise InputError(Reason.NO_REFERENCE, "the folder of the source does not hold the series that was named")
    if not series.frame_of_reference_uid:
        raise InputError(Reason.MISSING_FRAME_OF_REFERENCE, Reason.MISSING_FRAME_OF_REFERENCE.sentence)
    with quiet():
        first = header(Path(series.slices[0].path))
        patient_and_study, issues = clean_attributes(first, series.slices[0].sop_instance_uid)
        modality = str(first.get("Modality", ""))
    return MapSource(
        series=series,
        references=found.images_at(series),
        patient_and_study=patient_and_study,
        modality=modality,
        issues=tuple(issues),
    )
