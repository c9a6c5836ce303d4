"""Assign every slice to regions of the body, and summarise the body parts that a series shows.

A region is a half-open range of slice scores between two landmarks, as mappings/regions.csv names them; the scores are
those of the model's look-up table (of the mapping, where a model does not know the landmark). Ranges overlap by
definition, so a slice can belong to two or three regions. The summary follows bpreg's "body part examined tag".
"""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType

from ctenrich.codes.mappings import load_landmarks, load_regions
from ctenrich.records import Issue, Regions, Severity, SliceRegions, SliceScores

__all__ = [
    "BODY_PARTS_INCLUDED",
    "DISTINCT_BODY_PARTS",
    "MIN_PRESENT_LANDMARKS",
    "examined_tag",
    "find_regions",
    "region_bounds",
    "regions_of_score",
]

LookupTable = dict[str, tuple[float, float]]
Bounds = dict[str, tuple[float | None, float | None]]

BODY_PARTS_INCLUDED: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        "PELVIS": ("pelvis_start", "femur_end", "pelvis_end"),
        "ABDOMEN": ("L5", "L4", "L3", "L2", "L1", "Th12", "Th11", "Th10", "Th9"),
        "CHEST": ("Th12", "Th11", "Th10", "Th9", "Th8", "Th7", "Th6", "Th5", "Th4", "Th3", "Th2", "Th1"),
        "NECK": ("Th3", "Th2", "Th1", "C7", "C6", "C5", "C4", "C3", "C2"),
        "HEAD": ("C3", "C2", "C1", "eyes_end"),
    }
)
"""Landmarks of which enough must be inside the scored range for a body part to count as examined."""

MIN_PRESENT_LANDMARKS: MappingProxyType[str, int] = MappingProxyType(
    {"PELVIS": 2, "ABDOMEN": 7, "CHEST": 9, "NECK": 6, "HEAD": 3}
)

DISTINCT_BODY_PARTS: MappingProxyType[str, tuple[str, str]] = MappingProxyType(
    {
        "PELVIS": ("pelvis_start", "pelvis_end"),
        "ABDOMEN": ("pelvis_end", "Th9"),
        "CHEST": ("Th9", "Th2"),
        "NECK": ("Th2", "C3"),
        "HEAD": ("C3", "head_end"),
    }
)
"""Ranges that do not overlap, for series too short to hold a whole body part."""

_MIN_RANGE = 100.0
"""mm; shorter series are named after the most frequent part."""
_FROM_FEET = ("PELVIS", "ABDOMEN", "CHEST", "NECK", "HEAD")


def find_regions(scores: SliceScores) -> Regions:
    """Find the regions of every slice, also of those in no region.

    A series whose scores contradict its geometry gets no region, and ``NONE`` as the summary.
    """
    silent = bool(scores.reverse_z_ordering)
    bounds = region_bounds(scores.lookup_table)
    slices = tuple(
        SliceRegions(k, uid, value, () if silent else regions_of_score(value, bounds))
        for k, (uid, value) in enumerate(zip(scores.sop_instance_uids, scores.cleaned, strict=True))
    )
    issues: tuple[Issue, ...] = ()
    if silent:
        message = "no region: the scores fall from feet to head, so geometry or scores are wrong"
        issues = (Issue("reversed_or_invalid", Severity.WARNING, scores.series_instance_uid, message),)
    examined = "NONE" if silent else examined_tag(scores)
    return Regions(scores.product, scores.series_instance_uid, slices, examined, issues)


def region_bounds(table: LookupTable) -> Bounds:
    """Range of scores of each region, from feet to head; None: open.

    Parameters
    ----------
    table : dict of str to (float, float)
        A model's look-up table: landmark -> (mean score, standard deviation).
    """
    bounds: Bounds = {}
    for region in load_regions().values():
        low = table[region.from_landmark][0] if region.from_landmark in table else region.score_from
        high = table[region.to_landmark][0] if region.to_landmark in table else region.score_to
        bounds[region.name] = (low, high)
    return bounds


def regions_of_score(score: float | None, bounds: Bounds) -> tuple[str, ...]:
    """Regions of a slice with this score, from feet to head; none without a score.

    The lower end belongs to a region and the upper end does not; a region without an upper end (head) begins above its
    lower one.

    Parameters
    ----------
    score : float or None
        Cleaned score, 0 to 100.
    bounds : dict of str to (float or None, float or None)
        From `region_bounds`.

    Returns
    -------
    tuple of str
    """
    if score is None:
        return ()
    found = []
    for name, (low, high) in bounds.items():
        above = low is None or score > low or (score == low and high is not None)
        if above and (high is None or score < high):
            found.append(name)
    return tuple(found)


def examined_tag(scores: SliceScores) -> str:
    """Summary of the body parts that the series shows, e.g. ``CHEST-ABDOMEN``; ``NONE`` if it is unknown."""
    if scores.valid_z_spacing is False:
        return "NONE"
    values = [v for v in scores.cleaned if v is not None]
    parts = [part for part in _FROM_FEET if _body_part_present(part, values, scores.lookup_table)]
    if not parts or len(scores.cleaned) * scores.z_spacing < _MIN_RANGE:
        return _most_frequent(_scores_from_feet(scores), scores.lookup_table)
    lowest, highest = _FROM_FEET.index(parts[0]), _FROM_FEET.index(parts[-1])
    return "-".join(reversed(_FROM_FEET[lowest : highest + 1]))


def _scores_from_feet(scores: SliceScores) -> list[float]:
    values = [v for v in scores.cleaned if v is not None]
    return values if scores.feet_to_head else values[::-1]


def _body_part_present(part: str, values: list[float], table: LookupTable) -> bool:
    if not values:
        return False
    low, high = min(values), max(values)
    inside = sum(low < _landmark_score(name, table) < high for name in BODY_PARTS_INCLUDED[part])
    return inside >= MIN_PRESENT_LANDMARKS[part]


def _most_frequent(values: list[float], table: LookupTable) -> str:
    parts = [
        part
        for value in values
        for part, (start, end) in DISTINCT_BODY_PARTS.items()
        if _landmark_score(start, table) < value < _landmark_score(end, table)
    ]
    return Counter(parts).most_common(1)[0][0] if parts else "NONE"


def _landmark_score(name: str, table: LookupTable) -> float:
    return table[name][0] if name in table else load_landmarks()[name].score_mean
