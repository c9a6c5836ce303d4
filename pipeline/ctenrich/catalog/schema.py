"""Names, types and modes of the columns of `dicom_all`, as the Imaging Data Commons has them.

IDC's table is the Google Healthcare export of the DICOM objects behind a block of its own columns. The type follows
the value representation (VR) of the DICOM dictionary and the mode its value multiplicity (VM): VM 1 is NULLABLE,
anything else REPEATED. DS and IS stay text. A REPEATED column is never NULL but empty.

The folder catalog holds the columns that are listed here: all of IDC's own, and the DICOM attributes that selection,
reports and links between objects ask for. Person names keep their column but stay NULL: a catalog carries no names.
Birth dates are kept, to find two patients under one Patient ID; queries of this package only count them, so that no
cohort, run or table has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "ADMIN_COLUMNS",
    "COLUMNS",
    "DICOM_COLUMNS",
    "FILE_META",
    "RADIOTHERAPY_COLUMNS",
    "RADIOTHERAPY_MODALITIES",
    "Column",
    "arrow_schema",
    "duckdb_type",
]

_TEXT = "STRING"
_VR_TYPES = {
    **dict.fromkeys(("AE", "AS", "CS", "DS", "IS", "LO", "LT", "SH", "ST", "UC", "UI", "UT"), _TEXT),
    **dict.fromkeys(("FL", "FD"), "FLOAT64"),
    **dict.fromkeys(("US", "SS", "UL", "SL", "US or SS", "AT"), "INT64"),
    "DA": "DATE",
    "TM": "TIME",
    "DT": "TIMESTAMP",
    "PN": "PERSON",
    "SQ": "RECORD",
}
_DUCKDB = {
    "STRING": "VARCHAR",
    "FLOAT64": "DOUBLE",
    "INT64": "BIGINT",
    "DATE": "DATE",
    "TIME": "TIME",
    "TIMESTAMP": "TIMESTAMPTZ",
    "DATETIME": "TIMESTAMP",
}
_NAME_PARTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")


@dataclass(frozen=True)
class Column:
    """One column: name, BigQuery type and mode, and the fields of a record."""

    name: str
    type: str
    """STRING, INT64, FLOAT64, DATE, TIME, TIMESTAMP, DATETIME or RECORD."""
    repeated: bool = False
    fields: tuple[Column, ...] = ()
    vr: str = ""
    """DICOM value representation; empty for IDC's own columns."""

    @property
    def mode(self) -> str:
        """NULLABLE or REPEATED."""
        return "REPEATED" if self.repeated else "NULLABLE"


_CODE: Mapping[str, Any] = {"CodeValue": {}, "CodingSchemeDesignator": {}, "CodeMeaning": {}}
_INSTANCE: Mapping[str, Any] = {"ReferencedSOPClassUID": {}, "ReferencedSOPInstanceUID": {}}
_SEQUENCES: Mapping[str, Any] = {
    "ReferencedSeriesSequence": {
        "SeriesInstanceUID": {},
        "ReferencedInstanceSequence": _INSTANCE,
    },
    "ReferencedFrameOfReferenceSequence": {
        "FrameOfReferenceUID": {},
        "RTReferencedStudySequence": {
            **_INSTANCE,
            "RTReferencedSeriesSequence": {"SeriesInstanceUID": {}, "ContourImageSequence": _INSTANCE},
        },
    },
    "StructureSetROISequence": {"ROINumber": {}, "ReferencedFrameOfReferenceUID": {}, "ROIName": {}},
    "SegmentSequence": {
        "SegmentNumber": {},
        "SegmentLabel": {},
        "SegmentAlgorithmType": {},
        "SegmentAlgorithmName": {},
        "SegmentedPropertyCategoryCodeSequence": _CODE,
        "SegmentedPropertyTypeCodeSequence": _CODE,
        "TrackingID": {},
        "TrackingUID": {},
    },
}

