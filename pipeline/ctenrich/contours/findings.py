"""Issues about the contours of an ROI: what was found in the file, and what drawing it on the slices showed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.contours.raster import Grid, Rasterised
from ctenrich.contours.rtstruct import Roi
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Severity
from ctenrich.settings import Nesting

__all__ = ["FindingContext", "contour_issue", "damage_of", "drawing_issues", "roi_issues"]

_SHARE, _CM3 = 0.01, 1.0
"""Differences of volume between the rules of nesting that are reported: share of the largest, or cm3."""


@dataclass(frozen=True)
class FindingContext:
    """What the findings about a drawn ROI are based on."""

    grid: Grid
    volume: NDArray[Any] | None
    """Hounsfield units, [k, j, i]; None if they are not known."""
    nesting: Nesting


def contour_issue(rule: str, severity: Severity, about: str, text: str) -> Issue:
    """Make an issue of this package.

    Parameters
    ----------
    rule : str
        ``contours.NAME``.
    severity : Severity
    about : str
        Segment name or SOP Instance UID.
    text : str
        The message.
    """
    return Issue(rule, severity, about, text, checker="ctenrich.contours")


def roi_issues(name: str, roi: Roi) -> list[Issue]:
    """Report contours that cannot be read or that enclose no area by their type.

    Parameters
    ----------
    name : str
        Name of the segment.
    roi : Roi
        As read.
    """
    faults, error, warning = roi.faults, Severity.ERROR, Severity.WARNING
    total = len(roi.contours) + faults.damaged + faults.without_area
    found = (
        (faults.not_numbers, "unreadable", error, "cannot be read: a coordinate is not a number"),
        (faults.incomplete, "unreadable", error, "cannot be read: coordinates are missing"),
        (faults.untyped, "unreadable", error, "cannot be read: Contour Geometric Type is missing"),
        (faults.unknown_type, "unreadable", error, "cannot be read: Contour Geometric Type is unknown"),
        (faults.miscounted, "point_count", warning, "drawn, but the stated number of points is another"),
        (faults.points, "points", warning, "single points, which enclose no area, and were left out"),
        (faults.open, "open", warning, "open lines, which enclose no area, and were left out"),
    )
    out = [
        contour_issue(f"contours.{rule}", severity, name, f"{count} of {total} contours: {text}")
        for count, rule, severity, text in found
        if count
    ]
    if roi.shares_number:
        text = f"several ROIs have the number {roi.number}: the contours may be those of another name"
        out.append(contour_issue("contours.number", error, name, text))
    return out


def damage_of(roi: Roi, drawn: Rasterised) -> tuple[Reason, str] | None:
    """Why an ROI has no voxel although it has contours; None if it has, or if its contours really enclose none.

    Parameters
    ----------
    roi : Roi
        As read.
    drawn : Rasterised
        As drawn.

    Returns
    -------
    tuple of (Reason, str) or None
    """
    faults = roi.faults
    if drawn.voxels["union"]:
        return None
    if faults.damaged:
        return Reason.DECODE_ERROR, f"it has no voxel, and {faults.damaged} of its contours cannot be read"
    misplaced = (
        (drawn.off_slice, "are on no slice"),
        (drawn.tilted, "are not parallel to the slices"),
        (drawn.beyond_image, "leave the image"),
    )
    texts = [f"{count} contours {text}" for count, text in misplaced if count]
    if texts:
        return Reason.CONTOURS_OFF_SLICES, ", ".join(texts)
    if faults.without_area and not roi.contours:
        return Reason.EMPTY_SEGMENTATION, "it has only points or open lines, which enclose no area"
    return None


def drawing_issues(name: str, drawn: Rasterised, context: FindingContext) -> list[Issue]:
    """Report what was left out, moved, filled or cut while an ROI was drawn.

    Parameters
    ----------
    name : str
        Name of the segment.
    drawn : Rasterised
        As drawn.
    context : FindingContext
        Grid, Hounsfield units and the rule that was used.
    """
    counts, warning, note = drawn.counts, Severity.WARNING, Severity.NOTE
    missing = len(drawn.missing_slices)
    between = drawn.slices[-1] - drawn.slices[0] - 1 if drawn.slices else 0
    filled = "were filled" if context.nesting != "xor" else "were cut out (contours.nesting = xor)"
    holes = "were cut out as holes" if context.nesting != "union" else "were filled (contours.nesting = union)"
    found = (
        (drawn.off_slice, "off_slice", warning, "contours are on no slice of the series and were left out"),
        (drawn.tilted, "tilted", warning, "contours are not parallel to the slices and were left out"),
        (
            drawn.between_slices,
            "between_slices",
            warning,
            f"contours are not on a slice (up to {drawn.furthest:.2f} mm away) and were drawn on the nearest",
        ),
        (drawn.beyond_image, "beyond_image", warning, "contours leave the image and were cut at its border"),
        (missing, "missing_slices", warning, f"of {between} slices between the first and the last contour have none"),
        (counts.copies, "copies", note, "contours repeat another of the same plane and were drawn once"),
        (
            counts.opposed_copies,
            "thin_ring",
            warning,
            "contours run against another with the same pixels: no voxel centre is between them; filled",
        ),
        (drawn.without_pixel, "without_pixel", note, "contours enclose no voxel centre"),
        (counts.same_way, "nested", warning, f"contours are inside another that runs the same way and {filled}"),
        (counts.holes, "holes", note if context.nesting != "union" else warning,
         f"contours are inside another that runs the other way and {holes}"),
        (
            counts.mixed_planes,
            "mixed_types",
            warning,
            "slices have contours of both types CLOSED_PLANAR and CLOSEDPLANAR_XOR: combined by exclusive or",
        ),
    )  # fmt: skip
    out = [
        contour_issue(f"contours.{rule}", severity, name, f"{count} {text}")
        for count, rule, severity, text in found
        if count
    ]
    return out + _centre_issues(name, drawn) + _volume_issues(name, drawn, context)


def _centre_issues(name: str, drawn: Rasterised) -> list[Issue]:
    if drawn.with_rim:
        text = f"contours were traced through pixel centres: the {drawn.rim_voxels} voxels on them were included"
        return [contour_issue("contours.rim", Severity.NOTE, name, text)]
    if drawn.on_centres and drawn.rim_voxels:
        text = (
            f"all corners are pixel centres; {drawn.rim_voxels} voxels on the contours count as outside, "
            "which is wrong if the contours were traced from a mask through pixel centres"
        )
        return [contour_issue("contours.rim", Severity.WARNING, name, text)]
    return []


def _volume_issues(name: str, drawn: Rasterised, context: FindingContext) -> list[Issue]:
    """Volumes by every rule, if they differ."""
    low, high = min(drawn.voxels.values()), max(drawn.voxels.values())
    if low == high:
        return []
    unit = context.grid.voxel_volume / 1000
    volumes = ", ".join(f"{rule} {count * unit:.2f} cm3" for rule, count in drawn.voxels.items())
    text = f"volume by rule of nesting: {volumes} (used: {context.nesting})"
    if context.volume is not None:
        values = np.concatenate(
            [context.volume[d.k][d.window.slices][d.mask] for d in drawn.differences] or [np.zeros(0)]
        )
        if values.size:
            text += f"; median of the difference {float(np.median(values)):.0f} HU"
    large = high - low > _SHARE * high or (high - low) * unit > _CM3
    severity = Severity.WARNING if large else Severity.NOTE
    return [contour_issue("contours.volume", severity, name, text)]
