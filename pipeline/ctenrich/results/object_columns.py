"""The columns of the tables that come from the written DICOM objects alone: those of IDC's views first, then ours."""

from __future__ import annotations

from ctenrich.results.columns import CT, Column, idc_column

__all__ = ["OBJECT_COLUMNS"]

_PATIENT = idc_column("PatientID", "string", "Patient ID of the object")
_OBJECT = (
    idc_column("SOPInstanceUID", "string", "SOP Instance UID of the SR"),
    idc_column("SeriesInstanceUID", "string", "Series Instance UID of the SR"),
)
_GROUP_NUMBER = idc_column("measurementGroup_number", "int", "Position among the items of its container, from 0")
_SEGMENT_REFERENCE = (
    idc_column("segmentationInstanceUID", "string", "SOP Instance UID of the SEG that was measured"),
    idc_column("segmentationSeriesUID", "string", "Series Instance UID of that SEG"),
    idc_column("segmentationSegmentNumber", "int", "Segment Number in that SEG"),
    idc_column(
        "sourceSegmentedSeriesUID", "string", "Series Instance UID of the images that were segmented (121232, DCM)"
    ),
)
_TRACKING = (
    idc_column("trackingIdentifier", "string", "Tracking Identifier (112039, DCM)"),
    idc_column("trackingUniqueIdentifier", "string", "Tracking Unique Identifier (112040, DCM)"),
)
_FINDING = (
    idc_column("finding", "code4", "Finding (121071, DCM)"),
    idc_column("findingSite", "code4", "Finding Site, (363698007, SCT) or (G-C0E3, SRT)"),
)
_ALGORITHM = (
    Column("algorithmName", "string", "Algorithm Name (111001, DCM) of the measurement or its group"),
    Column("algorithmVersion", "string", "Algorithm Version (111003, DCM)"),
    Column("algorithmParameters", "strings", "Algorithm Parameters (111002, DCM), one a value"),
)
_STUDY = Column("StudyInstanceUID", "string", "Study Instance UID of the object")
_IMAGE = (
    Column("referencedSOPInstanceUID", "string", "Image of an image-level group (TID 1501), else NULL"),
    Column("ReferencedSeriesInstanceUID", "string", f"{CT}: of the segmented images, or of that image"),
)
_MODIFIERS = (
    Column("topographicalModifier", "code3", "Topographical modifier (106233006, SCT) of the finding site"),
    Column("lateralityModifier", "code3", "Laterality (272741003, SCT) of the finding site"),
)

_SEGMENTATIONS = (
    _PATIENT,
    idc_column("StudyInstanceUID", "string", "Study Instance UID of the SEG"),
    idc_column("SeriesInstanceUID", "string", "Series Instance UID of the SEG"),
    idc_column("SOPInstanceUID", "string", "SOP Instance UID of the SEG"),
    idc_column("FrameOfReferenceUID", "string", "Frame of Reference UID of the SEG"),
    idc_column("SegmentationType", "string", "BINARY, FRACTIONAL or LABELMAP"),
    idc_column("AnatomicRegion", "code3", "First anatomic region"),
    idc_column("AnatomicRegionModifier", "code3", "First modifier of that region"),
    idc_column("SegmentedPropertyCategory", "code3", "Segmented property category"),
    idc_column("SegmentedPropertyType", "property", "Segmented property type with its modifiers (laterality)"),
    idc_column("SegmentAlgorithmType", "string", "AUTOMATIC, SEMIAUTOMATIC or MANUAL"),
    idc_column("SegmentAlgorithmName", "string", "Name of the algorithm"),
    idc_column("SegmentNumber", "int", "Segment Number; fixed by model or mapping, gaps are absent segments"),
    idc_column("TrackingUID", "string", "Tracking UID of the segment"),
    idc_column("TrackingID", "string", "Tracking ID of the segment"),
    idc_column("segmented_SeriesInstanceUID", "string", "Series Instance UID of the images that were segmented"),
    idc_column("viewer_url", "string", "Address of the SEG in IDC's public viewer (for series of IDC)"),
    Column("SOPClassUID", "string", "SOP Class UID of the SEG"),
    Column("ReferencedSeriesInstanceUID", "string", f"{CT}: as segmented_SeriesInstanceUID"),
    Column("SeriesDescription", "string", "Series Description of the SEG"),
    Column("SegmentLabel", "string", "Segment Label"),
    Column("SegmentDescription", "string", "Segment Description"),
    Column("algorithmFamily", "code3", "Algorithm family of the segmentation algorithm identification"),
    *_ALGORITHM,
    Column("RecommendedDisplayCIELabValue", "ints", "Display colour, CIELab as DICOM encodes it"),
)

