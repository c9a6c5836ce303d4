"""Sorted series and structure sets for the tests of contours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

from ctenrich.records import Slice, SortedSeries

CT = "1.2.840.10008.5.1.4.1.1.2"
ROOT = "2.25.4000"


def make_series(
    shape: tuple[int, int, int] = (5, 40, 50),
    spacing: tuple[float, float, float] = (3.0, 1.5, 1.25),
    origin: Sequence[float] = (-20.0, -30.0, -100.0),
    row: Sequence[float] = (1, 0, 0),
    column: Sequence[float] = (0, 1, 0),
    companions: tuple[str, ...] = (),
) -> SortedSeries:
    """A series with any grid, without pixels; spacing is (slices, rows, columns) in mm."""
    row, column = np.asarray(row, float), np.asarray(column, float)
    normal = np.cross(row, column)
    slices = []
    for k in range(shape[0]):
        position = np.asarray(origin, float) + k * spacing[0] * normal
        slices.append(Slice(f"{ROOT}.1.{k}", CT, f"{k}.dcm", tuple(position.tolist()), float(position @ normal), k + 1))
    return SortedSeries(
        study_instance_uid=f"{ROOT}.2",
        series_instance_uid=f"{ROOT}.3",
        frame_of_reference_uid=f"{ROOT}.4",
        slices=tuple(slices),
        row_cosines=tuple(row.tolist()),
        column_cosines=tuple(column.tolist()),
        pixel_spacing=(spacing[1], spacing[2]),
        slice_spacing=spacing[0],
        rows=shape[1],
        columns=shape[2],
        companions=companions,
    )


def to_mm(series: SortedSeries, k: int, corners: Sequence[tuple[float, float]]) -> np.ndarray:
    """(column, row) pixel coordinates on slice k -> mm, LPS, (n, 3)."""
    uv = np.asarray(corners, float)
    row, column = np.asarray(series.row_cosines), np.asarray(series.column_cosines)
    across = np.outer(uv[:, 0] * series.pixel_spacing[1], row)
    return np.asarray(series.slices[k].position) + across + np.outer(uv[:, 1] * series.pixel_spacing[0], column)


def sorted_real(folder: Path, uid: str | None = None) -> SortedSeries:
    """Sort the CT of an unpacked archive by pydicom alone (the largest series, or the one named)."""
    headers: dict[str, list[tuple[float, Path, Dataset]]] = {}
    tags = ["Modality", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "ImagePositionPatient", "PixelSpacing"]
    tags += ["ImageOrientationPatient", "StudyInstanceUID", "FrameOfReferenceUID", "Rows", "Columns", "InstanceNumber"]
    structures: list[str] = []
    for path in sorted(folder.rglob("*.dcm")):
        ds = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
        if ds.Modality == "RTSTRUCT":
            structures.append(str(path))
        if ds.Modality != "CT":
            continue
        iop = np.array(ds.ImageOrientationPatient, float)
        normal = np.cross(iop[:3], iop[3:])
        distance = float(np.array(ds.ImagePositionPatient, float) @ normal)
        headers.setdefault(str(ds.SeriesInstanceUID), []).append((distance, path, ds))
    chosen = headers[uid] if uid else max(headers.values(), key=len)
    chosen.sort(key=lambda item: item[0])
    first = chosen[0][2]
    iop = tuple(float(v) for v in first.ImageOrientationPatient)
    slices = tuple(
        Slice(
            str(ds.SOPInstanceUID),
            str(ds.SOPClassUID),
            str(path),
            tuple(float(v) for v in ds.ImagePositionPatient),
            distance,
            int(ds.InstanceNumber),
        )
        for distance, path, ds in chosen
    )
    return SortedSeries(
        study_instance_uid=str(first.StudyInstanceUID),
        series_instance_uid=str(first.SeriesInstanceUID),
        frame_of_reference_uid=str(first.FrameOfReferenceUID),
        slices=slices,
        row_cosines=iop[:3],
        column_cosines=iop[3:],
        pixel_spacing=(float(first.PixelSpacing[0]), float(first.PixelSpacing[1])),
        slice_spacing=(slices[-1].distance - slices[0].distance) / (len(slices) - 1),
        rows=int(first.Rows),
        columns=int(first.Columns),
        companions=tuple(structures),
    )


def write_rtstruct(
    path: Path,
    series: SortedSeries,
    rois: Sequence[tuple[str, Sequence[tuple[str, np.ndarray]]]],
    *,
    series_uid: str | None = None,
    frame_uid: str | None = None,
    image_uids: Sequence[str] | None = None,
    uid: str = f"{ROOT}.9",
    date: str = "20200101",
) -> Path:
    """Write an RTSTRUCT: (name, ((contour type, points in mm), ...)) for each ROI."""
    frame_uid = series.frame_of_reference_uid if frame_uid is None else frame_uid
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = RTStructureSetStorage, uid
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = series.study_instance_uid, f"{ROOT}.8", "RTSTRUCT"
    ds.StructureSetDate, ds.StructureSetTime, ds.StructureSetLabel = date, "120000", "TEST"
    one = Dataset()
    one.SeriesInstanceUID = series.series_instance_uid if series_uid is None else series_uid
    one.ContourImageSequence = DicomSequence()
    for image in series.sop_instance_uids if image_uids is None else image_uids:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, image
        one.ContourImageSequence.append(item)
    study, frame = Dataset(), Dataset()
    study.RTReferencedSeriesSequence = DicomSequence([one])
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = frame_uid, DicomSequence([study])
    ds.ReferencedFrameOfReferenceSequence = DicomSequence([frame])
    ds.StructureSetROISequence, ds.ROIContourSequence = DicomSequence(), DicomSequence()
    for number, (name, contours) in enumerate(rois, start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, frame_uid
        drawn.ReferencedROINumber, drawn.ContourSequence = number, DicomSequence()
        for kind, points in contours:
            item = Dataset()
            item.ContourGeometricType, item.NumberOfContourPoints = kind, len(points)
            item.ContourData = [f"{v:.8f}"[:16] for v in np.asarray(points).ravel()]
            drawn.ContourSequence.append(item)
        ds.StructureSetROISequence.append(roi)
        ds.ROIContourSequence.append(drawn)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = RTStructureSetStorage, uid
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def list_series(path: Path, listed: Sequence[tuple[str, Sequence[str]]], sop_class: str = CT) -> None:
    """Add (series, images) to the series that an RTSTRUCT lists."""
    ds = pydicom.dcmread(path)
    sequence = ds.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence
    for series_uid, images in listed:
        one = Dataset()
        one.SeriesInstanceUID, one.ContourImageSequence = series_uid, DicomSequence()
        for image in images:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, image
            one.ContourImageSequence.append(item)
        sequence.append(one)
    ds.save_as(path)


def refer_contours(path: Path, images: Sequence[Sequence[str | None]]) -> None:
    """Give the contours of an RTSTRUCT the image on which each was drawn: by ROI, by contour; None: no reference."""
    ds = pydicom.dcmread(path)
    for roi, uids in zip(ds.ROIContourSequence, images, strict=True):
        for contour, uid in zip(roi.ContourSequence, uids, strict=True):
            if uid is not None:
                item = Dataset()
                item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, uid
                contour.ContourImageSequence = DicomSequence([item])
    ds.save_as(path)
