"""Masks as an RT Structure Set (PS3.3 A.19): contours along the edges of pixels, codes, colours and references."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ctenrich import __version__
from ctenrich.dicom.sop_classes import RT_STRUCTURE_SET
from ctenrich.encode.context import (
    MANUFACTURER,
    MODEL_NAME,
    code_item,
    contributing_equipment,
    identify,
    read_source,
    series_description,
    set_dates,
)
from ctenrich.encode.outlines import join_holes, trace_mask
from ctenrich.encode.seg import segment_code
from ctenrich.errors import InputError
from ctenrich.masks import crop_of
from ctenrich.reasons import Reason
from ctenrich.records import Segment, SegmentMasks, SortedSeries
from ctenrich.settings import EncodeSettings
from ctenrich.workspace import Workspace

__all__ = ["HOLES", "StructureSetOptions", "contour_item", "referenced_frame", "slice_points", "structure_set_of"]

HOLES = ("keyhole", "xor")
"""How holes are written: joined to their region by a channel without width, or as CLOSEDPLANAR_XOR contours."""
SERIES_NUMBER = 40
_DIGITS = 7
"""Decimals of a coordinate in mm: 1e-7 mm, within the 16 characters of a DS."""
_RT_REFERENCED_STUDY = "1.2.840.10008.3.1.2.3.1"
"""Detached Study Management, as objects of radiotherapy refer to a study (PS3.3 C.8.8.5)."""


@dataclass(frozen=True, kw_only=True)
class StructureSetOptions:
    """How masks become a structure set."""

    holes: Literal["keyhole", "xor"] = "keyhole"
    names: Mapping[str, str] | None = None
    """Name of a segment -> ROI Name; None, and for segments without one: the name of the segment."""


def structure_set_of(
    masks: SegmentMasks,
    series: SortedSeries,
    workspace: Workspace,
    *,
    settings: EncodeSettings,
    options: StructureSetOptions,
) -> Dataset:
    """Build an RT Structure Set of the masks of a product.

    Parameters
    ----------
    masks : SegmentMasks
        On the grid of the series.
    series : SortedSeries
        The images, to which every contour refers.
    workspace : Workspace
        Folder of the run.
    settings : EncodeSettings
        Dates.
    options : StructureSetOptions
        Holes and names.

    Returns
    -------
    Dataset
        Without file meta information; absent segments are ROIs without contours.

    Raises
    ------
    InputError
        EMPTY_SEGMENTATION: no segment has a voxel.
    EncodingError
        UNMAPPED_LABEL, UNSAFE_IDENTIFIER.
    """
    if all(segment.absent for segment in masks.segments):
        raise InputError(Reason.EMPTY_SEGMENTATION, "no segment has a voxel: no structure set is written")
    names = options.names or {}
    stated = [(segment, names.get(segment.name, segment.name)) for segment in masks.segments]
    made_of = hashlib.sha256(repr((masks.sha256, options.holes, [name for _, name in stated])).encode()).hexdigest()
    identity = identify("rtstruct", series, masks.product, settings, made_of)
    out = Dataset()
    out.update(read_source(series, workspace).patient_and_study)
    out.SOPClassUID = RT_STRUCTURE_SET
    out.SOPInstanceUID = identity.sop_instance_uid
    out.StudyInstanceUID = series.study_instance_uid
    out.SeriesInstanceUID = identity.series_instance_uid
    out.Modality = "RTSTRUCT"
    out.SeriesNumber = SERIES_NUMBER
    out.InstanceNumber = 1
    out.OperatorsName = ""
    out.SeriesDescription = series_description("{title}_Structure_set", masks.product, masks.model)
    out.Manufacturer = MANUFACTURER
    out.ManufacturerModelName = MODEL_NAME
    out.SoftwareVersions = __version__
    out.FrameOfReferenceUID = series.frame_of_reference_uid
    out.PositionReferenceIndicator = ""
    out.ContributingEquipmentSequence = contributing_equipment(masks.model)
    set_dates(out, settings)
    del out.ContentDate, out.ContentTime  # no attributes of a structure set
    out.StructureSetLabel = str(masks.product.kind)[:16]
    out.StructureSetDate, out.StructureSetTime = out.SeriesDate, out.SeriesTime
    out.ApprovalStatus = "UNAPPROVED"
    out.ReferencedFrameOfReferenceSequence = [referenced_frame(series)]
    manual = masks.algorithm_type == "MANUAL"
    out.StructureSetROISequence = [_roi(s, name, series, manual) for s, name in stated]
    out.RTROIObservationsSequence = [_observation(segment, name) for segment, name in stated]
    out.ROIContourSequence = [_roi_contour(s, masks, workspace, series, options.holes) for s in masks.segments]
    return out


def referenced_frame(series: SortedSeries) -> Dataset:
    """Build the item of the Referenced Frame of Reference Sequence that lists all images of a series."""
    images = [_reference(one.sop_class_uid, one.sop_instance_uid) for one in series.slices]
    of_series = _item(SeriesInstanceUID=series.series_instance_uid, ContourImageSequence=images)
    study = _reference(_RT_REFERENCED_STUDY, series.study_instance_uid)
    study.RTReferencedSeriesSequence = [of_series]
    return _item(FrameOfReferenceUID=series.frame_of_reference_uid, RTReferencedStudySequence=[study])


def _reference(sop_class: str, uid: str) -> Dataset:
    return _item(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=uid)


def _item(**values: object) -> Dataset:
    out = Dataset()
    for keyword, value in values.items():
        setattr(out, keyword, value)
    return out


def _roi(segment: Segment, name: str, series: SortedSeries, manual: bool) -> Dataset:
    item = _item(
        ROINumber=segment.number,
        ReferencedFrameOfReferenceUID=series.frame_of_reference_uid,
        ROIName=name[:64],
        ROIGenerationAlgorithm="MANUAL" if manual else "AUTOMATIC",
    )
    if segment.source_label and segment.source_label != name:
        item.ROIDescription = segment.source_label[:1024]
    return item


def _observation(segment: Segment, name: str) -> Dataset:
    code = segment_code(segment)
    target = next((kind for kind in ("GTV", "CTV", "PTV") if name.upper().startswith(kind)), "")
    item = _item(
        ObservationNumber=segment.number,
        ReferencedROINumber=segment.number,
        RTROIInterpretedType=target or "ORGAN",
        ROIInterpreter="",
    )
    identification = code_item(code.type)
    if code.laterality is not None:
        identification.SegmentedPropertyTypeModifierCodeSequence = [code_item(code.laterality)]
    item.RTROIIdentificationCodeSequence = [identification]
    return item


def slice_points(series: SortedSeries, k: int, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places of points of a slice.

    Parameters
    ----------
    series : SortedSeries
        The images.
    k : int
        Index of the slice.
    points : array, (n, 2)
        (column, row), in pixels from the centre of the first one.

    Returns
    -------
    array, (n, 3)
        mm, LPS.
    """
    row = np.asarray(series.row_cosines) * series.pixel_spacing[1]
    column = np.asarray(series.column_cosines) * series.pixel_spacing[0]
    origin = np.asarray(series.slices[k].position)
    return np.asarray(origin + points[:, :1] * row + points[:, 1:] * column)


