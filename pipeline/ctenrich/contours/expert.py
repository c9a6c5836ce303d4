"""The expert as a segmenter: the contours of an RTSTRUCT of the same series become masks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ctenrich.contours.choice import ChosenRoi, choose_rois
from ctenrich.contours.findings import FindingContext, contour_issue, damage_of, drawing_issues, roi_issues
from ctenrich.contours.raster import Mask, grid_of, rasterise
from ctenrich.contours.rtstruct import StructureSet, link_to, load_contours
from ctenrich.errors import CtenrichError, InputError
from ctenrich.masks import masks_from_segments
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import (
    CompanionLink,
    Issue,
    ModelInfo,
    Product,
    ProductKind,
    SegmentMasks,
    Severity,
    SortedSeries,
    Volume,
)
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace, load_array

__all__ = ["ExpertSegmenter", "find_structures"]

_UNLINKED = ("companion.several", "companion.other_series")
"""Rules of the selection's notes on structure sets that were not given to the series."""


class ExpertSegmenter:
    """Segments a series by its experts' contours; implements the segmenter protocol.

    Segments are numbered in the order of the structure set and may overlap. Which ROIs become segments, and what
    happens to several of one name: :func:`ctenrich.contours.choice.choose_rois`. A chosen ROI without contours,
    or whose contours enclose no voxel centre, is listed as absent. One of which nothing can be drawn (damaged, off the
    slices, without a closed contour) is no segment, and an issue gives the cause.
    """

    def __init__(self) -> None:
        self._product = Product(ProductKind.EXPERT)

    @property
    def product(self) -> Product:
        """``expert``."""
        return self._product

    @property
    def info(self) -> ModelInfo | None:
        """None: there is no model."""
        return None

    def segment(
        self,
        inputs: Mapping[str, Volume],
        series: SortedSeries,
        *,
        settings: Settings,
        workspace: Workspace,
        progress: Progress = SILENT,
    ) -> SegmentMasks:
        """Rasterise the structure set of the series.

        Raises
        ------
        InputError
            NO_EXPERT if the series has no RTSTRUCT, NO_REFERENCE if it belongs to another series, NO_MAPPED_ROI if no
            ROI is mapped or asked for, DECODE_ERROR, CONTOURS_OFF_SLICES or EMPTY_SEGMENTATION if no ROI can be drawn
            (damaged; on no slice; only points or open lines), and what `load_contours` raises if it is the only one.
        """
        started = time.perf_counter()
        uid = series.series_instance_uid
        paths = [workspace.resolve(uid, path) for path in series.companions]
        structures, link, issues = find_structures(paths, series, limit=settings.convert.max_unpacked)
        issues += _reference_issues(structures, link, series)
        chosen, more = choose_rois(structures, series, settings.contours)
        issues += more
        read = time.perf_counter()
        progress.start("contours", len(chosen))
        template = SegmentMasks(
            product=self._product,
            series_instance_uid=uid,
            shape=series.shape,
            segments=(),
            label_map_path=None,
            sha256="",
            algorithm_type="MANUAL",
            source_sop_instance_uid=structures.sop_instance_uid,
        )
        folder = workspace.product_dir(uid, self._product) / "masks"
        volume = inputs.get("CT")
        array = load_array(workspace.resolve(uid, volume.array_path)) if volume else None
        drawing = _Drawing(FindingContext(grid_of(series), array, settings.contours.nesting), issues, progress)
        masks = masks_from_segments(drawing.segments(chosen), template, folder, workspace)
        drawing.check_content(masks)
        progress.finish("contours")
        timings = {"read": read - started, "rasterise": time.perf_counter() - read}
        return replace(masks, issues=tuple(issues), timings=timings)


def find_structures(
    paths: list[Path], series: SortedSeries, *, limit: int
) -> tuple[StructureSet, CompanionLink, list[Issue]]:
    """Choose the structure set of a series: linked by reference before frame of reference, then the newest.

    Companions of other kinds (SEG) are ignored.

    Parameters
    ----------
    paths : list of Path
        Companion files of the series.
    series : SortedSeries
    limit : int
        Bytes that a deflated file may unpack to.

    Returns
    -------
    StructureSet
    CompanionLink
        How it is linked to the series.
    list of Issue
        Unreadable companions, structure sets of other series, structure sets that were not chosen.

    Raises
    ------
    InputError
        NO_EXPERT without a structure set, NO_REFERENCE if all belong to other series, or the first error of
        `load_contours`.
    """
    issues: list[Issue] = []
    found: list[tuple[bool, str, str, StructureSet, CompanionLink]] = []
    strangers = 0
    failure: CtenrichError | None = None
    for position, path in enumerate(paths, start=1):
        try:
            structures = load_contours(path, limit=limit)
        except InputError as error:
            if error.reason is not Reason.NO_EXPERT:
                failure = failure or error
                issues.append(
                    contour_issue("contours.unreadable", Severity.WARNING, f"companion {position}", error.message)
                )
            continue
        link = link_to(structures, series)
        if link is None:
            strangers += 1
            text = "the structure set refers to another series and another frame of reference"
            issues.append(contour_issue("contours.reference", Severity.WARNING, structures.sop_instance_uid, text))
            continue
        by_reference = link is CompanionLink.REFERENCE
        found.append((by_reference, structures.stamp, structures.sop_instance_uid, structures, link))
    if not found:
        told = list(dict.fromkeys(i.message for i in series.issues if i.rule in _UNLINKED))
        if told:
            raise InputError(Reason.NO_REFERENCE, "; ".join(told))
        if strangers:
            text = "the structure set belongs to another series: neither its references nor its frame of reference fit"
            raise InputError(Reason.NO_REFERENCE, text)
        if failure is not None:
            raise failure
        raise InputError(Reason.NO_EXPERT, "the series has no RT Structure Set", "expert needs an RTSTRUCT companion")
    found.sort(key=lambda item: item[:3])
    *others, (_, _, _, chosen, link) = found
    for other in others:
        text = "another structure set of this series was chosen (tied by reference first, then the newest)"
        issues.append(contour_issue("contours.other", Severity.NOTE, other[3].sop_instance_uid, text))
    return chosen, link, issues


