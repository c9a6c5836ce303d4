"""Read an RT Structure Set (PS3.3 A.19.3) safely: its contours, and the series on which it was drawn."""

from __future__ import annotations

import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import dcmread

from ctenrich.dicom.objects import check_deflated
from ctenrich.dicom.sop_classes import RT_STRUCTURE_SET
from ctenrich.errors import InputError
from ctenrich.reasons import Reason
from ctenrich.records import CompanionLink, SortedSeries

__all__ = ["Contour", "Roi", "StructureSet", "link_to", "load_contours"]

CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_DEFAULT_LIMIT = 4 * 1024**3
_READ_ERRORS = (
    InvalidDicomError,
    EOFError,
    ValueError,
    KeyError,
    AttributeError,
    TypeError,
    UserWarning,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True)
class Contour:
    """One closed planar contour."""

    points: NDArray[np.float64]
    """(n, 3), mm, LPS; the last point is joined to the first."""
    exclusive: bool = False
    """Whether contours of one slice are combined by exclusive or (type CLOSEDPLANAR_XOR)."""


@dataclass(frozen=True)
class Roi:
    """One region of interest."""

    number: int
    name: str
    frame_of_reference_uid: str
    contours: tuple[Contour, ...]
    other: int = 0
    """Contours that enclose no area (points, open lines) or are malformed."""


@dataclass(frozen=True)
class StructureSet:
    """Content of one RT Structure Set."""

    sop_instance_uid: str
    rois: tuple[Roi, ...]
    frame_of_reference_uids: frozenset[str]
    series_instance_uids: frozenset[str]
    """Series that the structure set refers to."""
    image_uids: frozenset[str]
    """SOP Instance UIDs of the images that the structure set or its contours refer to."""
    stamp: str = ""
    """Structure Set Date and Time, for sorting."""


def load_contours(path: Path, *, limit: int = _DEFAULT_LIMIT) -> StructureSet:
    """Read an RT Structure Set.

    Parameters
    ----------
    path : Path
        A DICOM file of SOP class RT Structure Set Storage.
    limit : int
        Bytes that a deflated file may unpack to.

    Returns
    -------
    StructureSet

    Raises
    ------
    InputError
        NOT_FOUND, IO_ERROR, NOT_DICOM, NO_EXPERT (another SOP class), DECODE_ERROR or TRUNCATED.
    UnsafeInputError
        DECOMPRESSION_BOMB.
    """
    with warnings.catch_warnings():
        # pydicom warns and continues with a part of the file: fewer contours would be a silently wrong mask.
        warnings.filterwarnings("error", message=".*end of file.*")
        dataset = _read_rtstruct(path, limit)
        if str(dataset.get("SOPClassUID", "")) != RT_STRUCTURE_SET:
            raise InputError(Reason.NO_EXPERT, "the file is not an RT Structure Set")
        try:
            return _parse_structure_set(dataset)
        except (OSError, *_READ_ERRORS) as error:
            name = type(error).__name__
            raise InputError(Reason.DECODE_ERROR, f"the RT Structure Set is malformed ({name})") from error


def link_to(structures: StructureSet, series: SortedSeries) -> CompanionLink | None:
    """Link of a structure set to a series: by its references, else by frame of reference.

    Parameters
    ----------
    structures : StructureSet
    series : SortedSeries

    Returns
    -------
    CompanionLink or None
        None if it belongs to another series.
    """
    if series.series_instance_uid in structures.series_instance_uids:
        return CompanionLink.REFERENCE
    if structures.image_uids.intersection(series.sop_instance_uids):
        return CompanionLink.REFERENCE
    if series.frame_of_reference_uid and series.frame_of_reference_uid in structures.frame_of_reference_uids:
        return CompanionLink.FRAME_OF_REFERENCE
    return None


def _read_rtstruct(path: Path, limit: int) -> Dataset:
    try:
        check_deflated(path, limit)
        return dcmread(path, stop_before_pixels=True)
    except FileNotFoundError:
        raise InputError(Reason.NOT_FOUND, "the RT Structure Set is not there any more") from None
    except OSError as error:
        raise InputError(Reason.IO_ERROR, "the RT Structure Set cannot be read") from error
    except InvalidDicomError as error:
        raise InputError(Reason.NOT_DICOM, "the RT Structure Set is not a DICOM file") from error
    except _READ_ERRORS as error:
        raise InputError(Reason.TRUNCATED, f"the RT Structure Set is broken ({type(error).__name__})") from error


def _parse_structure_set(dataset: Dataset) -> StructureSet:
    frames: set[str] = set()
    series: set[str] = set()
    images: set[str] = set()
    for reference in dataset.get("ReferencedFrameOfReferenceSequence", None) or ():
        frames.add(str(reference.get("FrameOfReferenceUID", "")))
        for study in reference.get("RTReferencedStudySequence", None) or ():
            for one in study.get("RTReferencedSeriesSequence", None) or ():
                series.add(str(one.get("SeriesInstanceUID", "")))
                images |= _image_uids(one)
    contour_items: dict[int, Any] = {}
    for item in dataset.get("ROIContourSequence", None) or ():
        contour_items[int(item.ReferencedROINumber)] = item
        for contour in item.get("ContourSequence", None) or ():
            images |= _image_uids(contour)
    rois = tuple(
        _parse_roi(item, contour_items.get(int(item.ROINumber)))
        for item in dataset.get("StructureSetROISequence", None) or ()
    )
    frames |= {roi.frame_of_reference_uid for roi in rois}
    return StructureSet(
        sop_instance_uid=str(dataset.SOPInstanceUID),
        rois=rois,
        frame_of_reference_uids=frozenset(frames - {""}),
        series_instance_uids=frozenset(series - {""}),
        image_uids=frozenset(images - {""}),
        stamp=f"{dataset.get('StructureSetDate', '')}{dataset.get('StructureSetTime', '')}",
    )


def _image_uids(item: Dataset) -> set[str]:
    images = item.get("ContourImageSequence", None) or ()
    return {str(image.get("ReferencedSOPInstanceUID", "")) for image in images}


def _parse_roi(item: Dataset, contours: Dataset | None) -> Roi:
    found: list[Contour] = []
    other = 0
    for contour in (contours.get("ContourSequence", None) or ()) if contours is not None else ():
        kind = str(contour.get("ContourGeometricType", "")).strip().upper()
        points = _contour_points(contour) if kind in CLOSED else None
        if points is None:
            other += 1
        else:
            found.append(Contour(points, exclusive=kind == "CLOSEDPLANAR_XOR"))
    return Roi(
        number=int(item.ROINumber),
        name=str(item.get("ROIName", "") or "").strip(),
        frame_of_reference_uid=str(item.get("ReferencedFrameOfReferenceUID", "")),
        contours=tuple(found),
        other=other,
    )


def _contour_points(contour: Dataset) -> NDArray[np.float64] | None:
    """Corners of a contour, (n, 3); None if they are missing, not numbers or enclose nothing.

    The decimal strings are parsed at once, without pydicom's number objects: a structure set holds 10^5 of them.
    """
    if "ContourData" not in contour:
        return None
    raw = contour.get_item("ContourData").value
    try:
        text = raw.split(b"\\") if isinstance(raw, bytes) else list(raw)
        values = np.array(text, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if values.size < 9 or values.size % 3 or not np.isfinite(values).all():
        return None
    return values.reshape(-1, 3)
