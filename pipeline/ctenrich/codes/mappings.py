"""Load mappings/*.csv as checked codes: the only source of code values in objects.

Every row is checked when it is loaded (check digit, blanks, missing parts); :mod:`ctenrich.codes.lint` finds further
faults in a folder of mappings. Each file has one table:

* ``segments.csv``: name of a structure in a model or of an expert -> category, type, laterality, region, colour;
* ``features.csv``: pyradiomics' feature name -> quantity and unit;
* ``landmarks.csv``, ``regions.csv``: body part regression's landmarks and regions -> anatomic sites;
* ``concepts.csv``: further concepts in objects, and knowledge about codes beyond DICOM's dictionaries;
* ``structures.csv``: name of TG-263 -> type, laterality, for names without a row in ``segments.csv``;
* ``rois.csv``: the general code of an expert's ROI that has no row in ``segments.csv`` and was asked for by name;
* ``tasks.csv``, ``parts.csv``: label tables of published models (:mod:`ctenrich.codes.tasks`).

A folder of the user's (:func:`use_mappings`) is used beside the package's: its ``segments.csv`` adds rows and replaces
those of the same name, its ``rois.csv`` replaces the package's.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import TypeVar

from ctenrich.codes.terminology import code_fault
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Severity
from ctenrich.resources import folder

__all__ = [
    "CODES_REVISION",
    "GENERAL",
    "Code",
    "ConceptCode",
    "FeatureCode",
    "LandmarkCode",
    "MapQuantity",
    "RegionCode",
    "SegmentCode",
    "codes_of",
    "codes_sha256",
    "find_segment",
    "general_name",
    "general_sha256",
    "labels_sha256",
    "load_concepts",
    "load_dose_metrics",
    "load_features",
    "load_landmarks",
    "load_map_quantities",
    "load_regions",
    "load_segments",
    "newer_codes",
    "normalise_label",
    "numbered_name",
    "plain_name",
    "standard_code",
    "use_mappings",
]

GENERAL = "roi"
"""Name of the row of rois.csv, and the start of the names of segments that have its code."""

CODES_REVISION = "bff15f79c207d176074a86d4f554566ed32bd65a00098386d7e2d4abb137aa41"
"""Identity of the package's codes: the SHA-256 of the mapping files of version 0.1.0, which its objects carry.

Set by hand to another value when a row of features.csv, landmarks.csv or regions.csv, or a concept that objects carry,
changes. A row of segments.csv that is added or changed gets a higher `revision` instead (:func:`newer_codes`), so that
objects without that structure stay what they are.
"""

_STATUSES = ("current", "older", "entire", "doubtful")

_RELATIVE = ("Ipsi", "Contra")
_DERIVED = re.compile(r"_PRV\d{0,2}|-(GTV|CTV|PTV|ITV)$")
"""Margin, or subtracted target, in a name of TG-263."""
_TARGET_NAME = re.compile(r"(I?GTV|I?CTV|ITV|PTV)")
_SEPARATOR = "#"
"""Between the name of a row and the number of a further segment with the same code."""

Row = Mapping[str, str]
T = TypeVar("T")


@dataclass(frozen=True)
class Code:
    """A coded concept (PS3.3 section 8.8)."""

    value: str
    scheme: str
    """Coding Scheme Designator, e.g. SCT, DCM, UCUM, IBSI; ours is 99CTENRICH."""
    meaning: str


@dataclass(frozen=True, kw_only=True)
class SegmentCode:
    """Codes of one structure in a SEG and as a finding site in an SR."""

    name: str
    """Key, e.g. ``lung_left``."""
    labels: tuple[str, ...]
    """Its other names in models and of experts."""
    category: Code
    """Segmented Property Category (CID 7150)."""
    type: Code
    """Segmented Property Type (CID 7151 and below)."""
    laterality: Code | None
    """Segmented Property Type Modifier (CID 244)."""
    region: Code | None
    """Anatomic Region, if the type is not itself a location (tumour, cyst)."""
    region_modifier: Code | None
    """Laterality of the region."""
    finding: Code
    """Finding (121071, DCM) of a measurement group."""
    colour: tuple[int, int, int]
    """Recommended display colour, RGB 0..255."""
    revision: int = 1
    """Revision of the package's codes in which the row was added or last changed."""
    system: str = ""
    """Body system under which reports list the structure, e.g. ``Heart and vessels``; empty: none."""

    @property
    def finding_site(self) -> Code:
        """Finding site: the region if there is one, otherwise the structure itself."""
        return self.region or self.type

    @property
    def finding_site_laterality(self) -> Code | None:
        """Laterality of the finding site."""
        return self.region_modifier if self.region else self.laterality


