"""The columns of every result table: first those of IDC's views with their names, order and types, then ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from ctenrich.records import RoiDrop

__all__ = [
    "LATER_TABLES",
    "OBJECT_TABLES",
    "RUN_TABLES",
    "SCHEMA_VERSION",
    "STRICT_TABLES",
    "TABLE_TEXTS",
    "Column",
    "arrow_schema",
    "columns",
]

SCHEMA_VERSION = "2"
"""Raised when a column is renamed, removed or changes its type; stored in the metadata of every Parquet file."""


@dataclass(frozen=True)
class Column:
    """One column: its type in the short names of `_TYPES`, and what it means."""

    name: str
    type: str
    text: str
    strict: bool = False
    """Whether IDC's own view has it (then it keeps IDC's position)."""


_CT = "Series Instance UID of the CT, which joins the table series"


def _idc(name: str, kind: str, text: str) -> Column:
    return Column(name, kind, text, strict=True)


_PATIENT = _idc("PatientID", "string", "Patient ID of the object")
_OBJECT = (
    _idc("SOPInstanceUID", "string", "SOP Instance UID of the SR"),
    _idc("SeriesInstanceUID", "string", "Series Instance UID of the SR"),
)
_GROUP_NUMBER = _idc("measurementGroup_number", "int", "Position among the items of its container, from 0")
_SEGMENT_REFERENCE = (
    _idc("segmentationInstanceUID", "string", "SOP Instance UID of the SEG that was measured"),
    _idc("segmentationSeriesUID", "string", "Series Instance UID of that SEG"),
    _idc("segmentationSegmentNumber", "int", "Segment Number in that SEG"),
    _idc("sourceSegmentedSeriesUID", "string", "Series Instance UID of the images that were segmented (121232, DCM)"),
)
_TRACKING = (
    _idc("trackingIdentifier", "string", "Tracking Identifier (112039, DCM)"),
    _idc("trackingUniqueIdentifier", "string", "Tracking Unique Identifier (112040, DCM)"),
)
_FINDING = (
    _idc("finding", "code4", "Finding (121071, DCM)"),
    _idc("findingSite", "code4", "Finding Site, (363698007, SCT) or (G-C0E3, SRT)"),
)
_ALGORITHM = (
    Column("algorithmName", "string", "Algorithm Name (111001, DCM) of the measurement or its group"),
    Column("algorithmVersion", "string", "Algorithm Version (111003, DCM)"),
    Column("algorithmParameters", "strings", "Algorithm Parameters (111002, DCM), one a value"),
)
_STUDY = Column("StudyInstanceUID", "string", "Study Instance UID of the object")
_IMAGE = (
    Column("referencedSOPInstanceUID", "string", "Image of an image-level group (TID 1501), else NULL"),
    Column("ReferencedSeriesInstanceUID", "string", f"{_CT}: of the segmented images, or of that image"),
)
_MODIFIERS = (
    Column("topographicalModifier", "code3", "Topographical modifier (106233006, SCT) of the finding site"),
    Column("lateralityModifier", "code3", "Laterality (272741003, SCT) of the finding site"),
)

_SEGMENTATIONS = (
    _PATIENT,
    _idc("StudyInstanceUID", "string", "Study Instance UID of the SEG"),
    _idc("SeriesInstanceUID", "string", "Series Instance UID of the SEG"),
    _idc("SOPInstanceUID", "string", "SOP Instance UID of the SEG"),
    _idc("FrameOfReferenceUID", "string", "Frame of Reference UID of the SEG"),
    _idc("SegmentationType", "string", "BINARY, FRACTIONAL or LABELMAP"),
    _idc("AnatomicRegion", "code3", "First anatomic region"),
    _idc("AnatomicRegionModifier", "code3", "First modifier of that region"),
    _idc("SegmentedPropertyCategory", "code3", "Segmented property category"),
    _idc("SegmentedPropertyType", "property", "Segmented property type with its modifiers (laterality)"),
    _idc("SegmentAlgorithmType", "string", "AUTOMATIC, SEMIAUTOMATIC or MANUAL"),
    _idc("SegmentAlgorithmName", "string", "Name of the algorithm"),
    _idc("SegmentNumber", "int", "Segment Number; fixed by model or mapping, gaps are absent segments"),
    _idc("TrackingUID", "string", "Tracking UID of the segment"),
    _idc("TrackingID", "string", "Tracking ID of the segment"),
    _idc("segmented_SeriesInstanceUID", "string", "Series Instance UID of the images that were segmented"),
    _idc("viewer_url", "string", "Address of the SEG in IDC's public viewer (for series of IDC)"),
    Column("SOPClassUID", "string", "SOP Class UID of the SEG"),
    Column("ReferencedSeriesInstanceUID", "string", f"{_CT}: as segmented_SeriesInstanceUID"),
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
    _idc("SeriesDescription", "string", "Series Description of the SR"),
    *_FINDING,
    _SEGMENT_REFERENCE[3],
    *_SEGMENT_REFERENCE[:3],
    _idc("contentSequence", "content", "The whole group as it stands in the SR"),
    _STUDY,
    *_IMAGE,
    *_MODIFIERS,
    *_ALGORITHM,
)

_QUANTITATIVE = (
    _PATIENT,
    *_OBJECT,
    _idc("SeriesDescription", "string", "Series Description of the SR"),
    _GROUP_NUMBER,
    *_SEGMENT_REFERENCE,
    *_TRACKING,
    _idc("Quantity", "code3", "What was measured (concept name)"),
    _idc("derivationModifier", "code3", "Derivation (121401, DCM); three NULLs if there is none"),
    _idc("lateralityModifier", "code3", "Laterality (272741003, SCT); three NULLs if there is none"),
    _idc("Value", "numeric", "The number, rounded to 9 decimals; NULL if it does not fit"),
    _idc("Units", "code4", "Unit (UCUM)"),
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
    _idc("Quantity", "code3", "What was evaluated (concept name)"),
    _idc("Value", "code4", "The evaluation (concept code)"),
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
    Column("ReferencedSeriesInstanceUID", "string", f"{_CT}: of that image, from the SR's evidence"),
    Column("ReferencedStudyInstanceUID", "string", "Study of that image, from the SR's evidence"),
    *_ALGORITHM,
)

_SERIES = "Series Instance UID of the CT"
_PRODUCT = (
    "What made it: expert, nnunet:MODEL:CONFIGURATION:FOLDS:MIRROR[:axes=AXES][:step=STEP][:largest=on] or "
    "bodypart:MODEL"
)
_PATIENT_OF_CT = Column("PatientID", "string", "Patient ID; NULL for series that are not in the cohort file")
_STANDARD_NAME = Column("standard_name", "string", "Name of TG-263, with qualifier or margin; NULL if it has none")
_SIDES = (
    Column("laterality", "string", "Left, Right or NULL; of Lung^Ipsi and the like by the treated side of the series"),
    Column("relative_side", "string", "ipsilateral or contralateral to the treated side; NULL if that is not known"),
)
_RUN: dict[str, tuple[Column, ...]] = {
    "series": (
        Column("SeriesInstanceUID", "string", _SERIES),
        Column("StudyInstanceUID", "string", "Study Instance UID"),
        _PATIENT_OF_CT,
        Column("collection_id", "string", "Collection"),
        Column("FrameOfReferenceUID", "string", "Frame of Reference UID; NULL if the series was not sorted"),
        Column("slices", "int", "Number of slices"),
        Column("rows", "int", "Rows of a slice"),
        Column("columns", "int", "Columns of a slice"),
        Column("pixel_spacing_row", "float", "Distance between rows, mm"),
        Column("pixel_spacing_column", "float", "Distance between columns, mm"),
        Column("slice_spacing", "float", "Distance between slices along the normal, mm"),
        Column("body_part_examined", "string", "Summary of the body part regression, e.g. NECK-CHEST-ABDOMEN"),
        Column("license_short_name", "string", "Licence of the source images"),
        Column("source_doi", "string", "DOI of the source collection"),
        Column("viewer_url", "string", "Address in IDC's public viewer; NULL for series that are not of IDC"),
        Column("ImageType", "string", "Image Type by the catalog; NULL if it states none, as the next ones"),
        Column("Manufacturer", "string", "Manufacturer of the scanner"),
        Column("ManufacturerModelName", "string", "Model of the scanner"),
        Column("ConvolutionKernel", "string", "Convolution Kernel"),
        Column("ContrastBolusAgent", "string", "Contrast/Bolus Agent"),
        Column("BodyPartExamined", "string", "Body Part Examined"),
        Column("PatientPosition", "string", "Patient Position, e.g. HFS"),
        Column("SeriesDescription", "string", "Series Description of the CT"),
        Column("StudyDate", "string", "Study Date, e.g. 2020-12-31"),
        Column("PatientAge", "string", "Patient's Age, e.g. 061Y"),
        Column("PatientSex", "string", "Patient's Sex: M, F or O"),
        Column("SliceThickness", "float", "Largest Slice Thickness, mm"),
        Column("age_years", "float", "Patient's Age in years; NULL for 000Y, which stands for a removed age"),
    ),
    "slices": (
        Column("SeriesInstanceUID", "string", _SERIES),
        _PATIENT_OF_CT,
        Column("StudyInstanceUID", "string", "Study Instance UID of the CT"),
        Column("slice_index", "int", "From 0, growing along the slice normal"),
        Column("SOPInstanceUID", "string", "SOP Instance UID of the slice"),
        Column("distance", "float", "Along the slice normal, mm"),
        Column("x", "float", "Image Position (Patient), mm, LPS"),
        Column("y", "float", "Image Position (Patient), mm, LPS"),
        Column("z", "float", "Image Position (Patient), mm, LPS"),
        Column("score", "float", "Slice score of the body part regression, cleaned; NULL where not valid"),
    ),
    "objects": (
        Column("SOPInstanceUID", "string", "SOP Instance UID of a written object"),
        Column("SOPClassUID", "string", "SOP Class UID"),
        Column("object_series_uid", "string", "Series Instance UID of the object"),
        Column("SeriesInstanceUID", "string", "Series Instance UID of the CT that it belongs to"),
        _PATIENT_OF_CT,
        Column("product", "string", _PRODUCT),
        Column("kind", "string", "seg, shape_sr, stated_sr, landmarks_sr or regions_sr"),
        Column("path", "string", "File, relative to the run's folder"),
        Column("size", "int", "Bytes"),
        Column("sha256", "string", "SHA-256 of the file"),
    ),
    "segments": (
        Column("SeriesInstanceUID", "string", _SERIES),
        _PATIENT_OF_CT,
        Column("product", "string", _PRODUCT),
        Column("segment_number", "int", "Segment Number"),
        Column("segment", "string", "Key of mappings/segments.csv"),
        _STANDARD_NAME,
        Column("source_label", "string", "What the model or the contours call it"),
        Column("voxels", "int", "Number of voxels; 0: absent"),
        Column("absent", "bool", "Whether the segmenter looked for it and found nothing"),
    ),
    "rois": (
        Column("SeriesInstanceUID", "string", _SERIES),
        _PATIENT_OF_CT,
        Column("product", "string", _PRODUCT),
        Column("structure_set_uid", "string", "SOP Instance UID of the RT Structure Set"),
        Column("roi_number", "int", "ROI Number; NULL in runs of versions that did not record ROIs"),
        Column("roi_name", "string", "ROI Name, as it is in the file"),
        Column("segment", "string", "Name of the segment that it became; NULL if it was dropped"),
        _STANDARD_NAME,
        Column("segment_number", "int", "Segment Number in the SEG; NULL if it was dropped"),
        Column("dropped", "string", f"Why it became no segment: {', '.join(RoiDrop)}; NULL if it became one"),
        Column("detail", "string", "Sentence with the cause; NULL if it became a segment"),
        Column("contours", "int", "Contours of all types in the file, unreadable ones included"),
        Column("copies", "int", "Contours that were removed because they repeat another one; NULL if it was not drawn"),
        Column("missing_slices", "int", "Slices without a contour between the first and the last that have one"),
        Column("volume_holes", "float", "mL, with contours of opposite direction inside others as holes"),
        Column("volume_union", "float", "mL, with all contours filled"),
        Column("volume_xor", "float", "mL, with the contours of a slice combined by exclusive or"),
        Column("images", "int", "Images to which its contours refer"),
        Column("images_found", "int", "Images of the series among them"),
    ),
    "landmarks": (
        Column("SeriesInstanceUID", "string", _SERIES),
        _PATIENT_OF_CT,
        Column("product", "string", _PRODUCT),
        Column("landmark", "string", "Key of mappings/landmarks.csv"),
        Column("score", "float", "The landmark's score in the look-up table"),
        Column("slice_index", "int", "NULL if absent"),
        Column("SOPInstanceUID", "string", "Slice that it lands on"),
        Column("position", "float", "Along the slice normal from the first slice, mm"),
        Column("confidence", "float", "0 to 1"),
        Column("absent_reason", "string", "Why it is absent"),
    ),
    "products": (
        Column("product", "string", _PRODUCT),
        Column("alias", "string", "Short name that the product was given when it was requested; NULL if none"),
        Column("kind", "string", "expert, nnunet, bodypart or another kind of segmenter"),
        Column("model", "string", "Name of the model in the registry, or of its folder"),
        Column("model_sha256", "string", "SHA-256 of the model's files"),
        Column("missing", "string", "Why no series has the product (NO_MODEL); NULL if it was run"),
    ),
    "outcomes": (
        Column("SeriesInstanceUID", "string", _SERIES),
        _PATIENT_OF_CT,
        Column("product", "string", _PRODUCT + "; empty: the series itself"),
        Column("state", "string", "done, excluded, failed, skipped or not_started_budget"),
        Column("stage", "string", "Where it ended"),
        Column("reason", "string", "Reason code; empty if done"),
        Column("message", "string", "What happened"),
        Column("seconds", "float", "Wall time"),
        Column("peak_memory", "int", "Bytes"),
    ),
    "issues": (
        Column("SeriesInstanceUID", "string", _SERIES),
        _PATIENT_OF_CT,
        Column("product", "string", _PRODUCT),
        Column("stage", "string", "Stage that found it"),
        Column("rule", "string", "Rule that was broken"),
        Column("severity", "string", "error, warning or note"),
        Column("object", "string", "What it is about"),
        Column("message", "string", "For a person"),
        Column("checker", "string", "Program that checked"),
        Column("checker_version", "string", "Its version"),
    ),
    "proofs": (
        Column("SeriesInstanceUID", "string", _SERIES),
        _PATIENT_OF_CT,
        Column("product", "string", _PRODUCT),
        Column("check", "string", "What had to hold; `ctenrich` docs, Proof and validation, say what each means"),
        Column("passed", "bool", "Whether it held"),
        Column("detail", "string", "What was compared"),
    ),
    "radiomics_features": (
        Column("SeriesInstanceUID", "string", _SERIES),
        _PATIENT_OF_CT,
        Column("product", "string", _PRODUCT),
        Column("segment_number", "int", "Segment Number"),
        Column("segment", "string", "Row of mappings/segments.csv"),
        Column("feature", "string", "pyradiomics' full name: image type, class, feature"),
        Column("value", "float", "Value"),
        Column("pyradiomics_version", "string", "Version of pyradiomics"),
        Column("settings_sha256", "string", "Of the settings file that asked for it"),
    ),
    "timings": (
        Column("SeriesInstanceUID", "string", _SERIES),
        _PATIENT_OF_CT,
        Column("product", "string", _PRODUCT),
        Column("stage", "string", "Stage"),
        Column("attempt", "int", "From 1"),
        Column("seconds", "float", "Wall time"),
        Column("cpu_seconds", "float", "CPU time"),
        Column("peak_memory", "int", "Bytes"),
    ),
    "runs": (
        Column("started", "timestamp", "Start (UTC)"),
        Column("finished", "timestamp", "End (UTC); NULL if it was killed"),
        Column("command", "string", "Command"),
        Column("version", "string", "Version of ctenrich"),
        Column("executor", "string", "serial or ray"),
        Column("ended", "string", "How it ended"),
    ),
}

_DISTANCE_OF_SURFACES = "of the distances between surface voxels, mm; NULL if a mask is empty"
_STRATUM = "all, or the value of the attribute by which series were grouped, e.g. sex: F"
_METRIC = "Column of the table evaluation; volume_error is the absolute volume difference in mL"
_REFERENCE = "Product, file or folder whose masks were the reference"
_LATER = {
    "evaluation": (
        Column("SeriesInstanceUID", "string", _SERIES),
        Column("StudyInstanceUID", "string", "Study Instance UID"),
        Column("PatientID", "string", "Patient ID; NULL if the cohort does not list the series"),
        Column("segment", "string", "Key of mappings/segments.csv; #2 and so on: further masks of one structure"),
        Column("reference", "string", _REFERENCE),
        Column("product", "string", "Product, file or folder that was compared with the reference"),
        Column("dice", "float", "Dice coefficient, 0 to 1; NULL only if both masks are empty"),
        Column("hausdorff", "float", f"Maximum {_DISTANCE_OF_SURFACES}"),
        Column("hausdorff_95_max", "float", f"Larger of both directions' 95th percentiles {_DISTANCE_OF_SURFACES}"),
        Column("hausdorff_95_pooled", "float", f"95th percentile, both directions pooled, {_DISTANCE_OF_SURFACES}"),
        Column(
            "hausdorff_95_voxels", "float", "95th percentile over all voxels (0 inside), larger of both directions, mm"
        ),
        Column("mean_surface_distance", "float", f"Mean of both directions' means {_DISTANCE_OF_SURFACES}"),
        Column("surface_dice_1mm", "float", "Share of the area of both surfaces within 1 mm of the other one"),
        Column("surface_dice_2mm", "float", "The same within 2 mm"),
        Column("surface_dice_3mm", "float", "The same within 3 mm"),
        Column("volume", "float", "Volume of the product's mask, mL"),
        Column("reference_volume", "float", "Volume of the reference, mL"),
        Column("volume_difference", "float", "Volume minus reference volume, mL"),
        Column("centroid_distance", "float", "Distance between the centres of mass, mm"),
        Column("added_path_length", "float", "Length of the reference's contours that the product does not share, mm"),
        Column("note", "string", "Why a value is missing or needs care; NULL if nothing is to be noted"),
    ),
    "evaluation_differences": (
        Column("reference", "string", _REFERENCE),
        Column("segment", "string", "Key of mappings/segments.csv"),
        Column("metric", "string", _METRIC),
        Column("stratum", "string", _STRATUM),
        Column("first", "string", "First product"),
        Column("second", "string", "Second product"),
        Column("series", "int", "Series in which both have a value"),
        Column("median_first", "float", "Median of the first product"),
        Column("median_second", "float", "Median of the second product"),
        Column("median_difference", "float", "Median of the paired differences, first minus second"),
        Column("low", "float", "Lower end of its 95 % interval (percentile bootstrap)"),
        Column("high", "float", "Upper end"),
        Column("p", "float", "Wilcoxon's signed-rank test; NULL if fewer than 6 series differ"),
        Column("p_holm", "float", "Corrected by Holm's method over the organs and pairs of the metric and stratum"),
        Column("effect", "float", "Matched-pairs rank-biserial correlation; positive: the first has higher values"),
        Column("first_better", "int", "Series in which the first is better"),
        Column("second_better", "int", "Series in which the second is better"),
        Column("ties", "int", "Series in which both are equal"),
        Column("finding", "string", "no difference shown, higher, lower, small (below the margin) or not tested"),
        Column("sentence", "string", "The finding with size, interval and p-value"),
    ),
    "evaluation_variance": (
        Column("reference", "string", _REFERENCE),
        Column("segment", "string", "Key of mappings/segments.csv"),
        Column("metric", "string", _METRIC),
        Column("stratum", "string", _STRATUM),
        Column("products", "strings", "Products that were compared together"),
        Column("series", "int", "Series in which every product has a value"),
        Column("f", "float", "F of the repeated-measures analysis of variance"),
        Column("df_products", "float", "Degrees of freedom of the products"),
        Column("df_error", "float", "Degrees of freedom of the error"),
        Column("p", "float", "p-value if the differences are spherical"),
        Column("epsilon", "float", "Greenhouse and Geisser's estimate of sphericity"),
        Column("p_corrected", "float", "p-value with the degrees of freedom multiplied by epsilon"),
        Column("p_holm", "float", "p_corrected by Holm's method over the organs of the metric and stratum"),
        Column("partial_eta_squared", "float", "Effect size, 0 to 1"),
    ),
    "repeatability": (
        Column("product", "string", _PRODUCT),
        Column("segment", "string", "Key of mappings/segments.csv"),
        Column("kind", "string", "Kind of the report, e.g. shape_sr; radiomics_features for features without a code"),
        Column("feature", "string", "Feature, with its derivation if it has one"),
        Column("unit", "string", "Unit of the feature (UCUM); NULL if it is not known"),
        Column("pairs", "int", "Pairs of series"),
        Column("subjects", "int", "Pairs of which both series have a value"),
        Column("mean", "float", "Mean of all values"),
        Column("icc_1_1", "float", "ICC(1,1), one-way random effects; NULL if every value is the same"),
        Column("icc_1_1_low", "float", "Lower end of its 95 % interval"),
        Column("icc_1_1_high", "float", "Upper end"),
        Column("icc_2_1", "float", "ICC(2,1), two-way random effects, absolute agreement"),
        Column("icc_3_1", "float", "ICC(3,1), two-way mixed effects, consistency"),
        Column("icc_3_1_low", "float", "Lower end of its 95 % interval"),
        Column("icc_3_1_high", "float", "Upper end"),
        Column("within_sd", "float", "Within-subject standard deviation"),
        Column("rc", "float", "Repeatability coefficient, 1.96 sqrt(2) within_sd"),
        Column("rc_low", "float", "Lower end of its 95 % interval"),
        Column("rc_high", "float", "Upper end"),
        Column("within_cv", "float", "Within-subject coefficient of variation (share); NULL if a mean is not positive"),
        Column("bias", "float", "Mean difference, retest - test"),
        Column("difference_sd", "float", "Standard deviation of the differences"),
        Column("limit_low", "float", "Lower limit of agreement, bias - 1.96 difference_sd"),
        Column("limit_high", "float", "Upper limit of agreement"),
        Column("note", "string", "Why a number is missing; NULL if none is"),
    ),
    "quality": (
        Column("SeriesInstanceUID", "string", _SERIES),
        Column("product", "string", _PRODUCT),
        Column("organ", "string", "Key of mappings/segments.csv; NULL: the series or the product as a whole"),
        Column("rule", "string", "Check that found it"),
        Column("value", "float", "Measured value; NULL if the check has no number"),
        Column("low", "float", "Lower limit; NULL if there is none"),
        Column("high", "float", "Upper limit; NULL if there is none"),
        Column("unit", "string", "Unit of value and limits"),
        Column("severity", "string", "error, warning or note"),
        Column("weight", "float", "Weight in the ranked list; 0: a note"),
        Column("slice_index", "int", "Slice to look at; NULL if none is better than others"),
        Column("sentence", "string", "The finding with value and limit"),
    ),
    "quality_ranking": (
        Column("rank", "int", "1: to be looked at first"),
        Column("SeriesInstanceUID", "string", _SERIES),
        Column("product", "string", _PRODUCT),
        Column("score", "float", "Sum over the checks of the largest weight of their findings; 0: nothing was found"),
        Column("findings", "int", "Findings that are not notes"),
        Column("reasons", "strings", "Their sentences, the gravest first"),
    ),
    "dose_metrics": (
        Column("SeriesInstanceUID", "string", _SERIES),
        Column("product", "string", _PRODUCT),
        Column("segment_number", "int", "Segment Number"),
        Column("organ", "string", "Key of mappings/segments.csv"),
        _STANDARD_NAME,
        *_SIDES,
        Column("metric", "string", "D95%[Gy], D2cc[Gy], V20Gy[%], V20Gy[cc], Mean[Gy], Min[Gy], Max[Gy], Volume[cc]"),
        Column("value", "float", "Value; NULL with a reason where there is none"),
        Column("unit", "string", "Gy, cm3 or %"),
        Column("lower", "float", "Lower bound; NULL where none is known"),
        Column("upper", "float", "Upper bound; NULL where none is known"),
        Column("reason", "string", "Reason code where there is no value"),
        Column("relative_percent", "float", "Doses in percent of the prescription; NULL where none is known"),
        Column("prescription_gy", "float", "Prescribed dose, Gy; NULL where none is known"),
        Column("prescription_source", "string", "dose_reference, beam_doses or table"),
        Column("coverage", "float", "Share of the segment inside the dose grid"),
        Column("second_value", "float", "Value by the second, independent way; NULL where that does not apply"),
        Column("second_difference", "float", "second_value - value"),
        Column("samples", "int", "Sampling points inside the dose grid"),
        Column("step_slice_mm", "float", "Distance of sampling points between slices, mm"),
        Column("step_row_mm", "float", "Distance of sampling points between rows, mm"),
        Column("step_column_mm", "float", "Distance of sampling points between columns, mm"),
        Column("doses", "string", "SOP Instance UIDs of the doses, each with its factor"),
    ),
    "dvh_curves": (
        Column("SeriesInstanceUID", "string", _SERIES),
        Column("product", "string", _PRODUCT),
        Column("segment_number", "int", "Segment Number"),
        Column("organ", "string", "Key of mappings/segments.csv"),
        _STANDARD_NAME,
        *_SIDES,
        Column("dose_gy", "float", "Dose, Gy"),
        Column("volume_cm3", "float", "Volume with at least this dose, cm3"),
        Column("volume_share", "float", "The same as a share of the segment"),
    ),
    "dose_differences": (
        Column("SeriesInstanceUID", "string", _SERIES),
        Column("product", "string", _PRODUCT),
        Column("segment_number", "int", "Segment Number"),
        Column("organ", "string", "Key of mappings/segments.csv"),
        _STANDARD_NAME,
        *_SIDES,
        Column("reference", "string", "Product of the expert that it is compared with"),
        Column("mean_gy", "float", "Mean dose, Gy"),
        Column("reference_mean_gy", "float", "Mean dose of the expert's organ, Gy"),
        Column("difference_mean_gy", "float", "mean_gy - reference_mean_gy"),
        Column("within_bounds_mean_gy", "bool", "Whether the bounds of the two mean doses overlap"),
        Column("d2cc_gy", "float", "Minimum dose to the hottest 2 cm3, Gy"),
        Column("reference_d2cc_gy", "float", "The same in the expert's organ, Gy"),
        Column("difference_d2cc_gy", "float", "d2cc_gy - reference_d2cc_gy"),
        Column("within_bounds_d2cc_gy", "bool", "Whether the bounds of the two overlap"),
        Column("v20gy_percent", "float", "Share of the organ with at least 20 Gy, %"),
        Column("reference_v20gy_percent", "float", "The same of the expert's organ, %"),
        Column("difference_v20gy_percent", "float", "v20gy_percent - reference_v20gy_percent"),
        Column("within_bounds_v20gy_percent", "bool", "Whether the bounds of the two overlap"),
    ),
    "dose_checks": (
        Column("SeriesInstanceUID", "string", _SERIES),
        Column("product", "string", "Product; NULL: the treatment as a whole"),
        Column("organ", "string", "Key of mappings/segments.csv; NULL: the treatment as a whole"),
        Column("rule", "string", "Check that found it"),
        Column("severity", "string", "error, warning or note"),
        Column("value", "float", "Value; NULL if the check has no number"),
        Column("limit", "float", "Limit; NULL if there is none"),
        Column("sentence", "string", "The finding"),
    ),
    "reviews": (
        Column("SeriesInstanceUID", "string", _SERIES),
        Column("product", "string", _PRODUCT),
        Column(
            "state", "string", "State of the product by all reviews: accepted, rejected, disputed, outdated, commented"
        ),
        Column("decision", "string", "accept, reject or comment"),
        Column("reason", "string", "Reason of the decision; NULL if none was given"),
        Column("comment", "string", "Free text; NULL if none was given"),
        Column("reviewer", "string", "Name that the reviewer entered"),
        Column("time", "string", "When the reviewer decided, ISO 8601, UTC"),
        Column("imported", "string", "When the review was imported, ISO 8601, UTC"),
        Column("objects", "string", "Version of the objects that were reviewed: a hash of their SOP Instance UIDs"),
        Column("current", "bool", "Whether the product still has these objects"),
        Column("last", "bool", "Whether the reviewer has no newer review of the product"),
    ),
}
_RUN |= {
    "deep_features": (
        Column("SeriesInstanceUID", "string", _SERIES),
        Column("product", "string", _PRODUCT),
        Column("segment_number", "int", "Segment Number; NULL: the whole volume"),
        Column("segment", "string", "Key of mappings/segments.csv; NULL: the whole volume"),
        Column("features", "string", "Feature model as asked for, e.g. deep:astra"),
        Column("model", "string", "Name that the model states"),
        Column("model_version", "string", "Its version"),
        Column("model_sha256", "string", "Identity of network and rules; vectors of one identity can be compared"),
        Column("crop", "string", "How the network's input was made"),
        Column("outside", "float", "Share of the input that is outside of the volume"),
        Column("length", "int", "Number of values"),
        Column("norm", "float", "Euclidean norm"),
        Column("vector", "floats", "The values, float32"),
        Column("vector_sha256", "string", "SHA-256 of the values, float32, little endian"),
        Column("input_sha256", "string", "SHA-256 of the network's input, float32 [x, y, z], little endian"),
    ),
}
_TIDY_SERIES = (
    _PATIENT_OF_CT,
    Column("StudyInstanceUID", "string", "Study Instance UID"),
    Column("SeriesInstanceUID", "string", _SERIES),
    Column("collection_id", "string", "Collection"),
    Column("StudyDate", "string", "Study Date, e.g. 2020-12-31"),
    Column("age_years", "float", "Patient's Age in years; NULL if it is not known"),
    Column("sex", "string", "Patient's Sex: M, F or O"),
    Column("scanner", "string", "Manufacturer and model of the scanner"),
)
_LUNG_ENDS = (
    Column("lung_start", "bool", "Whether the lower end of the lungs was found; NULL without body part regression"),
    Column("lung_end", "bool", "Whether the upper end of the lungs was found; NULL without body part regression"),
)
_TIDY = {
    "organs": (
        *_TIDY_SERIES,
        Column("product", "string", _PRODUCT),
        Column("organ", "string", "Key of mappings/segments.csv, e.g. heart, lung_left; as `segment` elsewhere"),
        _STANDARD_NAME,
        *_SIDES,
        Column("segment_number", "int", "Segment Number in the SEG"),
        Column("absent", "bool", "Whether the segmenter looked for it and found nothing"),
        Column("volume_ml", "float", "Volume from voxel summation, mL; NULL if absent"),
        Column("mean_hu", "float", "Mean of the CT in the organ, HU; NULL if absent, or if the volume is not in HU"),
        Column("expert_dice", "float", "Dice against the contours of the expert; NULL if there are none"),
        *_LUNG_ENDS,
        Column("needs_review", "bool", "Whether review_reasons has a reason"),
        Column(
            "review_reasons",
            "string",
            "absent, volume outlier, Dice below 0.5, or rules of checks that warn; separated by ;",
        ),
    ),
    "cohort_series": (
        *_TIDY_SERIES,
        Column("SeriesDescription", "string", "Series Description of the CT"),
        Column("ConvolutionKernel", "string", "Convolution Kernel"),
        Column("slices", "int", "Number of slices"),
        Column("slice_spacing", "float", "Distance between slices along the normal, mm"),
        Column("SliceThickness", "float", "Largest Slice Thickness, mm"),
        Column("body_part_examined", "string", "Summary of the body part regression, e.g. NECK-CHEST-ABDOMEN"),
        *_LUNG_ENDS,
        Column("treated_side", "string", "Left or Right, by targets and dose; NULL if not known, or if they differ"),
        Column("treated_side_source", "string", "target and dose, target, dose, or target and dose differ"),
        Column("lung_height_mm", "float", "Distance of the two ends along the slice normal, mm"),
        Column("state", "string", "done, excluded, failed, skipped or not_started_budget"),
        Column("reason", "string", "Reason code; NULL if done"),
        Column("objects", "int", "Number of DICOM objects written"),
    ),
}
_RUN |= _TIDY

_OBJECTS = {
    "segmentations": _SEGMENTATIONS,
    "measurement_groups": _MEASUREMENT_GROUPS,
    "quantitative_measurements": _QUANTITATIVE,
    "qualitative_measurements": _QUALITATIVE,
    "image_level_annotations": _IMAGE_LEVEL,
}

OBJECT_TABLES = tuple(_OBJECTS)
"""Tables that come from the written DICOM objects alone."""
STRICT_TABLES = OBJECT_TABLES[:4]
"""Tables that also exist as ``strict_NAME``: IDC's columns and IDC's drops, nothing else."""
RUN_TABLES = tuple(_RUN)
"""Tables that come from the run's records and ledger."""
LATER_TABLES = tuple(_LATER)
"""Tables that ``evaluate``, ``compare``, ``repeatability``, ``quality``, ``run --dose`` and ``review`` write."""


