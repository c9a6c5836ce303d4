"""Writes small CT series as DICOM files for the tests of fetch, sort and convert; any element can be set wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian

from ctenrich.dicom.quiet import quiet
from ctenrich.geometry import slice_normal
from ctenrich.records import Instance, SeriesEntry

CT = "1.2.840.10008.5.1.4.1.1.2"
STUDY, SERIES, FRAME = "1.2.3.1", "1.2.3.2", "1.2.3.3"
Edit = Callable[[Dataset, int], None]


@dataclass(frozen=True)
class Small:
    """What to write."""

    count: int = 6
    rows: int = 14
    columns: int = 18
    spacing: float = 2.5
    signed: bool = False
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0)
    syntax: str = ExplicitVRLittleEndian
    elements: Mapping[str, Any] = field(default_factory=dict)


def small_pixels(small: Small, k: int) -> np.ndarray:
    rng = np.random.default_rng(1000 + k)
    low, high = (-1000, 2000) if small.signed else (0, 4000)
    return rng.integers(low, high, (small.rows, small.columns)).astype(np.int16 if small.signed else np.uint16)


def small_slice(small: Small, k: int) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = CT, f"1.2.3.4.{k + 1}"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = STUDY, SERIES, FRAME
    data.Modality, data.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.PatientName, data.PatientID, data.PatientPosition = "Canary^Name", "CANARY-ID", "HFS"
    normal = np.array(slice_normal(small.orientation[:3], small.orientation[3:]))
    data.ImagePositionPatient = [round(float(x), 5) for x in np.array([-100, -120, -5.5]) + normal * k * small.spacing]
    data.ImageOrientationPatient = list(small.orientation)
    data.PixelSpacing, data.SliceThickness, data.InstanceNumber = [0.9, 0.8], small.spacing, k + 1
    data.Rows, data.Columns, data.SamplesPerPixel = small.rows, small.columns, 1
    data.PhotometricInterpretation, data.BitsAllocated, data.BitsStored, data.HighBit = "MONOCHROME2", 16, 16, 15
    data.PixelRepresentation = int(small.signed)
    data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, 0 if small.signed else -1024, "HU"
    data.PixelData = small_pixels(small, k).tobytes()
    data["PixelData"].VR = "OW"
    for keyword, value in small.elements.items():
        setattr(data, keyword, value)
    return data


def save(data: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if syntax == ExplicitVRBigEndian:
        data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
    if syntax in {ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, "1.2.840.10008.1.2"}:
        if syntax != data.file_meta.TransferSyntaxUID:
            data.file_meta.TransferSyntaxUID = syntax
    else:
        data.compress(syntax, generate_instance_uid=False)
    if not str(data.SOPInstanceUID).startswith("1."):
        data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = CT, "1.2.3"
        data.preamble = b"\0" * 128
        data.save_as(path, enforce_file_format=False, implicit_vr=False, little_endian=True)
        return path
    data.save_as(path, enforce_file_format=True)
    return path


def write_small(folder: Path, small: Small | None = None, edit: Edit | None = None) -> list[Path]:
    """Write the series, slice k as ``k.dcm``; `edit` may change a data set before it is saved."""
    small = small or Small()
    paths = []
    with quiet():
        for k in range(small.count):
            data = small_slice(small, k)
            if edit is not None:
                edit(data, k)
            paths.append(save(data, folder / f"{k}.dcm", small.syntax))
    return paths


def folder_entry(*folders: Path, **changes: Any) -> SeriesEntry:
    """A cohort entry that stands for whole folders."""
    values: dict[str, Any] = {
        "collection_id": "local",
        "patient_id": "P",
        "study_instance_uid": STUDY,
        "series_instance_uid": SERIES,
        "instances": tuple(Instance("", f.as_uri() + "/") for f in folders),
    }
    return SeriesEntry(**(values | changes))
