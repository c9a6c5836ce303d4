"""The images that a map was made from: their order and positions, and what an object states of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.dataset import Dataset

from ctenrich.dicom.objects import header, quiet
from ctenrich.dicom.series import ImageReference, SourceFolder
from ctenrich.dicom.sop_classes import CT_IMAGE
from ctenrich.encode.context import clean_attributes, read_source
from ctenrich.errors import InputError
from ctenrich.reasons import Reason
from ctenrich.records import Issue, SortedSeries
from ctenrich.workspace import Workspace

__all__ = ["MapSource", "open_source", "source_of_run"]


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


def source_of_run(series: SortedSeries, workspace: Workspace) -> MapSource:
    """Describe a sorted CT of a run as the source of maps.

    Parameters
    ----------
    series : SortedSeries
        Its paths are relative to the folder of the series.
    workspace : Workspace
        The run.

    Returns
    -------
    MapSource

    Raises
    ------
    InputError
        INCOMPLETE if files of the series are not there any more; MISSING_FRAME_OF_REFERENCE without a frame of
        reference, which a map must share.
    EncodingError
        UNSAFE_IDENTIFIER for a Patient ID that DICOM does not allow.
    """
    if not series.frame_of_reference_uid:
        raise InputError(Reason.MISSING_FRAME_OF_REFERENCE, Reason.MISSING_FRAME_OF_REFERENCE.sentence)
    paths = [workspace.resolve(series.series_instance_uid, item.path) for item in series.slices]
    missing = sum(not path.is_file() for path in paths)
    if missing:
        message = f"{missing} of {len(paths)} files of the series are not there any more"
        raise InputError(Reason.INCOMPLETE, message, "fetch the series again")
    found = read_source(series, workspace)
    return MapSource(
        series=replace(
            series,
            slices=tuple(replace(s, path=str(path)) for s, path in zip(series.slices, paths, strict=True)),
        ),
        references=tuple(
            (
                ImageReference(
                    sop_class_uid=s.sop_class_uid or CT_IMAGE, sop_instance_uid=s.sop_instance_uid, frame=None
                ),
            )
            for s in series.slices
        ),
        patient_and_study=found.patient_and_study,
        modality="CT",
        issues=found.issues,
    )
