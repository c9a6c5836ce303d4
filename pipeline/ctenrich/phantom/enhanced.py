"""Write a phantom as one Enhanced CT object (PS3.3 A.38): the slices are its frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from ctenrich.dicom.sop_classes import ENHANCED_CT_IMAGE
from ctenrich.phantom.identity import Identity
from ctenrich.phantom.modules import DATE, TIME, common_modules, file_bytes, number, rescale
from ctenrich.phantom.volume import Phantom

__all__ = ["write_enhanced"]


def write_enhanced(folder: Path, phantom: Phantom, identity: Identity) -> tuple[Path, str]:
    """Write the whole phantom as one multi-frame file.

    Parameters
    ----------
    folder : Path
    phantom : Phantom
    identity : Identity

    Returns
    -------
    (Path, str)
        The file and its SOP Instance UID.
    """
    options = phantom.options
    d = common_modules(options, identity, ENHANCED_CT_IMAGE, identity.instance("enhanced"))
    d.Modality, d.SeriesInstanceUID, d.SeriesNumber = "CT", identity.series, str(options.series_number)
    d.SeriesDescription, d.PatientPosition = options.series_description, "HFS"
    d.FrameOfReferenceUID, d.PositionReferenceIndicator = identity.frame_of_reference, ""
    d.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    d.PixelPresentation, d.VolumetricProperties, d.VolumeBasedCalculationTechnique = "MONOCHROME", "VOLUME", "NONE"
    d.PresentationLUTShape = "IDENTITY"
    d.BurnedInAnnotation, d.LossyImageCompression, d.ContentQualification = "NO", "00", "RESEARCH"
    d.AcquisitionDateTime, d.AcquisitionDuration = DATE + TIME, 1.0
    d.InstanceNumber = "1"
    d.NumberOfFrames = str(options.slices)
    d.SharedFunctionalGroupsSequence = [_shared_groups(d, phantom)]
    d.PerFrameFunctionalGroupsSequence = [_frame_groups(phantom, k) for k in range(options.slices)]
    d.DimensionOrganizationSequence, d.DimensionIndexSequence = _dimension_sequences(identity)
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.Rows, d.Columns = options.rows, options.columns
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 16, 15, 1
    intercept = rescale(options, 0)[1]
    d.add_new(0x7FE00010, "OW", np.rint(phantom.array - intercept).astype("<i2").tobytes())
    path = folder / f"CT{options.series_number:02d}_enhanced.dcm"
    path.write_bytes(file_bytes(d, options))
    return path, str(d.SOPInstanceUID)


def _sequence_item(**values: object) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _shared_groups(d: Dataset, phantom: Phantom) -> Dataset:
    grid, options = phantom.grid, phantom.options
    cosines = np.concatenate([v / np.linalg.norm(v) for v in (grid.along_row, grid.along_column)])
    slope, intercept = rescale(options, 0)
    return _sequence_item(
        PixelMeasuresSequence=[
            _sequence_item(
                PixelSpacing=[number(v) for v in options.pixel_spacing], SliceThickness=number(options.slice_spacing)
            )
        ],
        PlaneOrientationSequence=[_sequence_item(ImageOrientationPatient=[number(v) for v in np.round(cosines, 10)])],
        PixelValueTransformationSequence=[
            _sequence_item(RescaleIntercept=number(intercept), RescaleSlope=number(slope), RescaleType="HU")
        ],
        FrameVOILUTSequence=[_sequence_item(WindowCenter="40", WindowWidth="400")],
        CTImageFrameTypeSequence=[
            _sequence_item(
                FrameType=list(d.ImageType),
                PixelPresentation=d.PixelPresentation,
                VolumetricProperties=d.VolumetricProperties,
                VolumeBasedCalculationTechnique=d.VolumeBasedCalculationTechnique,
            )
        ],
    )


def _frame_groups(phantom: Phantom, k: int) -> Dataset:
    position = [number(v) for v in np.round(phantom.positions[k], 6)]
    content = _sequence_item(
        FrameAcquisitionNumber=1, StackID="1", InStackPositionNumber=k + 1, DimensionIndexValues=[1, k + 1]
    )
    return _sequence_item(
        FrameContentSequence=[content], PlanePositionSequence=[_sequence_item(ImagePositionPatient=position)]
    )


def _dimension_sequences(identity: Identity) -> tuple[list[Dataset], list[Dataset]]:
    uid = identity.instance("dimensions")
    pointers = [
        _sequence_item(DimensionOrganizationUID=uid, DimensionIndexPointer=tag, FunctionalGroupPointer=0x00209111)
        for tag in (0x00209056, 0x00209057)
    ]
    return [_sequence_item(DimensionOrganizationUID=uid)], pointers
