"""RT Dose objects, and doses and structures with known metrics, for the tests of doses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from ctenrich.contours.rtstruct import Contour, Roi
from ctenrich.dose.grid import DoseGrid

__all__ = ["circle", "grid_of_function", "roi_of", "write_dose"]

RT_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
ROOT = "2.25.4000"


def write_dose(path: Path, stored: np.ndarray, **attributes: Any) -> Path:
    """Write an RT Dose of stored values [frame, row, column]; attributes replace the defaults, None removes one."""
    frames, rows, columns = stored.shape
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = RT_DOSE, f"{ROOT}.20"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = f"{ROOT}.2", f"{ROOT}.21", f"{ROOT}.4"
    data.Modality, data.PatientID, data.PatientName = "RTDOSE", "TEST", "TEST"
    data.DoseUnits, data.DoseType, data.DoseSummationType = "GY", "PHYSICAL", "PLAN"
    data.DoseGridScaling = 0.001
    data.ImagePositionPatient, data.ImageOrientationPatient = [-20, -30, -100], [1, 0, 0, 0, 1, 0]
    data.PixelSpacing = [2.5, 2.5]
    data.NumberOfFrames, data.Rows, data.Columns = frames, rows, columns
    data.GridFrameOffsetVector = [3.0 * k for k in range(frames)]
    data.FrameIncrementPointer = 0x3004000C
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    bits = 8 * stored.dtype.itemsize
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    data.PixelData = stored.tobytes()
    data["PixelData"].VR = "OW"
    for name, value in attributes.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = RT_DOSE, data.SOPInstanceUID
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)
    return path


def grid_of_function(
    dose: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray], *, spacing: float = 2.5, reach: float = 40.0
) -> DoseGrid:
    """Dose of x, y and z in mm, on a grid around the origin."""
    places = np.arange(-reach, reach + 0.5 * spacing, spacing)
    z, y, x = np.meshgrid(places, places, places, indexing="ij")
    return DoseGrid(
        stored=np.round(np.maximum(dose(x, y, z), 0) * 1e6).astype(np.uint32),
        scaling=1e-6,
        origin=(float(places[0]),) * 3,
        row=(1, 0, 0),
        column=(0, 1, 0),
        pixel_spacing=(spacing, spacing),
        offsets=tuple((places - places[0]).tolist()),
    )


def circle(radius: float, z: float, corners: int = 360) -> Contour:
    """A circle around the z axis."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return Contour(np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full(corners, z)], axis=1))


def roi_of(contours: Sequence[Contour], *, number: int = 1, name: str = "ROI") -> Roi:
    """An ROI of contours."""
    return Roi(number=number, name=name, frame_of_reference_uid="", contours=tuple(contours))
