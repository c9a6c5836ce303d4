"""Checks of an organ's place: sides, neighbours, the region of the body, the body part of the header."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ctenrich.codes.mappings import plain_name
from ctenrich.quality.case import OrganMask, QualityCase
from ctenrich.quality.finding import Finding, above, below, outside
from ctenrich.quality.limits import Limits
from ctenrich.records import Severity

__all__ = [
    "check_body_part",
    "check_kidneys",
    "check_neighbours",
    "check_region",
    "check_sides",
    "check_symmetry",
    "check_trachea",
]

_PARTS = {
    "CHEST": ("CHEST", "THORAX", "LUNG", "HEART", "BREAST", "MEDIASTINUM", "ESOPHAGUS", "RIB"),
    "ABDOMEN": ("ABDOMEN", "LIVER", "KIDNEY", "PANCREAS", "STOMACH", "SPLEEN"),
    "PELVIS": ("PELVIS", "BLADDER", "PROSTATE", "HIP"),
    "HEAD": ("HEAD", "BRAIN", "SKULL"),
    "NECK": ("NECK", "CSPINE", "THYROID"),
    "LEG": ("LEG", "KNEE", "ANKLE", "FOOT", "THIGH", "FEMUR", "EXTREMITY", "ARM", "HAND", "ELBOW"),
}
_PART_OF_ORGAN = {
    "heart": "CHEST",
    "lung_left": "CHEST",
    "lung_right": "CHEST",
    "lungs": "CHEST",
    "trachea": "CHEST",
    "esophagus": "CHEST",
    "liver": "ABDOMEN",
    "spleen": "ABDOMEN",
    "kidney_left": "ABDOMEN",
    "kidney_right": "ABDOMEN",
    "pancreas": "ABDOMEN",
    "urinary_bladder": "PELVIS",
    "brain": "HEAD",
}
_NEIGHBOURS = {
    "CHEST": {"NECK", "ABDOMEN"},
    "ABDOMEN": {"CHEST", "PELVIS"},
    "PELVIS": {"ABDOMEN", "LEG"},
    "HEAD": {"NECK"},
}


def check_sides(case: QualityCase, limits: Limits) -> Iterator[Finding]:
    """Left organs to the left of their right counterparts, and each lung on its side of the body.

    Parameters
    ----------
    case : QualityCase
    limits : Limits

    Yields
    ------
    Finding
    """
    margin = limits.number("sides", "margin_mm")
    for name, left in case.organs.items():
        right = case.organs.get(name.replace("_left", "_right")) if "_left" in name else None
        if right is None:
            continue
        distance = float(left.centre[2] - right.centre[2])
        if distance < margin:
            text = f"{name}: its centre is {distance:.0f} mm to the left of {right.name}: the sides are exchanged"
            yield below(name, "sides", distance, margin, text)
    lungs = case.lungs
    if lungs is None or lungs.middle is None:
        return
    away = limits.number("sides", "midline_mm")
    for organ in case.organs.values():
        sign = {"lung_left": 1, "lung_right": -1}.get(plain_name(organ.name))
        if sign is None:
            continue
        distance = sign * float(organ.centre[2] - lungs.middle)
        if distance < away:
            text = f"{organ.name}: its centre is {distance:.0f} mm on its own side of the middle of the body"
            yield below(organ.name, "own_side", distance, away, text)


def check_symmetry(case: QualityCase, limits: Limits) -> Iterator[Finding]:
    """Volume of the left lung by that of the right one.

    Parameters
    ----------
    case : QualityCase
    limits : Limits

    Yields
    ------
    Finding
    """
    left, right = (case.organs.get(name) for name in ("lung_left", "lung_right"))
    if left and right:
        ratio = left.volume / right.volume
        usual = limits.number("symmetry", "lung_ratio_low"), limits.number("symmetry", "lung_ratio_high")
        found = outside("lung_left", "volume_by_lung_right", ratio, usual, "")
        if found:
            yield found


def check_neighbours(case: QualityCase, limits: Limits) -> Iterator[Finding]:
    """Places of organs relative to each other, and to the lungs by threshold.

    Parameters
    ----------
    case : QualityCase
    limits : Limits

    Yields
    ------
    Finding
    """
    heart = case.organs.get("heart")
    if heart is not None:
        yield from _heart(case, heart)
    yield from _tubes(case, limits)
    cord = case.organs.get("spinal_cord")
    for name in ("heart", "esophagus", "trachea"):
        organ = case.organs.get(name)
        if organ and cord and (behind := float(cord.centre[1] - organ.centre[1])) < 8:
            place = f"{behind:.0f} mm behind" if behind >= 0 else f"{-behind:.0f} mm in front of"
            text = f"{name}: the spinal cord is {place} its centre; usual are 8 mm or more behind it"
            yield below(name, "in_front_of_cord", behind, 8.0, text)


def check_trachea(case: QualityCase, limits: Limits) -> Iterator[Finding]:
    """Trachea above the heart, from the neck to the carina.

    Parameters
    ----------
    case : QualityCase
    limits : Limits

    Yields
    ------
    Finding
    """
    trachea, heart = case.organs.get("trachea"), case.organs.get("heart")
    if trachea is None:
        return
    if heart is not None:
        above_heart = float(trachea.centre[0] - heart.centre[0])
        least = limits.number("neighbours", "trachea_above_heart_mm")
        if above_heart < least:
            text = (
                f"trachea: its centre is {above_heart:.0f} mm above that of the heart, usual are {least:g} mm or more"
            )
            yield below("trachea", "above_the_heart", above_heart, least, text)
    yield from _trachea_ends(case, trachea, limits)


def _trachea_ends(case: QualityCase, trachea: OrganMask, limits: Limits) -> Iterator[Finding]:
    """Ends of the trachea against the top of the lungs by threshold: half of it ends beside the apex."""
    lungs = case.lungs
    if lungs is None or lungs.top is None or lungs.volume < limits.number("lung_witness", "least_ml"):
        return
    bottom = trachea.start[0] * case.spacing[0]
    top = (trachea.start[0] + trachea.mask.shape[0] - 1) * case.spacing[0]
    missing, most = lungs.top - top, limits.number("neighbours", "trachea_top_below_apex_mm")
    if missing > most:
        text = f"trachea: it ends {missing:.0f} mm below the top of the lungs, usual is an end above them"
        yield above("trachea", "upper_end", missing, most, text)
    reach, least = lungs.top - bottom, limits.number("neighbours", "carina_below_apex_mm")
    if not lungs.cut_top and trachea.start[0] > 0 and reach < least:
        text = f"trachea: it begins {reach:.0f} mm below the top of the lungs, usual are {least:g} mm or more (carina)"
        yield below("trachea", "carina", reach, least, text)


def check_kidneys(case: QualityCase, limits: Limits) -> Iterator[Finding]:
    """Kidneys beside the spine, each on its side.

    Parameters
    ----------
    case : QualityCase
    limits : Limits

    Yields
    ------
    Finding
    """
    spine = [o for name, o in case.organs.items() if name == "spinal_cord" or name.startswith("vertebra")]
    if not spine:
        return
    usual = (
        limits.number("neighbours", "kidney_beside_spine_low"),
        limits.number("neighbours", "kidney_beside_spine_high"),
    )
    for name, sign in (("kidney_left", 1), ("kidney_right", -1)):
        kidney = case.organs.get(name)
        if kidney is None:
            continue
        nearest = min(spine, key=lambda o: abs(float(o.centre[0] - kidney.centre[0])))
        distance = sign * float(kidney.centre[2] - nearest.centre[2])
        found = outside(name, "beside_the_spine", distance, usual, "mm", severity=Severity.ERROR)
        if found:
            yield found


def _heart(case: QualityCase, heart: OrganMask) -> Iterator[Finding]:
    left, right, aorta = (case.organs.get(name) for name in ("lung_left", "lung_right", "aorta"))
    z, y, x = heart.centre
    if left and right and not right.centre[2] < x < left.centre[2]:
        text = "heart: its centre is not between those of the lungs"
        yield Finding(organ="heart", check="between_lungs", value=None, severity=Severity.ERROR, sentence=text)
    if aorta:
        gap = _gap(heart, aorta)
        if gap > 15:
            text = f"heart: the aorta is {gap:.0f} mm away; usually they touch"
            yield above("heart", "distance_of_aorta", gap, 15.0, text)
    lungs = case.lungs
    if lungs is None or lungs.top is None or lungs.bottom is None or lungs.middle is None or lungs.volume < 400:
        return
    if not lungs.cut_top and not lungs.cut_bottom:
        place = (z - lungs.bottom) / (lungs.top - lungs.bottom or 1.0)
        found = outside(
            "heart", "height_in_the_lungs", float(place), (0.12, 0.68), "of their height", severity=Severity.ERROR
        )
        if found:
            yield found
    found = outside(
        "heart", "left_of_the_middle", float(x - lungs.middle), (2.0, 50.0), "mm", severity=Severity.WARNING
    )
    if found:
        yield found
    rows = np.flatnonzero(lungs.body[round(z / case.spacing[0])].any(axis=1))
    if rows.size:
        front = (y / lungs.spacing[1] - rows[0]) / max(float(rows[-1] - rows[0]), 1.0)
        found = outside("heart", "depth_in_the_body", float(front), (0.15, 0.55), "of it", severity=Severity.ERROR)
        if found:
            yield found


def _tubes(case: QualityCase, limits: Limits) -> Iterator[Finding]:
    """Tubes in the middle of the chest: near the middle of the body, along enough of the lungs."""
    lungs = case.lungs
    if lungs is None or lungs.top is None or lungs.bottom is None or lungs.middle is None or lungs.volume < 400:
        return
    for organ in case.organs.values():
        rules = limits.organ(plain_name(organ.name))
        if not rules.tube:
            continue
        off = float(organ.centre[2] - lungs.middle)
        found = outside(organ.name, "off_the_middle", off, (-28.0, 45.0 if "aorta" in organ.name else 28.0), "mm")
        if found:
            yield found
        rows = np.flatnonzero(lungs.body[round(float(organ.centre[0]) / case.spacing[0])].any(axis=1))
        if rows.size:
            depth = (float(organ.centre[1]) / lungs.spacing[1] - rows[0]) / max(float(rows[-1] - rows[0]), 1.0)
            usual = (0.55, 0.92) if organ.name == "spinal_cord" else (0.3, 0.8)
            found = outside(organ.name, "depth_in_the_body", depth, usual, "of it", severity=Severity.ERROR)
            if found:
                yield found
        if rules.covers is None:
            continue
        low, high = organ.start[0] * case.spacing[0], (organ.start[0] + organ.mask.shape[0] - 1) * case.spacing[0]
        span = (min(high, lungs.top) - max(low, lungs.bottom)) / max(lungs.top - lungs.bottom, 1.0)
        if span < rules.covers:
            text = f"{organ.name}: it spans {span:.0%} of the height of the lungs, usual are {rules.covers:.0%} or more"
            yield below(organ.name, "length", span, rules.covers, text)


def _gap(one: OrganMask, two: OrganMask) -> float:
    """Distance between two masks, mm, from a sample of their voxels."""
    from scipy.spatial import cKDTree

    points = []
    for organ in (one, two):
        found = np.argwhere(organ.mask) + organ.start
        points.append(found[:: max(1, len(found) // 4000)] * np.array(organ.spacing))
    return float(cKDTree(points[0]).query(points[1])[0].min())


def check_region(case: QualityCase, limits: Limits) -> Iterator[Finding]:
    """Slice scores of body part regression at the organ's centre.

    Parameters
    ----------
    case : QualityCase
    limits : Limits

    Yields
    ------
    Finding
    """
    for organ in case.organs.values() if case.scores else ():
        usual = limits.organ(plain_name(organ.name)).scores
        score = case.scores[min(round(float(organ.centre[0]) / case.spacing[0]), len(case.scores) - 1)]
        if usual is None or score is None:
            continue
        found = outside(organ.name, "slice_score", score, usual, "(0 pelvis, 100 eyes)", severity=Severity.ERROR)
        if found:
            yield found


def check_body_part(case: QualityCase, limits: Limits) -> Iterator[Finding]:
    """Organs against the body part of the header, and against the regions of body part regression.

    Parameters
    ----------
    case : QualityCase
    limits : Limits

    Yields
    ------
    Finding
    """
    stated = _part_of(case.body_part_examined)
    for organ in case.organs.values():
        part = _PART_OF_ORGAN.get(plain_name(organ.name))
        if part is None:
            continue
        if stated and part not in stated and not any(part in _NEIGHBOURS.get(s, ()) for s in stated):
            text = f"{organ.name}: the header states {case.body_part_examined} as body part, where this organ is not"
            yield Finding(organ=organ.name, check="body_part", value=None, severity=Severity.WARNING, sentence=text)
        if case.body_parts and part not in case.body_parts and part in _REGIONS:
            text = f"{organ.name}: body part regression found {'-'.join(case.body_parts)}, where this organ is not"
            yield Finding(organ=organ.name, check="region", value=None, severity=Severity.ERROR, sentence=text)


_REGIONS = ("CHEST", "ABDOMEN", "PELVIS", "HEAD", "NECK")


def _part_of(text: str | None) -> set[str]:
    words = (text or "").upper()
    if any(word in words for word in ("WHOLEBODY", "WHOLE BODY", "TRUNK", "CAP", "TAP")):
        return set()
    return {part for part, names in _PARTS.items() if any(name in words for name in names)}
