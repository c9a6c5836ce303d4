"""A DICOM Segmentation of any maker -> masks on the full grid of its source, with what does not fit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
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
from ctenrich.dicom.orientation import Reorientation, find_reorientation
from ctenrich.dicom.sop_classes import LABEL_MAP_SEGMENTATION, SEGMENTATION_CLASSES
from ctenrich.dicom.sr_tree import code_value
from ctenrich.errors import InputError, UnsafeInputError
from ctenrich.geometry import affine_lps
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Severity, SortedSeries
from ctenrich.settings import SegSettings

__all__ = ["MAX_BYTES", "MAX_VOXELS", "DecodedSeg", "DecodedSegment", "SegmentPlanes", "grid_of_series", "read_seg"]

MAX_VOXELS = SegSettings().max_voxels
"""Voxels of the largest grid."""
MAX_BYTES = SegSettings().max_bytes
"""Bytes that the masks of an object, cropped slice by slice, may take: all organs of a thousand slices take a third."""


_LARGEST_DRIFT = 0.5
"""How far frames may lie beside one another in their plane, as a share of the pixel spacing."""


@dataclass(frozen=True, kw_only=True)
class DecodedSegment:
    """One item of the Segment Sequence."""

    number: int
    label: str
    description: str
    category: Code | None
    type: Code | None
    laterality: Code | None
    region: Code | None
    region_modifier: Code | None
    algorithm_type: str
    algorithm_name: str
    tracking_id: str
    tracking_uid: str
    voxels: int
    """0: the segment has no frame, or only empty ones."""


class SegmentPlanes:
    """Slices of segments, each cropped to what it holds, within a budget of bytes.

    Parameters
    ----------
    budget : int
        Bytes that all slices together may take.
    """

    def __init__(self, budget: int) -> None:
        self._left = budget
        self._parts: dict[int, dict[int, list[tuple[int, int, NDArray[Any]]]]] = {}

    def add(self, number: int, k: int, plane: NDArray[Any]) -> bool:
        """Keep a slice of a segment, unless it is empty.

        Parameters
        ----------
        number, k : int
            Segment number and slice index.
        plane : array of bool or float32, [j, i]

        Returns
        -------
        bool
            Whether the segment had a slice there before.

        Raises
        ------
        UnsafeInputError
            DECOMPRESSION_BOMB if the budget is used up.
        """
        j, i = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
        if j.size == 0:
            return False
        part = plane[j[0] : j[-1] + 1, i[0] : i[-1] + 1].copy()
        self._left -= part.nbytes
        if self._left < 0:
            message, hint = "the masks take more memory than a segmentation needs", "the limit is seg.max_bytes"
            raise UnsafeInputError(Reason.DECOMPRESSION_BOMB, message, hint)
        kept = self._parts.setdefault(k, {}).setdefault(number, [])
        kept.append((int(j[0]), int(i[0]), part))
        return len(kept) > 1

    def slices(self) -> list[int]:
        """Indices of the slices with a segment, ascending."""
        return sorted(self._parts)

    def numbers(self, k: int | None = None) -> list[int]:
        """Numbers of the segments on a slice, or on any, ascending."""
        chosen = self._parts.values() if k is None else (self._parts.get(k, {}),)
        return sorted({number for found in chosen for number in found})

    def draw(self, number: int, k: int, plane: NDArray[Any]) -> None:
        """Draw a segment into a slice, [j, i]; where it has two frames there, the larger value counts."""
        for j, i, part in self._parts.get(k, {}).get(number, ()):
            view = plane[j : j + part.shape[0], i : i + part.shape[1]]
            np.maximum(view, part, out=view, casting="unsafe")

    def count_voxels(self) -> dict[int, int]:
        """Voxels of each segment; fractional values from one half on belong to it."""
        out: dict[int, int] = {}
        for found in self._parts.values():
            for number, parts in found.items():
                out[number] = out.get(number, 0) + _count_union(parts)
        return out


def _count_union(parts: list[tuple[int, int, NDArray[Any]]]) -> int:
    if len(parts) == 1:
        return int(np.count_nonzero(parts[0][2] >= 0.5))
    plane = np.zeros((max(j + p.shape[0] for j, _, p in parts), max(i + p.shape[1] for _, i, p in parts)), bool)
    for j, i, part in parts:
        plane[j : j + part.shape[0], i : i + part.shape[1]] |= part >= 0.5
    return int(np.count_nonzero(plane))


@dataclass(frozen=True, kw_only=True)
class DecodedSeg:
    """A SEG as masks.

    Masks are kept slice by slice, each cropped to its bounding box; :meth:`mask` lays one on the grid.
    """

    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    frame_of_reference_uid: str
    source_series_uid: str
    series_description: str
    segmentation_type: str
    grid: Grid
    segments: tuple[DecodedSegment, ...]
    referenced: tuple[str, ...]
    """SOP Instance UIDs of the source instances that the object refers to."""
    on_source_grid: bool
    """Whether `grid` is that of the source series (else the smallest that holds the frames)."""
    issues: tuple[Issue, ...]
    planes: SegmentPlanes = field(repr=False)

    def fraction(self, number: int) -> NDArray[np.float32]:
        """Fractional values 0..1 of a segment, [k, j, i]; 0 and 1 where the object is not fractional."""
        out = np.zeros(self.grid.shape, np.float32)
        for k in range(self.grid.shape[0]):
            self.planes.draw(number, k, out[k])
        return out

    def mask(self, number: int) -> NDArray[np.bool_]:
        """Mask of a segment on the grid, [k, j, i]; fractional values from one half on belong to it."""
        return np.stack([self.mask_plane(number, k) for k in range(self.grid.shape[0])])

    def fraction_plane(self, number: int, k: int) -> NDArray[np.float32]:
        """One slice of `fraction`, [j, i]."""
        out = np.zeros(self.grid.shape[1:], np.float32)
        self.planes.draw(number, k, out)
        return out

    def mask_plane(self, number: int, k: int) -> NDArray[np.bool_]:
        """One slice of `mask`, [j, i]."""
        return np.asarray(self.fraction_plane(number, k) >= 0.5)

    @property
    def overlapping(self) -> bool:
        """Whether any voxel belongs to two segments."""
        return any(self.label_plane(k) is None for k in self.planes.slices())

    def label_plane(self, k: int) -> NDArray[np.uint16] | None:
        """Segment numbers of one slice, [j, i]; None where segments overlap in it."""
        out = np.zeros(self.grid.shape[1:], np.uint16)
        for number in self.planes.numbers(k):
            inside = self.mask_plane(number, k)
            if out[inside].any():
                return None
            out[inside] = number
        return out

    def label_map(self) -> NDArray[np.uint16] | None:
        """All segments in one array of segment numbers, [k, j, i]; None where they overlap."""
        out = np.zeros(self.grid.shape, np.uint16)
        for k in self.planes.slices():
            plane = self.label_plane(k)
            if plane is None:
                return None
            out[k] = plane
        return out


def read_seg(
    path: Path, source: SortedSeries | None = None, *, max_voxels: int = MAX_VOXELS, max_bytes: int = MAX_BYTES
) -> DecodedSeg:
    """Read a SEG: BINARY, FRACTIONAL or LABELMAP, any transfer syntax that pydicom decodes.

    Parameters
    ----------
    path : Path
        The object.
    source : SortedSeries, optional
        The CT series it was made from: frames are laid on its grid, by reference where that resolves, else by
        position, and turned where their rows or columns run the other way. Without it, or where neither the frame of
        reference nor any reference is that of the series, the grid is the smallest that holds the frames, and empty
        slices at the ends are lost.
    max_voxels : int
        Voxels that the grid may have.
    max_bytes : int
        Bytes that the masks, cropped slice by slice, may take.

    Returns
    -------
    DecodedSeg
        ``issues`` lists what does not fit: references that do not resolve, another frame of reference, frames that lie
        off the source's grid, two frames for one place.

    Raises
    ------
    InputError
        NOT_DICOM, TRUNCATED, DECODE_ERROR; MISSING_GEOMETRY, MULTI_ORIENTATION, MULTI_PIXEL_SPACING or LATERAL_DRIFT
        where no grid has a place for the frames.
    UnsafeInputError
        DECOMPRESSION_BOMB if the grid or the masks are larger than that.
    """
    with quiet():
        dataset = whole(path)
        with damage_as_input_error("segmentation"):
            if str(dataset.get("SOPClassUID")) not in SEGMENTATION_CLASSES or not dataset.get("SegmentSequence"):
                raise InputError(Reason.NOT_DICOM, "the file is not a DICOM Segmentation")
            return _decode(dataset, source, max_voxels, max_bytes)


def grid_of_series(series: SortedSeries) -> Grid:
    """The grid of a CT series."""
    affine = affine_lps(
        series.slices[0].position,
        series.row_cosines,
        series.column_cosines,
        series.pixel_spacing,
        series.slice_spacing,
    )
    spacing = (series.slice_spacing, *series.pixel_spacing)
    return Grid(series.shape, affine, spacing, tuple(s.position for s in series.slices))


def _decode(dataset: Dataset, source: SortedSeries | None, max_voxels: int, max_bytes: int) -> DecodedSeg:
    frames = read_frames(dataset)
    referenced = _referenced(dataset, frames)
    issues = _Issues(str(dataset.get("SOPInstanceUID", "")))
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if source is not None and not _check_references(dataset, referenced, source, issues):
        source = None
    turn = find_reorientation(frames[0].orientation, (*source.row_cosines, *source.column_cosines)) if source else None
    if turn is not None:
        frames = tuple(turn.frame(frame, (rows, columns)) for frame in frames)
        rows, columns = (columns, rows) if turn.transpose else (rows, columns)
    grid, indices, on_source = _place_frames(frames, (rows, columns), source, issues)
    if math.prod(grid.shape) > max_voxels:
        size = " x ".join(map(str, grid.shape))
        hint = "--max-voxels, or the setting seg.max_voxels, allows a larger one"
        raise UnsafeInputError(Reason.DECOMPRESSION_BOMB, f"the frames need a grid of {size} voxels", hint)
    planes = SegmentPlanes(max_bytes)
    _add_frames(planes, dataset, zip(frames, indices, strict=True), turn or Reorientation(), issues)
    voxels = planes.count_voxels()
    described = [s for s in dataset.SegmentSequence if not _is_background(s, dataset)]
    numbers = {int(s.SegmentNumber) for s in described}
    for number in sorted(set(voxels) - numbers):
        issues.add("SEG_SEGMENT", Severity.ERROR, f"frames refer to segment {number}, which is not described")
    return DecodedSeg(
        sop_instance_uid=issues.subject,
        series_instance_uid=str(dataset.get("SeriesInstanceUID", "")),
        study_instance_uid=str(dataset.get("StudyInstanceUID", "")),
        frame_of_reference_uid=str(dataset.get("FrameOfReferenceUID", "")),
        source_series_uid=_source_series(dataset),
        series_description=str(dataset.get("SeriesDescription", "")),
        segmentation_type=str(dataset.get("SegmentationType", "")),
        grid=grid,
        segments=tuple(_segment(s, voxels.get(int(s.SegmentNumber), 0)) for s in described),
        referenced=referenced,
        on_source_grid=on_source,
        issues=tuple(issues.items),
        planes=planes,
    )


class _Issues:
    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.items: list[Issue] = []

    def add(self, rule: str, severity: Severity, message: str) -> None:
        self.items.append(Issue(rule, severity, self.subject, message, "ctenrich decode", __version__))


# ---------------------------------------------------------------- placing


def _place_frames(
    frames: tuple[Frame, ...], matrix: tuple[int, int], source: SortedSeries | None, issues: _Issues
) -> tuple[Grid, tuple[int, ...], bool]:
    """Grid of the masks, slice index of each frame on it, and whether it is the grid of the source series."""
    if source is None:
        return *_place_on_own_grid(frames, matrix, issues), False
    grid = grid_of_series(source)
    if not _same_plane(frames[0], grid, matrix, source):
        issues.add("SEG_GRID", Severity.WARNING, "rows, columns, spacing or directions are not those of the source")
        return *_place_on_own_grid(frames, matrix, issues), False
    indices = [_slice_of(frame, source, grid) for frame in frames]
    if None in indices:
        lost = sum(1 for k in indices if k is None)
        issues.add("SEG_GRID", Severity.WARNING, f"{lost} of {len(frames)} frames lie on no slice of the source")
        return *_place_on_own_grid(frames, matrix, issues), False
    return grid, tuple(int(k) for k in indices if k is not None), True


def _place_on_own_grid(
    frames: tuple[Frame, ...], matrix: tuple[int, int], issues: _Issues
) -> tuple[Grid, tuple[int, ...]]:
    """The smallest grid that holds the frames, and the slice index of each on it.

    A frame more than half a pixel beside that grid has no place on it; without a regular distance between the slices
    there is a warning, because files of masks state one.
    """
    grid, indices, regular = grid_of_frames(frames, *matrix)
    drift = sideways_drift(frames)
    if drift > _LARGEST_DRIFT * min(frames[0].pixel_spacing):
        raise InputError(Reason.LATERAL_DRIFT, f"the frames lie up to {drift:.4g} mm beside one another in their plane")
    if not regular:
        message = "the distances between the frames are not regular: the slice spacing of the grid does not hold"
        issues.add("SEG_IRREGULAR", Severity.WARNING, message)
    return grid, indices


def _check_references(dataset: Dataset, referenced: Sequence[str], source: SortedSeries, issues: _Issues) -> bool:
    """Note what of the references does not fit; return whether the source has a place for the frames at all."""
    known = set(source.sop_instance_uids)
    found = sum(1 for uid in referenced if uid in known)
    same_frame = str(dataset.get("FrameOfReferenceUID", "")) == source.frame_of_reference_uid
    if not found and not same_frame:
        message = (
            "the source does not fit (another frame of reference, and none of the referenced instances): the masks "
            "have the grid of their own frames"
        )
        issues.add("SEG_SOURCE", Severity.WARNING, message)
        return False
    if found < len(referenced) or not referenced:
        message = f"{found} of {len(referenced)} referenced instances are in the source series"
        issues.add("SEG_REFERENCES", Severity.ERROR, message)
    if not same_frame:
        issues.add("SEG_FRAME_OF_REFERENCE", Severity.ERROR, "the frame of reference is not that of the source series")
    if str(dataset.get("StudyInstanceUID", "")) != source.study_instance_uid:
        issues.add("SEG_STUDY", Severity.WARNING, "the study is not that of the source series")
    return True


def _same_plane(frame: Frame, grid: Grid, matrix: tuple[int, int], source: SortedSeries) -> bool:
    directions = (*source.row_cosines, *source.column_cosines)
    return (
        matrix == grid.shape[1:]
        and np.allclose(frame.orientation, directions, atol=1e-3)
        and np.allclose(frame.pixel_spacing, source.pixel_spacing, rtol=1e-3)
    )


def _slice_of(frame: Frame, source: SortedSeries, grid: Grid) -> int | None:
    """Slice index of a frame, by its position; a tenth of a pixel in plane and of a slice across is allowed."""
    offsets = np.array(grid.positions) - np.array(frame.position)
    k = int(np.argmin((offsets**2).sum(axis=1)))
    normal = np.cross(source.row_cosines, source.column_cosines)
    across = abs(float(normal @ offsets[k]))
    within = float(np.sqrt(max(float(offsets[k] @ offsets[k]) - across**2, 0.0)))
    fits = across <= 0.1 * source.slice_spacing and within <= 0.1 * min(source.pixel_spacing) + 1e-3
    return k if fits else None


def _referenced(dataset: Dataset, frames: tuple[Frame, ...]) -> tuple[str, ...]:
    uids: dict[str, None] = {}
    for series in dataset.get("ReferencedSeriesSequence") or []:
        for item in series.get("ReferencedInstanceSequence") or []:
            uids[str(item.get("ReferencedSOPInstanceUID", ""))] = None
    for frame in frames:
        uids.update(dict.fromkeys(frame.sources))
    return tuple(uids)


def _source_series(dataset: Dataset) -> str:
    sequence = dataset.get("ReferencedSeriesSequence")
    return str(sequence[0].get("SeriesInstanceUID", "")) if sequence else ""


# ---------------------------------------------------------------- masks


def _add_frames(
    planes: SegmentPlanes, dataset: Dataset, placed: Iterable[tuple[Frame, int]], turn: Reorientation, issues: _Issues
) -> None:
    """Decode the frames one by one, and keep what each holds."""
    label_map = str(dataset.SOPClassUID) == LABEL_MAP_SEGMENTATION or str(dataset.get("SegmentationType")) == "LABELMAP"
    scale = 1.0
    if str(dataset.get("SegmentationType")) == "FRACTIONAL":
        scale = 1.0 / max(int(dataset.get("MaximumFractionalValue") or 255), 1)
    background = {int(s.SegmentNumber) for s in dataset.SegmentSequence if _is_background(s, dataset)}
    padding = dataset.get("PixelPaddingValue")
    background |= {int(padding)} if padding is not None else set()
    described = {int(s.SegmentNumber) for s in dataset.SegmentSequence}
    background |= set() if 0 in described else {0}
    fractional = str(dataset.get("SegmentationType")) == "FRACTIONAL"
    doubled: Counter[int] = Counter()
    for (frame, k), stored in zip(placed, frame_pixels(dataset), strict=False):
        pixels = turn.plane(stored)
        numbers = [int(v) for v in np.unique(pixels)] if label_map else [frame.segment or 0]
        for number in numbers:
            if label_map and number in background:
                continue
            plane = (pixels == number) if label_map else pixels
            plane = plane.astype(np.float32) * np.float32(scale) if fractional else plane.astype(bool)
            doubled[number] += planes.add(number, k, plane)
    for number, count in sorted((+doubled).items()):
        message = f"segment {number} has {count} frames on slices where it has one already: the larger values count"
        issues.add("SEG_DUPLICATE_FRAME", Severity.WARNING, message)


def _is_background(segment: Dataset, dataset: Dataset) -> bool:
    from pydicom.sr.codedict import codes

    padding = dataset.get("PixelPaddingValue")
    if padding is not None and int(padding) == int(segment.SegmentNumber):
        return True
    kind = _segment_code(segment, "SegmentedPropertyTypeCodeSequence")
    background = codes.DCM.Background
    return kind is not None and (kind.value, kind.scheme) == (background.value, background.scheme_designator)


def _segment(item: Dataset, voxels: int) -> DecodedSegment:
    kinds = item.get("SegmentedPropertyTypeCodeSequence")
    regions = item.get("AnatomicRegionSequence")
    return DecodedSegment(
        number=int(item.SegmentNumber),
        label=str(item.get("SegmentLabel", "")),
        description=str(item.get("SegmentDescription", "") or ""),
        category=_segment_code(item, "SegmentedPropertyCategoryCodeSequence"),
        type=_segment_code(item, "SegmentedPropertyTypeCodeSequence"),
        laterality=_segment_code(kinds[0], "SegmentedPropertyTypeModifierCodeSequence") if kinds else None,
        region=_segment_code(item, "AnatomicRegionSequence"),
        region_modifier=_segment_code(regions[0], "AnatomicRegionModifierSequence") if regions else None,
        algorithm_type=str(item.get("SegmentAlgorithmType", "")),
        algorithm_name=_joined_text(item.get("SegmentAlgorithmName")),
        tracking_id=str(item.get("TrackingID", "")),
        tracking_uid=str(item.get("TrackingUID", "")),
        voxels=voxels,
    )


def _joined_text(value: Any) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, str) else "; ".join(str(v) for v in value)


def _segment_code(item: Dataset, keyword: str) -> Code | None:
    sequence = item.get(keyword)
    if not sequence:
        return None
    code = sequence[0]
    return Code(code_value(code), str(code.get("CodingSchemeDesignator", "")), str(code.get("CodeMeaning", "")))
