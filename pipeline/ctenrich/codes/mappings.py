"""Load mappings/*.csv as checked codes: the only way by which a code value enters an object.

Every row is checked when it is loaded (check digit, blanks, missing parts); :func:`check_mappings` says what else is
wrong with a folder of mappings. Files have one table each:

* ``segments.csv``: what a model or an expert calls a structure -> category, type, laterality, region, colour;
* ``features.csv``: pyradiomics' feature name -> quantity and unit;
* ``landmarks.csv``, ``regions.csv``: body part regression's landmarks and regions -> anatomic sites;
* ``concepts.csv``: further concepts that objects need, and what is known about codes beyond DICOM's dictionaries.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from ctenrich.codes.lint import check_mappings
from ctenrich.codes.terminology import code_fault
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.resources import folder

__all__ = [
    "Code",
    "ConceptCode",
    "FeatureCode",
    "LandmarkCode",
    "RegionCode",
    "SegmentCode",
    "check_mappings",
    "find_segment",
    "load_concepts",
    "load_features",
    "load_landmarks",
    "load_regions",
    "load_segments",
    "mappings_sha256",
    "normalise_label",
]

Row = Mapping[str, str]
T = TypeVar("T")


@dataclass(frozen=True)
class Code:
    """A coded concept (PS3.3 section 8.8)."""

    value: str
    scheme: str
    """Coding Scheme Designator, e.g. SCT, DCM, UCUM, IBSI; ours is 99CTENRICH."""
    meaning: str


@dataclass(frozen=True)
class SegmentCode:
    """How one structure is coded in a SEG and as a finding site in an SR."""

    name: str
    """Key, e.g. ``lung_left``."""
    labels: tuple[str, ...]
    """What models and experts call it, besides the name."""
    category: Code
    """Segmented Property Category (CID 7150)."""
    type: Code
    """Segmented Property Type (CID 7151 and below)."""
    laterality: Code | None
    """Segmented Property Type Modifier (CID 244)."""
    region: Code | None
    """Anatomic Region, where the type is not itself a place (tumour, cyst)."""
    region_modifier: Code | None
    """Laterality of the region."""
    finding: Code
    """Finding (121071, DCM) of a measurement group."""
    colour: tuple[int, int, int]
    """Recommended display colour, RGB 0..255."""

    @property
    def finding_site(self) -> Code:
        """Where it is: the region if there is one, else the structure itself."""
        return self.region or self.type

    @property
    def finding_site_laterality(self) -> Code | None:
        """Laterality of the finding site."""
        return self.region_modifier if self.region else self.laterality


@dataclass(frozen=True)
class FeatureCode:
    """Quantity and unit of one measured feature."""

    name: str
    """pyradiomics' name, without class."""
    feature_class: str
    quantity: Code
    unit: Code


@dataclass(frozen=True)
class LandmarkCode:
    """A landmark of body part regression: its place on the score axis and in the body."""

    name: str
    score_mean: float
    score_sd: float
    site: Code
    modifier: Code | None
    """Topographical modifier: top, bottom, center; None where the landmark is the organ as such."""


@dataclass(frozen=True)
class RegionCode:
    """A body region: a half-open interval of scores, and the anatomic site."""

    name: str
    score_from: float | None
    """Lower end, included; None: open."""
    score_to: float | None
    """Upper end, excluded; None: open."""
    from_landmark: str
    to_landmark: str
    site: Code


@dataclass(frozen=True)
class ConceptCode:
    """A concept that objects use, or what is known about a code."""

    name: str
    code: Code
    status: str
    """``current``, ``older`` (another concept took its place) or ``doubtful``."""
    instead: str
    """Code value that should be used, where the status is not current."""
    note: str


# ---------------------------------------------------------------- loading


def load_segments(path: Path | None = None) -> dict[str, SegmentCode]:
    """Structures by name, in file order.

    Raises
    ------
    UsageError
        BAD_MAPPING, with file and line.
    """
    return _load(path or folder("mappings") / "segments.csv", _segment)


def load_features(path: Path | None = None) -> dict[str, FeatureCode]:
    """Features by pyradiomics' name."""
    return _load(path or folder("mappings") / "features.csv", _feature)


def load_landmarks(path: Path | None = None) -> dict[str, LandmarkCode]:
    """Landmarks by name."""
    return _load(path or folder("mappings") / "landmarks.csv", _landmark)


def load_regions(path: Path | None = None) -> dict[str, RegionCode]:
    """Regions by name."""
    return _load(path or folder("mappings") / "regions.csv", _region)


def load_concepts(path: Path | None = None) -> dict[str, ConceptCode]:
    """Further concepts by name."""
    return _load(path or folder("mappings") / "concepts.csv", _concept)


