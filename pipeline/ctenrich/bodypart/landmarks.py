"""Find the slice of each landmark: where the cleaned score line crosses the landmark's score.

The score line is followed from feet to head by the geometry. A landmark is where the line crosses its score upwards,
interpolated between two neighbouring slices that both have a valid score; its slice is the nearest one by position (the
one towards the feet where two are equally near). A landmark is absent at or beyond the ends of the valid range, where
the scores contradict the direction of the geometry, and where the line crosses the score at positions too far apart to
be one landmark.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctenrich.records import Issue, Landmark, Landmarks, Severity, SliceScores

__all__ = ["ABSENT", "VERTEBRA", "find_landmarks"]

VERTEBRA = 25.0
"""mm: about the height of one thoracic vertebra with its disc; an error of this size halves the confidence."""

ABSENT = {
    "no_scores": "fewer than two slices have a valid score",
    "reversed_or_invalid": "the scores fall from feet to head: geometry or scores are wrong",
    "below_range": "the series begins above the landmark (its score lies below the valid range)",
    "above_range": "the series ends below the landmark (its score lies above the valid range)",
    "in_gap": "the landmark falls among slices without a valid score",
    "ambiguous": "the score line passes the landmark's score at places that are too far apart",
}
"""Why a landmark is absent; `Landmark.absent_reason` begins with one of the keys."""

Float = NDArray[np.float64]


@dataclass(frozen=True)
class _ScoreLine:
    """Cleaned scores from feet to head."""

    z: Float
    """mm towards the head, from the slice nearest the feet."""
    scores: Float
    """NaN where not valid."""
    low: float
    high: float
    expected_slope: float


def find_landmarks(scores: SliceScores) -> Landmarks:
    """Find all landmarks of the look-up table, in order of its scores; absent ones are stated with their reason."""
    table = sorted(scores.lookup_table.items(), key=lambda item: (item[1][0], item[0]))
    line = _score_line(scores)
    items = tuple(_locate_landmark(name, mean, sd, line, scores) for name, (mean, sd) in table)
    return Landmarks(scores.product, scores.series_instance_uid, items, _landmark_issues(scores, items))


def _score_line(scores: SliceScores) -> _ScoreLine:
    order = slice(None) if scores.feet_to_head else slice(None, None, -1)
    values = np.array([np.nan if v is None else v for v in scores.cleaned], dtype=np.float64)[order]
    z = np.array(scores.z, dtype=np.float64)[order]
    z = np.abs(z - z[:1])
    known = values[~np.isnan(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (np.nan, np.nan)
    return _ScoreLine(z, values, low, high, scores.expected_slope)


def _locate_landmark(name: str, mean: float, sd: float, line: _ScoreLine, scores: SliceScores) -> Landmark:
    reason = _absent_reason(mean, line, scores)
    if reason is not None:
        return _absent_landmark(name, mean, reason)
    below = line.scores[:-1] <= mean
    starts = np.flatnonzero(below & (line.scores[1:] > mean))
    if not starts.size:
        return _absent_landmark(name, mean, "in_gap")
    places = np.array([_crossing(line, int(s), mean) for s in starts])
    reach = 2 * VERTEBRA
    if places.max() - places.min() > reach:
        return _absent_landmark(
            name, mean, "ambiguous", f"{len(places)} places over {places.max() - places.min():.0f} mm"
        )
    middle = (len(places) - 1) // 2
    start, place = int(starts[middle]), float(places[middle])
    nearest = start if place - line.z[start] <= line.z[start + 1] - place else start + 1
    slope = (line.scores[start + 1] - line.scores[start]) / (line.z[start + 1] - line.z[start])
    index = nearest if scores.feet_to_head else len(line.z) - 1 - nearest
    position = place if scores.feet_to_head else float(line.z[-1]) - place
    return Landmark(
        name=name,
        score=mean,
        slice_index=index,
        sop_instance_uid=scores.sop_instance_uids[index],
        position=round(position, 6),
        distance=round(scores.z[index] - position, 6),
        confidence=_confidence(slope, sd, line.expected_slope),
    )


def _absent_reason(mean: float, line: _ScoreLine, scores: SliceScores) -> str | None:
    if scores.observed_slope is None or np.isnan(line.low):
        return "no_scores"
    if scores.reverse_z_ordering:
        return "reversed_or_invalid"
    if mean <= line.low:
        return "below_range"
    if mean >= line.high:
        return "above_range"
    return None


def _absent_landmark(name: str, mean: float, key: str, detail: str = "") -> Landmark:
    text = f"{key}: {ABSENT[key]}" + (f" ({detail})" if detail else "")
    return Landmark(name=name, score=mean, absent_reason=text)


def _crossing(line: _ScoreLine, start: int, mean: float) -> float:
    share = (mean - line.scores[start]) / (line.scores[start + 1] - line.scores[start])
    return float(line.z[start] + share * (line.z[start + 1] - line.z[start]))


def _confidence(slope: float, sd: float, expected_slope: float) -> float:
    """How well the place is known, 0..1: ``1 / (1 + (error / 25 mm)^2)``.

    `error` is the look-up table's standard deviation turned into mm by the slope at the crossing; a line steeper than
    expected does not make it smaller.
    """
    error = sd / min(slope, expected_slope)
    return round(float(1 / (1 + (error / VERTEBRA) ** 2)), 6)


def _landmark_issues(scores: SliceScores, items: tuple[Landmark, ...]) -> tuple[Issue, ...]:
    uid = scores.series_instance_uid
    issues = []
    if scores.reverse_z_ordering:
        issues.append(
            Issue("reversed_or_invalid", Severity.WARNING, uid, "no landmark: " + ABSENT["reversed_or_invalid"])
        )
    odd = [item.name for item in items if (item.absent_reason or "").startswith(("ambiguous", "in_gap"))]
    if odd:
        message = f"the score line does not settle for {', '.join(odd)}"
        issues.append(Issue("unsettled_landmarks", Severity.WARNING, uid, message))
    return tuple(issues)
