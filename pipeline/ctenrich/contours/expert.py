"""The expert as a segmenter: the contours of an RTSTRUCT of the same series become masks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ctenrich.codes.mappings import find_segment
from ctenrich.contours.raster import Grid, Mask, Rasterised, grid_of, rasterise
from ctenrich.contours.rtstruct import Roi, StructureSet, link_to, load_contours
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
from ctenrich.workspace import Workspace

__all__ = ["ExpertSegmenter", "find_structures"]


class ExpertSegmenter:
    """Segments a series by its experts' contours; implements the segmenter protocol.

    One segment for each mapped name, numbered in the order of the structure set; ROIs that map to one name are united.
    Segments may overlap. A mapped ROI without a voxel stays in the list as absent.
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
            ROI has a name of mappings/segments.csv, and what `load_contours` raises if it is the only one.
        """
        started = time.perf_counter()
        uid = series.series_instance_uid
        paths = [workspace.resolve(uid, path) for path in series.companions]
        structures, link, issues = find_structures(paths, series, limit=settings.convert.max_unpacked)
        issues += _reference_issues(structures, link, series)
        groups = _group_rois(structures, series, issues)
        read = time.perf_counter()
        progress.start("contours", len(groups))
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
        parts = _draw_segments(groups, grid_of(series), issues, progress)
        masks = masks_from_segments(parts, template, folder, workspace)
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
                    _contour_issue("contours.unreadable", Severity.WARNING, f"companion {position}", error.message)
                )
            continue
        link = link_to(structures, series)
        if link is None:
            strangers += 1
            text = "the structure set refers to another series and another frame of reference"
            issues.append(_contour_issue("contours.reference", Severity.WARNING, structures.sop_instance_uid, text))
            continue
        by_reference = link is CompanionLink.REFERENCE
        found.append((by_reference, structures.stamp, structures.sop_instance_uid, structures, link))
    if not found:
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
        issues.append(_contour_issue("contours.other", Severity.NOTE, other[3].sop_instance_uid, text))
    return chosen, link, issues


def _reference_issues(structures: StructureSet, link: CompanionLink, series: SortedSeries) -> list[Issue]:
    """Faults in the references of a structure set that was accepted."""
    uid = structures.sop_instance_uid
    if link is CompanionLink.FRAME_OF_REFERENCE:
        text = "the structure set's references do not name this series; its frame of reference does"
        return [_contour_issue("contours.link", Severity.WARNING, uid, text)]
    missing = len(structures.image_uids.difference(series.sop_instance_uids))
    if not missing:
        return []
    text = f"{missing} of {len(structures.image_uids)} images that the structure set refers to are not in the series"
    return [_contour_issue("contours.references", Severity.WARNING, uid, text)]


def _group_rois(structures: StructureSet, series: SortedSeries, issues: list[Issue]) -> dict[str, list[Roi]]:
    """ROIs by segment name, in the order of the structure set."""
    groups: dict[str, list[Roi]] = {}
    elsewhere = 0
    for roi in structures.rois:
        frame = roi.frame_of_reference_uid
        if frame and series.frame_of_reference_uid and frame != series.frame_of_reference_uid:
            text = f"ROI {roi.name!r} is drawn in another frame of reference and was skipped"
            issues.append(
                _contour_issue("contours.frame_of_reference", Severity.WARNING, structures.sop_instance_uid, text)
            )
            elsewhere += 1
            continue
        code = find_segment(roi.name)
        if code is None:
            text = f"ROI {roi.name!r} has no row in mappings/segments.csv and was skipped"
            issues.append(_contour_issue("contours.unmapped", Severity.NOTE, structures.sop_instance_uid, text))
            continue
        groups.setdefault(code.name, []).append(roi)
    if elsewhere and elsewhere == len(structures.rois):
        text = "the structure set belongs to another series: all its ROIs are drawn in another frame of reference"
        raise InputError(Reason.NO_REFERENCE, text)
    if not groups:
        hint = "add the names to the labels column of mappings/segments.csv"
        text = f"none of the {len(structures.rois)} ROIs has a name that the mapping knows"
        raise InputError(Reason.NO_MAPPED_ROI, text, hint)
    return groups


def _draw_segments(
    groups: dict[str, list[Roi]], grid: Grid, issues: list[Issue], progress: Progress
) -> Iterator[tuple[int, str, str, Mask]]:
    """Masks one at a time: (number, name, ROI names, mask)."""
    for number, (name, rois) in enumerate(groups.items(), start=1):
        result: Rasterised | None = None
        for roi in rois:
            drawn = rasterise(roi.contours, grid)
            issues += _drawing_issues(name, roi, drawn)
            if result is None:
                result = drawn
            else:
                result.mask[...] |= drawn.mask
        assert result is not None
        if len(rois) > 1:
            text = f"united from {len(rois)} ROIs that map to one segment"
            issues.append(_contour_issue("contours.united", Severity.NOTE, name, text))
        yield number, name, " + ".join(roi.name for roi in rois), result.mask
        progress.advance("contours")


def _drawing_issues(name: str, roi: Roi, drawn: Rasterised) -> list[Issue]:
    out: list[Issue] = []
    for count, rule, severity, text in (
        (roi.other, "contours.type", Severity.NOTE, "contours enclose no area (points, open lines, too few corners)"),
        (drawn.off_slice, "contours.off_slice", Severity.WARNING, "contours lie on no slice of the series"),
        (drawn.tilted, "contours.tilted", Severity.WARNING, "contours are not parallel to the slices"),
    ):
        if count:
            out.append(_contour_issue(rule, severity, name, f"{count} {text} and were left out"))
    if not drawn.mask.any():
        out.append(_contour_issue("contours.empty", Severity.WARNING, name, "the contours enclose no voxel centre"))
    return out


def _contour_issue(rule: str, severity: Severity, about: str, text: str) -> Issue:
    return Issue(rule, severity, about, text, checker="ctenrich.contours")