def _reference_issues(structures: StructureSet, link: CompanionLink, series: SortedSeries) -> list[Issue]:
    """Faults in the references of a structure set that was accepted."""
    uid = structures.sop_instance_uid
    if link is CompanionLink.FRAME_OF_REFERENCE:
        text = "the structure set's references do not name this series; its frame of reference does"
        return [contour_issue("contours.link", Severity.WARNING, uid, text)]
    own = frozenset(series.sop_instance_uids)
    if structures.image_uids <= own:
        return []
    named = "this series" if series.series_instance_uid in structures.series_instance_uids else "not this series"
    drawn = structures.contour_image_uids
    text = (
        f"the structure set names {named}; {len(structures.image_uids & own)} of {len(structures.image_uids)} images "
        f"that it refers to are in the series, {len(drawn & own)} of {len(drawn)} of those on which contours were drawn"
    )
    return [contour_issue("contours.references", Severity.WARNING, uid, text)]


class _Drawing:
    """Draws one segment after the other; keeps what could not be drawn."""

    def __init__(self, context: FindingContext, issues: list[Issue], progress: Progress) -> None:
        self._context = context
        self._issues = issues
        self._progress = progress
        self._left_out: list[tuple[Reason, str]] = []

    def segments(self, chosen: list[ChosenRoi]) -> Iterator[tuple[int, str, str, Mask]]:
        """Masks one at a time: (number, name, ROI names, mask)."""
        number = 0
        for one in chosen:
            mask = self._draw(one)
            if mask is not None:
                number += 1
                yield number, one.name, " + ".join(roi.name for roi in one.rois), mask
            self._progress.advance("contours")

    def check_content(self, masks: SegmentMasks) -> None:
        """Refuse a structure set of which nothing was drawn, with the first cause.

        Raises
        ------
        InputError
            DECODE_ERROR, CONTOURS_OFF_SLICES or EMPTY_SEGMENTATION.
        """
        if self._left_out and all(segment.absent for segment in masks.segments):
            reason = min((reason for reason, _ in self._left_out), key=_BY_WEIGHT.index)
            texts = [text for found, text in self._left_out if found is reason]
            raise InputError(reason, "; ".join(texts[:5]) + ("; ..." if len(texts) > 5 else ""))

    def _draw(self, chosen: ChosenRoi) -> Mask | None:
        """The mask of a segment; None if its ROIs cannot be drawn."""
        mask: Mask | None = None
        damaged = False
        for roi in chosen.rois:
            self._issues += roi_issues(chosen.name, roi)
            drawn = rasterise(roi.contours, self._context.grid, nesting=self._context.nesting)
            self._issues += drawing_issues(chosen.name, drawn, self._context)
            damage = damage_of(roi, drawn)
            if damage is not None:
                self._leave_out(chosen.name, roi.name, *damage)
                damaged = True
                continue
            if mask is None:
                mask = drawn.mask
            else:
                mask |= drawn.mask
        if mask is not None and not mask.any():
            text = "the ROI has no contours" if not any(roi.contours for roi in chosen.rois) else ""
            text = text or "the contours enclose no voxel centre"
            self._issues.append(contour_issue("contours.empty", Severity.WARNING, chosen.name, text))
            return None if damaged else mask
        return mask

    def _leave_out(self, name: str, label: str, reason: Reason, text: str) -> None:
        message = f"ROI {label!r}: {text}"
        self._left_out.append((reason, message))
        rule = {
            Reason.DECODE_ERROR: "contours.damaged",
            Reason.CONTOURS_OFF_SLICES: "contours.unplaceable",
        }.get(reason, "contours.no_area")
        severity = Severity.WARNING if rule == "contours.no_area" else Severity.ERROR
        self._issues.append(contour_issue(rule, severity, name, f"{message}; it is no segment"))


_BY_WEIGHT = [Reason.DECODE_ERROR, Reason.CONTOURS_OFF_SLICES, Reason.EMPTY_SEGMENTATION]