_LEADING = """
collection_name:STRING collection_id:STRING collection_timestamp:DATETIME collection_hash:STRING
collection_init_idc_version:INT64 collection_revised_idc_version:INT64 collection_tumorLocation:STRING
collection_species:STRING collection_cancerType:STRING access:STRING *PatientID idc_case_id:STRING patient_hash:STRING
patient_init_idc_version:INT64 patient_revised_idc_version:INT64 *StudyInstanceUID study_hash:STRING
study_init_idc_version:INT64 study_revised_idc_version:INT64 *SeriesInstanceUID series_uuid:STRING
series_gcs_url:STRING series_aws_url:STRING series_hash:STRING series_init_idc_version:INT64
series_revised_idc_version:INT64 *SOPInstanceUID instance_uuid:STRING gcs_url:STRING gcs_bucket:STRING aws_url:STRING
aws_bucket:STRING instance_size:INT64 instance_hash:STRING instance_init_idc_version:INT64
instance_revised_idc_version:INT64 Source_DOI:STRING Source_URL:STRING Versioned_Source_DOI:STRING
analysis_result_id:STRING license_url:STRING license_long_name:STRING license_short_name:STRING crdc_study_uuid:STRING
crdc_series_uuid:STRING crdc_instance_uuid:STRING
"""

_ATTRIBUTES = """
SOPClassUID FrameOfReferenceUID StudyID AccessionNumber Modality ImageType SpecificCharacterSet SeriesNumber
AcquisitionNumber InstanceNumber NumberOfFrames TemporalPositionIdentifier NumberOfTemporalPositions SliceThickness
SpacingBetweenSlices SliceLocation GantryDetectorTilt PatientPosition PositionReferenceIndicator ImagePositionPatient
ImageOrientationPatient PixelSpacing PatientOrientation Rows Columns PhotometricInterpretation RescaleIntercept
RescaleSlope RescaleType BurnedInAnnotation LossyImageCompression WindowCenter WindowWidth LossyImageCompressionRatio
BitsAllocated BitsStored HighBit PixelRepresentation SamplesPerPixel PixelPaddingValue KVP XRayTubeCurrent Exposure
ExposureTime FilterType ReconstructionDiameter DataCollectionDiameter ProtocolName BodyPartExamined ContrastBolusAgent
ContrastBolusRoute Manufacturer ManufacturerModelName StationName ConvolutionKernel ScanOptions SoftwareVersions
SpiralPitchFactor CTDIvol RevolutionTime TablePosition PatientBirthDate PatientSex PatientAge PatientWeight
PatientSize
StudyDescription SeriesDescription PatientIdentityRemoved ClinicalTrialProtocolID ClinicalTrialTimePointID
DeidentificationMethod LongitudinalTemporalOffsetFromEvent StudyDate SeriesDate AcquisitionDate ContentDate
InstanceCreationDate StudyTime SeriesTime AcquisitionTime ContentTime AcquisitionDateTime SegmentationType
ContentLabel ContentDescription CompletionFlag VerificationFlag ValueType ContinuityOfContent MaximumFractionalValue
PatientName ReferringPhysicianName ContentCreatorName
"""

RADIOTHERAPY_MODALITIES = ("RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD")
"""Modalities whose instances have values in `RADIOTHERAPY_COLUMNS`."""

_RADIOTHERAPY_ATTRIBUTES = """
StructureSetLabel StructureSetName StructureSetDate StructureSetTime ApprovalStatus RTPlanLabel RTPlanName RTPlanDate
RTPlanTime PlanIntent RTPlanGeometry DoseUnits DoseType DoseSummationType DoseGridScaling GridFrameOffsetVector
TissueHeterogeneityCorrection TreatmentDate TreatmentTime ReferencedFractionGroupNumber NumberOfFractionsPlanned
"""

