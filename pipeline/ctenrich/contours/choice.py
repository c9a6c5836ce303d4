"""Choose the ROIs of a structure set that become segments, and name the segments."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ctenrich.codes.mappings import find_segment, general_name, numbered_name
from ctenrich.contours.findings import contour_issue
from ctenrich.contours.rtstruct import Roi, StructureSet
from ctenrich.errors import InputError, UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Severity, SortedSeries
from ctenrich.settings import ContoursSettings

__all__ = ["ChosenRoi", "check_patterns", "choose_rois"]


@dataclass(frozen=True, kw_only=True)
class ChosenRoi:
    """A segment to draw."""

    name: str
    rois: tuple[Roi, ...]
    """Several if they are to be united."""


def choose_rois(
    structures: StructureSet, series: SortedSeries, settings: ContoursSettings
) -> tuple[list[ChosenRoi], list[Issue]]:
    """Choose the ROIs of a structure set that become segments, in its order.

    ROIs whose name a row of mappings/segments.csv knows, and those whose whole name matches one of ``contours.rois``
    (upper or lower case), which get a general code. Several of one name: ``contours.same_name``.

    Parameters
    ----------
    structures : StructureSet
    series : SortedSeries
        Its frame of reference must be that of the ROIs.
    settings : ContoursSettings

    Returns
    -------
    list of ChosenRoi
    list of Issue
        Every ROI that was dropped, or that shares its name.

    Raises
    ------
    InputError
        NO_REFERENCE if all ROIs are drawn in another frame of reference, NO_MAPPED_ROI if none is left; the message
        names every ROI that was dropped.
    """
    issues: list[Issue] = []
    uid = structures.sop_instance_uid
    patterns = check_patterns(settings.rois)
    groups: dict[str, list[Roi]] = {}
    elsewhere: list[str] = []
    unmapped: list[str] = []
    for roi in structures.rois:
        frame = roi.frame_of_reference_uid
        if frame and series.frame_of_reference_uid and frame != series.frame_of_reference_uid:
            elsewhere.append(roi.name)
            text = f"ROI {roi.name!r} is drawn in another frame of reference and was dropped"
            issues.append(contour_issue("contours.frame_of_reference", Severity.WARNING, uid, text))
            continue
        name = _segment_name(roi, patterns)
        if name is None:
            unmapped.append(roi.name)
            text = f"ROI {roi.name!r} has no row in mappings/segments.csv and was dropped"
            issues.append(contour_issue("contours.unmapped", Severity.NOTE, uid, text))
            continue
        groups.setdefault(name, []).append(roi)
    if structures.nameless_contours:
        text = f"{structures.nameless_contours} contours have the number of no ROI and were dropped"
        issues.append(contour_issue("contours.nameless", Severity.WARNING, uid, text))
    if elsewhere and len(elsewhere) == len(structures.rois):
        text = "the structure set belongs to another series: all its ROIs are drawn in another frame of reference"
        raise InputError(Reason.NO_REFERENCE, text)
    if not groups:
        raise _no_roi(structures, elsewhere, unmapped)
    return _in_order(groups, structures, settings, issues), issues


def check_patterns(patterns: Sequence[str]) -> list[re.Pattern[str]]:
    """Compile the patterns of ROI names.

    Raises
    ------
    UsageError
        BAD_SETTINGS if one is not a regular expression.
    """
    out = []
    for pattern in patterns:
        try:
            out.append(re.compile(pattern, re.IGNORECASE))
        except re.error as error:
            message = f"contours.rois: {pattern!r} is not a regular expression: {error}"
            raise UsageError(Reason.BAD_SETTINGS, message, 'for all names that begin with GTV: "GTV.*"') from None
    return out


def _segment_name(roi: Roi, patterns: list[re.Pattern[str]]) -> str | None:
    code = find_segment(roi.name)
    if code is not None:
        return code.name
    return general_name(roi.name) if any(pattern.fullmatch(roi.name) for pattern in patterns) else None


def _no_roi(structures: StructureSet, elsewhere: list[str], unmapped: list[str]) -> InputError:
    if not structures.rois:
        return InputError(Reason.NO_MAPPED_ROI, "the structure set lists no ROI")
    parts = []
    if unmapped:
        parts.append("without a row in mappings/segments.csv: " + ", ".join(map(repr, unmapped)))
    if elsewhere:
        parts.append("in another frame of reference: " + ", ".join(map(repr, elsewhere)))
    text = f"none of the {len(structures.rois)} ROIs becomes a segment; {'; '.join(parts)}"
    hint = "take ROIs along with --roi PATTERN, or add the names to a segments.csv of your own (--mappings DIR)"
    return InputError(Reason.NO_MAPPED_ROI, text, hint)


def _in_order(
    groups: dict[str, list[Roi]], structures: StructureSet, settings: ContoursSettings, issues: list[Issue]
) -> list[ChosenRoi]:
    """Segments in the order of the structure set; ROIs of one name by ``contours.same_name``."""
    for name, rois in groups.items():
        if len(rois) > 1:
            done = {
                "separate": "they are separate segments",
                "merge": "they were united",
                "first": "only the first was drawn, the others were dropped",
            }[settings.same_name]
            text = f"{len(rois)} ROIs map to one name ({', '.join(repr(roi.name) for roi in rois)}): {done}"
            rule = {"separate": "contours.same_name", "merge": "contours.united"}.get(
                settings.same_name, "contours.dropped"
            )
            issues.append(contour_issue(rule, Severity.WARNING, name, text))
    if settings.same_name != "separate":
        kept = slice(None) if settings.same_name == "merge" else slice(1)
        return [ChosenRoi(name=name, rois=tuple(rois[kept])) for name, rois in groups.items()]
    names = {id(roi): name for name, rois in groups.items() for roi in rois}
    seen: Counter[str] = Counter()
    out = []
    for roi in structures.rois:
        if id(roi) in names:
            name = names[id(roi)]
            seen[name] += 1
            out.append(ChosenRoi(name=numbered_name(name, seen[name]), rois=(roi,)))
    return out
