"""Decide, ROI by ROI, whether the contours of a structure set were drawn on a series or on another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ctenrich.contours.rtstruct import Contour, Roi, StructureSet
from ctenrich.dicom.sop_classes import CT_IMAGE
from ctenrich.records import CompanionLink, RoiDrop, SortedSeries

__all__ = ["Elsewhere", "own_contours", "rois_of_other_series", "several_series"]

Elsewhere = dict[int, tuple[RoiDrop, str]]
"""Position of an ROI in its structure set -> why it is not drawn, as a code and a sentence."""

_LISTED = 6
"""Series that a message lists at most."""


def rois_of_other_series(structures: StructureSet, series: SortedSeries, link: CompanionLink) -> Elsewhere:
    """Find the ROIs that were drawn on another series, or on one of several that cannot be told apart.

    The images to which an ROI's contours refer decide. Where none of them is in the series, the ROI belongs to another
    one, unless nothing in the structure set resolves and it lists this series alone (identifiers that were replaced).
    An ROI without such references belongs to the series on which the other ROIs were drawn, if that is a single one, or
    to the only CT series that the structure set lists for its frame of reference; otherwise it is undecided.

    Parameters
    ----------
    structures : StructureSet
    series : SortedSeries
    link : CompanionLink
        How the structure set is linked to the series. By frame of reference, no reference resolves: only contours that
        were drawn on several series are undecided.

    Returns
    -------
    dict
        By position of the ROI, only those that are not drawn on `series`.
    """
    own = frozenset(series.sop_instance_uids)
    owner = {uid: one.series_instance_uid for one in structures.listed for uid in one.image_uids}
    owner |= dict.fromkeys(own, series.series_instance_uid)
    others = structures.series_instance_uids - {series.series_instance_uid}
    resolves = not own.isdisjoint(structures.contour_image_uids)
    if link is CompanionLink.FRAME_OF_REFERENCE:
        return _of_unknown_series(structures, owner)
    drawn_on = {owner.get(uid, "") for roi in structures.rois for uid in roi.image_uids}
    out: Elsewhere = {}
    for position, roi in enumerate(structures.rois):
        if roi.image_uids:
            if (others or resolves) and own.isdisjoint(roi.image_uids):
                named = sorted({owner.get(uid, "") for uid in roi.image_uids} - {""})
                where = f"another series ({_listed(named)})" if named else "another series, which it does not list"
                out[position] = RoiDrop.OTHER_SERIES, f"its contours refer to images of {where}"
        elif roi.count and drawn_on != {series.series_instance_uid}:
            found = _undecided(structures, roi, series)
            if found is not None:
                out[position] = found
    return out


def own_contours(structures: StructureSet, roi: Roi, series: SortedSeries) -> tuple[Roi, int]:
    """Leave out the contours of an ROI that refer to images of another series only.

    Parameters
    ----------
    structures : StructureSet
        Its list of images tells to which series an image belongs.
    roi : Roi
        Drawn at least in part on `series`.
    series : SortedSeries

    Returns
    -------
    Roi
        With the remaining contours.
    int
        Number of contours that were left out.
    """
    own = frozenset(series.sop_instance_uids)
    others: frozenset[str] = frozenset().union(
        *(one.image_uids for one in structures.listed if one.series_instance_uid != series.series_instance_uid)
    )
    foreign = others - own
    if own.isdisjoint(roi.image_uids) or foreign.isdisjoint(roi.image_uids):
        return roi, 0

    def is_foreign(contour: Contour) -> bool:
        return bool(contour.image_uids) and contour.image_uids <= foreign

    kept = tuple(contour for contour in roi.contours if not is_foreign(contour))
    return replace(roi, contours=kept), len(roi.contours) - len(kept)


def several_series(structures: StructureSet, elsewhere: Elsewhere) -> str | None:
    """Sentence for a structure set none of whose ROIs is drawn on the series; None if some are.

    Parameters
    ----------
    structures : StructureSet
    elsewhere : dict
        From :func:`rois_of_other_series`.
    """
    drawn = [position for position, roi in enumerate(structures.rois) if roi.count]
    if not drawn or not elsewhere or any(position not in elsewhere for position in drawn):
        return None
    details = list(dict.fromkeys(elsewhere[position][1] for position in drawn))
    return f"no ROI of the structure set was drawn on this series: {'; '.join(details[:_LISTED])}"


def _of_unknown_series(structures: StructureSet, owner: Mapping[str, str]) -> Elsewhere:
    drawn_on = sorted({owner[uid] for roi in structures.rois for uid in roi.image_uids if uid in owner})
    if len(drawn_on) < 2:
        return {}
    text = f"the contours were drawn on {len(drawn_on)} series ({_listed(drawn_on)}), none of which is this one"
    return {n: (RoiDrop.SEVERAL_SERIES, text) for n, roi in enumerate(structures.rois) if roi.count}


def _undecided(structures: StructureSet, roi: Roi, series: SortedSeries) -> tuple[RoiDrop, str] | None:
    frame = roi.frame_of_reference_uid
    candidates = {
        one.series_instance_uid
        for one in structures.listed
        if one.series_instance_uid
        and (not frame or not one.frame_of_reference_uid or one.frame_of_reference_uid == frame)
        and (not one.sop_class_uids or CT_IMAGE in one.sop_class_uids)
    }
    if len(candidates) < 2:
        return None
    if series.series_instance_uid not in candidates:
        named = _listed(sorted(candidates))
        text = f"its contours refer to no image, and the structure set lists other series ({named})"
        return RoiDrop.OTHER_SERIES, text
    text = (
        f"its contours refer to no image, and the structure set lists {len(candidates)} CT series "
        f"({_listed(sorted(candidates))}): it cannot be decided on which of them it was drawn"
    )
    return RoiDrop.SEVERAL_SERIES, text


def _listed(uids: list[str]) -> str:
    return ", ".join(uids[:_LISTED]) + (", ..." if len(uids) > _LISTED else "")
