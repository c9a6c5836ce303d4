"""Masks in DICOM objects of others, on the grid of a series: SEG and RT Structure Set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctenrich.contours.findings import FindingContext, damage_of, drawing_issues, roi_issues
from ctenrich.contours.ownership import own_contours, rois_of_other_series
from ctenrich.contours.raster import grid_of, rasterise
from ctenrich.contours.rtstruct import Roi, StructureSet, link_to, load_contours
from ctenrich.dicom.seg import DecodedSeg, read_seg
from ctenrich.errors import InputError
from ctenrich.harmonise.request import HarmoniseRequest, RequestedSegment
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Severity, SortedSeries
from ctenrich.settings import Settings

__all__ = ["MaskPart", "masks_of_segs", "masks_of_structure_set"]

MaskPart = tuple[int, str, str, NDArray[np.bool_]]
"""Segment number, row of mappings/segments.csv, name in the file, mask [k, j, i]."""


def masks_of_segs(
    request: HarmoniseRequest, series: SortedSeries, settings: Settings, issues: list[Issue]
) -> Iterator[MaskPart]:
    """Masks of the requested segments of SEGs.

    Parameters
    ----------
    request : HarmoniseRequest
        Which segments of which SEGs.
    series : SortedSeries
        The CT that the SEGs were made from.
    settings : Settings
        Limits of SEGs.
    issues : list of Issue
        Receives what was found in the SEGs.

    Yields
    ------
    MaskPart

    Raises
    ------
    InputError
        NO_REFERENCE if a SEG refers to instances that the CT does not have, OTHER_GRID if its frames are on another
        grid, BAD_MASK for fractional values or a segment that is not there; the errors of `read_seg`.
    """
    decoded: dict[str, DecodedSeg] = {}
    for segment in request.segments:
        if segment.file not in decoded:
            decoded = {segment.file: _read_sound_seg(Path(request.folder, segment.file), series, settings, issues)}
        seg = decoded[segment.file]
        if segment.value not in {s.number for s in seg.segments}:
            raise InputError(Reason.BAD_MASK, f"{segment.file} has no segment {segment.value}")
        yield segment.number, segment.name, segment.source_label, seg.mask(segment.value)


def _read_sound_seg(path: Path, series: SortedSeries, settings: Settings, issues: list[Issue]) -> DecodedSeg:
    limits = settings.seg
    seg = read_seg(path, series, max_voxels=limits.max_voxels, max_bytes=limits.max_bytes)
    if not seg.on_source_grid:
        found = [i for i in seg.issues if i.rule in {"SEG_GRID", "SEG_SOURCE"}]
        reason = Reason.NO_REFERENCE if found and found[0].rule == "SEG_SOURCE" else Reason.OTHER_GRID
        text = found[0].message if found else "its frames are on another grid than the CT"
        raise InputError(reason, f"{path.name}: {text}")
    errors = [i.message for i in seg.issues if i.severity is Severity.ERROR]
    if errors:
        raise InputError(Reason.NO_REFERENCE, f"{path.name}: {'; '.join(errors)}")
    if seg.segmentation_type == "FRACTIONAL":
        hint = "ctenrich export writes its fractions as NIfTI or NRRD"
        raise InputError(Reason.BAD_MASK, f"{path.name} is FRACTIONAL: its values are not masks", hint)
    issues += seg.issues
    return seg


def masks_of_structure_set(
    request: HarmoniseRequest, series: SortedSeries, settings: Settings, ct: NDArray[np.int16], issues: list[Issue]
) -> Iterator[MaskPart]:
    """Masks of the requested ROIs of a structure set, drawn by the rules of expert contours.

    Parameters
    ----------
    request : HarmoniseRequest
        Which ROIs.
    series : SortedSeries
        The CT that they were drawn on.
    settings : Settings
        Rule of nesting; limit of the unpacked size.
    ct : array of int16, [k, j, i]
        HU, for the findings about nested contours.
    issues : list of Issue
        Receives what was found about the contours.

    Yields
    ------
    MaskPart

    Raises
    ------
    InputError
        NO_REFERENCE if the structure set, or a requested ROI, belongs to another series; what `damage_of` finds in an
        ROI; the errors of `load_contours`.
    """
    structures = load_contours(Path(request.folder, request.segments[0].file), limit=settings.convert.max_unpacked)
    link = link_to(structures, series)
    if link is None:
        raise InputError(Reason.NO_REFERENCE, "the structure set refers to another series than the CT")
    elsewhere = rois_of_other_series(structures, series, link)
    grid, nesting = grid_of(series), settings.contours.nesting
    context = FindingContext(grid, ct, nesting)
    for segment in request.segments:
        roi = _requested_roi(structures, segment, series)
        if segment.value in elsewhere:
            raise InputError(Reason.NO_REFERENCE, f"ROI {roi.name!r}: {elsewhere[segment.value][1]}")
        own, _ = own_contours(structures, roi, series)
        drawn = rasterise(own.contours, grid, nesting=nesting)
        issues += [*roi_issues(segment.name, roi), *drawing_issues(segment.name, drawn, context)]
        damage = damage_of(own, drawn)
        if damage is not None:
            raise InputError(damage[0], f"ROI {roi.name!r}: {damage[1]}", "leave it out in --labels")
        yield segment.number, segment.name, segment.source_label, drawn.mask


def _requested_roi(structures: StructureSet, segment: RequestedSegment, series: SortedSeries) -> Roi:
    roi = structures.rois[segment.value]
    frame = roi.frame_of_reference_uid
    if frame and series.frame_of_reference_uid and frame != series.frame_of_reference_uid:
        raise InputError(Reason.NO_REFERENCE, f"ROI {roi.name!r} is drawn in another frame of reference")
    return roi
