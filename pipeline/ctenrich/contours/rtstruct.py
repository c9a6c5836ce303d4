"""Read an RT Structure Set (PS3.3 A.19.3) safely: its contours, and the series on which it was drawn."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.tag import BaseTag, Tag

from ctenrich.dicom.quiet import quiet
from ctenrich.dicom.reader import read_part10, typed_cause
from ctenrich.dicom.sop_classes import RT_STRUCTURE_SET
from ctenrich.errors import CtenrichError, InputError
from ctenrich.reasons import Reason
from ctenrich.records import CompanionLink, SortedSeries

__all__ = ["Contour", "ContourFaults", "ListedSeries", "Roi", "StructureSet", "link_to", "load_contours"]

CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
OPEN = ("OPEN_PLANAR", "OPEN_NONPLANAR")
_GEOMETRIC_TYPE, _NUMBER_OF_POINTS, _CONTOUR_DATA = Tag(0x30060042), Tag(0x30060046), Tag(0x30060050)
_CONTOUR_IMAGES, _REFERENCED_INSTANCE = Tag(0x30060016), Tag(0x00081155)
_DEFAULT_LIMIT = 4 * 1024**3
_READ_ERRORS = (
    BytesLengthException,
    InvalidDicomError,
    NotImplementedError,
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
    image_uids: frozenset[str] = frozenset()
    """SOP Instance UIDs of the images on which it was drawn; often a single one, or none."""


@dataclass(frozen=True, kw_only=True)
class ContourFaults:
    """Counts of the contours of an ROI that cannot be drawn, and of those that contradict themselves."""

    points: int = 0
    """Of type POINT."""
    open: int = 0
    """Of type OPEN_PLANAR or OPEN_NONPLANAR."""
    untyped: int = 0
    """Without Contour Geometric Type, which is required (PS3.3 C.8.8.6)."""
    unknown_type: int = 0
    """Of a type that the standard does not have."""
    not_numbers: int = 0
    """With a coordinate that is not a finite number."""
    incomplete: int = 0
    """Without coordinates, or with a number of coordinates that is no multiple of three."""
    miscounted: int = 0
    """Drawn, but with another number of points than Number of Contour Points states."""

    @property
    def damaged(self) -> int:
        """Contours that are part of the ROI and cannot be read."""
        return self.untyped + self.unknown_type + self.not_numbers + self.incomplete

    @property
    def without_area(self) -> int:
        """Contours whose type encloses no area."""
        return self.points + self.open


@dataclass(frozen=True, kw_only=True)
class Roi:
    """One region of interest."""

    number: int
    name: str
    frame_of_reference_uid: str
    contours: tuple[Contour, ...]
    """Closed planar contours, of all ROI Contour items with the ROI's number."""
    faults: ContourFaults = ContourFaults()
    shares_number: bool = False
    """Whether another ROI of the structure set has the same number, so that the contours may be those of the other."""
    image_uids: frozenset[str] = frozenset()
    """SOP Instance UIDs of the images to which its contours refer, unreadable contours included."""

    @property
    def count(self) -> int:
        """Number of its contours in the file, of all types, unreadable ones included."""
        return len(self.contours) + self.faults.damaged + self.faults.without_area


@dataclass(frozen=True, kw_only=True)
class ListedSeries:
    """One series that a structure set refers to (RT Referenced Series Sequence)."""

    series_instance_uid: str
    frame_of_reference_uid: str
    image_uids: frozenset[str] = frozenset()
    sop_class_uids: frozenset[str] = frozenset()
    """SOP classes of these images, as the structure set states them."""


@dataclass(frozen=True, kw_only=True)
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
    nameless_contours: int = 0
    """Contours whose ROI number is not in the list of ROIs."""
    contour_image_uids: frozenset[str] = frozenset()
    """SOP Instance UIDs of the images on which its contours were drawn, as the contours state them."""
    listed: tuple[ListedSeries, ...] = ()
    """The series that it refers to, with their images."""


@quiet()
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
        try:
            _check_class(dataset)
            _check_sequences(dataset)
            return _parse_structure_set(dataset)
        except (OSError, *_READ_ERRORS) as error:
            name = type(error).__name__
            raise InputError(Reason.DECODE_ERROR, f"the RT Structure Set is malformed ({name})") from error