@dataclass(frozen=True)
class _StructureRow:
    """A standard name (structures.csv) with its codes."""

    base: str
    side: str
    code: Code | None
    laterality: Code | None


@dataclass(frozen=True, kw_only=True)
class FeatureCode:
    """Quantity and unit of one measured feature."""

    name: str
    """pyradiomics' name, that of a texture after its class: ``Sphericity``, ``glcm_Contrast``."""
    feature_class: str
    quantity: Code
    unit: Code

    @property
    def full_name(self) -> str:
        """Name in the results of pyradiomics for the unfiltered image, e.g. ``original_firstorder_Mean``."""
        prefix = f"{self.feature_class}_"
        return f"original_{prefix}{self.name.removeprefix(prefix)}"


@dataclass(frozen=True, kw_only=True)
class MapQuantity:
    """Quantity and unit of the values of a map, and what values it can have."""

    name: str
    """Short name with the unit: ``adc[mm2/s]``."""
    quantity: Code
    unit: Code
    lowest: float | None
    highest: float | None
    least_peak: float | None
    """The largest value of a map is at least this one: a smaller one shows that the values have another unit."""


@dataclass(frozen=True, kw_only=True)
class LandmarkCode:
    """A landmark of body part regression: its position on the score axis and its anatomic site."""

    name: str
    score_mean: float
    score_sd: float
    site: Code
    modifier: Code | None
    """Topographical modifier: top, bottom, center; None if the landmark is the organ as a whole."""


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
class ConceptCode:
    """A concept that objects use, or knowledge about a code."""

    name: str
    code: Code
    status: str
    """``current``, ``older`` (replaced by another concept), ``entire`` (an organ as a whole) or ``doubtful``."""
    instead: str
    """Code value to use instead, if the status is not current."""
    note: str


# ---------------------------------------------------------------- loading


def load_segments(path: Path | None = None) -> dict[str, SegmentCode]:
    """Load structures by name, in file order, those of the user's own folder after the package's.

    Raises
    ------
    UsageError
        BAD_MAPPING, with file and line.
    """
    if path is not None:
        return _load_table(path, _segment_row)
    rows = _load_table(folder("mappings") / "segments.csv", _segment_row)
    own = _own_file("segments.csv")
    return rows | _load_table(own, _segment_row) if own else rows


def load_features(path: Path | None = None) -> dict[str, FeatureCode]:
    """Load features by pyradiomics' name; raises as `load_segments`."""
    return _load_table(path or folder("mappings") / "features.csv", _feature_row)


def load_dose_metrics(path: Path | None = None) -> dict[str, FeatureCode]:
    """Load dose metrics by name, with ``{x}`` for the number of D_x and V_x; raises as `load_segments`."""
    return _load_table(path or folder("mappings") / "dose_metrics.csv", _feature_row)


def load_map_quantities(path: Path | None = None) -> dict[str, MapQuantity]:
    """Load the quantities of parametric maps by name; raises as `load_segments`."""
    return _load_table(path or folder("mappings") / "maps.csv", _map_row)


def load_landmarks(path: Path | None = None) -> dict[str, LandmarkCode]:
    """Load landmarks by name; raises as `load_segments`."""
    return _load_table(path or folder("mappings") / "landmarks.csv", _landmark_row)


def load_regions(path: Path | None = None) -> dict[str, RegionCode]:
    """Load regions by name; raises as `load_segments`."""
    return _load_table(path or folder("mappings") / "regions.csv", _region_row)


def load_concepts(path: Path | None = None) -> dict[str, ConceptCode]:
    """Load further concepts by name; raises as `load_segments`."""
    return _load_table(path or folder("mappings") / "concepts.csv", _concept_row)


def normalise_label(label: str) -> str:
    """Convert to lower case, with runs of blanks, dots, dashes and underscores as one underscore."""
    return re.sub(r"[\s_.\-]+", "_", label.strip().casefold()).strip("_")


