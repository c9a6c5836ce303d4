"""The records that stages exchange: small and frozen, saved and loaded as JSON.

Conventions, everywhere in the package:

* **Arrays** of a volume have the axes ``[slice k, row j, column i]`` (z, y, x), C order.
* **Affines** are 4x4 and map the *voxel index* ``(i, j, k, 1)`` (column, row, slice) of a pixel **centre** to
  millimetres in the DICOM patient system **LPS** (x to the Left, y to the Posterior, z to the Superior).
  NIfTI files hold RAS: :mod:`ctenrich.geometry` is the only place that converts.
* **Slice index** k starts at 0 and grows along the slice normal ``row cosines x column cosines``; it never travels
  without its SOP Instance UID.
* **Lengths** are mm, volumes mm3, times seconds, sizes bytes.

A record never holds an array; it names the array's file (``numpy.load(path, mmap_mode="r")``). Paths in records are
relative to the series folder unless stated otherwise; :class:`ctenrich.workspace.Workspace` resolves them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ctenrich.reasons import Reason

__all__ = [
    "Box",
    "Check",
    "Cohort",
    "Companion",
    "CompanionLink",
    "DoseCheck",
    "DoseMeasurements",
    "DoseOrigin",
    "DoseValue",
    "EncodedObject",
    "EncodedObjects",
    "FetchedFile",
    "FetchedSeries",
    "Instance",
    "Issue",
    "Landmark",
    "Landmarks",
    "ModelInfo",
    "ObjectKind",
    "Outcome",
    "Product",
    "ProductKind",
    "Proof",
    "ProofState",
    "Quantity",
    "Regions",
    "RoiDrop",
    "RoiRecord",
    "Segment",
    "SegmentDoses",
    "SegmentMasks",
    "SegmentShape",
    "SeriesEntry",
    "SeriesFacts",
    "Severity",
    "ShapeMeasurements",
    "Slice",
    "SliceRegions",
    "SliceScores",
    "SortedSeries",
    "State",
    "StatedGroup",
    "StatedMeasurements",
    "StatedValue",
    "StructureRois",
    "Volume",
]

Vector = tuple[float, float, float]
Matrix4 = tuple[
    tuple[float, float, float, float],
    tuple[float, float, float, float],
    tuple[float, float, float, float],
    tuple[float, float, float, float],
]


# ---------------------------------------------------------------- choices


class State(StrEnum):
    """The five final states of a series or product; each ends in exactly one of them."""

    DONE = "done"
    EXCLUDED = "excluded"
    FAILED = "failed"
    SKIPPED = "skipped"
    NOT_STARTED_BUDGET = "not_started_budget"


class Severity(StrEnum):
    """Severity of an issue: an error makes the product fail, a warning is shown, a note is recorded."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Quantity(StrEnum):
    """The physical quantity of a volume's values."""

    HU = "HU"
    GY = "Gy"
    SUV = "SUV"
    UNKNOWN = "unknown"
    """Not known to be one of the others: a map, or a CT without calibration that the user asked for."""


class ProofState(StrEnum):
    """Result of the proof of one object; an object without a proof is never proven."""

    PROVEN = "proven"
    NOT_PROVEN = "not_proven"
    FAILED = "failed"


class CompanionLink(StrEnum):
    """How a companion (RTSTRUCT, SEG) was linked to its CT series."""

    REFERENCE = "reference"
    FRAME_OF_REFERENCE = "frame_of_reference"
    UNREADABLE = "unreadable"
    """The companion could not be read by the crawl; it is of the same study, or from the folders around the series."""


class RoiDrop(StrEnum):
    """Why an ROI of a structure set became no segment."""

    NO_MAPPING = "no_mapping"
    """No row of mappings/segments.csv has its name, and no pattern of ``contours.rois`` matches it."""
    OTHER_FRAME = "other_frame_of_reference"
    OTHER_SERIES = "other_series"
    """Its contours refer to images of another series."""
    SEVERAL_SERIES = "several_series"
    """It may have been drawn on any of several series."""
    SAME_NAME = "same_name"
    """Another ROI of the same name was drawn (``contours.same_name = "first"``)."""
    DAMAGED = "damaged"
    """It has no voxel, and contours that cannot be read."""
    UNPLACEABLE = "unplaceable"
    """Its contours are on no slice, not parallel to the slices, or beyond the image."""
    NO_AREA = "no_area"
    """It has only points or open lines."""


