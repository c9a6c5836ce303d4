"""A DICOM Parametric Map of any maker -> real world values on the grid of its frames, with quantity and unit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ctenrich import __version__
from ctenrich.codes.mappings import Code
from ctenrich.dicom.frames import Frame, Grid, frame_pixels, grid_of_frames, read_frames, sideways_drift
from ctenrich.dicom.objects import damage_as_input_error, quiet, whole
from ctenrich.dicom.sop_classes import PARAMETRIC_MAP
from ctenrich.dicom.sr_tree import code_value
from ctenrich.errors import InputError, UnsafeInputError
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Severity
from ctenrich.settings import SegSettings

__all__ = ["DecodedMap", "ValueMapping", "padding_range", "read_map", "value_mapping"]

_LARGEST_DRIFT = 0.5
"""How far frames may lie beside one another in their plane, as a share of the pixel spacing."""
_FLOATS = {"FloatPixelData": "f4", "DoubleFloatPixelData": "f8"}
_PADDING = {
    "PixelData": "PixelPadding",
    "FloatPixelData": "FloatPixelPadding",
    "DoubleFloatPixelData": "DoubleFloatPixelPadding",
}


@dataclass(frozen=True, kw_only=True)
class ValueMapping:
    """One item of the Real World Value Mapping Sequence (PS3.3 C.7.6.16.2.11)."""

    quantity: Code | None
    unit: Code | None
    label: str
    explanation: str
    first: float
    """Smallest stored value that has a real world value."""
    last: float
    """Largest stored value that has one."""
    slope: float = 1.0
    intercept: float = 0.0
    table: tuple[float, ...] = ()
    """Real world values of the stored values from `first` on; empty where slope and intercept map them."""

    def values(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Real world values of stored ones, of the same shape; NaN outside the range of the mapping.

        Stored values of 32-bit floating point stay such where the mapping is the identity; all others become 64-bit.
        """
        if self.table:
            table = np.array(self.table)
            index = stored.astype(np.int64) - int(self.first)
            inside = (index >= 0) & (index < len(table))
            return np.where(inside, table[np.clip(index, 0, len(table) - 1)], np.nan)
        identity = self.slope == 1 and self.intercept == 0
        out = stored if identity and stored.dtype.kind == "f" else stored.astype(np.float64)
        if not identity:
            out = out * self.slope + self.intercept
        outside = (stored < self.first) | (stored > self.last)
        return np.where(outside, np.nan, out).astype(out.dtype) if outside.any() else out


@dataclass(frozen=True, kw_only=True)
class DecodedMap:
    """A parametric map as real world values."""

    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    frame_of_reference_uid: str
    source_series_uid: str
    series_description: str
    grid: Grid
    values: NDArray[Any] = field(repr=False)
    """[k, j, i], float32 or float64; NaN where the object states no value: padding, and slices without a frame."""
    stored: str
    """Type of the stored pixels: ``uint16``, ``int16``, ``float32`` or ``float64``."""
    quantity: Code | None
    unit: Code | None
    label: str
    referenced: tuple[str, ...]
    """SOP Instance UIDs of the images that the object refers to."""
    issues: tuple[Issue, ...]


def read_map(path: Path, *, max_voxels: int = SegSettings().max_voxels) -> DecodedMap:
    """Read a Parametric Map (PS3.3 A.75): 16-bit integers with any mapping, 32-bit and 64-bit floating point.

    Real world values come from the Real World Value Mapping alone, which is applied once, to stored values. The
    Pixel Value Transformation is for display pipelines and must not be applied as well (PS3.3 C.7.6.16.2.11).

    Parameters
    ----------
    path : Path
        The object.
    max_voxels : int
        Voxels that the grid may have.

    Returns
    -------
    DecodedMap
        On the smallest regular grid that holds the frames, slices in the order of their positions along the normal.
        ``issues`` lists what is not clear: no mapping, several mappings, no unit, irregular distances.

    Raises
    ------
    InputError
        NOT_DICOM, TRUNCATED, DECODE_ERROR; MISSING_GEOMETRY, MULTI_ORIENTATION, MULTI_PIXEL_SPACING or LATERAL_DRIFT
        where no grid has a place for the frames; DUPLICATE_POSITION where two frames have one position, so that the
        object holds several maps; BAD_DESCRIPTION where frames have different quantities or units.
    UnsafeInputError
        DECOMPRESSION_BOMB if the grid is larger than `max_voxels`.
    """
    with quiet():
        dataset = whole(path)
        with damage_as_input_error("parametric map"):
            if str(dataset.get("SOPClassUID")) != PARAMETRIC_MAP:
                raise InputError(Reason.NOT_DICOM, "the file is not a DICOM Parametric Map")
            return _decode(dataset, max_voxels)


