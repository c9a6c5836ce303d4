"""DICOM modules that all phantom objects share, and the encoding of a dataset as a file."""

from __future__ import annotations

import io
import warnings

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID

from ctenrich.phantom.identity import Identity
from ctenrich.phantom.options import PhantomOptions, PixelEncoding, Quirk

__all__ = ["DATE", "TIME", "common_modules", "file_bytes", "number", "rescale"]

DATE, TIME = "20200101", "120000"
_IMPLEMENTATION = "2.25.230918461026353614498765421874365091827"


def number(value: float) -> str:
    """Decimal String of at most 16 characters (PS3.5 6.2), the closest that fits.

    Raises
    ------
    ValueError
        No form fits.
    """
    value = 0.0 if value == 0 else float(value)
    for digits in range(16, 0, -1):
        text = f"{value:.{digits}g}"
        if len(text) <= 16:
            return text
    raise ValueError(value)


def common_modules(options: PhantomOptions, identity: Identity, sop_class: str, sop_instance: str) -> Dataset:
    """Make a dataset with Patient, General Study, Equipment and SOP Common (PS3.3 C.7.1.1, C.7.2.1, C.7.5.1, C.12.1).

    Parameters
    ----------
    options : PhantomOptions
    identity : Identity
    sop_class, sop_instance : str
        UIDs.

    Returns
    -------
    Dataset
    """
    d = Dataset()
    d.SpecificCharacterSet = "ISO_IR 192"
    d.SOPClassUID, d.SOPInstanceUID = UID(sop_class), UID(sop_instance)
    d.StudyDate = d.SeriesDate = d.ContentDate = d.AcquisitionDate = DATE
    d.StudyTime = d.SeriesTime = d.ContentTime = d.AcquisitionTime = TIME
    d.AccessionNumber = ""
    d.Manufacturer = options.manufacturer
    d.ManufacturerModelName = "Generated"
    d.DeviceSerialNumber = "0"
    d.SoftwareVersions = "1"
    d.ReferringPhysicianName = ""
    d.StudyDescription = "Generated chest"
    d.PatientName, d.PatientID = options.patient_name, identity.patient_id
    d.PatientBirthDate, d.PatientSex, d.PatientAge = "19600101", "O", "060Y"
    d.StudyInstanceUID, d.StudyID = identity.study, options.study[:16]
    return d


def rescale(options: PhantomOptions, k: int) -> tuple[float, float]:
    """Rescale slope and intercept of a slice.

    Parameters
    ----------
    options : PhantomOptions
    k : int

    Returns
    -------
    (float, float)
    """
    if Quirk.RESCALE_CHANGE in options.quirks and k >= options.slices // 2:
        return 2.0, -2048.0
    return 1.0, -1024.0


def file_bytes(dataset: Dataset, options: PhantomOptions, *, stated_rows: int | None = None) -> bytes:
    """Encode a dataset as a DICOM file (PS3.10) in the transfer syntax of the options.

    Parameters
    ----------
    dataset : Dataset
    options : PhantomOptions
    stated_rows : int, optional
        Rows that the file states where that is not the truth.

    Returns
    -------
    bytes
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.ImplementationClassUID = UID(_IMPLEMENTATION)
    meta.ImplementationVersionName = "CTENRICH_PHANTOM"
    syntax = options.encoding
    packed = syntax in (PixelEncoding.RLE, PixelEncoding.JPEG_2000, PixelEncoding.JPEG_LS)
    meta.TransferSyntaxUID = UID(PixelEncoding.EXPLICIT.value if packed else syntax.value)
    has_preamble = Quirk.NO_PREAMBLE not in options.quirks
    file = FileDataset(
        None,  # type: ignore[arg-type]
        dataset,
        file_meta=meta,
        preamble=b"\0" * 128 if has_preamble else None,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if packed and "PixelData" in file:
            file.compress(UID(syntax.value), generate_instance_uid=False)
        if syntax is PixelEncoding.BIG_ENDIAN and "PixelData" in file:
            file.PixelData = np.frombuffer(file.PixelData, "<u2").astype(">u2").tobytes()
        if stated_rows is not None:
            file.Rows = stated_rows
        target = io.BytesIO()
        dcmwrite(target, file, enforce_file_format=has_preamble)
    return target.getvalue()