def _check_class(dataset: Dataset) -> None:
    """Refuse another object; one that says RTSTRUCT under another SOP class is damaged, not absent."""
    sop_class = str(dataset.get("SOPClassUID", "") or "")
    if sop_class == RT_STRUCTURE_SET:
        return
    if not sop_class:
        raise InputError(Reason.TRUNCATED, "the file ends early or is malformed: it has no SOP class")
    meta = getattr(dataset, "file_meta", None) or Dataset()
    stated_by_meta = str(meta.get("MediaStorageSOPClassUID", "")) == RT_STRUCTURE_SET
    if stated_by_meta or str(dataset.get("Modality", "")) == "RTSTRUCT" or "StructureSetROISequence" in dataset:
        text = f"the RT Structure Set is malformed: its SOP class is {sop_class[:64]}"
        raise InputError(Reason.DECODE_ERROR, text)
    raise InputError(Reason.NO_EXPERT, "the file is not an RT Structure Set")


def _check_sequences(dataset: Dataset) -> None:
    """Refuse a file without the sequences that every structure set has (Type 1, PS3.3 C.8.8.5 and C.8.8.6).

    A file that was cut between two of its elements looks like one without ROIs, or without contours.
    """
    for keyword in ("StructureSetROISequence", "ROIContourSequence"):
        if not dataset.get(keyword):
            message = f"the RT Structure Set ends early or is malformed: it has no item in {keyword}"
            raise InputError(Reason.TRUNCATED, message)


def link_to(structures: StructureSet, series: SortedSeries) -> CompanionLink | None:
    """Link of a structure set to a series: by its references, else by frame of reference.

    Where it lists several series, the images that its contours refer to decide: a structure set of a 4D-CT may list all
    phases, and be drawn on one of them.

    Parameters
    ----------
    structures : StructureSet
    series : SortedSeries

    Returns
    -------
    CompanionLink or None
        None if it belongs to another series.
    """
    own = series.sop_instance_uids
    listed = series.series_instance_uid in structures.series_instance_uids
    if listed or structures.image_uids.intersection(own):
        drawn = structures.contour_image_uids
        others = structures.series_instance_uids - {series.series_instance_uid}
        return None if others and drawn and drawn.isdisjoint(own) else CompanionLink.REFERENCE
    if series.frame_of_reference_uid and series.frame_of_reference_uid in structures.frame_of_reference_uids:
        return CompanionLink.FRAME_OF_REFERENCE
    return None


def _read_rtstruct(path: Path, limit: int) -> Dataset:
    try:
        return read_part10(path, stop=True, limit=limit)
    except CtenrichError:
        raise
    except FileNotFoundError:
        raise InputError(Reason.NOT_FOUND, "the RT Structure Set is not there any more") from None
    except OSError as error:
        raise typed_cause(error) or InputError(Reason.IO_ERROR, "the RT Structure Set cannot be read") from error
    except InvalidDicomError as error:
        raise InputError(Reason.NOT_DICOM, "the RT Structure Set is not a DICOM file") from error
    except _READ_ERRORS as error:
        raise InputError(Reason.TRUNCATED, f"the RT Structure Set is broken ({type(error).__name__})") from error


