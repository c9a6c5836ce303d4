"""Read RT Dose objects (PS3.3 A.18) safely: the values in their unit, their grid, and what they refer to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from ctenrich.dicom.frames import frame_pixels
from ctenrich.dicom.quiet import quiet
from ctenrich.dicom.reader import open_dataset
from ctenrich.dicom.sop_classes import RT_DOSE
from ctenrich.dicom.values import number, numbers, text, texts, whole
from ctenrich.dose.grid import DoseGrid
from ctenrich.errors import InputError, UnsafeInputError
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Severity

__all__ = ["Dose", "PlanReference", "join_planes", "read_dose"]

_ORTHOGONAL = 1e-4
_SAME_PLACE = 0.01
"""mm by which the first offset may differ from 0, or from the z coordinate of the first frame."""
_LARGEST = 2**28
"""Voxels of a dose: a grid of 645 x 645 x 645; 2 GB as float64."""
_AXIAL = 1e-4
_LARGEST_FILE = 4 * 1024**3
UNITS = ("GY", "RELATIVE")
TYPES = ("PHYSICAL", "EFFECTIVE", "ERROR")
WHOLE = frozenset({"PLAN", "MULTI_PLAN", "PLAN_OVERVIEW"})
"""Dose Summation Types of the dose of one or several whole plans."""


@dataclass(frozen=True, kw_only=True)
class PlanReference:
    """One plan that a dose refers to, with the part of it that was calculated."""

    sop_instance_uid: str
    fraction_groups: tuple[int, ...] = ()
    beams: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Dose:
    """An RT Dose object."""

    path: Path
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    patient_id: str
    frame_of_reference_uid: str
    units: str
    """GY or RELATIVE."""
    type: str
    """PHYSICAL, EFFECTIVE or ERROR."""
    summation: str
    """Dose Summation Type: PLAN, MULTI_PLAN, FRACTION, BEAM, ..."""
    grid: DoseGrid
    plans: tuple[PlanReference, ...] = ()
    structure_set_uids: tuple[str, ...] = ()
    heterogeneity: tuple[str, ...] = ()
    """Tissue Heterogeneity Correction: IMAGE, ROI_OVERRIDE, WATER, several of them, or nothing."""
    has_dvh: bool = False
    issues: tuple[Issue, ...] = ()

    def check_physical(self) -> None:
        """Refuse a dose that is not an absorbed dose in Gy.

        Raises
        ------
        InputError
            DOSE_UNITS or DOSE_TYPE.
        """
        if self.units != "GY":
            text = f"the dose is in units {self.units[:16]!r} and not in Gy"
            raise InputError(
                Reason.DOSE_UNITS, text, "relative doses need a normalisation that the file does not state"
            )
        if self.type != "PHYSICAL":
            raise InputError(Reason.DOSE_TYPE, f"the dose is of type {self.type[:16]!r} and not PHYSICAL")

    def check_scope(self) -> None:
        """Refuse a dose of brachytherapy, or of a part of a beam.

        Raises
        ------
        InputError
            DOSE_SUMMATION.
        """
        if self.summation.startswith("BRACHY"):
            raise InputError(Reason.DOSE_SUMMATION, "the dose is one of brachytherapy, which is out of scope")
        if self.summation == "CONTROL_POINT":
            raise InputError(Reason.DOSE_SUMMATION, "the dose is that of control points: a part of a beam")

    @property
    def part(self) -> str:
        """Summation type of a dose that is not that of whole plans; empty for one that is."""
        return "" if self.summation in WHOLE else self.summation or "not stated"


@quiet()
def read_dose(path: Path, *, dataset: Dataset | None = None) -> Dose:
    """Read an RT Dose object.

    Rescale Slope and Rescale Intercept are ignored: the values of an RT Dose are stored value x Dose Grid Scaling
    (PS3.3 C.8.8.3).

    Parameters
    ----------
    path : Path
        A DICOM file of SOP class RT Dose Storage, in any transfer syntax that can be decoded.
    dataset : Dataset, optional
        The file's data set, if it was read already.

    Returns
    -------
    Dose
        A single frame is kept as a grid of one frame, which cannot be sampled: see :func:`join_planes`.

    Raises
    ------
    InputError
        IO_ERROR, NOT_DICOM, TRUNCATED or DECODE_ERROR; NOT_RT_DOSE for another SOP class; MISSING_GEOMETRY,
        NOT_ORTHOGONAL or ZERO_SPACING; DOSE_OFFSETS where the offsets of the frames fit neither form of Grid Frame
        Offset Vector; DOSE_VALUES where the values are no doses; DOSE_UNITS or DOSE_TYPE where they are not stated.
    UnsafeInputError
        DECOMPRESSION_BOMB where the grid is larger than any dose.
    """
    data = open_dataset(path, max_unpacked=_LARGEST_FILE) if dataset is None else dataset
    sop_class = text(data, "SOPClassUID")
    if sop_class != RT_DOSE:
        if not sop_class:
            raise InputError(Reason.TRUNCATED, "the file ends early or is malformed: it has no SOP class")
        raise InputError(Reason.NOT_RT_DOSE, f"the file is not an RT Dose object (SOP class {sop_class[:64]})")
    issues: list[Issue] = []
    units, kind, summation = (text(data, name).upper() for name in ("DoseUnits", "DoseType", "DoseSummationType"))
    if units not in UNITS:
        raise InputError(Reason.DOSE_UNITS, f"Dose Units are {units[:16]!r}: neither GY nor RELATIVE")
    if kind not in TYPES:
        raise InputError(Reason.DOSE_TYPE, f"Dose Type is {kind[:16]!r}: none of {', '.join(TYPES)}")
    scaling = number(data, "DoseGridScaling")
    if scaling is None or not math.isfinite(scaling) or scaling <= 0:
        raise InputError(Reason.DOSE_VALUES, "Dose Grid Scaling is missing or is not a positive number")
    row, column = _orientation(data)
    position = _position(data)
    spacing = _pixel_spacing(data)
    offsets = _frame_offsets(data, position, row, column)
    stored = _stored_values(data, kind)
    order = np.argsort(offsets)
    along = np.asarray(offsets)[order]
    normal = np.cross(row, column)
    origin = np.asarray(position) + normal * along[0]
    if order.size > 1 and order[0] != 0:
        stored = stored[::-1]
    uid = text(data, "SOPInstanceUID")
    grid = DoseGrid(
        stored=stored,
        scaling=scaling,
        origin=(float(origin[0]), float(origin[1]), float(origin[2])),
        row=row,
        column=column,
        pixel_spacing=spacing,
        offsets=tuple((along - along[0]).tolist()),
    )
    if not grid.regular:
        issues.append(_issue("dose.spacing", Severity.NOTE, uid, "the frames are not equally spaced"))
    if text(data, "RescaleSlope") or text(data, "RescaleIntercept"):
        issues.append(_issue("dose.rescale", Severity.NOTE, uid, "Rescale Slope and Intercept do not apply: ignored"))
    return Dose(
        path=path,
        sop_instance_uid=uid,
        series_instance_uid=text(data, "SeriesInstanceUID"),
        study_instance_uid=text(data, "StudyInstanceUID"),
        patient_id=text(data, "PatientID"),
        frame_of_reference_uid=text(data, "FrameOfReferenceUID"),
        units=units,
        type=kind,
        summation=summation,
        grid=grid,
        plans=_plans(data),
        structure_set_uids=tuple(
            text(item, "ReferencedSOPInstanceUID") for item in data.get("ReferencedStructureSetSequence") or ()
        ),
        heterogeneity=tuple(sorted(one.upper() for one in texts(data, "TissueHeterogeneityCorrection") if one)),
        has_dvh=bool(data.get("DVHSequence")),
        issues=tuple(issues),
    )


def join_planes(doses: Sequence[Dose]) -> Dose:
    """Join doses of one frame each, which some systems export as one file per plane, to one dose.

    Parameters
    ----------
    doses : sequence of Dose
        Of one series, with one frame each.

    Returns
    -------
    Dose
        With the identifiers of the first plane; values of float64 where the planes differ in their scaling.

    Raises
    ------
    InputError
        MIXED_SERIES where the planes differ in series, plan, units or type, DOSE_OFFSETS where they are no stack.
    """
    first = doses[0]
    for dose in doses:
        same = (dose.series_instance_uid, dose.plans, dose.units, dose.type, dose.summation) == (
            first.series_instance_uid,
            first.plans,
            first.units,
            first.type,
            first.summation,
        )
        if not same:
            raise InputError(Reason.MIXED_SERIES, "the single-frame doses do not belong to one dose")
        one, other = dose.grid, first.grid
        if one.shape[0] != 1 or one.shape != other.shape or not np.allclose(one.axes, other.axes, atol=1e-4):
            raise InputError(Reason.DOSE_OFFSETS, "the single-frame doses do not share one grid")
        if not np.allclose(one.pixel_spacing, other.pixel_spacing, rtol=1e-4):
            raise InputError(Reason.DOSE_OFFSETS, "the single-frame doses do not share one pixel spacing")
    normal = first.grid.axes[0]
    ordered = sorted(doses, key=lambda dose: float(normal @ np.asarray(dose.grid.origin)))
    origins = np.array([dose.grid.origin for dose in ordered])
    heights = origins @ normal
    sideways = origins - origins[0] - np.outer(heights - heights[0], normal)
    if len(ordered) < 2 or np.abs(sideways).max() > _SAME_PLACE or np.diff(heights).min() <= _SAME_PLACE:
        raise InputError(Reason.DOSE_OFFSETS, "the planes of the dose are not a stack")
    scalings = {dose.grid.scaling for dose in ordered}
    if len(scalings) == 1:
        stored, scaling = np.concatenate([dose.grid.stored for dose in ordered]), first.grid.scaling
    else:
        stored, scaling = np.concatenate([dose.grid.values() for dose in ordered]), 1.0
    base = ordered[0].grid
    grid = replace(base, stored=stored, scaling=scaling, offsets=tuple((heights - heights[0]).tolist()))
    return replace(ordered[0], grid=grid, issues=tuple(issue for dose in ordered for issue in dose.issues))


def _issue(rule: str, severity: Severity, about: str, message: str) -> Issue:
    return Issue(rule, severity, about, message, checker="ctenrich.dose")


def _orientation(data: Dataset) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Row and column direction; the orientation decides, not Patient Position."""
    found = numbers(data, "ImageOrientationPatient")
    if found is None or len(found) != 6 or not all(map(math.isfinite, found)):
        raise InputError(Reason.MISSING_GEOMETRY, "Image Orientation (Patient) of the dose is missing")
    row, column = np.array(found[:3]), np.array(found[3:])
    sizes = np.linalg.norm(row), np.linalg.norm(column)
    if np.abs(np.array(sizes) - 1).max() > _ORTHOGONAL or abs(float(row @ column)) > _ORTHOGONAL:
        raise InputError(Reason.NOT_ORTHOGONAL, "the direction cosines of the dose are not orthogonal unit vectors")
    return _vector(row / sizes[0]), _vector(column / sizes[1])