TABLE_TEXTS: Mapping[str, str] = MappingProxyType(
    {
        "organs": "organ of a product and series, with patient, scanner, volume, Dice and what to review",
        "cohort_series": "series of the cohort, with patient, scanner, state and lung ends",
        "segmentations": "segment of a SEG",
        "measurement_groups": "measurement group of an SR",
        "quantitative_measurements": "measured value",
        "qualitative_measurements": "coded evaluation",
        "image_level_annotations": "landmark or region on a slice",
        "dicom_metadata": "object, with every attribute",
        "products": "product that was requested, with its alias and model",
        "series": "CT series of the cohort, with its geometry and licence",
        "slices": "slice: index, position in mm, slice score",
        "objects": "written object: product, kind, file",
        "segments": "segment that the segmenter can find, absent ones included",
        "rois": "ROI of the structure set",
        "landmarks": "landmark of the model, with the reason if it is absent",
        "outcomes": "final state of a series or product",
        "issues": "issue found by a check",
        "proofs": "check of the proof of a product",
        "radiomics_features": "first order or texture feature of a segment",
        "deep_features": "feature vector of a segment, or of the whole volume, by a feature model",
        "timings": "stage of a product",
        "runs": "call of the command",
        "evaluation": "organ of a product that was compared with a reference",
        "evaluation_differences": "pair of products that were compared in an organ",
        "evaluation_variance": "organ in which all products were compared",
        "repeatability": "feature that was measured twice in pairs of series",
        "dose_metrics": "dose metric of a segment of a product",
        "dvh_curves": "point of the dose-volume curve of a segment",
        "dose_differences": "organ of a network with doses beside those of the expert's",
        "dose_checks": "finding about the dose of a series",
        "reviews": "decision or comment of a reviewer about a product of a series",
    }
)
"""Table -> what one row is, in the order in which tables are listed."""