def find_segment(label: str) -> SegmentCode | None:
    """Find the structure that a model's label or an ROI's name denotes; None if no row has it."""
    return _segment_index(_own_identity()).get(normalise_label(label))


def codes_of(name: str) -> SegmentCode | None:
    """Find the codes of a segment by its name, also a numbered, general or standard one; None if no row has it.

    A name of TG-263 without a row of segments.csv has its code in structures.csv. One without a code there, with a
    qualifier (``Heart^old``) or of a target (``PTV_5000``) has the general code.
    """
    plain = plain_name(name)
    if plain.startswith(f"{GENERAL}:"):
        return _general_code()
    return load_segments().get(plain) or standard_code(plain)


def standard_code(name: str) -> SegmentCode | None:
    """Find the codes of a name of TG-263 in structures.csv.

    Returns
    -------
    SegmentCode or None
        The general code for a name without a code there, with a qualifier or margin (``Heart^old``) or of a target
        (``PTV_5000``); of a name relative to the treated side (``Lung^Ipsi``) the code of the organ, without
        laterality. None for other names.
    """
    rows = _load_table(folder("mappings") / "structures.csv", _structure_row)
    base, _, qualifier = name.partition("^")
    own = rows.get(name)
    if qualifier in _RELATIVE:
        sided = [row for row in rows.values() if row.base == base and row.side == "L"]
        own = replace(sided[0], laterality=None) if sided else None
    general = _general_code()
    known = own is not None or _DERIVED.sub("", base) in rows or _TARGET_NAME.match(name) is not None
    if general is None or not known:
        return None
    made = replace(general, name=name, labels=(), revision=2)
    if own is None or own.code is None:
        return made
    category = load_concepts()["anatomical_structure"].code
    return replace(made, category=category, type=own.code, laterality=own.laterality, region=None, region_modifier=None)


def numbered_name(name: str, number: int) -> str:
    """Name a further segment with the codes of a row.

    Parameters
    ----------
    name : str
        Name of the row, e.g. ``gtv_1``.
    number : int
        1 for the first segment, whose name is the row's.

    Returns
    -------
    str
        E.g. ``gtv_1#2``.
    """
    return name if number == 1 else f"{name}{_SEPARATOR}{number}"


def plain_name(name: str) -> str:
    """Name of a segment without the number that :func:`numbered_name` adds."""
    return name.partition(_SEPARATOR)[0]


def general_name(label: str) -> str:
    """Name of a segment for an ROI that no row of segments.csv knows, e.g. ``roi:ptv_1``; at most 48 characters."""
    kept = "".join(c if c.isprintable() and c not in "\\#" else "_" for c in normalise_label(label))
    return f"{GENERAL}:{kept[:44] or 'unnamed'}"


def codes_sha256() -> str:
    """Identity of the codes that a model's labels can get: the revision of the package's, and the user's segments.csv.

    The general code of ROIs has its own, :func:`general_sha256`: it does not concern models. Label tables of published
    models belong to the recipes that use them.
    """
    own = _own_file("segments.csv")
    if own is None:
        return CODES_REVISION
    digest = hashlib.sha256(CODES_REVISION.encode())
    _add_file(digest, own)
    return digest.hexdigest()


def newer_codes(names: Iterable[str]) -> tuple[str, ...]:
    """Identity of those codes of an object that are not the codes of the first revision.

    Parameters
    ----------
    names : iterable of str
        Names of the object's segments, also numbered and general ones.

    Returns
    -------
    tuple of str
        Empty if every segment has the codes of the first revision, so that the identity of the object is what it was;
        otherwise one SHA-256 over the rows that are newer or the user's own. Other names of a row do not count.
    """
    own = _load_table(path, _segment_row) if (path := _own_file("segments.csv")) else {}
    rows = {plain: code for name in names if (code := codes_of(plain := plain_name(name))) is not None}
    newer = {name: code for name, code in rows.items() if code.revision > 1 or name in own}
    if not newer:
        return ()
    digest = hashlib.sha256()
    for name, code in sorted(newer.items()):
        parts = (code.category, code.type, code.laterality, code.region, code.region_modifier, code.finding)
        values = [[part.scheme, part.value, part.meaning] if part else [] for part in parts]
        digest.update(json.dumps([name, values, code.colour]).encode())
    return (digest.hexdigest(),)


