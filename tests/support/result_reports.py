"""Small SEG and SR files written by hand, item by item, so that each rule of the tables can be tested alone."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
SR3D = "1.2.840.10008.5.1.4.1.1.88.34"
CT = "1.2.840.10008.5.1.4.1.1.2"

HEART = ("80891009", "SCT", "Heart")
ORGAN = ("113343008", "SCT", "Organ")
SITE = ("363698007", "SCT", "Finding Site")
OLD_SITE = ("G-C0E3", "SRT", "Finding Site")
VOLUME = ("RNU0", "IBSI", "Volume")
MM3 = ("mm3", "UCUM", "cubic millimeter")


def code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def content(kind: str, name: tuple[str, str, str], *parts: Dataset, **values: Any) -> Dataset:
    item = Dataset()
    item.RelationshipType = values.pop("relation", "CONTAINS")
    item.ValueType = kind
    item.ConceptNameCodeSequence = [code(*name)]
    for key, value in values.items():
        setattr(item, key, value)
    if parts:
        item.ContentSequence = list(parts)
    return item


def coded(name: tuple[str, str, str], value: tuple[str, str, str], *parts: Dataset) -> Dataset:
    return content("CODE", name, *parts, ConceptCodeSequence=[code(*value)])


def number(name: tuple[str, str, str], value: str, unit: tuple[str, str, str], *parts: Dataset) -> Dataset:
    measured = Dataset()
    measured.NumericValue = value
    measured.MeasurementUnitsCodeSequence = [code(*unit)]
    return content("NUM", name, *parts, MeasuredValueSequence=[measured])


def reference(name: tuple[str, str, str], sop_class: str, uid: str, segment: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
    if segment is not None:
        item.ReferencedSegmentNumber = segment
    return content("IMAGE", name, ReferencedSOPSequence=[item])


def head(tracking: str = "Heart 1", uid: str = "1.2.9") -> list[Dataset]:
    return [
        content("TEXT", ("112039", "DCM", "Tracking Identifier"), TextValue=tracking),
        content("UIDREF", ("112040", "DCM", "Tracking Unique Identifier"), UID=uid),
        coded(("121071", "DCM", "Finding"), ORGAN),
    ]


def segment_links(seg: str, source: str, segment: int = 2) -> list[Dataset]:
    return [
        reference(("121191", "DCM", "Referenced Segment"), SEG, seg, segment),
        content("UIDREF", ("121232", "DCM", "Source series for segmentation"), UID=source),
    ]


def group(*parts: Dataset) -> Dataset:
    return content("CONTAINER", ("125007", "DCM", "Measurement Group"), *parts)


def write_sr(path: Path, uid: str, parts: list[Dataset], **changes: Any) -> Path:
    """A TID 1500 report whose "Imaging Measurements" container holds `parts`."""
    report = _common(SR3D, uid, "SR", "Measurements")
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "1500"
    report.ContentTemplateSequence = [template]
    report.ValueType = "CONTAINER"
    report.ContentSequence = [content("CONTAINER", ("126010", "DCM", "Imaging Measurements"), *parts)]
    evidence, series, instance = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = CT, "1.2.3.100"
    series.SeriesInstanceUID, series.ReferencedSOPSequence = "1.2.3.10", [instance]
    evidence.StudyInstanceUID, evidence.ReferencedSeriesSequence = "1.2.3.1", [series]
    report.CurrentRequestedProcedureEvidenceSequence = [evidence]
    return _save(path, report, changes)


def write_seg(path: Path, uid: str, sop_class: str = SEG, **changes: Any) -> Path:
    """A SEG of two segments (1 and 3) without pixel data."""
    seg = _common(sop_class, uid, "SEG", "Segmentation")
    seg.FrameOfReferenceUID = "1.2.3.5"
    seg.SegmentationType = "BINARY" if sop_class == SEG else "LABELMAP"
    seg.SegmentSequence = []
    for segment_number, site in ((1, HEART), (3, ("39607008", "SCT", "Lung"))):
        item = Dataset()
        item.SegmentNumber, item.SegmentLabel, item.SegmentAlgorithmType = segment_number, site[2], "AUTOMATIC"
        item.SegmentAlgorithmName = "Test"
        item.SegmentedPropertyCategoryCodeSequence = [code("123037004", "SCT", "Anatomical Structure")]
        kind = code(*site)
        if segment_number == 3:
            kind.SegmentedPropertyTypeModifierCodeSequence = [code("7771000", "SCT", "Left")]
        item.SegmentedPropertyTypeCodeSequence = [kind]
        seg.SegmentSequence.append(item)
    series, instance = Dataset(), Dataset()
    instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = CT, "1.2.3.100"
    series.SeriesInstanceUID, series.ReferencedInstanceSequence = "1.2.3.10", [instance]
    seg.ReferencedSeriesSequence = [series]
    return _save(path, seg, changes)


def _common(sop_class: str, uid: str, modality: str, description: str) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = sop_class, uid
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = sop_class, uid, modality
    data.SpecificCharacterSet = "ISO_IR 192"
    data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.3.1", f"{uid}.1"
    data.PatientID, data.PatientName = "P1", "Doe^Jane"
    data.StudyDate, data.StudyTime, data.SeriesDescription = "20200131", "101530.5", description
    return data


def _save(path: Path, data: Dataset, changes: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for key, value in changes.items():
            if value is None:
                delattr(data, key)
            else:
                setattr(data, key, value)
        data.save_as(path, enforce_file_format=True)
    return path