def columns(table: str) -> tuple[Column, ...]:
    """Columns of a table, ``strict_`` ones included, in order."""
    if table.startswith("strict_"):
        return tuple(c for c in _OBJECTS[table.removeprefix("strict_")] if c.strict)
    return (_OBJECTS | _RUN | _LATER)[table]


@cache
def arrow_schema(table: str) -> Any:
    """The table's :class:`pyarrow.Schema`, each field with its description."""
    import pyarrow as pa

    kinds = _types()
    fields = [pa.field(c.name, kinds[c.type], metadata={"description": c.text}) for c in columns(table)]
    return pa.schema(fields, metadata={"ctenrich_schema": SCHEMA_VERSION, "ctenrich_table": table})


@cache
def _types() -> dict[str, Any]:
    import pyarrow as pa

    text = pa.string()
    names = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
    code3 = pa.struct([pa.field(n, text) for n in names])
    four = ("CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning")
    code4 = pa.struct([pa.field(n, text) for n in four])
    many = pa.list_(pa.field("element", code3))
    modifiers = ("AnatomicRegionModifierSequence", "SegmentedPropertyTypeModifierCodeSequence")
    return {
        "string": text,
        "strings": pa.list_(pa.field("element", text)),
        "int": pa.int64(),
        "floats": pa.list_(pa.field("element", pa.float64())),
        "ints": pa.list_(pa.field("element", pa.int64())),
        "float": pa.float64(),
        "bool": pa.bool_(),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "numeric": pa.decimal128(38, 9),
        "code3": code3,
        "code4": code4,
        "property": pa.struct([*code3, *(pa.field(n, many) for n in modifiers)]),
        "content": content_type(6),
    }


