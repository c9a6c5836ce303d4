"""The expert as a segmenter: the contours of an RTSTRUCT of the same series become masks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType

from ctenrich.contours.choice import ChosenRoi, choose_rois
from ctenrich.contours.companions import Companions, LinkedStructures, read_companions
from ctenrich.contours.findings import FindingContext, contour_issue, damage_of, drawing_issues, roi_issues
from ctenrich.contours.ownership import own_contours
from ctenrich.contours.raster import Mask, grid_of, rasterise
from ctenrich.contours.roi_records import RoiRecords
from ctenrich.contours.rtstruct import Roi, StructureSet
from ctenrich.errors import InputError
from ctenrich.masks import masks_from_segments
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import (
    CompanionLink,
    Issue,
    ModelInfo,
    Product,
    ProductKind,
    RoiDrop,
    SegmentMasks,
    Severity,
    SortedSeries,
    StructureRois,
    Volume,
)
from ctenrich.series_store import SeriesStore
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace, load_array

__all__ = ["ExpertSegmenter"]


class ExpertSegmenter:
    """Segments a series by its experts' contours; implements the segmenter protocol.

    Segments are numbered in the order of the structure set and may overlap. Which ROIs become segments, and what
    happens to several of one name: :func:`ctenrich.contours.choice.choose_rois`. A chosen ROI without contours,
    or whose contours enclose no voxel centre, is listed as absent. One of which nothing can be drawn (damaged, off the
    slices, without a closed contour) is no segment, and an issue gives the cause.
    """

    def __init__(self, names: Mapping[str, str] = MappingProxyType({})) -> None:
        self._product = Product(ProductKind.EXPERT)
        self._names = names

    def with_names(self, names: Mapping[str, str]) -> ExpertSegmenter:
        """Return a segmenter for a series with ROIs on whose names people decided: name of the ROI -> segment."""
        return ExpertSegmenter(names)

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
        store = SeriesStore(workspace)
        store.path(StructureRois, uid, self._product).unlink(missing_ok=True)  # of an earlier attempt
        paths = [workspace.resolve(uid, path) for path in series.companions]
        companions = read_companions(paths, series, limit=settings.convert.max_unpacked)
        issues: list[Issue] = []
        with _issues_in_errors(issues):
            chosen = self._choose(companions, series, store, issues)
            issues += _reference_issues(chosen, series)
            choice = choose_rois(chosen.structures, series, settings.contours, chosen.elsewhere, self._names)
            issues += choice.issues
            read = time.perf_counter()
            progress.start("contours", len(choice.chosen))
            grid = grid_of(series)
            rois = RoiRecords(chosen.structures, series)
            rois.choose(choice)
            volume = inputs.get("CT")
            array = load_array(workspace.resolve(uid, volume.array_path)) if volume else None
            context = FindingContext(grid, array, settings.contours.nesting)
            drawing = _Drawing(context, series, chosen.structures, rois, issues)
            template = SegmentMasks(
                product=self._product,
                series_instance_uid=uid,
                shape=series.shape,
                segments=(),
                label_map_path=None,
                sha256="",
                algorithm_type="MANUAL",
                source_sop_instance_uid=chosen.structures.sop_instance_uid,
            )
            folder = workspace.product_dir(uid, self._product) / "masks"
            try:
                choice.check()
                masks = masks_from_segments(drawing.segments(choice.chosen, progress), template, folder, workspace)
                drawing.check_content(masks)
            finally:
                store.save(rois.record(self._product, grid.voxel_volume), uid, self._product)
        progress.finish("contours")
        timings = {"read": read - started, "rasterise": time.perf_counter() - read}
        return replace(masks, issues=tuple(issues), timings=timings)

    def _choose(
        self, companions: Companions, series: SortedSeries, store: SeriesStore, issues: list[Issue]
    ) -> LinkedStructures:
        """Choose the structure set of the series; keep its issues and, if it belongs to another series, its ROIs."""
        if not companions.found and companions.elsewhere:
            structures, dropped = companions.elsewhere[-1]
            rois = RoiRecords(structures, series)
            rois.drop_elsewhere(dropped)
            record = rois.record(self._product, grid_of(series).voxel_volume)
            store.save(record, series.series_instance_uid, self._product)
        try:
            return companions.choose(series)
        finally:
            issues += companions.issues


@contextmanager
def _issues_in_errors(issues: list[Issue]) -> Iterator[None]:
    """Hand on what was found in a structure set with the error that ends it."""
    try:
        yield
    except InputError as error:
        error.issues = tuple(issues)
        raise


def _reference_issues(chosen: LinkedStructures, series: SortedSeries) -> list[Issue]:
    """Faults in the references of a structure set that was accepted."""
    structures = chosen.structures
    uid = structures.sop_instance_uid
    if chosen.link is CompanionLink.FRAME_OF_REFERENCE:
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

    def __init__(
        self,
        context: FindingContext,
        series: SortedSeries,
        structures: StructureSet,
        rois: RoiRecords,
        issues: list[Issue],
    ) -> None:
        self._context = context
        self._series = series
        self._structures = structures
        self._rois = rois
        self._issues = issues
        self._left_out: list[tuple[Reason, str]] = []

    def segments(
        self, chosen: Sequence[ChosenRoi], progress: Progress = SILENT
    ) -> Iterator[tuple[int, str, str, Mask]]:
        """Masks one at a time: (number, name, ROI names, mask)."""
        number = 0
        for one in chosen:
            mask = self._draw(one)
            if mask is not None:
                number += 1
                self._rois.number(one.rois, number)
                yield number, one.name, " + ".join(roi.name for roi in one.rois), mask
            progress.advance("contours")

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
            own, foreign = own_contours(self._structures, roi, self._series)
            if foreign:
                text = f"{foreign} contours refer to images of another series and were left out"
                self._issues.append(contour_issue("contours.other_series", Severity.WARNING, chosen.name, text))
            drawn = rasterise(own.contours, self._context.grid, nesting=self._context.nesting)
            self._rois.draw(roi, drawn)
            self._issues += drawing_issues(chosen.name, drawn, self._context)
            damage = damage_of(own, drawn)
            if damage is not None:
                self._leave_out(chosen.name, roi, *damage)
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
            if damaged:
                for roi in chosen.rois:
                    self._rois.drop(roi, RoiDrop.DAMAGED, "it has no voxel, and an ROI united with it is damaged")
                return None
        return mask

    def _leave_out(self, name: str, roi: Roi, reason: Reason, text: str) -> None:
        message = f"ROI {roi.name!r}: {text}"
        self._rois.drop(roi, _DROPS[reason], text)
        self._left_out.append((reason, message))
        rule = {
            Reason.DECODE_ERROR: "contours.damaged",
            Reason.CONTOURS_OFF_SLICES: "contours.unplaceable",
        }.get(reason, "contours.no_area")
        severity = Severity.WARNING if rule == "contours.no_area" else Severity.ERROR
        self._issues.append(contour_issue(rule, severity, name, f"{message}; it is no segment"))


_BY_WEIGHT = [Reason.DECODE_ERROR, Reason.CONTOURS_OFF_SLICES, Reason.EMPTY_SEGMENTATION]
_DROPS = {
    Reason.DECODE_ERROR: RoiDrop.DAMAGED,
    Reason.CONTOURS_OFF_SLICES: RoiDrop.UNPLACEABLE,
    Reason.EMPTY_SEGMENTATION: RoiDrop.NO_AREA,
}