class ProductKind(StrEnum):
    """Keys of this package's kinds of segmenters and scorers (:mod:`ctenrich.inference.kinds`); others may register."""

    EXPERT = "expert"
    NNUNET = "nnunet"
    BODYPART = "bodypart"


class ObjectKind(StrEnum):
    """Keys of this package's kinds of DICOM objects (:mod:`ctenrich.objects.kinds`); others may register."""

    SEG = "seg"
    SHAPE_SR = "shape_sr"
    DOSE_SR = "dose_sr"
    STATED_SR = "stated_sr"
    FEATURES_SR = "features_sr"
    LANDMARKS_SR = "landmarks_sr"
    REGIONS_SR = "regions_sr"


# ---------------------------------------------------------------- checks


@dataclass(frozen=True)
class Issue:
    """One result of a check: data, not an exception."""

    rule: str
    severity: Severity
    object: str
    """The object concerned: a SOP Instance UID, a segment name or a file name without its folder; never a patient."""
    message: str
    checker: str = "ctenrich"
    checker_version: str = ""


@dataclass(frozen=True)
class Check:
    """One comparison of a proof."""

    name: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True)
class Proof:
    """The proof of the objects of one product."""

    product: str
    checks: tuple[Check, ...]
    hashes: dict[str, str] = field(default_factory=dict)
    """Name (label map, each object) -> SHA-256 of the compared data."""
    not_proven: tuple[str, ...] = ()
    """Kinds of objects for which no proof exists: neither proven nor refuted."""

    @property
    def passed(self) -> bool:
        """Whether every check passed; False for a proof without checks."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    def state_of(self, kind: str) -> ProofState:
        """State of the object of a kind: FAILED for all as soon as one check of the product fails."""
        if not self.passed:
            return ProofState.FAILED
        return ProofState.NOT_PROVEN if kind in self.not_proven else ProofState.PROVEN


# ---------------------------------------------------------------- cohort


@dataclass(frozen=True)
class Instance:
    """One DICOM object as the catalog lists it."""

    sop_instance_uid: str
    """Empty where the catalog has no instance level (series index); then `url` names a whole folder."""
    url: str
    """gs://, s3:// or file:// (absolute); a URL that ends in ``/`` means every object below it."""
    size: int | None = None
    """Bytes, if known."""
    md5: str | None = None
    """Hex MD5 of the file's bytes (IDC's instance_hash), if known."""
    crc32c: str | None = None
    """Base64 CRC32C as reported by object stores, if known."""


@dataclass(frozen=True)
class Companion:
    """An RTSTRUCT or SEG instance that belongs to a CT series."""

    modality: str
    series_instance_uid: str
    instance: Instance
    link: CompanionLink


@dataclass(frozen=True, kw_only=True)
class SeriesFacts:
    """Attributes of a series by which users filter and group; None where the catalog or the header states none.

    Where the instances of a series differ, it is the first value by alphabet.
    """

    image_type: str | None = None
    manufacturer: str | None = None
    manufacturer_model_name: str | None = None
    convolution_kernel: str | None = None
    contrast_bolus_agent: str | None = None
    body_part_examined: str | None = None
    patient_position: str | None = None
    series_description: str | None = None
    study_date: str | None = None
    """As 2020-12-31."""
    patient_age: str | None = None
    """As in DICOM, e.g. 061Y."""
    patient_sex: str | None = None
    slice_thickness: float | None = None
    """The largest, mm."""


@dataclass(frozen=True)
class SeriesEntry:
    """One selected series, with all the catalog metadata that later stages need."""

    collection_id: str
    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    instances: tuple[Instance, ...]
    companions: tuple[Companion, ...] = ()
    crdc_series_uuid: str = ""
    geometry_known: bool = True
    """False if the catalog has no instance geometry; the geometry is then checked after the fetch."""
    license_short_name: str = ""
    source_doi: str = ""
    expected_instances: int | None = None
    """Number of instances by the index; None if unknown, and completeness is then not claimed."""
    notes: tuple[Issue, ...] = field(default=(), repr=False)
    """What the selection found about the series and its companions: issues of the stage fetch."""
    facts: SeriesFacts = field(default=SeriesFacts(), repr=False)

    @property
    def instance_count(self) -> int:
        """Number of instances by the index, else of those that are listed."""
        return self.expected_instances if self.expected_instances is not None else len(self.instances)


