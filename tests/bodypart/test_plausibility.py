"""Plausibility of body part regression."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.support.bodypart_cases import make_scores

from ctenrich.bodypart.landmarks import find_landmarks
from ctenrich.bodypart.plausibility import check_bodypart, lung_height, region_shares
from ctenrich.bodypart.regions import find_regions
from ctenrich.records import Issue, SliceScores


def check(scores: SliceScores) -> tuple[Issue, ...]:
    return check_bodypart(scores, find_landmarks(scores), find_regions(scores))


def chest(spacing: float, slope: float = 0.118, **changes: object) -> SliceScores:
    """From 40 to 80, as many slices as the slope makes of it."""
    count = int(40 / (slope * spacing)) + 1
    return make_scores([40 + slope * spacing * k for k in range(count)], spacing, **changes)  # type: ignore[arg-type]


def test_an_ordinary_chest_has_no_issue() -> None:
    scores = chest(3.0)
    assert check(scores) == ()
    assert lung_height(find_landmarks(scores)) == pytest.approx((75.389 - 44.143) / 0.118)
    assert region_shares(find_regions(scores))["chest"] == pytest.approx((75.794 - 44.952) / 40, abs=0.01)


def test_stored_from_head_to_feet_it_is_ordinary_too() -> None:
    scores = chest(3.0)
    down = replace(scores, cleaned=scores.cleaned[::-1], feet_to_head=False)
    assert check(down) == ()


@pytest.mark.parametrize("slope", [0.04, 0.3])
def test_lungs_of_an_impossible_height(slope: float) -> None:
    rules = {issue.rule for issue in check(chest(3.0, slope))}
    assert {"lung_height", "vertebra_distance"} <= rules


def test_vertebrae_too_far_apart() -> None:
    """A step of the patient: 60 mm of slices whose score stands still between Th9 and Th8."""
    line = [40 + 0.354 * k for k in range(45)]
    line += [line[-1] + 0.001 * k for k in range(1, 21)]
    line += [line[-1] + 0.354 * k for k in range(1, 60)]
    issues = [issue for issue in check(make_scores(line, 3.0)) if issue.rule == "vertebra_distance"]
    assert len(issues) == 1
    assert "Th9 and Th8 are 84 mm apart, expected are 24 mm" in issues[0].message


def test_lungs_without_a_chest() -> None:
    """Both ends are crossed, but most slices lie elsewhere."""
    line = [-300.0 + 2 * k for k in range(170)] + [40 + 4 * k for k in range(11)]
    assert "chest_share" in {issue.rule for issue in check(make_scores(line, 25.0))}


def test_no_landmark_no_issue() -> None:
    assert check(make_scores([-20.0 + 0.1 * k for k in range(50)], 3.0)) == ()
