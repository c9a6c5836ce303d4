"""Geometry of CT series in pure numpy: slice normal, order, regularity rules, affines, LPS and RAS.

The only place that sorts slices or flips axes. The rules below are also written in SQL (``queries/``); both sides
report the same reasons in the same order, which is the order of :class:`ctenrich.reasons.Reason`.

Rules of :func:`check_stack_geometry`, over the instances of one series with each SOP Instance UID once (``n`` of them):

=========================  =============================================================================================
``NOT_CT``                 an instance has Modality other than CT, or a SOP class other than the three CT image classes
``LOCALIZER``              an instance has LOCALIZER, SCOUT or TOPOGRAM among the values of Image Type
``DERIVED_REFORMATTED``    Image Type begins with DERIVED, and another value holds a word of `DERIVED_WORDS` (reformats,
                           projections, renderings, differences, fused images), or the SOP class is a Secondary
                           Capture class
``MULTIFRAME``             Enhanced or Legacy Converted Enhanced CT, or Number of Frames above 1
``MISSING_GEOMETRY``       an instance lacks 3 position, 6 orientation or 2 spacing values, each a number below 1e9 in
                           magnitude (so not NaN, not infinite), or Rows or Columns above 0
``MULTI_ORIENTATION``      a direction cosine varies (largest - smallest) by more than `cosines`
``NOT_ORTHOGONAL``         a length differs from 1, or row . column from 0, by more than `cosines`
``MULTI_PIXEL_SPACING``    a pixel spacing varies by more than `pixel_spacing_relative` of its largest magnitude
``ZERO_SPACING``           a pixel spacing is 0 or less, or all positions project on one point of the normal
``MULTI_MATRIX``           Rows or Columns vary
``TOO_FEW_SLICES``         1 < n < `minimum_slices` (or no instance at all)
``ONE_SLICE``              n = 1
``DUPLICATE_POSITION``     two neighbours along the normal are at most 0.001 mm apart
``MIXED_ACQUISITIONS``     an attribute divides the slices into groups that alternate along the normal, as
                           :func:`ctenrich.geometry.acquisitions.find_splits` defines it
``LATERAL_DRIFT``          the positions projected on the row or column direction vary by more than `drift`
``MISSING_SLICE``          spacing not uniform, and every gap is a multiple of the lower median gap (within tolerance)
``IRREGULAR_SPACING``      spacing not uniform otherwise
``MULTI_FRAME_OF_REFERENCE``  the Frame of Reference UID varies (a missing one counts as a value of its own)
``CONFLICTING_DUPLICATE``  two instances have one SOP Instance UID (identical copies are left out before)
``MISSING_FRAME_OF_REFERENCE``  no instance has a Frame of Reference UID
``NOT_HU``                 unless `allow_not_hu`: Rescale Type is neither absent nor HU nor US, Rescale Slope or
                           Intercept is not a whole number, or a value of Image Type names a map (`MAP_WORDS`)
``HU_RANGE``               Rescale Slope or Intercept is not a number, the slope is 0, or one of them is missing
=========================  =============================================================================================

Spacing is uniform when every gap lies within max(`spacing_relative` x mean, `spacing_absolute`) of the mean gap
``(last - first) / (n - 1)``, and every slice within `line_tolerance` of the line through the first and last slice,
which is the line that the affine uses. Where a value that a rule needs is missing, the rules from MULTI_ORIENTATION
to MULTI_MATRIX are not judged; where the orientation is missing, mixed or not orthogonal, or two instances have one
SOP Instance UID, the rules on positions (the second half of ZERO_SPACING, and DUPLICATE_POSITION to
IRREGULAR_SPACING) are not judged either. MIXED_ACQUISITIONS is not judged where two slices have one position, because
their order is then arbitrary.

No tolerance in mm is larger than a quarter of the spacing: of (last - first) / (n - 1) or the median gap for those
along the normal, of the smaller pixel spacing for `drift`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    SecondaryCaptureImageStorage,
)

from ctenrich.geometry.acquisitions import AcquisitionSplit, SliceMarks, find_splits
from ctenrich.reasons import Reason
from ctenrich.records import Matrix4, Vector
from ctenrich.settings import GeometrySettings

__all__ = [
    "DERIVED_WORDS",
    "HU_TYPES",
    "MAP_WORDS",
    "POSITION_EPSILON",
    "SPACING_SHARE",
    "Affine",
    "SliceHeader",
    "StackGeometry",
    "affine_lps",
    "apply_affine",
    "as_matrix4",
    "check_stack_geometry",
    "grid_match",
    "lps_to_ras",
    "match_array",
    "ras_to_lps",
    "slice_normal",
]

_CT_IMAGE = str(CTImageStorage)
_MULTI_FRAME_CT = frozenset({str(EnhancedCTImageStorage), str(LegacyConvertedEnhancedCTImageStorage)})
_SECONDARY_CAPTURE = str(SecondaryCaptureImageStorage)
LOCALIZER_VALUES = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM"})
DERIVED_WORDS = (
    "REFORMAT(TED)?|MPR|MPVR|CPR|CURVED|PROJECTION|SLAB|MIP|MINIP|M(AX|IN)[ _-]?I?P|MAXIMUM|MINIMUM"
    "|TMIP|RAY[ _-]?SUM|VRT?|SSD|RENDER(ED|ING)?|SUB|SUBTRACT(ED|ION)?|DSA|FUSED|FUSION|DIVISION|MULTIPLICATION|MASKED"
    "|STD_DEVIATION|SCREEN(SHOT)?|STRAIGHTENED|UNFOLDED|ENDO(SCOPY)?|DRR|OVERLAY|BONE[ _-]?REMOV(ED|AL)"
)
"""Words of Image Type in derived images that are no CT volume (PS3.3 C.8.16.1.3, C.8.16.1.4 and vendors' words).

Averages (MEAN, AVERAGE, AVG) are not among them: the average of a 4D-CT is a CT volume, and plans are made on it.
"""
MAP_WORDS = (
    "MAT_(SPECIFIC|FRACTIONAL|VALUE_BASED)|EFF_ATOMIC_NUM|Z[ _-]?EFF|EFF(ECTIVE)?[ _-]?Z|RHO([ _-]?Z)?"
    "|ELECTRON[ _-]?DENSITY|E[ _-]?DENSITY|IODINE|QUANTITY|PARAMETRIC|CBF|CBV|MTT|TTP|TMAX|BLOOD[ _-]?(FLOW|VOLUME)"
)
"""Words of Image Type whose values are not Hounsfield units (PS3.3 C.8.15.3.1.1 and vendors' words)."""
_DERIVED = re.compile(rf"(^|[^A-Z])({DERIVED_WORDS})([^A-Z]|$)")
_MAP = re.compile(rf"(^|[^A-Z])({MAP_WORDS})([^A-Z]|$)")
SPACING_SHARE = 4
"""No tolerance in mm is larger than the spacing divided by this."""
HU_TYPES = frozenset({"", "HU", "US"})
"""Values of Rescale Type that may be Hounsfield units (PS3.3 C.11.1.1.2; US: unspecified)."""
POSITION_EPSILON = 1e-3
"""Slices at most this many mm apart along the normal are at one position."""
LARGEST = 1e9
"""No coordinate, cosine or spacing reaches this; a larger one is not a measurement."""
LARGEST_RESCALE = 1e10
"""No slope or intercept reaches this; stored values of 32 bits reach 4.3e9, and the intercept may undo that."""

Floats = NDArray[np.float64]
Affine = Matrix4 | Floats


@dataclass(frozen=True)
class SliceHeader:
    """Attributes of one CT instance that the rules need; None where the file has no such value, or not a number."""

    sop_instance_uid: str
    sop_class_uid: str = _CT_IMAGE
    modality: str = "CT"
    image_type: tuple[str, ...] = ()
    position: tuple[float, ...] | None = None
    """Image Position (Patient): mm, LPS, centre of the first pixel."""
    orientation: tuple[float, ...] | None = None
    """Image Orientation (Patient): row cosines, then column cosines."""
    pixel_spacing: tuple[float, ...] | None = None
    """(between rows, between columns), mm."""
    rows: int | None = None
    columns: int | None = None
    number_of_frames: int = 1
    frame_of_reference_uid: str = ""
    rescale: tuple[str, str, str] = ("", "", "")
    """Text of Rescale Slope, Rescale Intercept and Rescale Type."""
    marks: SliceMarks = field(default=SliceMarks(), compare=False)
    """Attributes that tell acquisitions apart."""


@dataclass(frozen=True)
class StackGeometry:
    """Order, spacing and failed rules of the slices of one series."""

    reasons: tuple[Reason, ...]
    """All rules that failed, in the order of the Reason enum; empty: the slices form one regular volume."""
    order: tuple[int, ...] = ()
    """Indices of the headers, sorted along the slice normal; empty where no order is defined."""
    distances: tuple[float, ...] = ()
    """Projections of the positions on the slice normal in that order, mm."""
    spacing: float | None = None
    """(last - first) / (n - 1), mm."""
    row_cosines: Vector | None = None
    column_cosines: Vector | None = None
    pixel_spacing: tuple[float, float] | None = None
    splits: tuple[AcquisitionSplit, ...] = ()
    """Attributes that divide the slices into groups, interleaved or one after the other."""

    @property
    def ok(self) -> bool:
        """Whether the slices form one regular volume."""
        return not self.reasons


def slice_normal(row: Sequence[float], col: Sequence[float]) -> Vector:
    """Unit vector row x column, LPS: the direction of growing slice index (PS3.3 C.7.6.2.1.1).

    Parameters
    ----------
    row, col : 3 numbers each
        Direction cosines of growing column index and growing row index.

    Returns
    -------
    (float, float, float)

    Raises
    ------
    ValueError
        The two directions are parallel.
    """
    normal = np.cross(np.asarray(row, float), np.asarray(col, float))
    length = float(np.linalg.norm(normal))
    if not length > 0:
        raise ValueError("row and column directions are parallel")
    return _as_vector(normal / length)


def affine_lps(
    origin: Sequence[float],
    row: Sequence[float],
    col: Sequence[float],
    pixel_spacing: Sequence[float],
    slice_step: float | Sequence[float],
) -> Matrix4:
    """Make the 4x4 matrix that maps (i, j, k, 1), pixel centres, to mm LPS (PS3.3 C.7.6.2.1.1).

    Parameters
    ----------
    origin : 3 numbers
        Image Position (Patient) of slice 0, mm.
    row, col : 3 numbers each
        Direction cosines of growing column index i and growing row index j.
    pixel_spacing : 2 numbers
        (between rows, between columns), mm, as DICOM orders them.
    slice_step : number or 3 numbers
        Distance between slices along the slice normal in mm, or the whole step as a vector.

    Returns
    -------
    4x4 nested tuples of float
    """
    matrix = np.eye(4)
    matrix[:3, 0] = np.asarray(row, float) * float(pixel_spacing[1])
    matrix[:3, 1] = np.asarray(col, float) * float(pixel_spacing[0])
    if isinstance(slice_step, (int, float)):
        matrix[:3, 2] = np.asarray(slice_normal(row, col)) * float(slice_step)
    else:
        matrix[:3, 2] = np.asarray(slice_step, float)
    matrix[:3, 3] = np.asarray(origin, float)
    return as_matrix4(matrix)


def as_matrix4(matrix: Affine) -> Matrix4:
    """Convert a 4x4 array to nested tuples of plain floats, the form of records (-0.0 becomes 0.0).

    Raises
    ------
    ValueError
        The array is not 4x4.
    """
    m = np.asarray(matrix, float) + 0.0
    if m.shape != (4, 4):
        raise ValueError("an affine has 4 x 4 numbers")
    a, b, c, d = ((float(x[0]), float(x[1]), float(x[2]), float(x[3])) for x in m)
    return a, b, c, d


def lps_to_ras(affine: Affine) -> Matrix4:
    """The same map with millimetres in RAS (NIfTI): the first two rows change sign."""
    return as_matrix4(np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(affine, float))


def ras_to_lps(affine: Affine) -> Matrix4:
    """The same map with millimetres in LPS (DICOM): the first two rows change sign."""
    return lps_to_ras(affine)


def apply_affine(affine: Affine, points: NDArray[np.float64] | Sequence[Sequence[float]]) -> Floats:
    """Map points to the output system of an affine.

    Parameters
    ----------
    affine : 4x4
    points : array, (..., 3)
        In the affine's input order (i, j, k).

    Returns
    -------
    array of float64, (..., 3)
    """
    m = np.asarray(affine, float)
    out: Floats = np.asarray(points, float) @ m[:3, :3].T + m[:3, 3]
    return out


def grid_match(affine: Affine, shape: Sequence[int], target: Affine) -> tuple[tuple[int, int, int], tuple[bool, ...]]:
    """Axis order and flips that align one grid's axes with another's.

    Parameters
    ----------
    affine, target : 4x4
        Maps of (i, j, k, 1) to the same world system.
    shape : 3 integers
        Number of voxels along i, j, k of the first grid.

    Returns
    -------
    axes : 3 integers
        Axis of the first grid that is parallel to axis 0, 1, 2 of the target.
    flips : 3 booleans
        Whether that axis runs the other way.

    Raises
    ------
    ValueError
        Two axes of one grid are nearest to the same axis of the other.
    """
    if len(shape) != 3:
        raise ValueError("a grid has 3 axes")
    cosines = _axis_directions(target).T @ _axis_directions(affine)
    axes = [int(np.argmax(np.abs(row))) for row in cosines]
    if sorted(axes) != [0, 1, 2]:
        raise ValueError("the grids are not axis-aligned to each other")
    flips = tuple(bool(cosines[t, a] < 0) for t, a in enumerate(axes))
    return (axes[0], axes[1], axes[2]), flips


def match_array(array: NDArray[np.generic], affine: Affine, target: Affine) -> tuple[NDArray[np.generic], Matrix4]:
    """View an array along the axes of another grid; copies nothing.

    The voxel that had index x in `array` keeps its position in the world: only axes are exchanged and flipped.

    Parameters
    ----------
    array : array, [i, j, k]
    affine, target : 4x4
        Of the array and of the other grid, to the same world system.

    Returns
    -------
    (array, 4x4)
        The view, and its affine.
    """
    axes, flips = grid_match(affine, array.shape, target)
    m = np.asarray(affine, float)
    out = m.copy()
    out[:, :3] = m[:, list(axes)]
    view = array.transpose(axes)
    for axis, flip in enumerate(flips):
        if flip:
            out[:3, 3] += out[:3, axis] * (view.shape[axis] - 1)
            out[:3, axis] *= -1
            view = np.flip(view, axis)
    return view, as_matrix4(out)


def check_stack_geometry(headers: Sequence[SliceHeader], settings: GeometrySettings) -> StackGeometry:
    """Check whether single-frame CT instances form one regular volume, and in which order.

    Parameters
    ----------
    headers : sequence of SliceHeader
        One per SOP Instance UID, in any order: the result does not depend on it.
    settings : GeometrySettings
        Tolerances.

    Returns
    -------
    StackGeometry
        Never raises for bad data: every fault is a reason.
    """
    found = _kind_reasons(headers)
    n = len(headers)
    if n == 1:
        found.add(Reason.ONE_SLICE)
    elif n < max(settings.minimum_slices, 1):
        found.add(Reason.TOO_FEW_SLICES)
    found |= _value_reasons(headers, settings)
    frames = {h.frame_of_reference_uid for h in headers}
    if len(frames) > 1:
        found.add(Reason.MULTI_FRAME_OF_REFERENCE)
    if len({h.sop_instance_uid for h in headers}) < n:
        found.add(Reason.CONFLICTING_DUPLICATE)
    if frames == {""}:
        found.add(Reason.MISSING_FRAME_OF_REFERENCE)
    if n == 0:
        return StackGeometry(_sort_reasons(found))
    if not all(_has_geometry(h) for h in headers):
        return StackGeometry(_sort_reasons(found | {Reason.MISSING_GEOMETRY}))

    orientation = np.array([h.orientation for h in headers], float)
    spacing = np.array([h.pixel_spacing for h in headers], float)
    found |= _orientation_reasons(orientation, settings.cosines)
    found |= _pixel_reasons(headers, spacing, settings)
    if found & {Reason.MULTI_ORIENTATION, Reason.NOT_ORTHOGONAL, Reason.CONFLICTING_DUPLICATE}:
        return StackGeometry(_sort_reasons(found))

    # the middle of the range does not depend on the order, and is the value itself where all agree
    cosines = _midrange(orientation)
    between_rows, between_columns = _midrange(spacing).tolist()
    axes = (cosines[:3], cosines[3:])
    return _check_positions(headers, found, axes, (between_rows, between_columns), settings)


def _check_positions(
    headers: Sequence[SliceHeader],
    found: set[Reason],
    axes: tuple[Floats, Floats],
    pixel_spacing: tuple[float, float],
    settings: GeometrySettings,
) -> StackGeometry:
    row, col = axes
    positions = np.array([h.position for h in headers], float)
    distance = positions @ np.asarray(slice_normal(row.tolist(), col.tolist()))
    order = sorted(range(len(headers)), key=lambda x: (distance[x], headers[x].sop_instance_uid))
    d = distance[order]
    mean = None
    splits: tuple[AcquisitionSplit, ...] = ()
    if len(headers) > 1:
        mean = float(d[-1] - d[0]) / (len(headers) - 1)
        drift = max(float(np.ptp(positions @ row)), float(np.ptp(positions @ col)))
        if drift > min(settings.drift, abs(min(pixel_spacing)) / SPACING_SHARE):
            found.add(Reason.LATERAL_DRIFT)
        found |= _spacing_reasons(d, mean, settings)
        if Reason.DUPLICATE_POSITION not in found:
            splits = find_splits([headers[x].marks for x in order])
            found |= {Reason.MIXED_ACQUISITIONS for split in splits if split.interleaved}
    return StackGeometry(
        reasons=_sort_reasons(found),
        order=tuple(order),
        distances=tuple(float(x) for x in d),
        spacing=mean,
        row_cosines=_as_vector(row),
        column_cosines=_as_vector(col),
        pixel_spacing=(float(pixel_spacing[0]), float(pixel_spacing[1])),
        splits=splits,
    )


def _kind_reasons(headers: Sequence[SliceHeader]) -> set[Reason]:
    found: set[Reason] = set()
    for h in headers:
        multi = h.sop_class_uid in _MULTI_FRAME_CT
        values = [v.strip().upper() for v in h.image_type]
        if h.modality.strip() != "CT" or not (multi or h.sop_class_uid == _CT_IMAGE):
            found.add(Reason.NOT_CT)
        if LOCALIZER_VALUES.intersection(values):
            found.add(Reason.LOCALIZER)
        captured = h.sop_class_uid == _SECONDARY_CAPTURE or h.sop_class_uid.startswith(_SECONDARY_CAPTURE + ".")
        if values[:1] == ["DERIVED"] and (captured or any(_DERIVED.search(v) for v in values[1:])):
            found.add(Reason.DERIVED_REFORMATTED)
        if multi or h.number_of_frames > 1:
            found.add(Reason.MULTIFRAME)
    return found


def _value_reasons(headers: Sequence[SliceHeader], settings: GeometrySettings) -> set[Reason]:
    """Rules on the physical quantity of the values and their rescale."""
    found: set[Reason] = set()
    for h in headers:
        slope_text, intercept_text, kind = (part.strip() for part in h.rescale)
        other = kind.upper() not in HU_TYPES or any(_MAP.search(v.strip().upper()) for v in h.image_type)
        if slope_text or intercept_text:
            slope, intercept = _finite(slope_text), _finite(intercept_text)
            if slope is None or intercept is None or slope == 0:
                found.add(Reason.HU_RANGE)
                continue
            other = other or _fraction(slope) > SLOPE_FRACTION or _fraction(intercept) > INTERCEPT_FRACTION
        if other and not settings.allow_not_hu:
            found.add(Reason.NOT_HU)
    return found


SLOPE_FRACTION, INTERCEPT_FRACTION = 1e-7, 1e-3
"""A slope or intercept that is nearer to a whole number is one: 16 bits of it are off by less than 0.01 HU."""


def _finite(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < LARGEST_RESCALE else None


def _fraction(value: float) -> float:
    return abs(value - math.floor(value + 0.5))


def _has_geometry(h: SliceHeader) -> bool:
    for values, count in ((h.position, 3), (h.orientation, 6), (h.pixel_spacing, 2)):
        if values is None or len(values) != count or not all(abs(v) < LARGEST for v in values):
            return False
    return bool(h.rows) and bool(h.columns) and (h.rows or 0) > 0 and (h.columns or 0) > 0


def _orientation_reasons(orientation: Floats, tolerance: float) -> set[Reason]:
    found: set[Reason] = set()
    if float(np.ptp(orientation, axis=0).max()) > tolerance:
        found.add(Reason.MULTI_ORIENTATION)
    row, col = orientation[:, :3], orientation[:, 3:]
    lengths = np.sqrt(np.concatenate([(row * row).sum(1), (col * col).sum(1)]))
    if float(np.abs(lengths - 1).max()) > tolerance or float(np.abs((row * col).sum(1)).max()) > tolerance:
        found.add(Reason.NOT_ORTHOGONAL)
    return found


def _pixel_reasons(headers: Sequence[SliceHeader], spacing: Floats, settings: GeometrySettings) -> set[Reason]:
    found: set[Reason] = set()
    if (np.ptp(spacing, axis=0) > settings.pixel_spacing_relative * np.abs(spacing).max(axis=0)).any():
        found.add(Reason.MULTI_PIXEL_SPACING)
    if float(spacing.min()) <= 0:
        found.add(Reason.ZERO_SPACING)
    if len({(h.rows, h.columns) for h in headers}) > 1:
        found.add(Reason.MULTI_MATRIX)
    return found


def _spacing_reasons(d: Floats, mean: float, settings: GeometrySettings) -> set[Reason]:
    """Rules on the sorted distances `d`, mm, two or more of them."""
    found: set[Reason] = set()
    gaps = np.diff(d)
    if float(d[-1] - d[0]) <= POSITION_EPSILON:
        found.add(Reason.ZERO_SPACING)
    if float(gaps.min()) <= min(POSITION_EPSILON, mean / SPACING_SHARE):
        found.add(Reason.DUPLICATE_POSITION)
    tolerance = _gap_tolerance(mean, settings)
    line = d[0] + mean * np.arange(len(d))
    uniform = float(np.abs(gaps - mean).max()) <= tolerance
    if uniform and float(np.abs(d - line).max()) <= min(settings.line_tolerance, mean / SPACING_SHARE):
        return found
    found.add(Reason.MISSING_SLICE if _has_holes(gaps, settings) else Reason.IRREGULAR_SPACING)
    return found


def _gap_tolerance(spacing: float, settings: GeometrySettings) -> float:
    return min(max(settings.spacing_relative * spacing, settings.spacing_absolute), spacing / SPACING_SHARE)


def _has_holes(gaps: Floats, settings: GeometrySettings) -> bool:
    base = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    if base <= 0:
        return False
    tolerance = _gap_tolerance(base, settings)
    times = np.floor(gaps / base + 0.5)
    return bool((times >= 1).all() and (times >= 2).any() and (np.abs(gaps - times * base) <= tolerance).all())


def _midrange(values: Floats) -> Floats:
    out: Floats = (values.min(axis=0) + values.max(axis=0)) / 2
    return out


def _axis_directions(affine: Affine) -> Floats:
    m = np.asarray(affine, float)[:3, :3]
    out: Floats = m / np.linalg.norm(m, axis=0)
    return out


def _as_vector(values: Floats) -> Vector:
    return float(values[0]) + 0.0, float(values[1]) + 0.0, float(values[2]) + 0.0


def _sort_reasons(found: set[Reason]) -> tuple[Reason, ...]:
    return tuple(reason for reason in Reason if reason in found)
