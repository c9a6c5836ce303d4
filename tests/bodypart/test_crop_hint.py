"""Crop hints from landmarks."""

from __future__ import annotations

import pytest
from tests.support.bodypart_cases import make_scores

from ctenrich.bodypart.crop_hint import crop_hint
from ctenrich.records import Box

LINE: list[float | None] = [40 + 0.5 * k for k in range(81)]  # 40..80, lung_start at slice 8.3, lung_end at 70.8
SHAPE = (81, 50, 60)


def test_between_the_landmarks_with_a_margin() -> None:
    assert crop_hint(make_scores(LINE, 4.0), SHAPE, margin=20.0) == Box(4, 76, 0, 50, 0, 60)


def test_stored_the_other_way_round() -> None:
    scores = make_scores(LINE[::-1], 4.0, feet_to_head=False)
    assert crop_hint(scores, SHAPE, margin=20.0) == Box(80 - 75, 80 - 4 + 1, 0, 50, 0, 60)


def test_a_landmark_beyond_the_series_leaves_its_side_open() -> None:
    scores = make_scores(LINE, 4.0)
    assert crop_hint(scores, SHAPE, low="L5", high="Th8", margin=0.0) == Box(0, 34, 0, 50, 0, 60)


@pytest.mark.parametrize(
    "scores",
    [
        make_scores(LINE, 4.0, reverse=True),
        make_scores(LINE, 4.0, valid_z_spacing=False),
        make_scores(LINE, 4.0, valid_z_spacing=None),
        make_scores([*LINE[:7], None, None, None, None, *LINE[11:]], 4.0),
    ],
)
def test_no_hint_where_there_is_doubt(scores: object) -> None:
    assert crop_hint(scores, SHAPE) is None  # type: ignore[arg-type]