def labels_sha256() -> str:
    """SHA-256 over every known name of a structure: the identity of what names of experts' ROIs can mean."""
    return _labels_sha256(_own_identity())


def general_sha256() -> str:
    """SHA-256 of the general code of ROIs."""
    digest = hashlib.sha256()
    _add_file(digest, _own_file("rois.csv") or folder("mappings") / "rois.csv")
    return digest.hexdigest()


def use_mappings(path: str | Path) -> None:
    """Use a folder of mapping files beside the package's, in this process, until it is called again.

    Parameters
    ----------
    path : str or Path
        Folder with ``segments.csv``, ``rois.csv`` or both; empty: only the package's.

    Raises
    ------
    UsageError
        BAD_MAPPING if the folder does not exist, has neither file, or has an error that
        :func:`ctenrich.codes.lint.check_mappings` finds.
    """
    chosen = Path(path) if str(path) else None
    if chosen is None and not _own:
        return
    if chosen is not None:
        if not any((chosen / name).is_file() for name in ("segments.csv", "rois.csv")):
            message = f"the mappings folder {chosen.name!r} has no segments.csv (nor rois.csv)"
            raise UsageError(Reason.BAD_MAPPING, message, "give a folder with a segments.csv of the package's columns")
        from ctenrich.codes.lint import check_mappings  # only a folder of the user's is checked again

        errors = [issue for issue in check_mappings(chosen) if issue.severity is Severity.ERROR]
        if errors:
            message = f"{errors[0].object}: {errors[0].message}"
            raise UsageError(Reason.BAD_MAPPING, message, "for details, run: ctenrich check-mappings FOLDER")
    _own.clear()
    if chosen is not None:
        _own.append(chosen)
    _segment_index(_own_identity())


def _general_code() -> SegmentCode | None:
    return _load_table(_own_file("rois.csv") or folder("mappings") / "rois.csv", _segment_row).get(GENERAL)


_own: list[Path] = []
"""The user's folder, if there is one."""


def _own_file(name: str) -> Path | None:
    return next((path / name for path in _own if (path / name).is_file()), None)


def _own_identity() -> str:
    """Identity of the user's segments.csv, for caches; empty if there is none."""
    own = _own_file("segments.csv")
    if own is None:
        return ""
    stamp = own.stat()
    return f"{own} {stamp.st_mtime_ns} {stamp.st_size}"


def _add_file(digest: hashlib._Hash, path: Path) -> None:
    content = path.read_bytes().replace(b"\r\n", b"\n")
    digest.update(f"{path.name}:{len(content)}\n".encode() + content)


@lru_cache(maxsize=8)
def _labels_sha256(own_identity: str) -> str:
    digest = hashlib.sha256()
    for label, segment in sorted(_segment_index(own_identity).items()):
        digest.update(f"{label}: {segment.name}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=8)
def _segment_index(_own_identity: str) -> dict[str, SegmentCode]:
    """Rows by every name; those of the user's folder are asked first."""
    own = _own_file("segments.csv")
    index = _index_of(_load_table(own, _segment_row)) if own else {}
    replaced = {segment.name for segment in index.values()}
    packaged = load_segments(folder("mappings") / "segments.csv")
    others = _index_of({name: segment for name, segment in packaged.items() if name not in replaced})
    return others | index


def _index_of(segments: Mapping[str, SegmentCode]) -> dict[str, SegmentCode]:
    index: dict[str, SegmentCode] = {}
    for segment in segments.values():
        for label in (segment.name, *segment.labels):
            key = normalise_label(label)
            if key in index and index[key] != segment:
                raise UsageError(Reason.BAD_MAPPING, f"segments.csv: {label!r} denotes two structures")
            index[key] = segment
    return index


def _load_table(path: Path, make: Callable[[Row], T]) -> dict[str, T]:
    stamp = path.stat() if path.is_file() else None
    if stamp is None:
        raise UsageError(Reason.BAD_MAPPING, f"there is no mapping file {path.name}")
    return dict(_load_cached(path, stamp.st_mtime_ns, stamp.st_size, make))


@cache
def _load_cached(path: Path, mtime: int, size: int, make: Callable[[Row], T]) -> dict[str, T]:
    out: dict[str, T] = {}
    for line, row in _numbered_rows(path):
        try:
            item = make(row)
            name = _required(row, "name")
            if name in out:
                raise ValueError(f"{name!r} occurs twice")
        except (KeyError, ValueError) as error:
            what = f"column {error} is missing" if isinstance(error, KeyError) else str(error)
            hint = "for details, run: ctenrich check-mappings"
            raise UsageError(Reason.BAD_MAPPING, f"{path.name}:{line}: {what}", hint) from error
        out[name] = item
    return out


def _numbered_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle)
            for row in reader:
                yield reader.line_num, {str(k): v for k, v in row.items() if isinstance(v, str)}
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(Reason.BAD_MAPPING, f"{path.name} is not a CSV file in UTF-8") from error


