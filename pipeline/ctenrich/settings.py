"""Settings: one TOML file is read into one frozen record that every stage gets."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason

__all__ = [
    "CodesSettings",
    "ContoursSettings",
    "ConvertSettings",
    "DosesSettings",
    "EncodeSettings",
    "FeaturesSettings",
    "FetchSettings",
    "GeometrySettings",
    "MeasureSettings",
    "Nesting",
    "RunSettings",
    "SameName",
    "SegSettings",
    "SegmentSettings",
    "Settings",
    "ValidateSettings",
    "load_settings",
    "parse_settings",
]


@dataclass(frozen=True)
class GeometrySettings:
    """Tolerances of the geometry rules; the default parameters of the SQL queries are the same numbers.

    No tolerance in mm is larger than a quarter of the spacing to which it applies.
    """

    spacing_relative: float = 0.01
    """Largest deviation of a gap between slices from (last - first) / (n - 1), as a share of that."""
    spacing_absolute: float = 0.05
    """The same in mm; the larger of the two limits applies."""
    line_tolerance: float = 0.1
    """Largest distance of a slice from the line that is fitted through all slices, mm."""
    drift: float = 0.1
    """Largest in-plane drift of the slice positions, mm."""
    cosines: float = 1e-4
    """Largest difference of a direction cosine between slices, and from orthogonal unit vectors."""
    pixel_spacing_relative: float = 1e-3
    """Largest relative difference of pixel spacing between slices."""
    minimum_slices: int = 2
    """Fewest slices that a series may have."""
    allow_not_hu: bool = False
    """Admit values that are not Hounsfield units, or not whole numbers of them (rounded, with an issue)."""


Retrieval = Literal["get", "move"]
"""How objects are retrieved from a DICOM node."""


@dataclass(frozen=True)
class FetchSettings:
    """Fetching objects from a store or an archive."""

    parallel_objects: int = 32
    """Objects that are downloaded at the same time."""
    tries: int = 5
    """Attempts for each object, before the series fails with RETRY_EXHAUSTED."""
    timeout: float = 60.0
    """Seconds without progress."""
    copy_local: bool = False
    """Copy local files into the run's folder instead of reading them in place."""
    disk_quota: int | None = None
    """Bytes that the fetched objects of all series and the volume of the current series may take; not set: no limit."""
    delete_after_use: bool = False
    """Delete the fetched objects of a series once it has ended; a stage that needs them fetches them again."""
    series_at_once: int = 8
    """Series on S3 that one s5cmd downloads; 1: each series on its own."""
    user_project: str | None = None
    """Billing project of requester-pays buckets."""
    anonymous: bool = True
    """Read public buckets without an account; false: use the credentials of this machine."""
    backoff: float = 0.5
    """Seconds before the second attempt; doubled before each further one, with jitter, at most 30."""
    s3_endpoint: str | None = None
    """URL of another S3 service; not set: Amazon's."""
    gs_endpoint: str | None = None
    """URL of another Google Cloud Storage service; not set: Google's."""
    dicom_title: str = "CTENRICH"
    """Application entity title of this side, for DICOM nodes."""
    dicom_retrieval: Retrieval = "get"
    """get: C-GET, objects come back on the same association; move: C-MOVE, the node sends them to `dicom_port`."""
    dicom_port: int = 11112
    """C-MOVE: port on which objects are received, as it is entered at the node for `dicom_title`; 0: any free one."""
    dicom_tls: bool = False
    """TLS with DICOM nodes, also for objects that are received by C-MOVE."""
    tls_ca: str = ""
    """DICOM nodes, DICOMweb, XNAT: PEM file of the authorities that sign the archive's certificate; empty: system's."""
    tls_certificate: str = ""
    """DICOM nodes, DICOMweb: PEM file of this side's certificate."""
    tls_key: str = ""
    """PEM file of the key of that certificate."""