def _decode(dataset: Dataset, max_voxels: int) -> DecodedMap:
    frames = read_frames(dataset)
    issues = _Issues(str(dataset.get("SOPInstanceUID", "")))
    grid, indices = _place_frames(frames, (int(dataset.Rows), int(dataset.Columns)), issues)
    if math.prod(grid.shape) > max_voxels:
        size = " x ".join(map(str, grid.shape))
        hint = "--max-voxels, or the setting seg.max_voxels, allows a larger one"
        raise UnsafeInputError(Reason.DECOMPRESSION_BOMB, f"the frames need a grid of {size} voxels", hint)
    keyword = _pixel_keyword(dataset)
    mappings = _mappings(dataset, keyword, issues)
    exact = keyword == "FloatPixelData" and all(m.slope == 1 and m.intercept == 0 and not m.table for m in mappings)
    values = np.full(grid.shape, np.nan, np.float32 if exact else np.float64)
    padding = padding_range(dataset, keyword)
    stored_type = ""
    for k, mapping, stored in zip(indices, mappings, _stored_frames(dataset, keyword), strict=True):
        stored_type = stored.dtype.name
        values[k] = mapping.values(stored)
        if padding is not None:
            low, high = (stored.dtype.type(end) for end in padding)
            values[k][(stored >= low) & (stored <= high)] = np.nan
    first = mappings[0]
    return DecodedMap(
        sop_instance_uid=issues.subject,
        series_instance_uid=str(dataset.get("SeriesInstanceUID", "")),
        study_instance_uid=str(dataset.get("StudyInstanceUID", "")),
        frame_of_reference_uid=str(dataset.get("FrameOfReferenceUID", "")),
        source_series_uid=_source_series(dataset),
        series_description=str(dataset.get("SeriesDescription", "")),
        grid=grid,
        values=values,
        stored=stored_type,
        quantity=first.quantity,
        unit=first.unit,
        label=first.label,
        referenced=_referenced(dataset, frames),
        issues=tuple(issues.items),
    )


class _Issues:
    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.items: list[Issue] = []

    def warn(self, rule: str, message: str) -> None:
        self.items.append(Issue(rule, Severity.WARNING, self.subject, message, "ctenrich decode", __version__))


def _place_frames(frames: tuple[Frame, ...], matrix: tuple[int, int], issues: _Issues) -> tuple[Grid, tuple[int, ...]]:
    grid, indices, regular = grid_of_frames(frames, *matrix)
    drift = sideways_drift(frames)
    if drift > _LARGEST_DRIFT * min(frames[0].pixel_spacing):
        raise InputError(Reason.LATERAL_DRIFT, f"the frames lie up to {drift:.4g} mm beside one another in their plane")
    if len(set(indices)) < len(indices):
        message = f"{len(indices)} frames have {len(set(indices))} positions: the object holds several maps"
        raise InputError(Reason.DUPLICATE_POSITION, message)
    if not regular:
        message = "the distances between the frames are not regular: the slice spacing of the grid does not hold"
        issues.warn("MAP_IRREGULAR", message)
    elif grid.shape[0] > len(frames):
        issues.warn("MAP_GAPS", f"{grid.shape[0] - len(frames)} of {grid.shape[0]} slices have no frame: NaN")
    return grid, indices


# ---------------------------------------------------------------- pixels


def _pixel_keyword(dataset: Dataset) -> str:
    found = [keyword for keyword in _PADDING if keyword in dataset]
    if len(found) != 1:
        raise InputError(
            Reason.TRUNCATED, "the object has no pixel data" if not found else "it has two kinds of pixels"
        )
    return found[0]


def padding_range(dataset: Dataset, keyword: str) -> tuple[float, float] | None:
    """Smallest and largest stored value that is padding (PS3.3 C.7.5.1.1.2); None without padding.

    Parameters
    ----------
    dataset : Dataset
        An image.
    keyword : str
        Of its pixels: ``PixelData``, ``FloatPixelData`` or ``DoubleFloatPixelData``.
    """
    padding = dataset.get(f"{_PADDING[keyword]}Value")
    if padding is None:
        return None
    limit = dataset.get(f"{_PADDING[keyword]}RangeLimit")
    low, high = sorted((padding, padding if limit is None else limit))
    return low, high