def _roi_contour(
    segment: Segment, masks: SegmentMasks, workspace: Workspace, series: SortedSeries, holes: str
) -> Dataset:
    item = Dataset()
    item.ROIDisplayColor = list(segment_code(segment).colour)
    item.ReferencedROINumber = segment.number
    cropped = crop_of(masks, segment.number, workspace)
    contours = []
    if cropped is not None:
        mask, box = cropped
        for offset, plane in enumerate(mask):
            k = box.k0 + offset
            for points, kind in _contours(plane, holes):
                corner = np.array([box.i0, box.j0], np.float64)
                contours.append(contour_item(slice_points(series, k, points + corner), kind, series, k))
    for number, contour in enumerate(contours, start=1):
        contour.ContourNumber = number
    if contours:
        item.ContourSequence = contours
    return item


def _contours(plane: NDArray[np.bool_], holes: str) -> Iterator[tuple[NDArray[np.float64], str]]:
    outlines = trace_mask(np.asarray(plane, bool))
    xor = holes == "xor" and any(outline.holes for outline in outlines)
    for outline in outlines:
        if xor:  # all contours of a plane are of one type
            for points in (outline.outer, *outline.holes):
                yield points, "CLOSEDPLANAR_XOR"
        else:
            yield join_holes(outline), "CLOSED_PLANAR"


def contour_item(points: NDArray[np.float64], kind: str, series: SortedSeries, k: int) -> Dataset:
    """Build the item of one contour (PS3.3 C.8.8.6).

    Parameters
    ----------
    points : array, (n, 3)
        mm, LPS.
    kind : str
        Contour Geometric Type.
    series : SortedSeries
        The images.
    k : int
        Index of the slice on which it is.
    """
    one = series.slices[k]
    return _item(
        ContourImageSequence=[_reference(one.sop_class_uid, one.sop_instance_uid)],
        ContourGeometricType=kind,
        NumberOfContourPoints=len(points),
        ContourData=_decimal_strings(points.ravel()),
    )


def _decimal_strings(values: Sequence[float] | NDArray[np.float64]) -> list[str]:
    """Decimal strings of at most 16 characters (PS3.5 6.2)."""
    return [_decimal(value) for value in values]


def _decimal(value: float) -> str:
    text = f"{value:.{_DIGITS}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text[:16]