_MEASUREMENT_GROUPS = (
    *_OBJECT,
    _GROUP_NUMBER,
    _TRACKING[1],
    _TRACKING[0],
    _PATIENT,
    idc_column("SeriesDescription", "string", "Series Description of the SR"),
    *_FINDING,
    _SEGMENT_REFERENCE[3],
    *_SEGMENT_REFERENCE[:3],
    idc_column("contentSequence", "content", "The whole group as it stands in the SR"),
    _STUDY,
    *_IMAGE,
    *_MODIFIERS,
    *_ALGORITHM,
)

_QUANTITATIVE = (
    _PATIENT,
    *_OBJECT,
    idc_column("SeriesDescription", "string", "Series Description of the SR"),
    _GROUP_NUMBER,
    *_SEGMENT_REFERENCE,
    *_TRACKING,
    idc_column("Quantity", "code3", "What was measured (concept name)"),
    idc_column("derivationModifier", "code3", "Derivation (121401, DCM); three NULLs if there is none"),
    idc_column("lateralityModifier", "code3", "Laterality (272741003, SCT); three NULLs if there is none"),
    idc_column("Value", "numeric", "The number, rounded to 9 decimals; NULL if it does not fit"),
    idc_column("Units", "code4", "Unit (UCUM)"),
    *_FINDING,
    _STUDY,
    Column("valueFloat", "float", "The number in full precision"),
    *_IMAGE,
    _MODIFIERS[0],
    *_ALGORITHM,
)

_QUALITATIVE = (
    _PATIENT,
    *_OBJECT,
    _GROUP_NUMBER,
    *_SEGMENT_REFERENCE,
    *_TRACKING,
    idc_column("Quantity", "code3", "What was evaluated (concept name)"),
    idc_column("Value", "code4", "The evaluation (concept code)"),
    *_FINDING,
    _STUDY,
    Column("SeriesDescription", "string", "Series Description of the SR"),
    *_IMAGE,
)

_IMAGE_LEVEL = (
    Column("PatientID", "string", "Patient ID of the object"),
    _STUDY,
    Column("SOPInstanceUID", "string", "SOP Instance UID of the SR"),
    Column("SeriesInstanceUID", "string", "Series Instance UID of the SR"),
    Column("SeriesDescription", "string", "Series Description of the SR"),
    Column("measurementGroup_number", "int", "Position of the group among the items of its container, from 0"),
    Column("trackingIdentifier", "string", "Tracking Identifier (112039, DCM)"),
    Column("trackingUniqueIdentifier", "string", "Tracking Unique Identifier (112040, DCM)"),
    Column("Quantity", "code3", "Concept name: Finding Site, or Target Region (123014, DCM)"),
    Column("Value", "code4", "The anatomy: a landmark or a region"),
    Column("landmark", "string", "Key of mappings/landmarks.csv, as in the table landmarks; NULL for a region"),
    Column("region", "string", "Key of mappings/regions.csv, e.g. chest; NULL for a landmark"),
    *_MODIFIERS,
    Column("finding", "code4", "Finding (121071, DCM) of the group"),
    Column("ReferencedSOPInstanceUID", "string", "The image (slice) that it was found on"),
    Column("ReferencedSeriesInstanceUID", "string", f"{CT}: of that image, from the SR's evidence"),
    Column("ReferencedStudyInstanceUID", "string", "Study of that image, from the SR's evidence"),
    *_ALGORITHM,
)

OBJECT_COLUMNS: dict[str, tuple[Column, ...]] = {
    "segmentations": _SEGMENTATIONS,
    "measurement_groups": _MEASUREMENT_GROUPS,
    "quantitative_measurements": _QUANTITATIVE,
    "qualitative_measurements": _QUALITATIVE,
    "image_level_annotations": _IMAGE_LEVEL,
}