def _stored_frames(dataset: Dataset, keyword: str) -> Iterator[NDArray[Any]]:
    """Stored values of each frame in order, [j, i]."""
    if keyword == "PixelData":
        yield from frame_pixels(dataset)
        return
    rows, columns, count = int(dataset.Rows), int(dataset.Columns), int(dataset.get("NumberOfFrames") or 1)
    order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
    kind = np.dtype(order + _FLOATS[keyword])
    data = dataset[keyword].value
    if len(data) < rows * columns * count * kind.itemsize:
        raise InputError(Reason.TRUNCATED, "the pixel data are shorter than the frames need")
    for index in range(count):
        frame = np.frombuffer(data, kind, rows * columns, index * rows * columns * kind.itemsize)
        yield frame.reshape(rows, columns).astype(kind.newbyteorder("="), copy=False)


# ---------------------------------------------------------------- real world values


def _mappings(dataset: Dataset, keyword: str, issues: _Issues) -> list[ValueMapping]:
    """Mapping of each frame, those of the frame before those of all frames."""
    shared = _first_item(dataset.get("SharedFunctionalGroupsSequence"))
    everywhere = (shared.get("RealWorldValueMappingSequence") if shared is not None else None) or dataset.get(
        "RealWorldValueMappingSequence"
    )
    found, other = [], set()
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        items = frame.get("RealWorldValueMappingSequence") or everywhere or [Dataset()]
        found.append(value_mapping(items[0], keyword))
        other |= {str(item.get("LUTLabel", "")) or "without a label" for item in items[1:]}
    kinds = {(mapping.quantity, mapping.unit) for mapping in found}
    if len(kinds) > 1:
        raise InputError(Reason.BAD_DESCRIPTION, f"the frames have {len(kinds)} different quantities or units")
    if everywhere is None and not found[0].label and found[0].unit is None:
        issues.warn("MAP_MAPPING", "the object has no real world value mapping: the values are those that are stored")
    elif found[0].unit is None:
        issues.warn("MAP_UNIT", "the mapping states no unit")
    if other:
        text = f"the frames have further mappings ({', '.join(sorted(other))}): the first one is applied"
        issues.warn("MAP_MAPPINGS", text)
    return found


def value_mapping(item: Dataset, keyword: str) -> ValueMapping:
    """Read an item of a Real World Value Mapping Sequence (PS3.3 C.7.6.16.2.11).

    Parameters
    ----------
    item : Dataset
        The item.
    keyword : str
        Of the pixels that it maps: ``PixelData``, ``FloatPixelData`` or ``DoubleFloatPixelData``.

    Returns
    -------
    ValueMapping
    """
    prefix = "" if keyword == "PixelData" else "DoubleFloat"
    first, last = (item.get(f"{prefix}RealWorldValue{end}ValueMapped") for end in ("First", "Last"))
    table = item.get("RealWorldValueLUTData")
    slope, intercept = item.get("RealWorldValueSlope"), item.get("RealWorldValueIntercept")
    return ValueMapping(
        quantity=_quantity(item),
        unit=_code_of(item, "MeasurementUnitsCodeSequence"),
        label=str(item.get("LUTLabel", "")),
        explanation=str(item.get("LUTExplanation", "")),
        first=float(first) if first is not None else -math.inf,
        last=float(last) if last is not None else math.inf,
        slope=float(slope) if slope is not None else 1.0,
        intercept=float(intercept) if intercept is not None else 0.0,
        table=tuple(map(float, _many(table))) if table is not None and slope is None else (),
    )


def _many(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Sequence) or hasattr(value, "__iter__") else (value,)


def _quantity(item: Dataset) -> Code | None:
    from pydicom.sr.codedict import codes  # takes long to import

    quantity = codes.SCT.Quantity.value
    for part in item.get("QuantityDefinitionSequence") or ():
        name = _code_of(part, "ConceptNameCodeSequence")
        if name is not None and (name.value == quantity or name.meaning.casefold() == "quantity"):
            return _code_of(part, "ConceptCodeSequence")
    return None


def _code_of(item: Dataset, keyword: str) -> Code | None:
    code = _first_item(item.get(keyword))
    if code is None:
        return None
    return Code(code_value(code), str(code.get("CodingSchemeDesignator", "")), str(code.get("CodeMeaning", "")))


def _first_item(sequence: Any) -> Dataset | None:
    return sequence[0] if sequence else None


# ---------------------------------------------------------------- references


def _source_series(dataset: Dataset) -> str:
    series = _first_item(dataset.get("ReferencedSeriesSequence"))
    return str(series.get("SeriesInstanceUID", "")) if series is not None else ""


def _referenced(dataset: Dataset, frames: tuple[Frame, ...]) -> tuple[str, ...]:
    uids: dict[str, None] = {}
    for series in dataset.get("ReferencedSeriesSequence") or ():
        for item in series.get("ReferencedInstanceSequence") or ():
            uids[str(item.get("ReferencedSOPInstanceUID", ""))] = None
    for frame in frames:
        uids.update(dict.fromkeys(frame.sources))
    return tuple(uids)
