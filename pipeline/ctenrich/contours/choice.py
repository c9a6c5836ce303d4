"""Choose the ROIs of a structure set that become segments, and name the segments."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from ctenrich.codes.mappings import find_segment, general_name, numbered_name
from ctenrich.contours.findings import contour_issue
from ctenrich.contours.ownership import Elsewhere
from ctenrich.contours.rtstruct import Roi, StructureSet
from ctenrich.errors import InputError, UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Issue, RoiDrop, Severity, SortedSeries
from ctenrich.settings import ContoursSettings

__all__ = ["ChosenRoi", "RoiChoice", "check_patterns", "choose_rois"]


@dataclass(frozen=True, kw_only=True)
class ChosenRoi:
    """A segment to draw."""

    name: str
    rois: tuple[Roi, ...]
    """Several if they are to be united."""


@dataclass(frozen=True, kw_only=True)
class RoiChoice:
    """The ROIs of a structure set, chosen or dropped."""

    structures: StructureSet
    chosen: tuple[ChosenRoi, ...]
    """In the order of the structure set."""
    dropped: dict[int, tuple[RoiDrop, str]]
    """Position of an ROI in the structure set -> why it became no segment, as a code and a sentence."""
    issues: tuple[Issue, ...]
    """Every ROI that was dropped, or that shares its name."""

    def check(self) -> None:
        """Refuse a structure set of which no ROI was chosen.

        Raises
        ------
        InputError
            NO_REFERENCE if all ROIs are drawn in another frame of reference, NO_MAPPED_ROI if none is left; the message
            names every ROI that was dropped.
        """
        if self.chosen:
            return
        rois = self.structures.rois
        if not rois:
            raise InputError(Reason.NO_MAPPED_ROI, "the structure set lists no ROI")
        if all(reason is RoiDrop.OTHER_FRAME for reason, _ in self.dropped.values()):
            text = "the structure set belongs to another series: all its ROIs are drawn in another frame of reference"
            raise InputError(Reason.NO_REFERENCE, text)
        names: dict[str, list[str]] = {}
        for position, (reason, _) in self.dropped.items():
            names.setdefault(_HEADINGS[reason], []).append(repr(rois[position].name))
        parts = [f"{heading}: {', '.join(found)}" for heading, found in names.items()]
        text = f"none of the {len(rois)} ROIs becomes a segment; {'; '.join(parts)}"
        hint = "take ROIs along with --roi PATTERN, or add the names to a segments.csv of your own (--mappings DIR)"
        raise InputError(Reason.NO_MAPPED_ROI, text, hint)


_HEADINGS = {
    RoiDrop.NO_MAPPING: "without a row in mappings/segments.csv",
    RoiDrop.OTHER_FRAME: "in another frame of reference",
    RoiDrop.OTHER_SERIES: "drawn on another series",
    RoiDrop.SEVERAL_SERIES: "drawn on one of several series, which are not told apart",
}
_RULES = {
    RoiDrop.NO_MAPPING: ("contours.unmapped", Severity.NOTE),
    RoiDrop.OTHER_FRAME: ("contours.frame_of_reference", Severity.WARNING),
    RoiDrop.OTHER_SERIES: ("contours.other_series", Severity.WARNING),
    RoiDrop.SEVERAL_SERIES: ("contours.several_series", Severity.WARNING),
}


def choose_rois(
    structures: StructureSet,
    series: SortedSeries,
    settings: ContoursSettings,
    elsewhere: Elsewhere | None = None,
    decided: Mapping[str, str] = MappingProxyType({}),
) -> RoiChoice:
    """Choose the ROIs of a structure set that become segments, in its order.

    ROIs on whose segment a person decided, those whose name a row of mappings/segments.csv knows, and those whose whole
    name matches one of ``contours.rois`` (upper or lower case), which get a general code. Several of one name:
    ``contours.same_name``.

    Parameters
    ----------
    structures : StructureSet
    series : SortedSeries
        Its frame of reference must be that of the ROIs.
    settings : ContoursSettings
    elsewhere : dict, optional
        ROIs that were drawn on another series: :func:`ctenrich.contours.ownership.rois_of_other_series`.
    decided : mapping of str to str
        Name of an ROI -> segment that a person decided on.

    Returns
    -------
    RoiChoice
        May be empty: see :meth:`RoiChoice.check`.
    """
    dropped: dict[int, tuple[RoiDrop, str]] = dict(elsewhere or {})
    patterns = check_patterns(settings.rois)
    groups: dict[str, list[Roi]] = {}
    for position, roi in enumerate(structures.rois):
        frame = roi.frame_of_reference_uid
        if frame and series.frame_of_reference_uid and frame != series.frame_of_reference_uid:
            dropped[position] = RoiDrop.OTHER_FRAME, "it is drawn in another frame of reference"
        if position in dropped:
            continue
        name = decided.get(roi.name.strip()) or _segment_name(roi, patterns)
        if name is None:
            dropped[position] = RoiDrop.NO_MAPPING, "it has no row in mappings/segments.csv"
            continue
        groups.setdefault(name, []).append(roi)
    dropped = dict(sorted(dropped.items()))
    issues = [_dropped_issue(structures, position, *cause) for position, cause in dropped.items()]
    if structures.nameless_contours:
        text = f"{structures.nameless_contours} contours have the number of no ROI and were dropped"
        uid = structures.sop_instance_uid
        issues.append(contour_issue("contours.nameless", Severity.WARNING, uid, text))
    chosen = _in_order(groups, structures, settings, issues)
    kept = {id(roi) for one in chosen for roi in one.rois}
    for position, roi in enumerate(structures.rois):
        if position not in dropped and id(roi) not in kept:
            dropped[position] = RoiDrop.SAME_NAME, "another ROI of the same segment name was drawn"
    return RoiChoice(structures=structures, chosen=tuple(chosen), dropped=dropped, issues=tuple(issues))


def _dropped_issue(structures: StructureSet, position: int, reason: RoiDrop, detail: str) -> Issue:
    rule, severity = _RULES[reason]
    text = f"ROI {structures.rois[position].name!r} was dropped: {detail}"
    return contour_issue(rule, severity, structures.sop_instance_uid, text)


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