@dataclass(frozen=True)
class ConvertSettings:
    """Conversion of a sorted series to a volume."""

    nifti: bool = True
    """Also write the NIfTI product with dcm2niix, and compare the two."""
    compress_nifti: bool = False
    """Compress the NIfTI product (.nii.gz)."""
    threads: int = 2
    """Threads that decode slices."""
    max_unpacked: int = 4 * 1024**3
    """Decompressed bytes that one object may have."""
    max_volume: int = 8 * 1024**3
    """Bytes that the array of a series may have; two per voxel."""
    decode_timeout: float = 900.0
    """Seconds that decoding the slices of one series may take; checked before each slice."""


Nesting = Literal["holes", "union", "xor"]
"""How contours of one plane that lie in each other are combined."""
SameName = Literal["separate", "merge", "first"]
"""What several ROIs that map to one name become: segments of their own, one united segment, or the first alone."""


@dataclass(frozen=True)
class ContoursSettings:
    """Experts' contours (RTSTRUCT)."""

    nesting: Nesting = "holes"
    """holes: a contour inside another is a hole if it runs the other way round; union: filled; xor: even-odd."""
    same_name: SameName = "separate"
    """ROIs that map to one name: separate segments, merge into one, or the first one only."""
    rois: tuple[str, ...] = ()
    """Regular expressions; ROIs without a mapping whose whole name matches one become segments with a general code."""


@dataclass(frozen=True)
class CodesSettings:
    """Codes of segments."""

    mappings: str = ""
    """Folder with mapping files of your own, used beside the package's: rows of segments.csv; empty: none."""


@dataclass(frozen=True)
class SegmentSettings:
    """Inference of networks."""

    device: str = "auto"
    """auto, cpu or cuda:N."""
    engine: str = "fast"
    """fast, or reference (nnunetv2's own predictor; needs the extra `reference`)."""
    precision: str = "fp32"
    """fp32, bf16 or fp16."""
    step_size: float = 0.5
    """Distance of neighbouring tiles, as a share of the tile; 0.5 is nnU-Net's own."""
    batch_size: int = 0
    """Tiles per forward pass; 0: chosen from the free memory."""
    threads: int = 0
    """CPU threads of the network; 0: all cores."""
    probabilities: bool = False
    """Also keep the probabilities of the classes, float16; FRACTIONAL segmentations have them."""
    crop: str = ""
    """``LOW..HIGH``, two landmarks: segmentation is limited to the slices between them and 60 mm beyond; empty: all."""


@dataclass(frozen=True)
class MeasureSettings:
    """Measurement of segments."""

    engine: str = "fast"
    """fast, or pyradiomics (needs the extra `reference`)."""
    radiomics: str = ""
    """pyradiomics' parameter file (YAML or JSON) for first order and texture features; empty: shape only."""


@dataclass(frozen=True)
class DosesSettings:
    """Doses of the segments, where a series has RT Doses (research only)."""

    enabled: bool = False
    """Calculate dose metrics of every product with masks, and write them as a structured report."""
    metrics: tuple[str, ...] = ()
    """Metrics: mean, max, min, volume, D95%, D2cc, V20Gy[%], V20Gy[cc] ...; empty: the standard ones."""
    bounds: bool = True
    """Bounds of every metric, and a second value by independent code."""


@dataclass(frozen=True)
class FeaturesSettings:
    """Feature vectors of networks (deep features) of the segments of every product with masks."""

    models: tuple[str, ...] = ()
    """Feature models, e.g. ``deep:astra`` or ``deep:FOLDER``; empty: none."""


@dataclass(frozen=True)
class EncodeSettings:
    """Content of the DICOM objects."""

    content_date: str = ""
    """YYYYMMDD; empty: the date of this software's release, so that a second run gives the same bytes."""
    content_time: str = "000000"
    """HHMMSS."""
    seg_type: str = "BINARY"
    """BINARY, LABELMAP or FRACTIONAL."""
    deflated_copy: bool = False
    """Also write a copy of each object with the deflated transfer syntax, to the folder archive."""


@dataclass(frozen=True)
class ValidateSettings:
    """Validators that run in addition to the proof."""

    dciodvfy: bool = True
    """Run dciodvfy of dicom3tools."""
    pixelmed: bool = False
    """Run PixelMed's validator for structured reports; needs Java."""


