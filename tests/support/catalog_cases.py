"""Small DICOM series for the tests of catalogs and selection: headers with a few pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import ExplicitVRLittleEndian

CT = "1.2.840.10008.5.1.4.1.1.2"
RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
ROOT = "1.2.826.0.1.3680043.8.498.7"


def header(number: int = 1, *, series: str = "1", study: str = "1", patient: str = "P1", **changes: Any) -> FileDataset:
    """One CT slice, 3 mm from its neighbours; `changes` set or (None) remove attributes."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\x00" * 128)
    ds.SOPClassUID = CT
    ds.SOPInstanceUID = f"{ROOT}.{study}.{series}.{number}"
    ds.SeriesInstanceUID = f"{ROOT}.{study}.{series}"
    ds.StudyInstanceUID = f"{ROOT}.{study}"
    ds.FrameOfReferenceUID = f"{ROOT}.{study}.99"
    ds.PatientID = patient
    ds.PatientName = "CANARY^NAME"
    ds.Modality = "CT"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.InstanceNumber = str(number)
    ds.StudyDate = "20200102"
    ds.StudyTime = "131415.5"
    ds.SliceThickness = "3.00"
    ds.ImagePositionPatient = ["-10.0", "-20.0", f"{number * 3 - 5.5:.2f}"]
    ds.ImageOrientationPatient = ["1.0", "0.0", "0", "0", "1", "0"]
    ds.PixelSpacing = ["0.70", "0.7"]
    ds.Rows = ds.Columns = 2
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.PixelRepresentation = 1
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.PixelData = b"\x00" * 8
    for name, value in changes.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", CT)
    meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID") or "1.2"
    return ds


def write_series(folder: Path, count: int = 4, *, heights: Sequence[float] | None = None, **changes: Any) -> list[Path]:
    """Write a series; `heights` are the z positions in mm, else 3 mm steps."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(1, (len(heights) if heights is not None else count) + 1):
        ds = header(number, **changes)
        if heights is not None:
            ds.ImagePositionPatient = ["-10.0", "-20.0", f"{heights[number - 1]:.6g}"]
        path = folder / f"{ds.SeriesInstanceUID or 'none'}_{number}.dcm".replace("/", "_")
        ds.save_as(path, enforce_file_format=False)
        paths.append(path)
    return paths


def write_structures(path: Path, *, number: int = 1, patient: str = "P1", frame: str, series: str | None) -> None:
    """An RTSTRUCT that refers to `series` (None: to none) in `frame`."""
    ds = header(number, series="7", study="8", patient=patient, Modality="RTSTRUCT", PixelData=None)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = RTSTRUCT
    del ds.FrameOfReferenceUID, ds.ImagePositionPatient
    reference = Dataset()
    reference.FrameOfReferenceUID = frame
    if series is not None:
        of_series, of_study = Dataset(), Dataset()
        of_series.SeriesInstanceUID = series
        image = Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = CT, f"{series}.1"
        of_series.ContourImageSequence = DicomSequence([image])
        of_study.ReferencedSOPInstanceUID = "1.2.3"
        of_study.RTReferencedSeriesSequence = DicomSequence([of_series])
        reference.RTReferencedStudySequence = DicomSequence([of_study])
    ds.ReferencedFrameOfReferenceSequence = DicomSequence([reference])
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path)