@dataclass(frozen=True)
class Cohort:
    """The series that one selection chose, in a stated order."""

    name: str
    series: Sequence[SeriesEntry]
    """A tuple, or the series of a file that are read when they are asked for."""
    sha256: str = ""
    """Hash of the sorted series and instance UIDs: equal for equal cohorts, whatever the input order."""


# ---------------------------------------------------------------- fetch, sort, convert


@dataclass(frozen=True)
class FetchedFile:
    """A file that was fetched and checked."""

    path: str
    """Relative to the series folder, or absolute for a local folder that is read in place."""
    url: str
    size: int
    sha256: str
    sop_instance_uid: str = ""
    """SOP Instance UID of the file by the catalog; empty if the catalog has none."""


@dataclass(frozen=True)
class FetchedSeries:
    """All files of one series and of its companions, checked for completeness."""

    series_instance_uid: str
    study_instance_uid: str
    files: tuple[FetchedFile, ...]
    companions: tuple[FetchedFile, ...] = ()
    expected_instances: int | None = None
    issues: tuple[Issue, ...] = ()


@dataclass(frozen=True)
class Slice:
    """One CT instance of a sorted series."""

    sop_instance_uid: str
    sop_class_uid: str
    path: str
    position: Vector
    """Image Position (Patient), mm, LPS: centre of the first pixel."""
    distance: float
    """Projection of `position` on the slice normal, mm; strictly growing with the slice index."""
    instance_number: int | None = None


@dataclass(frozen=True)
class SortedSeries:
    """One series whose ordered slices form one regular volume: the map from slice index to SOP Instance UID."""

    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    slices: tuple[Slice, ...]
    row_cosines: Vector
    """First three values of Image Orientation (Patient): direction of growing column index."""
    column_cosines: Vector
    """Last three values: direction of growing row index."""
    pixel_spacing: tuple[float, float]
    """(between rows, between columns), mm, as DICOM orders it."""
    slice_spacing: float
    """(last - first) / (n - 1) along the slice normal, mm."""
    rows: int
    columns: int
    companions: tuple[str, ...] = ()
    """Paths of RTSTRUCT and SEG files that belong to this series."""
    source_sha256: str = ""
    """SHA-256 over the slices' SOP Instance UIDs and file hashes in slice order."""
    issues: tuple[Issue, ...] = ()

    @property
    def sop_instance_uids(self) -> tuple[str, ...]:
        """SOP Instance UIDs by slice index."""
        return tuple(s.sop_instance_uid for s in self.slices)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        return len(self.slices), self.rows, self.columns


@dataclass(frozen=True)
class Volume:
    """A CT volume on disk."""

    series_instance_uid: str
    array_path: str
    """``.npy``, int16, axes [slice k, row j, column i], Hounsfield units for CT."""
    shape: tuple[int, int, int]
    affine_lps: Matrix4
    """(i, j, k, 1) -> mm, LPS."""
    spacing: Vector
    """(between slices, between rows, between columns), mm: the order of the array's axes."""
    frame_of_reference_uid: str
    sha256: str
    """SHA-256 of the array's bytes (C order, little endian), without the file header."""
    quantity: Quantity = Quantity.HU
    nifti_path: str | None = None
    issues: tuple[Issue, ...] = ()


# ---------------------------------------------------------------- products


def _schema_without_defaults(schema: Any, defaults: dict[str, Any]) -> Any:
    """A schema whose JSON has no field of `defaults` with that value."""
    from pydantic_core import core_schema  # takes long to import, and is there wherever records are saved

    def serialise_without(record: Any, serialise: Any) -> Any:
        return {k: v for k, v in serialise(record).items() if k not in defaults or v != defaults[k]}

    schema["serialization"] = core_schema.wrap_serializer_function_ser_schema(serialise_without)
    return schema


