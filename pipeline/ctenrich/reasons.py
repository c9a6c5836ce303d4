"""Reason codes of outcomes and errors, each with the sentence that the documentation and the report show."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Reason", "current_code"]

_RENAMED = {
    "BOMB": "DECOMPRESSION_BOMB",
    "BOOKS": "INCONSISTENT_TOTALS",
    "ELSEWHERE": "DONE_BY_OTHER_RUNNER",
}
"""Code in ledgers, manifests, cohort files and tables of version 0.1.0 -> code of today."""


class Reason(StrEnum):
    """Why a series or product is not done, or not completely done; ``str(reason)`` is the code.

    Every member has an explanation: ``Reason.ONE_SLICE.sentence``. Codes that version 0.1.0 wrote under another name
    are still read: ``Reason("BOMB") is Reason.DECOMPRESSION_BOMB``.
    """

    sentence: str

    def __new__(cls, code: str, sentence: str = "") -> Reason:
        """Keep the code as the value and the sentence beside it."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.sentence = sentence
        return member

    @classmethod
    def _missing_(cls, value: object) -> Reason | None:
        """Return the member that replaced a code of an earlier version."""
        return cls(_RENAMED[value]) if isinstance(value, str) and value in _RENAMED else None

    # selection and geometry (the same codes in SQL and in Python)
    NOT_CT = "NOT_CT", "The series is not a single-frame CT Image Storage series."
    LOCALIZER = "LOCALIZER", "The series holds a localizer (scout, topogram)."
    DERIVED_REFORMATTED = "DERIVED_REFORMATTED", "The images are derived reformats, projections or secondary captures."
    MULTIFRAME = "MULTIFRAME", "Multi-frame (Enhanced or Legacy Converted) CT is not supported."
    MISSING_GEOMETRY = "MISSING_GEOMETRY", "Position, orientation, spacing or matrix size is missing or not a number."
    MULTI_ORIENTATION = "MULTI_ORIENTATION", "The slices do not share one orientation."
    NOT_ORTHOGONAL = "NOT_ORTHOGONAL", "The direction cosines are not orthogonal unit vectors."
    MULTI_PIXEL_SPACING = "MULTI_PIXEL_SPACING", "The slices do not share one pixel spacing."
    ZERO_SPACING = "ZERO_SPACING", "A pixel or slice spacing is zero or negative."
    MULTI_MATRIX = "MULTI_MATRIX", "The slices do not share one matrix size (Rows, Columns)."
    TOO_FEW_SLICES = "TOO_FEW_SLICES", "The series has fewer slices than a volume needs."
    ONE_SLICE = "ONE_SLICE", "The series has a single slice: no volume can be built."
    DUPLICATE_POSITION = "DUPLICATE_POSITION", "Two slices share one position along the slice normal."
    MIXED_ACQUISITIONS = (
        "MIXED_ACQUISITIONS",
        "The slices of several acquisitions or reconstructions alternate along the slice normal.",
    )
    LATERAL_DRIFT = "LATERAL_DRIFT", "The slices drift sideways: gantry tilt or a sheared stack."
    MISSING_SLICE = "MISSING_SLICE", "A gap is a multiple of the common spacing: slices are missing."
    IRREGULAR_SPACING = "IRREGULAR_SPACING", "The gaps between slices are not uniform."
    MULTI_FRAME_OF_REFERENCE = "MULTI_FRAME_OF_REFERENCE", "The slices do not share one frame of reference."
    MISSING_FRAME_OF_REFERENCE = "MISSING_FRAME_OF_REFERENCE", "The slices have no Frame of Reference UID."
    NOT_HU = "NOT_HU", "The values are not Hounsfield units, or not whole numbers of them."
    NOT_AXIAL = "NOT_AXIAL", "The slices are not near-axial."
    SLICE_THICKNESS = "SLICE_THICKNESS", "The slice thickness is outside the range that was asked for."
    SLICE_COUNT = "SLICE_COUNT", "The number of slices is outside the range that was asked for."
    MANUFACTURER = "MANUFACTURER", "The manufacturer is not among those that were asked for."
    MANUFACTURER_MODEL = "MANUFACTURER_MODEL", "The scanner model is not among those that were asked for."
    CONVOLUTION_KERNEL = "CONVOLUTION_KERNEL", "The convolution kernel is not among those that were asked for."
    BODY_PART = "BODY_PART", "The body part examined is not among those that were asked for."
    PATIENT_POSITION = "PATIENT_POSITION", "The patient position is not among those that were asked for."
    SERIES_DESCRIPTION = "SERIES_DESCRIPTION", "The series description is not among those that were asked for."
    CONTRAST_AGENT = "CONTRAST_AGENT", "The series has a contrast agent, or has none, other than was asked for."
    DERIVED_IMAGE = "DERIVED_IMAGE", "The images are derived ones, which were not asked for."
    PATIENT_SEX = "PATIENT_SEX", "The patient's sex is not among those that were asked for."
    PATIENT_AGE = "PATIENT_AGE", "The patient's age is outside the range that was asked for."
    STUDY_DATE = "STUDY_DATE", "The study date is outside the range that was asked for."
    NOT_STATED = "NOT_STATED", "An attribute that a rule asked about is not stated in the header."
    LOSSY_COMPRESSION = "LOSSY_COMPRESSION", "The pixels were compressed with loss."
    CLINICAL_CRITERION = "CLINICAL_CRITERION", "The patient does not meet the clinical criterion of the query."
    OTHER_SERIES_OF_STUDY = "OTHER_SERIES_OF_STUDY", "The query's order chose another series of the same study."
    NOT_IN_CATALOG = "NOT_IN_CATALOG", "The series is not in the catalog, or was superseded."

    # treatments
    PATIENT_NOT_FOUND = "PATIENT_NOT_FOUND", "A patient of the registry is not in the catalog."
    AMBIGUOUS_PATIENT = "AMBIGUOUS_PATIENT", "Objects of two patients have one Patient ID, or those of one have two."
    NO_PLANNING_CT = "NO_PLANNING_CT", "The images on which the structure set is drawn are not there, or are not CT."
    NO_STRUCTURE_SET = "NO_STRUCTURE_SET", "The patient or the plan has no RT Structure Set."
    NO_PLAN = "NO_PLAN", "The patient has no RT Plan, or none that is considered."
    NO_DOSE = "NO_DOSE", "There is no RT Dose that can be used."
    INCONCLUSIVE = "INCONCLUSIVE", "Several objects are equally likely: a person or a rule must choose."
    EXCLUDED_BY_RULE = "EXCLUDED_BY_RULE", "The treatment fails a rule of the rules file."
    EXCLUDED_BY_DECISION = "EXCLUDED_BY_DECISION", "A person left the patient out."

    # usage
    BAD_QUERY = "BAD_QUERY", "The query is not valid SQL for this catalog."
    BAD_PARAMETER = "BAD_PARAMETER", "A parameter is unknown, missing or of the wrong type."
    MISSING_COLUMN = "MISSING_COLUMN", "The catalog lacks a column that the query needs."
    BYTE_LIMIT = "BYTE_LIMIT", "The query would read more bytes than the limit allows."
    NO_CREDENTIALS = "NO_CREDENTIALS", "No credentials for the cloud service were found."
    UNFINISHED_CRAWL = "UNFINISHED_CRAWL", "The last crawl of the catalog did not end: files are missing from it."
    CATALOG_UNREACHABLE = "CATALOG_UNREACHABLE", "The catalog could not be reached in time."
    EMPTY_INPUT = "EMPTY_INPUT", "The folder holds no DICOM file."
    NO_CT = "NO_CT", "The input holds no CT image."
    EMPTY_COHORT = "EMPTY_COHORT", "No series was selected."
    BAD_COHORT = "BAD_COHORT", "The cohort file cannot be read or was changed by hand."
    BAD_SETTINGS = "BAD_SETTINGS", "The settings file is not valid."
    BAD_RUN = "BAD_RUN", "The folder is not a run, or was made by another version."
    DAMAGED_LEDGER = "DAMAGED_LEDGER", "The run's ledger cannot be read."
    NOT_FOUND = "NOT_FOUND", "A file or name that the command needs does not exist."
    DEMO_MODEL = "DEMO_MODEL", "Demonstration models are for generated studies only."
    BAD_MAPPING = "BAD_MAPPING", "A row of a mapping file is wrong."
    NOT_PREPARED = "NOT_PREPARED", "An earlier stage has not been run for this series."
    MISSING_EXTRA = "MISSING_EXTRA", "An optional package is needed for this command."
    IDENTITY_NOT_REMOVED = (
        "IDENTITY_NOT_REMOVED",
        "Patients could be identified from what would be shared.",
    )
    KEY_FILE = "KEY_FILE", "The file of the secret key is missing, holds no key, or may be read by others."
    BAD_REVIEW = "BAD_REVIEW", "The review file is damaged, or is not a review file that this version can read."
    OTHER_RUN = "OTHER_RUN", "The review file is about another run."
    OUTDATED_REVIEW = "OUTDATED_REVIEW", "The objects have been made again since they were reviewed."
    NOT_ACCEPTED = "NOT_ACCEPTED", "No reviewer has accepted the product, or reviewers disagree about it."
    TABLE_FORMAT = "TABLE_FORMAT", "The format cannot hold the whole table."
    TRANSFER_SYNTAX_REFUSED = (
        "TRANSFER_SYNTAX_REFUSED",
        "The receiver does not take objects of this kind in the transfer syntax of the file.",
    )
    OBJECT_REFUSED = "OBJECT_REFUSED", "The receiver refused an object."
    BAD_PLUGIN = "BAD_PLUGIN", "A plug-in of another package cannot be loaded, or its name is taken."

    # fetch, sort, convert
    INCOMPLETE = "INCOMPLETE", "Objects of the series are missing."
    CHECKSUM = "CHECKSUM", "The bytes do not match their size or checksum."
    RETRY_EXHAUSTED = "RETRY_EXHAUSTED", "The store still failed after the maximum number of attempts."
    RETRIEVE_REFUSED = "RETRIEVE_REFUSED", "The archive refuses to send objects to this side."
    WRONG_OBJECT = "WRONG_OBJECT", "The archive sent another object than the one that was requested."
    DISK_FULL = "DISK_FULL", "There is not enough disk space."
    IO_ERROR = "IO_ERROR", "A file could not be read or written."
    UNSAFE_PATH = "UNSAFE_PATH", "A name, link or archive entry would leave the folder."
    UNSAFE_IDENTIFIER = "UNSAFE_IDENTIFIER", "A UID or the Patient ID is not a valid DICOM identifier."
    DECOMPRESSION_BOMB = "DECOMPRESSION_BOMB", "The decompressed size is far beyond what the file's size justifies."
    NOT_DICOM = "NOT_DICOM", "The file is not DICOM."
    TRUNCATED = "TRUNCATED", "The file or its pixel data is shorter than its header states."
    DECODE_ERROR = "DECODE_ERROR", "The pixel data or contours could not be decoded."
    CONFLICTING_DUPLICATE = "CONFLICTING_DUPLICATE", "Two different images have the same SOP Instance UID."
    MIXED_SERIES = "MIXED_SERIES", "The instances of the series belong to several patients, studies or collections."
    MIXED_PIXEL_FORMAT = "MIXED_PIXEL_FORMAT", "The slices do not share one pixel format."
    HU_RANGE = "HU_RANGE", "Rescaled values do not fit 16 bits, or the rescale is not a number."
    READERS_DISAGREE = "READERS_DISAGREE", "Neither dcm2niix nor SimpleITK read the volume that ctenrich read."

    # pseudonymisation
    NO_PATIENT_ID = "NO_PATIENT_ID", "The object has no Patient ID: nothing states whose it is."
    ENCAPSULATED_DOCUMENT = (
        "ENCAPSULATED_DOCUMENT",
        "The object is an encapsulated document, whose text cannot be cleaned.",
    )
    BURNED_IN_TEXT = "BURNED_IN_TEXT", "The pixels may show text: a capture of a screen, or Burned In Annotation."
    CLASS_NOT_CLEANED = "CLASS_NOT_CLEANED", "Objects of this SOP class are not pseudonymised."

    # listener
    BAD_STATION = "BAD_STATION", "The folder is not a station that this version can use."
    DELIVERY_FAILED = "DELIVERY_FAILED", "A destination could not be reached for too long."
    DELIVERY_REFUSED = "DELIVERY_REFUSED", "A destination refused an object, or failed to process it each time."
    DELIVERY_LOST = "DELIVERY_LOST", "A destination accepted an object more than once, and does not have it."
    STATION_BUSY = "STATION_BUSY", "Another listener is at work on the station."

    # flows
    BAD_FLOW = "BAD_FLOW", "A flow file cannot be used; its last good version stays active."
    SLOW_PATTERN = "SLOW_PATTERN", "A regular expression of a flow took too long."

    # segmentation and scoring
    NO_MODEL = "NO_MODEL", "No model was chosen for this product."
    BAD_MODEL = "BAD_MODEL", "The folder or file is not a usable model."
    UNKNOWN_AXES = "UNKNOWN_AXES", "Nothing states the axes of the arrays that the model was trained on."
    UNSAFE_WEIGHTS = "UNSAFE_WEIGHTS", "The weights hold something other than plain tensors and numbers."
    HASH_MISMATCH = "HASH_MISMATCH", "A file does not have the pinned SHA-256."
    LICENCE_NOT_ACCEPTED = "LICENCE_NOT_ACCEPTED", "The licence of the weights has not been accepted."
    UNMAPPED_LABEL = "UNMAPPED_LABEL", "A label of the model has no row in mappings/segments.csv."
    WRONG_MODALITY = "WRONG_MODALITY", "The model was trained for another modality."
    OUT_OF_MEMORY = "OUT_OF_MEMORY", "Memory ran out, even with the smallest batch."
    NO_EXPERT = "NO_EXPERT", "The series has no expert contours."
    BAD_MASK = "BAD_MASK", "The file holds no masks: several volumes, or values that are no labels."
    BAD_MAP = "BAD_MAP", "The values are no map of the quantity: several volumes, not finite, or outside its range."
    OTHER_GRID = "OTHER_GRID", "The masks or values are on another grid than their source."
    MISSING_MASKS = "MISSING_MASKS", "Some of the masks that belong together are not there."
    WRONG_PLACE = "WRONG_PLACE", "Structures are where they cannot be: mirrored masks, exchanged sides or another CT."
    BAD_MEASUREMENTS = (
        "BAD_MEASUREMENTS",
        "Measurements are not numbers, not of these segments, or contradict them.",
    )
    NO_MEASUREMENTS = "NO_MEASUREMENTS", "No measurements of another program were given: no SR of them is written."
    BAD_DESCRIPTION = "BAD_DESCRIPTION", "The JSON does not describe what it should, or follows another schema."
    NO_REFERENCE = "NO_REFERENCE", "The contours or segments refer to another series."
    NO_MAPPED_ROI = "NO_MAPPED_ROI", "None of the contours has a name that is in the mappings."
    CONTOURS_OFF_SLICES = "CONTOURS_OFF_SLICES", "The contours are outside the slices of the series."
    EMPTY_SEGMENTATION = "EMPTY_SEGMENTATION", "All segments are empty: no SEG is written."
    NO_FEATURES = "NO_FEATURES", "No structure has a feature vector: no SR of them is written."
    NO_LANDMARKS = "NO_LANDMARKS", "No landmark is on a slice: no landmarks SR is written."
    TOO_FEW_SCORES = "TOO_FEW_SCORES", "Too few slices have a score."

    # dose
    NOT_RT_DOSE = "NOT_RT_DOSE", "The file is not an RT Dose object."
    NOT_RT_PLAN = "NOT_RT_PLAN", "The file is not an RT Plan object."
    DOSE_OFFSETS = "DOSE_OFFSETS", "The frame offsets of the dose do not fit its frames or either form of the standard."
    DOSE_VALUES = "DOSE_VALUES", "The stored values are not doses: no scaling, negative, or of another size."
    DOSE_UNITS = "DOSE_UNITS", "The dose is not in Gy."
    DOSE_TYPE = "DOSE_TYPE", "The dose is not a physical dose."
    DOSE_SUMMATION = "DOSE_SUMMATION", "The doses are parts of one plan that must not be added, or not all of them."
    DOSE_OTHER_FRAME = "DOSE_OTHER_FRAME", "The dose has another frame of reference, or another image set."
    DOSE_INCOMPLETE = "DOSE_INCOMPLETE", "The dose grid does not cover the whole structure."
    BEYOND_VOLUME = "BEYOND_VOLUME", "The metric needs more volume than the structure has."
    EMPTY_STRUCTURE = "EMPTY_STRUCTURE", "The structure encloses no volume."

    # objects, running
    ENCODING = "ENCODING", "A DICOM object could not be created."
    PROOF_FAILED = "PROOF_FAILED", "A written object differs from the result that it was made from."
    INVALID_OBJECT = "INVALID_OBJECT", "A validator found errors in an object."
    FOREIGN_OBJECT = (
        "FOREIGN_OBJECT",
        "A model returned an object of another patient, study, frame of reference or grid.",
    )
    EMPTY_OUTPUT = "EMPTY_OUTPUT", "A model returned nothing, and its flow does not allow that."
    OUTPUT_TOO_LARGE = "OUTPUT_TOO_LARGE", "A model wrote more than its step may."
    TOOL_MISSING = "TOOL_MISSING", "A required program is not installed."
    TOOL_FAILED = "TOOL_FAILED", "A required program failed."
    TIMEOUT = "TIMEOUT", "A stage exceeded its time limit."
    WORKER_DIED = "WORKER_DIED", "The worker process died (out of memory or a crash)."
    UPSTREAM_FAILED = "UPSTREAM_FAILED", "An earlier stage of the same series failed."
    BUDGET = "BUDGET", "The budget (time or cost) was spent before the series started."
    OVER_LIMIT = "OVER_LIMIT", "The run was limited to the first series of the cohort."
    DONE_BY_OTHER_RUNNER = "DONE_BY_OTHER_RUNNER", "Another runner that shares the cohort completed it."
    INCONSISTENT_TOTALS = "INCONSISTENT_TOTALS", "Totals are inconsistent."
    INTERNAL = "INTERNAL", "An unexpected error; the log has the details."


def current_code(code: str) -> str:
    """Return today's name of a reason code that any version wrote; other text is returned unchanged."""
    return _RENAMED.get(code, code)