_RADIOTHERAPY_SEQUENCES: Mapping[str, Any] = {
    "ReferencedRTPlanSequence": {
        **_INSTANCE,
        "RTPlanRelationship": {},
        "ReferencedFractionGroupSequence": {
            "ReferencedFractionGroupNumber": {},
            "ReferencedBeamSequence": {"ReferencedBeamNumber": {}},
        },
    },
    "ReferencedStructureSetSequence": _INSTANCE,
    "RTROIObservationsSequence": {"ReferencedROINumber": {}, "ROIObservationLabel": {}, "RTROIInterpretedType": {}},
    "DoseReferenceSequence": {
        "DoseReferenceNumber": {},
        "DoseReferenceUID": {},
        "DoseReferenceStructureType": {},
        "DoseReferenceDescription": {},
        "DoseReferenceType": {},
        "ReferencedROINumber": {},
        "TargetPrescriptionDose": {},
        "DeliveryMaximumDose": {},
    },
    "FractionGroupSequence": {
        "FractionGroupNumber": {},
        "NumberOfFractionsPlanned": {},
        "NumberOfBeams": {},
        "NumberOfBrachyApplicationSetups": {},
        "ReferencedBeamSequence": {"ReferencedBeamNumber": {}, "BeamDose": {}, "BeamMeterset": {}},
    },
    "BeamSequence": {
        "BeamNumber": {},
        "BeamName": {},
        "BeamType": {},
        "RadiationType": {},
        "TreatmentDeliveryType": {},
    },
    "TreatmentSessionBeamSequence": {
        "ReferencedBeamNumber": {},
        "CurrentFractionNumber": {},
        "TreatmentDeliveryType": {},
        "TreatmentTerminationStatus": {},
    },
}

FILE_META = ("TransferSyntaxUID", "MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "ImplementationClassUID")


def _person(name: str) -> Column:
    parts = tuple(Column(part, _TEXT) for part in _NAME_PARTS)
    forms = ("Alphabetic", "Ideographic", "Phonetic")
    return Column(name, "RECORD", False, tuple(Column(form, "RECORD", False, parts) for form in forms), "PN")


def _attribute(keyword: str, children: Mapping[str, Any]) -> Column:
    from pydicom.datadict import dictionary_VM, dictionary_VR

    vr = dictionary_VR(keyword)
    if vr == "PN":
        return _person(keyword)
    repeated = vr == "SQ" or dictionary_VM(keyword) != "1"
    return Column(keyword, _VR_TYPES[vr], repeated, tuple(_attribute(k, v) for k, v in children.items()), vr)


def _leading() -> tuple[Column, ...]:
    pairs = (item.partition(":") for item in _LEADING.split())
    return tuple(_attribute(n[1:], {}) if n.startswith("*") else Column(n, t) for n, _, t in pairs)


ADMIN_COLUMNS: tuple[Column, ...] = _leading()
"""IDC's own block at the head of the table, with the four identifying attributes at their places."""
DICOM_COLUMNS: tuple[Column, ...] = (
    *(_attribute(keyword, {}) for keyword in (*_ATTRIBUTES.split(), *FILE_META)),
    *(_attribute(keyword, children) for keyword, children in _SEQUENCES.items()),
)
"""The DICOM attributes of the table."""
RADIOTHERAPY_COLUMNS: tuple[Column, ...] = (
    *(_attribute(keyword, {}) for keyword in _RADIOTHERAPY_ATTRIBUTES.split()),
    *(_attribute(keyword, children) for keyword, children in _RADIOTHERAPY_SEQUENCES.items()),
)
"""DICOM attributes of plans, doses, structure sets and treatment records; NULL or empty for every other instance."""
COLUMNS: tuple[Column, ...] = ADMIN_COLUMNS + DICOM_COLUMNS + RADIOTHERAPY_COLUMNS
"""All columns in table order."""


def duckdb_type(column: Column) -> str:
    """DuckDB type for a column's BigQuery type and mode."""
    if column.type == "RECORD":
        base = "STRUCT(" + ", ".join(f'"{f.name}" {duckdb_type(f)}' for f in column.fields) + ")"
    else:
        base = _DUCKDB[column.type]
    return f"{base}[]" if column.repeated else base


def _arrow_type(column: Column) -> Any:
    import pyarrow as pa

    scalars = {
        "STRING": pa.string(),
        "FLOAT64": pa.float64(),
        "INT64": pa.int64(),
        "DATE": pa.date32(),
        "TIME": pa.time64("us"),
        "TIMESTAMP": pa.timestamp("us", tz="UTC"),
        "DATETIME": pa.timestamp("us"),
    }
    if column.type == "RECORD":
        base = pa.struct([pa.field(f.name, _arrow_type(f)) for f in column.fields])
    else:
        base = scalars[column.type]
    return pa.list_(base) if column.repeated else base


def arrow_schema(columns: tuple[Column, ...] = COLUMNS) -> Any:
    """`columns` as a pyarrow schema."""
    import pyarrow as pa

    return pa.schema([pa.field(column.name, _arrow_type(column)) for column in columns])