def content_type(levels: int) -> Any:
    """Struct of an SR content item with `levels` nested levels of children (below them nothing is kept)."""
    import pyarrow as pa

    text = pa.string()
    texts, ints = pa.list_(pa.field("element", text)), pa.list_(pa.field("element", pa.int64()))
    names = ("CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning")
    codes = pa.list_(pa.field("element", pa.struct([pa.field(n, text) for n in names])))
    reference = [
        pa.field("ReferencedSOPClassUID", text),
        pa.field("ReferencedSOPInstanceUID", text),
        pa.field("ReferencedFrameNumber", texts),
        pa.field("ReferencedSegmentNumber", ints),
    ]
    measured = [
        pa.field("NumericValue", texts),
        pa.field("FloatingPointValue", pa.list_(pa.field("element", pa.float64()))),
        pa.field("MeasurementUnitsCodeSequence", codes),
    ]
    template = [pa.field(n, text) for n in ("MappingResource", "MappingResourceUID", "TemplateIdentifier")]
    fields = [
        pa.field("RelationshipType", text),
        pa.field("ValueType", text),
        pa.field("ContinuityOfContent", text),
        pa.field("UID", text),
        pa.field("TextValue", text),
        pa.field("Date", pa.date32()),
        pa.field("Time", pa.time64("us")),
        pa.field("DateTime", pa.timestamp("us", tz="UTC")),
        pa.field("PersonName", _person()),
        pa.field("ConceptNameCodeSequence", codes),
        pa.field("ConceptCodeSequence", codes),
        pa.field("ReferencedSOPSequence", pa.list_(pa.field("element", pa.struct(reference)))),
        pa.field("MeasuredValueSequence", pa.list_(pa.field("element", pa.struct(measured)))),
        pa.field("NumericValueQualifierCodeSequence", codes),
        pa.field("ContentTemplateSequence", pa.list_(pa.field("element", pa.struct(template)))),
        pa.field("GraphicType", text),
        pa.field("GraphicData", pa.list_(pa.field("element", pa.float64()))),
        pa.field("ReferencedFrameOfReferenceUID", text),
    ]
    if levels > 1:
        fields.append(pa.field("ContentSequence", pa.list_(pa.field("element", content_type(levels - 1)))))
    return pa.struct(fields)


def _person() -> Any:
    import pyarrow as pa

    parts = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
    group = pa.struct([pa.field(p, pa.string()) for p in parts])
    return pa.struct([pa.field(n, group) for n in ("Alphabetic", "Ideographic", "Phonetic")])
