"""Build an RT Structure Set (PS3.3 A.19) whose ROIs are isodoses: regions of the type DOSE_REGION."""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from ctenrich import __version__
from ctenrich.dicom.sop_classes import RT_STRUCTURE_SET
from ctenrich.encode.context import (
    MANUFACTURER,
    MODEL_NAME,
    code_item,
    contributing_equipment,
    read_source,
    set_character_set,
    set_dates,
)
from ctenrich.encode.rtstruct import contour_item, referenced_frame, slice_points
from ctenrich.records import SortedSeries
from ctenrich.settings import EncodeSettings
from ctenrich.uids import derive_uid
from ctenrich.workspace import Workspace

__all__ = ["IsodoseRegion", "isodose_colour", "isodose_set"]

_SERIES_NUMBER = 9001


@dataclass(frozen=True, kw_only=True)
class IsodoseRegion:
    """Outlines of one isodose."""

    level: float
    """Gy."""
    outlines: Mapping[int, Sequence[NDArray[np.float64]]]
    """Slice index -> outlines and holes as (column, row) in pixels, (n, 2); even-odd."""


def isodose_set(
    regions: Sequence[IsodoseRegion], series: SortedSeries, dose: tuple[str, float], settings: EncodeSettings
) -> Dataset:
    """Build the structure set of isodoses.

    Contours have the type CLOSEDPLANAR_XOR: one inside another is a hole.

    Parameters
    ----------
    regions : sequence of IsodoseRegion
    series : SortedSeries
        The images, to which every contour refers.
    dose : (str, float)
        SOP Instance UID and maximum in Gy of the RT Dose.
    settings : EncodeSettings
        Dates.

    Returns
    -------
    Dataset
        Without file meta information.

    Raises
    ------
    EncodingError
        UNSAFE_IDENTIFIER.
    """
    uid, maximum = dose
    levels = ",".join(f"{one.level:g}" for one in regions)
    slices = hashlib.sha256("\n".join(series.sop_instance_uids).encode()).hexdigest()
    key = ("isodoses", __version__, uid, f"{maximum!r}", levels, series.series_instance_uid, slices)
    out = Dataset()
    out.update(read_source(series, Workspace(Path())).patient_and_study)
    out.SOPClassUID, out.SOPInstanceUID = RT_STRUCTURE_SET, derive_uid(*key, "instance")
    out.StudyInstanceUID, out.SeriesInstanceUID = series.study_instance_uid, derive_uid(*key, "series")
    out.Modality, out.SeriesNumber, out.InstanceNumber = "RTSTRUCT", _SERIES_NUMBER, 1
    out.OperatorsName = ""
    out.SeriesDescription = "Isodoses (research only)"
    out.Manufacturer, out.ManufacturerModelName = MANUFACTURER, MODEL_NAME
    out.SoftwareVersions = __version__
    out.FrameOfReferenceUID, out.PositionReferenceIndicator = series.frame_of_reference_uid, ""
    out.ContributingEquipmentSequence = contributing_equipment(None)
    set_dates(out, settings)
    del out.ContentDate, out.ContentTime  # no attributes of a structure set
    out.StructureSetLabel = "ISODOSES"
    out.StructureSetDescription = f"Isodoses of RT Dose {uid}"
    out.StructureSetDate, out.StructureSetTime = out.SeriesDate, out.SeriesTime
    out.ApprovalStatus = "UNAPPROVED"
    out.ReferencedFrameOfReferenceSequence = [referenced_frame(series)]
    numbered = list(enumerate(regions, 1))
    out.StructureSetROISequence = [_roi(number, one, series, uid) for number, one in numbered]
    out.RTROIObservationsSequence = [_observation(number) for number, _ in numbered]
    out.ROIContourSequence = [_contours(number, one, series, maximum) for number, one in numbered]
    set_character_set(out)
    return out


def isodose_colour(level: float, maximum: float) -> tuple[int, int, int]:
    """Return the colour of an isodose, from blue for little dose to red for the most.

    Parameters
    ----------
    level, maximum : float
        Gy.

    Returns
    -------
    tuple of int
        Red, green and blue, 0 to 255.
    """
    red, green, blue = colorsys.hsv_to_rgb(2 / 3 * (1 - min(1.0, level / maximum)), 1.0, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _roi(number: int, one: IsodoseRegion, series: SortedSeries, uid: str) -> Dataset:
    item = Dataset()
    item.ROINumber, item.ReferencedFrameOfReferenceUID = number, series.frame_of_reference_uid
    item.ROIName = f"Isodose {one.level:g} Gy"
    item.ROIDescription = f"At least {one.level:g} Gy of RT Dose {uid}"
    item.ROIGenerationAlgorithm = "AUTOMATIC"
    return item


def _observation(number: int) -> Dataset:
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = number
    item.RTROIInterpretedType, item.ROIInterpreter = "DOSE_REGION", ""
    item.RTROIIdentificationCodeSequence = [code_item(codes.DCM.IsodoseVolume)]
    return item


def _contours(number: int, one: IsodoseRegion, series: SortedSeries, maximum: float) -> Dataset:
    item = Dataset()
    item.ROIDisplayColor = list(isodose_colour(one.level, maximum))
    item.ReferencedROINumber = number
    items = [
        contour_item(slice_points(series, k, points), "CLOSEDPLANAR_XOR", series, k)
        for k, outlines in sorted(one.outlines.items())
        for points in outlines
    ]
    for place, contour in enumerate(items, 1):
        contour.ContourNumber = place
    item.ContourSequence = items
    return item