def _vector(values: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z


def _position(data: Dataset) -> tuple[float, float, float]:
    found = numbers(data, "ImagePositionPatient")
    if found is None or len(found) != 3 or not all(map(math.isfinite, found)):
        raise InputError(Reason.MISSING_GEOMETRY, "Image Position (Patient) of the dose is missing")
    return found[0], found[1], found[2]


def _pixel_spacing(data: Dataset) -> tuple[float, float]:
    """(Between rows, between columns): in this order in Pixel Spacing (PS3.3 10.7.1.3)."""
    found = numbers(data, "PixelSpacing")
    if found is None or len(found) != 2 or not all(map(math.isfinite, found)):
        raise InputError(Reason.MISSING_GEOMETRY, "Pixel Spacing of the dose is missing")
    if min(found) <= 0:
        raise InputError(Reason.ZERO_SPACING, "Pixel Spacing of the dose is zero or negative")
    return found[0], found[1]


def _frame_offsets(
    data: Dataset, position: Sequence[float], row: Sequence[float], column: Sequence[float]
) -> tuple[float, ...]:
    """Distance of every frame from Image Position (Patient) along row x column, in the order of the frames.

    PS3.3 C.8.8.3.2 has two forms: offsets from the first frame, the first of them 0; or, for transverse frames, the z
    coordinates of the frames, the first of them that of Image Position (Patient).
    """
    frames = whole(data, "NumberOfFrames") or 1
    found = numbers(data, "GridFrameOffsetVector")
    if frames == 1 and (found is None or len(found) == 1):
        return (0.0,)
    if found is None:
        raise InputError(Reason.DOSE_OFFSETS, f"the dose has {frames} frames and no Grid Frame Offset Vector")
    if len(found) != frames:
        raise InputError(Reason.DOSE_OFFSETS, f"the dose has {frames} frames and {len(found)} frame offsets")
    offsets = np.array(found)
    if not np.isfinite(offsets).all():
        raise InputError(Reason.DOSE_OFFSETS, "a frame offset is not a number")
    gaps = np.diff(offsets)
    if not ((gaps > _SAME_PLACE).all() or (gaps < -_SAME_PLACE).all()):
        raise InputError(Reason.DOSE_OFFSETS, "the frame offsets neither grow nor fall throughout")
    if abs(offsets[0]) <= _SAME_PLACE:
        return tuple((offsets - offsets[0]).tolist())
    normal = np.cross(row, column)
    transverse = abs(abs(normal[2]) - 1) <= _AXIAL and abs(abs(row[0]) - 1) <= _AXIAL
    if transverse and abs(offsets[0] - position[2]) <= _SAME_PLACE:
        return tuple(((offsets - offsets[0]) * float(np.sign(normal[2]))).tolist())
    text = f"the first frame offset is {offsets[0]:g}: neither 0 nor the z coordinate of the first frame"
    raise InputError(Reason.DOSE_OFFSETS, f"{text} of a transverse dose ({position[2]:g})")


def _stored_values(data: Dataset, kind: str) -> NDArray[Any]:
    """Stored values, [frame, row, column], of the integer type that the file states."""
    bits = whole(data, "BitsAllocated")
    rows, columns = whole(data, "Rows"), whole(data, "Columns")
    frames = whole(data, "NumberOfFrames") or 1
    if not rows or not columns or rows < 0 or columns < 0 or frames < 0:
        raise InputError(Reason.MISSING_GEOMETRY, "the dose has no matrix size")
    if bits not in (16, 32):
        raise InputError(Reason.DOSE_VALUES, f"the values have {bits} bits; a dose has 16 or 32")
    if rows * columns * frames > _LARGEST:
        raise UnsafeInputError(Reason.DECOMPRESSION_BOMB, f"the dose has {rows * columns * frames} voxels")
    signed = whole(data, "PixelRepresentation") == 1
    dtype = np.dtype(f"{'i' if signed else 'u'}{bits // 8}")
    _settle_transfer_syntax(data)
    stated = whole(data, "BitsStored") or bits
    if stated != bits:  # PS3.3 C.8.8.3 asks for equal numbers: no bit is dropped silently
        data.BitsStored, data.HighBit = bits, bits - 1
    stored = np.empty((frames, rows, columns), dtype)
    count = 0
    for pixels in frame_pixels(data):
        if count == frames or pixels.shape != (rows, columns):
            raise InputError(Reason.DECODE_ERROR, "the pixel data of the dose do not have the stated size")
        stored[count] = pixels
        count += 1
    if count != frames:
        raise InputError(Reason.TRUNCATED, f"the dose has {count} of {frames} frames")
    if stated != bits and (signed or int(stored.max()) >> max(stated, 0)):
        raise InputError(Reason.DOSE_VALUES, f"the values have more than the {stated} bits of Bits Stored")
    if signed and kind != "ERROR" and int(stored.min()) < 0:
        raise InputError(Reason.DOSE_VALUES, "the dose has negative values")
    return stored


def _settle_transfer_syntax(data: Dataset) -> None:
    """Without file meta information the values are native, in the encoding of the elements."""
    meta = getattr(data, "file_meta", None)
    if meta is not None and "TransferSyntaxUID" in meta:
        return
    implicit, little = data.original_encoding
    data.file_meta = FileMetaDataset() if meta is None else meta
    explicit = ExplicitVRLittleEndian if little in (True, None) else ExplicitVRBigEndian
    data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def _plans(data: Dataset) -> tuple[PlanReference, ...]:
    out = []
    for item in data.get("ReferencedRTPlanSequence") or ():
        groups, beams = [], []
        for group in item.get("ReferencedFractionGroupSequence") or ():
            group_number = whole(group, "ReferencedFractionGroupNumber")
            groups += [] if group_number is None else [group_number]
            for beam in group.get("ReferencedBeamSequence") or ():
                beam_number = whole(beam, "ReferencedBeamNumber")
                beams += [] if beam_number is None else [beam_number]
        uid = next(iter(texts(item, "ReferencedSOPInstanceUID")), "")
        out.append(PlanReference(sop_instance_uid=uid, fraction_groups=tuple(groups), beams=tuple(beams)))
    return tuple(out)
