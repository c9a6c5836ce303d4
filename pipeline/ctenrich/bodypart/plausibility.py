"""Check body part regression for plausibility: lung height, share of chest, vertebra distances, order of landmarks.

Findings are issues, never exceptions. Limits come from published series: expert lung heights of 183 to 330 mm
(NSCLC-Radiomics), lung heights by landmarks of 218 to 328 mm and chest shares of 0.85 +- 0.06 of the slices (NLST).
Distances between neighbouring vertebrae are compared with those expected from the look-up table and the expected slope.
"""

from __future__ import annotations

import itertools

from ctenrich.records import Issue, Landmark, Landmarks, Regions, Severity, SliceScores

__all__ = ["CHEST_SHARE", "LUNG_HEIGHT", "VERTEBRAE", "check_bodypart", "lung_height", "region_shares"]

LUNG_HEIGHT = (180.0, 340.0)
"""mm, from lung_start to lung_end."""
CHEST_SHARE = 0.3
"""A series that shows both ends of the lungs has at least this share of its slices in the chest."""
_FACTOR = 2.0
VERTEBRAE = (
    *(f"L{n}" for n in range(5, 0, -1)),
    *(f"Th{n}" for n in range(12, 0, -1)),
    *(f"C{n}" for n in range(7, 0, -1)),
)
"""From feet to head."""


def check_bodypart(scores: SliceScores, landmarks: Landmarks, regions: Regions) -> tuple[Issue, ...]:
    """Check the three records of one body part product.

    Parameters
    ----------
    scores : SliceScores
    landmarks : Landmarks
    regions : Regions

    Returns
    -------
    tuple of Issue
        Rules ``lung_height``, ``chest_share``, ``vertebra_distance`` and ``landmark_order``, all warnings.
    """
    found = [item for item in landmarks.items if item.position is not None]
    issues: list[tuple[str, str]] = []
    height = lung_height(landmarks)
    if height is not None and not LUNG_HEIGHT[0] <= height <= LUNG_HEIGHT[1]:
        issues.append(("lung_height", f"the lungs are {height:.0f} mm high, usual are {_range_text(LUNG_HEIGHT)} mm"))
    share = region_shares(regions).get("chest", 0.0)
    if height is not None and share < CHEST_SHARE:
        issues.append(
            ("chest_share", f"{share:.0%} of the slices are in the chest, but both ends of the lungs are shown")
        )
    towards_head = found if scores.feet_to_head else found[::-1]
    for lower, upper in itertools.pairwise(towards_head):
        if _position_of(upper) < _position_of(lower):
            issues.append(("landmark_order", f"{upper.name} and {lower.name} are in the wrong order"))
    issues += [("vertebra_distance", text) for text in _odd_distances(scores, landmarks)]
    uid = scores.series_instance_uid
    return tuple(Issue(rule, Severity.WARNING, uid, text) for rule, text in issues)


def lung_height(landmarks: Landmarks) -> float | None:
    """Distance from lung_start to lung_end, mm; None if one of them is absent."""
    places = {item.name: item.position for item in landmarks.items}
    bottom, top = places.get("lung_start"), places.get("lung_end")
    return None if bottom is None or top is None else abs(top - bottom)


def region_shares(regions: Regions) -> dict[str, float]:
    """Share of all slices (those in no region count too) that each region has."""
    counts: dict[str, int] = {}
    for item in regions.slices:
        for name in item.regions:
            counts[name] = counts.get(name, 0) + 1
    return {name: count / len(regions.slices) for name, count in counts.items()}


def _odd_distances(scores: SliceScores, landmarks: Landmarks) -> list[str]:
    places = {item.name: item for item in landmarks.items if item.position is not None}
    odd = []
    for lower, upper in itertools.pairwise(VERTEBRAE):
        if lower not in places or upper not in places:
            continue
        distance = abs(_position_of(places[upper]) - _position_of(places[lower]))
        expected = (places[upper].score - places[lower].score) / scores.expected_slope
        if not expected / _FACTOR <= distance <= expected * _FACTOR:
            odd.append(f"{lower} and {upper} are {distance:.0f} mm apart, expected are {expected:.0f} mm")
    return odd


def _position_of(item: Landmark) -> float:
    assert item.position is not None
    return item.position


def _range_text(limits: tuple[float, float]) -> str:
    return f"{limits[0]:.0f} to {limits[1]:.0f}"