@dataclass(frozen=True)
class Product:
    """The result of one segmenter or scorer for one series; ``str(product)`` is its key everywhere.

    Keys: ``expert``, ``nnunet:MODEL:CONFIGURATION:FOLDS:MIRROR[:axes=AXES][:step=STEP][:largest=on]``,
    ``bodypart:MODEL``. FOLDS is ``0,1`` or ``all``, MIRROR is ``mirror`` or ``nomirror``.
    """

    kind: str
    """Key of the kind, e.g. ``nnunet``: :class:`ProductKind` or one that another package registers."""
    model: str = ""
    """Name of the model (registry name or folder name), never a path."""
    configuration: str = ""
    folds: tuple[str, ...] = ()
    mirror: bool = True
    axes: str = ""
    """Axes of the network, RAS, LAS or LPS; empty: those of the model in the registry, LPS for every other model."""
    step: float | None = None
    """Distance of the network's tiles as a share of the tile; None: ``[segment] step_size`` of the run."""
    largest_component: bool = False
    """Whether only the largest connected component of each class was kept."""

    def __str__(self) -> str:
        kind = str(self.kind)
        if self.configuration or self.folds:
            mirror = "mirror" if self.mirror else "nomirror"
            stated = [f"axes={self.axes}"] if self.axes else []
            stated += [f"step={self.step:g}"] if self.step is not None else []
            stated += ["largest=on"] if self.largest_component else []
            return ":".join((kind, self.model, self.configuration, ",".join(self.folds), mirror, *stated))
        return f"{kind}:{self.model}" if self.model else kind

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Leave what is not set out of the JSON where version 0.1.0 did not write it."""
        return _schema_without_defaults(handler(source), {"axes": "", "step": None, "largest_component": False})

    @property
    def folder(self) -> str:
        """Name of the product's folder: the key, restricted to characters that are safe on every file system."""
        return str(self).replace(":", "__").replace(",", "-").replace("=", "-")


@dataclass(frozen=True)
class ModelInfo:
    """The model of a product, as stated in objects and tables."""

    name: str
    version: str
    sha256: str
    """SHA-256 of the converted weights (safetensors and JSON): the model's identity."""
    configuration: str = ""
    folds: tuple[str, ...] = ()
    mirror: bool | None = None
    licence: str = ""
    citation: str = ""
    source_url: str = ""
    modality: str = "CT"
    demo: bool = False
    of_files: bool = False
    """Whether it stands for masks of others' files: `sha256` is then the hash of the files, not of weights."""
    learned: bool = False
    """Whether such masks are known to come from a trained network."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Leave what is not set out of the JSON where version 0.1.0 did not write it."""
        return _schema_without_defaults(handler(source), {"of_files": False, "learned": False})


@dataclass(frozen=True)
class Box:
    """A half-open box of a volume: ``array[k0:k1, j0:j1, i0:i1]``."""

    k0: int
    k1: int
    j0: int
    j1: int
    i0: int
    i1: int


@dataclass(frozen=True)
class Segment:
    """One segment of a product; `number` is fixed by the model or mapping, also when others are absent."""

    number: int
    """Segment Number, from 1; the label value where the source is a label map."""
    name: str
    """Key of mappings/segments.csv, e.g. ``heart``, ``lung_left``."""
    source_label: str
    """Its name in the model or the RTSTRUCT."""
    voxels: int
    """Number of voxels; 0 means absent."""
    box: Box | None = None
    """Bounding box; None if absent."""
    mask_path: str | None = None
    """``.npy`` of uint8 0/1, cropped to `box`; None if the product has a label map or the segment is absent."""

    @property
    def absent(self) -> bool:
        """Whether the segment has no voxel."""
        return self.voxels == 0