def _required(row: Row, column: str) -> str:
    value = row[column].strip()  # also removes no-break spaces
    if not value:
        raise ValueError(f"{column} is empty")
    return value


def _code_of(row: Row, prefix: str) -> Code:
    value, scheme, meaning = (_required(row, f"{prefix}_{part}") for part in ("code", "scheme", "meaning"))
    fault = code_fault(scheme, value)
    if fault:
        raise ValueError(f"{prefix}_code {fault}")
    return Code(value, scheme, meaning)


def _optional_code(row: Row, prefix: str) -> Code | None:
    parts = [row[f"{prefix}_{part}"].strip() for part in ("code", "scheme", "meaning")]
    return _code_of(row, prefix) if any(parts) else None


def _optional_number(row: Row, column: str) -> float | None:
    return float(row[column]) if row[column].strip() else None


def _segment_row(row: Row) -> SegmentCode:
    colour = _required(row, "colour")
    if re.fullmatch(r"#[0-9A-Fa-f]{6}", colour) is None:
        raise ValueError(f"colour {colour!r} is not #RRGGBB")
    return SegmentCode(
        name=_required(row, "name"),
        labels=tuple(part for part in row["labels"].split("|") if part),
        category=_code_of(row, "category"),
        type=_code_of(row, "type"),
        laterality=_optional_code(row, "laterality"),
        region=_optional_code(row, "region"),
        region_modifier=_optional_code(row, "region_modifier"),
        finding=_code_of(row, "finding"),
        colour=(int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)),
        revision=int(row.get("revision", "").strip() or 1),
        system=row.get("system", "").strip(),
    )


def _structure_row(row: Row) -> _StructureRow:
    return _StructureRow(row["base"], row["side"], _optional_code(row, "type"), _optional_code(row, "laterality"))


def _feature_row(row: Row) -> FeatureCode:
    return FeatureCode(
        name=_required(row, "name"),
        feature_class=_required(row, "feature_class"),
        quantity=_code_of(row, "quantity"),
        unit=_code_of(row, "unit"),
    )


def _map_row(row: Row) -> MapQuantity:
    return MapQuantity(
        name=_required(row, "name"),
        quantity=_code_of(row, "quantity"),
        unit=_code_of(row, "unit"),
        lowest=_optional_number(row, "lowest"),
        highest=_optional_number(row, "highest"),
        least_peak=_optional_number(row, "least_peak"),
    )


def _landmark_row(row: Row) -> LandmarkCode:
    return LandmarkCode(
        name=_required(row, "name"),
        score_mean=float(_required(row, "score_mean")),
        score_sd=float(_required(row, "score_sd")),
        site=_code_of(row, "site"),
        modifier=_optional_code(row, "modifier"),
    )


def _region_row(row: Row) -> RegionCode:
    return RegionCode(
        name=_required(row, "name"),
        score_from=_optional_number(row, "score_from"),
        score_to=_optional_number(row, "score_to"),
        from_landmark=row["from_landmark"],
        to_landmark=row["to_landmark"],
        site=_code_of(row, "site"),
    )


def _concept_row(row: Row) -> ConceptCode:
    status = _required(row, "status")
    if status not in _STATUSES:
        raise ValueError(f"status {status!r} is not {', '.join(_STATUSES[:-1])} or {_STATUSES[-1]}")
    code = Code(_required(row, "code"), _required(row, "scheme"), _required(row, "meaning"))
    return ConceptCode(name=_required(row, "name"), code=code, status=status, instead=row["instead"], note=row["note"])