def normalise_label(label: str) -> str:
    """Lower case, with runs of blanks, dots, dashes and underscores as one underscore."""
    return re.sub(r"[\s_.\-]+", "_", label.strip().casefold()).strip("_")


def find_segment(label: str) -> SegmentCode | None:
    """Structure that a model's label or an ROI's name means; None if no row says so."""
    return _segment_index().get(normalise_label(label))


@cache
def mappings_sha256() -> str:
    """SHA-256 over all mapping files (name and content, sorted): the identity of the codes that objects carry."""
    digest = hashlib.sha256()
    for path in sorted(folder("mappings").glob("*.csv")):
        content = path.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{path.name}:{len(content)}\n".encode() + content)
    return digest.hexdigest()


@cache
def _segment_index() -> dict[str, SegmentCode]:
    index: dict[str, SegmentCode] = {}
    for segment in load_segments().values():
        for label in (segment.name, *segment.labels):
            key = normalise_label(label)
            if key in index and index[key] != segment:
                raise UsageError(Reason.BAD_MAPPING, f"segments.csv: {label!r} means two structures")
            index[key] = segment
    return index


def _load(path: Path, make: Callable[[Row], T]) -> dict[str, T]:
    stamp = path.stat() if path.is_file() else None
    if stamp is None:
        raise UsageError(Reason.BAD_MAPPING, f"there is no mapping file {path.name}")
    return dict(_load_cached(path, stamp.st_mtime_ns, stamp.st_size, make))


@cache
def _load_cached(path: Path, mtime: int, size: int, make: Callable[[Row], T]) -> dict[str, T]:
    out: dict[str, T] = {}
    for line, row in _rows(path):
        try:
            item = make(row)
            name = _need(row, "name")
            if name in out:
                raise ValueError(f"{name!r} stands twice")
        except (KeyError, ValueError) as error:
            what = f"column {error} is missing" if isinstance(error, KeyError) else str(error)
            hint = "ctenrich check-mappings says more"
            raise UsageError(Reason.BAD_MAPPING, f"{path.name}:{line}: {what}", hint) from error
        out[name] = item
    return out


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    with path.open(encoding="utf-8-sig", newline="") as handle:
        reader = csv.DictReader(handle)
        for row in reader:
            yield reader.line_num, {str(k): v for k, v in row.items() if isinstance(v, str)}


def _need(row: Row, column: str) -> str:
    value = row[column].strip()  # also takes away no-break spaces
    if not value:
        raise ValueError(f"{column} is empty")
    return value


def _code(row: Row, prefix: str) -> Code:
    value, scheme, meaning = (_need(row, f"{prefix}_{part}") for part in ("code", "scheme", "meaning"))
    fault = code_fault(scheme, value)
    if fault:
        raise ValueError(f"{prefix}_code {fault}")
    return Code(value, scheme, meaning)


def _optional(row: Row, prefix: str) -> Code | None:
    parts = [row[f"{prefix}_{part}"].strip() for part in ("code", "scheme", "meaning")]
    return _code(row, prefix) if any(parts) else None


def _number(row: Row, column: str) -> float | None:
    return float(row[column]) if row[column].strip() else None


def _segment(row: Row) -> SegmentCode:
    colour = _need(row, "colour")
    if re.fullmatch(r"#[0-9A-Fa-f]{6}", colour) is None:
        raise ValueError(f"colour {colour!r} is not #RRGGBB")
    return SegmentCode(
        name=_need(row, "name"),
        labels=tuple(part for part in row["labels"].split("|") if part),
        category=_code(row, "category"),
        type=_code(row, "type"),
        laterality=_optional(row, "laterality"),
        region=_optional(row, "region"),
        region_modifier=_optional(row, "region_modifier"),
        finding=_code(row, "finding"),
        colour=(int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)),
    )


def _feature(row: Row) -> FeatureCode:
    return FeatureCode(_need(row, "name"), _need(row, "feature_class"), _code(row, "quantity"), _code(row, "unit"))


def _landmark(row: Row) -> LandmarkCode:
    mean, sd = float(_need(row, "score_mean")), float(_need(row, "score_sd"))
    return LandmarkCode(_need(row, "name"), mean, sd, _code(row, "site"), _optional(row, "modifier"))


def _region(row: Row) -> RegionCode:
    ends = _number(row, "score_from"), _number(row, "score_to")
    return RegionCode(_need(row, "name"), *ends, row["from_landmark"], row["to_landmark"], _code(row, "site"))


def _concept(row: Row) -> ConceptCode:
    status = _need(row, "status")
    if status not in {"current", "older", "doubtful"}:
        raise ValueError(f"status {status!r} is not current, older or doubtful")
    code = Code(_need(row, "code"), _need(row, "scheme"), _need(row, "meaning"))
    return ConceptCode(_need(row, "name"), code, status, row["instead"], row["note"])