def _parse_structure_set(dataset: Dataset) -> StructureSet:
    frames: set[str] = set()
    listed: list[ListedSeries] = []
    for reference in dataset.get("ReferencedFrameOfReferenceSequence", None) or ():
        frame = str(reference.get("FrameOfReferenceUID", ""))
        frames.add(frame)
        for study in reference.get("RTReferencedStudySequence", None) or ():
            listed += [_listed_series(one, frame) for one in study.get("RTReferencedSeriesSequence", None) or ()]
    contours: dict[int, list[Dataset]] = {}
    for item in dataset.get("ROIContourSequence", None) or ():
        contours.setdefault(int(item.ReferencedROINumber), []).extend(item.get("ContourSequence", None) or ())
    items = list(dataset.get("StructureSetROISequence", None) or ())
    numbers = Counter(int(item.ROINumber) for item in items)
    rois = tuple(
        _parse_roi(item, contours.get(int(item.ROINumber), []), numbers[int(item.ROINumber)] > 1) for item in items
    )
    nameless = [contour for number, own in contours.items() if number not in numbers for contour in own]
    drawn = frozenset().union(*(roi.image_uids for roi in rois), *map(_image_uids, nameless))
    frames |= {roi.frame_of_reference_uid for roi in rois}
    return StructureSet(
        sop_instance_uid=str(dataset.SOPInstanceUID),
        rois=rois,
        frame_of_reference_uids=frozenset(frames - {""}),
        series_instance_uids=frozenset(one.series_instance_uid for one in listed) - {""},
        image_uids=drawn.union(*(one.image_uids for one in listed)),
        contour_image_uids=drawn,
        stamp=f"{dataset.get('StructureSetDate', '')}{dataset.get('StructureSetTime', '')}",
        nameless_contours=len(nameless),
        listed=tuple(listed),
    )


def _listed_series(item: Dataset, frame: str) -> ListedSeries:
    images = item.get("ContourImageSequence", None) or ()
    return ListedSeries(
        series_instance_uid=str(item.get("SeriesInstanceUID", "")),
        frame_of_reference_uid=frame,
        image_uids=_image_uids(item),
        sop_class_uids=frozenset(str(image.get("ReferencedSOPClassUID", "")) for image in images) - {""},
    )


def _image_uids(item: Dataset) -> frozenset[str]:
    """UIDs of the images in a Contour Image Sequence, read without pydicom's conversion: every contour has one."""
    if _CONTOUR_IMAGES not in item:
        return frozenset()
    images = item[_CONTOUR_IMAGES].value or ()
    return frozenset(_raw_text(image, _REFERENCED_INSTANCE) for image in images) - {""}


def _parse_roi(item: Dataset, contours: list[Dataset], shares_number: bool) -> Roi:
    found: list[Contour] = []
    faults: Counter[str] = Counter()
    images: set[str] = set()
    for contour in contours:
        own = _image_uids(contour)
        images |= own
        kind = _raw_text(contour, _GEOMETRIC_TYPE).upper()
        if kind not in CLOSED:
            names = {"": "untyped", "POINT": "points"} | dict.fromkeys(OPEN, "open")
            faults[names.get(kind, "unknown_type")] += 1
            continue
        points = _contour_points(contour)
        if isinstance(points, str):
            faults[points] += 1
            continue
        stated = _raw_text(contour, _NUMBER_OF_POINTS)
        faults["miscounted"] += bool(stated) and stated != str(len(points))
        found.append(Contour(points, exclusive=kind == "CLOSEDPLANAR_XOR", image_uids=own))
    return Roi(
        number=int(item.ROINumber),
        name=str(item.get("ROIName", "") or "").strip(),
        frame_of_reference_uid=str(item.get("ReferencedFrameOfReferenceUID", "")),
        contours=tuple(found),
        faults=ContourFaults(**faults),
        shares_number=shares_number,
        image_uids=frozenset(images),
    )


def _raw_text(item: Dataset, tag: BaseTag) -> str:
    """Value of a string element, without pydicom's conversion; empty if it is absent."""
    if tag not in item:
        return ""
    value = item.get_item(tag).value
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")
    return text.strip("\0 ")


def _contour_points(contour: Dataset) -> NDArray[np.float64] | str:
    """Corners of a contour, (n, 3), or the name of its fault.

    The decimal strings are parsed at once, without pydicom's number objects: a structure set holds 10^5 of them.
    """
    if _CONTOUR_DATA not in contour:
        return "incomplete"
    raw = contour.get_item(_CONTOUR_DATA).value
    if raw is None or len(raw) == 0:
        return "incomplete"
    try:
        text = raw.split(b"\\") if isinstance(raw, bytes) else list(raw)
        values = np.fromiter(map(float, text), np.float64, len(text))
    except (TypeError, ValueError):
        return "not_numbers"
    if not np.isfinite(values).all():
        return "not_numbers"
    return "incomplete" if values.size % 3 else values.reshape(-1, 3)