@dataclass(frozen=True)
class SegSettings:
    """Segmentations that are read for an export or a comparison."""

    max_voxels: int = 2**31
    """Voxels of the largest grid; by default 2000 slices of 1024 x 1024."""
    max_bytes: int = 2 * 1024**3
    """Bytes that the masks of one object may take, each slice of a segment cropped to what it holds."""


@dataclass(frozen=True)
class RunSettings:
    """Running a cohort; none of these settings changes a result."""

    input_workers: int = 1
    """Processes that fetch, sort and convert."""
    output_workers: int = 1
    """Processes that measure, encode, prove and validate."""
    devices: tuple[str, ...] = ()
    """One inference process each, e.g. cuda:0, cuda:1; empty: one process on segment.device."""
    unit_timeout: float = 7200.0
    """Seconds that the stages of one product may take in one worker before it is ended."""
    memory_limit: int = 0
    """Bytes that one worker may use before it is ended; 0: 80 % of the machine's memory."""
    gpu_share: float = 1.0
    """Ray: share of a GPU that one inference actor requests."""
    divide_folders_from: int = 10_000
    """Series of a new run from which on their folders are divided over 256 folders; 0: never."""

    def worker_memory(self) -> int:
        """Bytes that one worker may use: `memory_limit`, else 80 % of the machine's memory."""
        if self.memory_limit:
            return self.memory_limit
        import psutil

        return int(psutil.virtual_memory().total * 0.8)


@dataclass(frozen=True)
class Settings:
    """All settings of a run."""

    geometry: GeometrySettings = field(default_factory=GeometrySettings)
    fetch: FetchSettings = field(default_factory=FetchSettings)
    convert: ConvertSettings = field(default_factory=ConvertSettings)
    segment: SegmentSettings = field(default_factory=SegmentSettings)
    contours: ContoursSettings = field(default_factory=ContoursSettings)
    codes: CodesSettings = field(default_factory=CodesSettings)
    measure: MeasureSettings = field(default_factory=MeasureSettings)
    doses: DosesSettings = field(default_factory=DosesSettings)
    features: FeaturesSettings = field(default_factory=FeaturesSettings)
    encode: EncodeSettings = field(default_factory=EncodeSettings)
    validate: ValidateSettings = field(default_factory=ValidateSettings)
    seg: SegSettings = field(default_factory=SegSettings)
    run: RunSettings = field(default_factory=RunSettings)


def load_settings(path: Path | None) -> Settings:
    """Read a TOML file with one table per section; unknown names are refused.

    Raises
    ------
    UsageError
        BAD_SETTINGS, with the wrong name.
    """
    if path is None:
        return Settings()
    try:
        return parse_settings(tomllib.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        raise UsageError(Reason.BAD_SETTINGS, f"there is no settings file {path.name}") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(Reason.BAD_SETTINGS, f"{path.name} is not TOML: {error}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise UsageError(Reason.BAD_SETTINGS, f"{path.name} is not TOML ({type(error).__name__})") from error


def parse_settings(data: dict[str, Any]) -> Settings:
    """Check a dictionary of sections against the known names and types.

    Raises
    ------
    UsageError
        BAD_SETTINGS, with the name that is wrong.
    """
    from pydantic import TypeAdapter, ValidationError

    known = {f.name: {g.name for g in fields(type(getattr(Settings(), f.name)))} for f in fields(Settings)}
    for section, values in data.items():
        if section not in known or not isinstance(values, dict):
            raise UsageError(Reason.BAD_SETTINGS, f"unknown section {section}", f"known: {', '.join(known)}")
        unknown = sorted(set(values) - known[section])
        if unknown:
            hint = f"known: {', '.join(sorted(known[section]))}"
            raise UsageError(Reason.BAD_SETTINGS, f"unknown setting {section}.{unknown[0]}", hint)
    try:
        return TypeAdapter(Settings).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(Reason.BAD_SETTINGS, f"{where}: {first['msg']}") from error
