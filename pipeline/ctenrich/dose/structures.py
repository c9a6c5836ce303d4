"""Dose metrics of the structures of an RT Structure Set."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ctenrich.contours.raster import Grid
from ctenrich.contours.rtstruct import Roi, StructureSet
from ctenrich.dose.bounds import BoundedValue, SampledStructure, bounded_values, sample_structure
from ctenrich.dose.grid import DoseSampler
from ctenrich.dose.metrics import STANDARD_METRICS, Metric, curve_of
from ctenrich.dose.planes import ContourPlanes, contour_grid, find_contour_planes
from ctenrich.dose.reader import Dose
from ctenrich.dose.sampling import Region, SamplingRule, region_of_contours
from ctenrich.dose.second_path import second_values
from ctenrich.errors import InputError
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Severity
from ctenrich.settings import Nesting

__all__ = ["DoseOptions", "StructureDose", "check_frames", "structure_doses"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class DoseOptions:
    """How dose metrics are computed."""

    metrics: tuple[Metric, ...] = STANDARD_METRICS
    rule: SamplingRule = field(default_factory=SamplingRule)
    bounds: bool = True
    """Bounds of every metric."""
    second: bool = True
    """Every metric also by the second way."""
    nesting: Nesting = "holes"
    pixel: float = 1.0
    """mm between pixel centres where the contours come without images."""
    rois: tuple[str, ...] = ()
    """Names of ROIs, with * and ?; empty: all."""


VOXEL_CENTRES = SamplingRule(step=float("inf"), samples=0, voxel_centres_above=0.0)
"""Sampling at the centres of voxels alone."""


@dataclass(frozen=True, kw_only=True)
class StructureDose:
    """Dose metrics of one structure."""

    number: int
    """ROI Number or Segment Number."""
    name: str
    values: tuple[BoundedValue, ...]
    second: tuple[float | None, ...]
    """The metrics by the second way; None where it does not apply."""
    coverage: float
    """Share of the structure inside the dose grid."""
    samples: int
    step: tuple[float, float, float]
    """mm between sampling points: (between slices, between rows, between columns)."""
    curve: tuple[Floats, Floats]
    """Doses in Gy and the cm3 with at least each of them."""
    reason: Reason | None = None
    """Why the structure has no metrics at all."""
    message: str = ""
    issues: tuple[Issue, ...] = ()


def check_frames(structures: StructureSet, dose: Dose) -> None:
    """Refuse a dose that does not belong to a structure set.

    They belong together where the dose refers to the structure set, or where both have one frame of reference.

    Parameters
    ----------
    structures : StructureSet
    dose : Dose

    Raises
    ------
    InputError
        DOSE_OTHER_FRAME.
    """
    if structures.sop_instance_uid in dose.structure_set_uids:
        return
    frames = structures.frame_of_reference_uids
    if dose.frame_of_reference_uid and dose.frame_of_reference_uid in frames:
        return
    stated = "another frame of reference than" if dose.frame_of_reference_uid and frames else "no frame of reference as"
    raise InputError(Reason.DOSE_OTHER_FRAME, f"the dose has {stated} the structure set, and does not refer to it")


def structure_doses(
    structures: StructureSet,
    dose: Dose,
    options: DoseOptions,
    *,
    grid: Grid | None = None,
    progress: Progress = SILENT,
) -> Iterator[StructureDose]:
    """Dose metrics of the ROIs of a structure set, in its order.

    Parameters
    ----------
    structures : StructureSet
    dose : Dose
        In Gy and PHYSICAL.
    options : DoseOptions
    grid : Grid, optional
        Of the CT series: the structures are drawn on its pixels; None: on the contours' own planes.
    progress : Progress

    Yields
    ------
    StructureDose
        ROIs without closed contours have the reason EMPTY_STRUCTURE, those in another frame of reference
        DOSE_OTHER_FRAME, and contours on one plane without images MISSING_GEOMETRY. An ROI of which a contour cannot be
        read (DECODE_ERROR) or placed on the images (CONTOURS_OFF_SLICES) has no metrics: they would be those of a part.

    Raises
    ------
    InputError
        DOSE_UNITS, DOSE_TYPE, DOSE_OTHER_FRAME, DOSE_OFFSETS for a single frame; DOSE_SUMMATION for brachytherapy and
        control points.
    """
    dose.check_physical()
    dose.check_scope()
    check_frames(structures, dose)
    if min(dose.grid.shape) < 2:
        text = "the dose has a single plane, row or column: doses between planes are not known"
        raise InputError(Reason.DOSE_OFFSETS, text, "give the files of all planes of the dose together")
    rois = [roi for roi in structures.rois if _chosen(roi, options.rois)]
    planes: ContourPlanes | InputError | None = None
    if grid is None:
        try:
            planes = find_contour_planes(structures.rois)
        except InputError as error:
            planes = error
    for roi in rois:
        yield _structure_dose(roi, dose, options, grid if grid is not None else planes)
        progress.advance("dose")


def _chosen(roi: Roi, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(roi.name.casefold(), one.casefold()) for one in patterns)


def _structure_dose(
    roi: Roi, dose: Dose, options: DoseOptions, place: Grid | ContourPlanes | InputError | None
) -> StructureDose:
    frame = roi.frame_of_reference_uid
    if frame and dose.frame_of_reference_uid and frame != dose.frame_of_reference_uid:
        return _without(roi, options, Reason.DOSE_OTHER_FRAME, "the ROI has another frame of reference than the dose")
    if not roi.contours:
        kinds = "only points or open lines" if roi.faults.without_area else "no closed contours"
        return _without(roi, options, Reason.EMPTY_STRUCTURE, f"the ROI has {kinds}")
    if roi.faults.damaged:
        text = f"{roi.faults.damaged} contours of the ROI cannot be read: the others are a part of it"
        return _without(roi, options, Reason.DECODE_ERROR, text)
    if isinstance(place, InputError):
        return _without(roi, options, place.reason, place.message)
    assert place is not None
    faces, skipped, grid = None, 0, place
    if isinstance(place, ContourPlanes):
        grid, faces, skipped = contour_grid(roi.contours, place, options.pixel)
    assert isinstance(grid, Grid)
    region, drawn = region_of_contours(roi.contours, grid, nesting=options.nesting, faces=faces)
    issues = []
    skipped = skipped or len(drawn.missing_slices)
    lost = {
        "are on no slice": drawn.off_slice,
        "are not parallel to the slices": drawn.tilted,
        "leave the image": drawn.beyond_image,
    }
    if any(lost.values()):
        text = ", ".join(f"{count} contours {what}" for what, count in lost.items() if count)
        return _without(roi, options, Reason.CONTOURS_OFF_SLICES, f"{text}: the rest is a part of the structure")
    if skipped:
        text = f"{skipped} planes between its first and last contour have none: left empty"
        issues.append(_issue("dose.missing_planes", roi.name, text))
    low, high = min(drawn.voxels.values()), max(drawn.voxels.values())
    if high - low > 0.01 * high and (high - low) * grid.voxel_volume > 1000:
        volumes = ", ".join(
            f"{rule} {count * grid.voxel_volume / 1000:.2f} cm3" for rule, count in drawn.voxels.items()
        )
        issues.append(
            _issue("dose.nesting", roi.name, f"volume by rule of nesting: {volumes} (used: {options.nesting})")
        )
    if not region.mask.any():
        return replace(
            _without(roi, options, Reason.EMPTY_STRUCTURE, "the contours enclose no pixel centre"), issues=tuple(issues)
        )
    found = region_dose(region, dose, options)
    second = (
        second_values(region, dose.grid, options.metrics, contours=roi.contours, nesting=options.nesting)
        if options.second and not drawn.with_rim
        else [None] * len(options.metrics)
    )
    return replace(found, number=roi.number, name=roi.name, second=tuple(second), issues=tuple(issues) + found.issues)


def region_dose(region: Region, dose: Dose, options: DoseOptions) -> StructureDose:
    """Dose metrics of a region.

    Parameters
    ----------
    region : Region
        Not empty.
    dose : Dose
    options : DoseOptions

    Returns
    -------
    StructureDose
        Without number, name and second values.
    """
    sampler = DoseSampler(dose.grid, region.row, region.column)
    sampled = sample_structure(region, sampler, options.rule, bounds=options.bounds)
    return _result(sampled, dose, options)


def _result(sampled: SampledStructure, dose: Dose, options: DoseOptions) -> StructureDose:
    samples = sampled.samples
    issues = []
    if samples.outside:
        text = f"the dose grid covers {100 * samples.coverage:.2f} % of the structure"
        issues.append(_issue("dose.coverage", "", text))
    return StructureDose(
        number=0,
        name="",
        values=tuple(bounded_values(sampled, options.metrics, dose.grid.maximum)),
        second=(None,) * len(options.metrics),
        coverage=samples.coverage,
        samples=int(samples.doses.size),
        step=sampled.step,
        curve=curve_of(samples),
        issues=tuple(issues),
    )


def _without(roi: Roi, options: DoseOptions, reason: Reason, message: str) -> StructureDose:
    values = tuple(BoundedValue(metric=m, value=None, lower=None, upper=None, reason=reason) for m in options.metrics)
    return StructureDose(
        number=roi.number,
        name=roi.name,
        values=values,
        second=(None,) * len(values),
        coverage=0.0,
        samples=0,
        step=(0.0, 0.0, 0.0),
        curve=(np.zeros(0), np.zeros(0)),
        reason=reason,
        message=message,
    )


def _issue(rule: str, about: str, text: str) -> Issue:
    return Issue(rule, Severity.WARNING, about, text, checker="ctenrich.dose")