@dataclass(frozen=True)
class SegmentMasks:
    """The result of a segmenter, on the grid of the source volume.

    A label map if the segments are disjoint (networks), cropped masks if they may overlap (contours, SEG).
    """

    product: Product
    series_instance_uid: str
    shape: tuple[int, int, int]
    segments: tuple[Segment, ...]
    """All segments that the segmenter can find, absent ones included, in order of their number."""
    label_map_path: str | None
    """``.npy`` uint8 or uint16, [k, j, i], values are segment numbers, 0 background."""
    sha256: str
    """SHA-256 over numbers, names, boxes and voxels, in order."""
    model: ModelInfo | None = None
    """None for expert contours."""
    algorithm_type: str = "AUTOMATIC"
    """Segment Algorithm Type (PS3.3 C.8.20.2): AUTOMATIC, SEMIAUTOMATIC or MANUAL."""
    source_sop_instance_uid: str = ""
    """RTSTRUCT or SEG that the masks were read from, if any."""
    issues: tuple[Issue, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    agreement: dict[str, float] = field(default_factory=dict)
    """Segment name -> mean Dice of each fold's result with the ensemble's; empty for a single fold."""
    probabilities_path: str | None = None
    """``.npy`` float16, [class, k, j, i], classes in the order of `segments`; None unless requested."""
    classes_overlap: bool = False
    """Whether each class has a probability of its own (regions); else all classes and the background add up to 1."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Leave what is not set out of the JSON where version 0.1.0 did not write it."""
        return _schema_without_defaults(handler(source), {"classes_overlap": False})


@dataclass(frozen=True, kw_only=True)
class RoiRecord:
    """One ROI of a structure set: the segment that it became, or why it was dropped."""

    number: int
    """ROI Number (3006,0022)."""
    name: str
    """ROI Name (3006,0026), as it is in the file."""
    segment: str = ""
    """Name of the segment; empty if the ROI was dropped."""
    segment_number: int | None = None
    dropped: RoiDrop | None = None
    detail: str = ""
    """Sentence with the cause; empty unless it was dropped."""
    contours: int = 0
    """Contours of all types in the file, unreadable ones included."""
    copies: int | None = None
    """Contours that were removed because they repeat another one; None if the ROI was not drawn."""
    missing_slices: int | None = None
    """Slices without a contour between the first and the last that have one; None if the ROI was not drawn."""
    voxels: dict[str, int] = field(default_factory=dict)
    """Rule of nesting (holes, union, xor) -> voxels; empty if the ROI was not drawn."""
    images: int = 0
    """Images to which its contours refer."""
    images_found: int = 0
    """Images of the series among them."""


@dataclass(frozen=True, kw_only=True)
class StructureRois:
    """All ROIs of the structure set of a series; saved also if none of them became a segment."""

    product: Product
    series_instance_uid: str
    source_sop_instance_uid: str
    """The RT Structure Set."""
    voxel_volume: float
    """mm3."""
    items: tuple[RoiRecord, ...]
    """In the order of the structure set."""


@dataclass(frozen=True, kw_only=True)
class StatedValue:
    """One measurement of another program; each code is (value, coding scheme, meaning)."""

    name: str
    """Its name in the file."""
    quantity: tuple[str, str, str]
    unit: tuple[str, str, str]
    """UCUM."""
    value: float
    """In `unit`."""
    derivation: tuple[str, str, str] | None = None
    """Derivation, e.g. mean; None if none is stated."""


@dataclass(frozen=True, kw_only=True)
class StatedGroup:
    """The measurements of another program about one segment."""

    number: int
    """Segment number."""
    name: str
    """Name of the segment."""
    values: tuple[StatedValue, ...]
    omitted: dict[str, str] = field(default_factory=dict)
    """Name in the file -> why it is not in the report."""


@dataclass(frozen=True, kw_only=True)
class StatedMeasurements:
    """Measurements that another program made of the segments of a product."""

    product: Product
    series_instance_uid: str
    groups: tuple[StatedGroup, ...]
    """One per measured segment."""
    algorithm_name: str
    algorithm_version: str = ""
    files: dict[str, str] = field(default_factory=dict)
    """Name of a file -> its SHA-256."""


@dataclass(frozen=True)
class SliceScores:
    """Body part regression scores of a series, by slice index (0 pelvis_start ... 100 eyes_end)."""

    product: Product
    series_instance_uid: str
    sop_instance_uids: tuple[str, ...]
    z: tuple[float, ...]
    """Distance along the slice normal, mm, relative to the first slice."""
    raw: tuple[float | None, ...]
    """Scores of the network before the linear map."""
    cleaned: tuple[float | None, ...]
    """Mapped, smoothed, tails cut; None where not valid."""
    observed_slope: float | None
    """Score per mm of the fitted line, in order of the slice index."""
    expected_slope: float
    slope_ratio: float | None
    valid_z_spacing: bool | None
    """Sanity flag: whether the observed slope is near the expected one. None: undefined."""
    reverse_z_ordering: bool | None
    """Whether scores fall along the feet-to-head direction of the geometry. None: undefined."""
    expected_z_spacing: float | None
    z_spacing: float
    feet_to_head: bool
    """Whether the slice index grows towards the head, by the affine."""
    lookup_table: dict[str, tuple[float, float]]
    """Landmark -> (mean score, standard deviation)."""
    model: ModelInfo
    sha256: str = ""
    """SHA-256 over UIDs, raw and cleaned scores."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Parameters of the clean-up, under their names in the published JSON."""
    issues: tuple[Issue, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Landmark:
    """One landmark: on a slice, or absent with a stated reason."""

    name: str
    """Key of mappings/landmarks.csv, e.g. ``Th4``, ``lung_start``."""
    score: float
    """The landmark's score in the look-up table."""
    slice_index: int | None = None
    sop_instance_uid: str | None = None
    position: float | None = None
    """Interpolated position of the crossing, mm along the slice normal from the first slice."""
    distance: float | None = None
    """Distance of the chosen slice from the crossing, mm, signed along the slice normal."""
    confidence: float | None = None
    """0 to 1, from the local slope and the look-up table's standard deviation."""
    absent_reason: str | None = None


@dataclass(frozen=True)
class Landmarks:
    """All landmarks of a series, in order of their score."""

    product: Product
    series_instance_uid: str
    items: tuple[Landmark, ...]
    issues: tuple[Issue, ...] = ()


@dataclass(frozen=True)
class SliceRegions:
    """The regions that one slice belongs to; regions overlap by definition."""

    slice_index: int
    sop_instance_uid: str
    score: float | None
    regions: tuple[str, ...]


@dataclass(frozen=True)
class Regions:
    """The body regions of every slice of a series."""

    product: Product
    series_instance_uid: str
    slices: tuple[SliceRegions, ...]
    examined: str
    """"Body part examined" summary, e.g. ``NECK-CHEST-ABDOMEN``; ``NONE`` if undefined."""
    issues: tuple[Issue, ...] = ()


@dataclass(frozen=True)
class SegmentShape:
    """Shape features of one segment."""

    number: int
    name: str
    values: dict[str, float]
    """Feature (pyradiomics' name) -> value in the unit of mappings/features.csv; only defined, finite values."""
    omitted: dict[str, str]
    """Feature -> the reason why it has no value."""
    radiomics: dict[str, float] = field(default_factory=dict)
    """pyradiomics' full name (image type, class, feature) -> value; features with a code are in `values` too."""


@dataclass(frozen=True)
class ShapeMeasurements:
    """Shape features of all segments of a product."""

    product: Product
    series_instance_uid: str
    segments: tuple[SegmentShape, ...]
    engine: str
    """``fast`` or ``pyradiomics``."""
    algorithm_name: str
    algorithm_version: str
    settings_sha256: str = ""
    sha256: str = ""
    issues: tuple[Issue, ...] = ()
    radiomics_version: str = ""
    """Version of pyradiomics, if a settings file requested more than shape features."""
    radiomics_sha256: str = ""
    """SHA-256 of that settings file's content."""
    radiomics_parameters: tuple[str, ...] = ()
    """Discretisation and aggregation of coded first order and texture features; empty where none is coded."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Leave what is not set out of the JSON where version 0.1.0 did not write it."""
        return _schema_without_defaults(handler(source), {"radiomics_parameters": []})


@dataclass(frozen=True, kw_only=True)
class DoseOrigin:
    """An RT Dose that is part of the dose of a product."""

    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    factor: str
    """Factor by which it is multiplied, as a ratio: ``25/23``."""


@dataclass(frozen=True, kw_only=True)
class DoseValue:
    """One dose metric of a segment."""

    metric: str
    """Name with the unit of the value: ``D95%[Gy]``, ``V20Gy[cc]``."""
    unit: str
    """Gy, cm3 or %."""
    value: float | None
    """None where the metric has no value: see `reason`."""
    lower: float | None = None
    upper: float | None = None
    second: float | None = None
    """Value by the second, independent way; None where that does not apply."""
    reason: Reason | None = None


@dataclass(frozen=True, kw_only=True)
class SegmentDoses:
    """Dose metrics of one segment."""

    number: int
    """Segment Number."""
    name: str
    coverage: float
    """Share of the segment inside the dose grid."""
    samples: int
    """Sampling points inside the dose grid."""
    step: tuple[float, float, float]
    """mm between sampling points: (between slices, between rows, between columns)."""
    values: tuple[DoseValue, ...]
    curve: tuple[float, ...] = ()
    """cm3 with at least 0, 0.1, 0.2 ... Gy; empty where the dose grid does not cover the whole segment."""


@dataclass(frozen=True, kw_only=True)
class DoseCheck:
    """A finding about a dose."""

    rule: str
    severity: str
    """error, warning or note."""
    sentence: str
    product: str = ""
    """Empty: the treatment as a whole."""
    organ: str = ""
    value: float | None = None
    limit: float | None = None


@dataclass(frozen=True, kw_only=True)
class DoseMeasurements:
    """Doses of the segments of a product, or why they have none."""

    product: Product
    series_instance_uid: str
    reason: Reason | None = None
    """Why there is no dose; None if there is one."""
    message: str = ""
    origins: tuple[DoseOrigin, ...] = ()
    maximum: float | None = None
    """Largest dose of the grid, Gy."""
    prescription: float | None = None
    """Prescribed dose, Gy; None where it is not known."""
    prescription_source: str | None = None
    """dose_reference, beam_doses or table."""
    segments: tuple[SegmentDoses, ...] = ()
    checks: tuple[DoseCheck, ...] = ()

    @property
    def doses(self) -> str:
        """The doses with their factors, as text."""
        return " + ".join(f"{one.factor} x {one.sop_instance_uid}" for one in self.origins)


@dataclass(frozen=True, kw_only=True)
class FeatureVector:
    """One vector of a feature model: of a segment, or of the whole volume."""

    number: int | None
    """Segment Number; None: the whole volume."""
    name: str
    """Name of the segment; empty for the whole volume."""
    norm: float
    """Euclidean norm."""
    outside: float
    """Share of the network's input that is outside of the volume."""
    input_sha256: str
    """SHA-256 of the network's input, float32 [x, y, z], little endian."""
    sha256: str
    """SHA-256 of the vector's values, float32, little endian."""


@dataclass(frozen=True, kw_only=True)
class ModelVectors:
    """The vectors of one feature model."""

    spec: str
    """As asked for, without the identity of the model, e.g. ``deep:astra``; a folder is named, without its path."""
    model: ModelInfo
    length: int
    crop: str
    """How the input was made."""
    array_path: str
    """``.npy`` float32 [vector, value]."""
    vectors: tuple[FeatureVector, ...]
    """One per row of the array."""
    omitted: dict[str, str] = field(default_factory=dict)
    """Segment -> why it has no vector."""


@dataclass(frozen=True, kw_only=True)
class FeatureVectors:
    """The vectors of all feature models of a run for one product."""

    product: Product
    series_instance_uid: str
    volume_sha256: str
    """Of the volume that they were made from."""
    models: tuple[ModelVectors, ...]
    issues: tuple[Issue, ...] = ()


@dataclass(frozen=True)
class EncodedObject:
    """One written DICOM object."""

    kind: str
    """Key of the kind, e.g. ``seg``: :class:`ObjectKind` or one that another package registers."""
    path: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    sha256: str
    issues: tuple[Issue, ...] = ()


@dataclass(frozen=True)
class EncodedObjects:
    """All DICOM objects of one product."""

    product: Product
    series_instance_uid: str
    objects: tuple[EncodedObject, ...]


# ---------------------------------------------------------------- running


@dataclass(frozen=True)
class Outcome:
    """The final state of one product of one series; of the series itself if ``product`` is empty."""

    series_instance_uid: str
    product: str
    state: State
    stage: str
    reason: Reason | None = None
    message: str = ""
    seconds: float = 0.0
    peak_memory: int = 0
    """Bytes."""
