"""Build a DICOM Segmentation (PS3.3 A.51) whose segments are isodoses: regions of the property type Isodose Volume."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ctenrich import __version__
from ctenrich.encode.context import (
    MANUFACTURER,
    MODEL_NAME,
    contributing_equipment,
    read_source,
    set_dates,
)
from ctenrich.encode.isodose_set import isodose_colour
from ctenrich.encode.seg import source_images
from ctenrich.records import SortedSeries
from ctenrich.settings import EncodeSettings
from ctenrich.uids import derive_uid
from ctenrich.workspace import Workspace

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription

__all__ = ["isodose_segmentation"]

_SERIES_NUMBER = 9002


def isodose_segmentation(
    masks: NDArray[np.uint8],
    levels: Sequence[float],
    series: SortedSeries,
    dose: tuple[str, float],
    settings: EncodeSettings,
) -> Dataset:
    """Build the segmentation of isodoses, of the type BINARY: the region of a dose is inside those of lower doses.

    Parameters
    ----------
    masks : array of uint8, [k, j, i, level]
        On the grid of the series.
    levels : sequence of float
        Gy.
    series : SortedSeries
        The images, to which every frame refers.
    dose : (str, float)
        SOP Instance UID and maximum in Gy of the RT Dose.
    settings : EncodeSettings
        Dates.

    Returns
    -------
    Dataset

    Raises
    ------
    EncodingError
        UNSAFE_IDENTIFIER.
    """
    from highdicom import PixelMeasuresSequence, PlaneOrientationSequence
    from highdicom.seg import Segmentation
    from pydicom.uid import ExplicitVRLittleEndian

    uid, maximum = dose
    slices = hashlib.sha256("\n".join(series.sop_instance_uids).encode()).hexdigest()
    doses = ",".join(f"{level:g}" for level in levels)
    key = ("isodose segmentation", __version__, uid, f"{maximum!r}", doses, series.series_instance_uid, slices)
    source = read_source(series, Workspace(Path()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out: Dataset = Segmentation(
            source_images=source_images(series, source),
            pixel_array=masks,
            segmentation_type="BINARY",
            segment_descriptions=[
                _description(number, level, dose, derive_uid(*key, "tracking", str(number)))
                for number, level in enumerate(levels, start=1)
            ],
            series_instance_uid=derive_uid(*key, "series"),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=derive_uid(*key, "instance"),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MODEL_NAME,
            software_versions=__version__,
            device_serial_number=__version__,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            pixel_measures=PixelMeasuresSequence(series.pixel_spacing, series.slice_spacing, series.slice_spacing),
            plane_orientation=PlaneOrientationSequence("PATIENT", (*series.row_cosines, *series.column_cosines)),
            content_label="ISODOSES",
            content_description="Isodoses",
            series_description="Isodoses (research only)",
            omit_empty_frames=True,
            specific_character_set="ISO_IR 192",
        )
    set_dates(out, settings)
    organization = derive_uid(*key, "dimension organization")
    for item in (*out.DimensionOrganizationSequence, *out.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
    out.ContributingEquipmentSequence = contributing_equipment(None)
    out.PositionReferenceIndicator = ""
    return out


def _description(number: int, level: float, dose: tuple[str, float], tracking_uid: str) -> SegmentDescription:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription as Description
    from pydicom.sr.codedict import codes

    uid, maximum = dose
    algorithm = AlgorithmIdentificationSequence(
        name="Threshold of an RT Dose", family=codes.DCM.ArtificialIntelligence, version=__version__
    )
    item = Description(
        segment_number=number,
        segment_label=f"Isodose {level:g} Gy",
        segmented_property_category=codes.SCT.SpatialAndRelationalConcept,
        segmented_property_type=codes.DCM.IsodoseVolume,
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        tracking_uid=tracking_uid,
        tracking_id=f"Isodose {level:g} Gy",
        display_color=CIELabColor.from_rgb(*isodose_colour(level, maximum)),
    )
    item.pop("SegmentationAlgorithmIdentificationSequence")  # DICOM has no code for the family of a threshold
    item.SegmentDescription = f"At least {level:g} Gy of RT Dose {uid}"
    return item
