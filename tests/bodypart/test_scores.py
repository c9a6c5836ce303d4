"""Clean-up of slice scores: as bpreg does it where bpreg is right, and right where it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.bodypart_golden import PARAMETERS, score_lines

from ctenrich.bodypart.scores import CleanScores, CleanUp, clean_scores

PARAMS = CleanUp(**PARAMETERS)
GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "bodypart.json").read_text())
NAMES = sorted(GOLDEN["lines"])


def clean(scores: Any, spacing: float = 3.0, empty: Any = None) -> CleanScores:
    """Clean a line that is given on the scale 0..100."""
    raw = np.asarray(scores, float) / 25 - 2.4
    return clean_scores(raw, np.zeros(len(raw), bool) if empty is None else np.asarray(empty), spacing, PARAMS)


@pytest.mark.parametrize("name", NAMES)
def test_as_bpreg(name: str) -> None:
    raw, spacing = score_lines()[name]
    ours = clean_scores(raw, np.zeros(len(raw), bool), spacing, PARAMS)
    golden = GOLDEN["lines"][name]
    theirs = np.array([np.nan if v is None else v for v in golden["cleaned slice scores"]])
    np.testing.assert_allclose(ours.values, theirs, atol=1e-6)
    assert ours.valid_z_spacing == bool(golden["valid z-spacing"])
    assert ours.reverse == bool(golden["reverse z-ordering"])
    assert ours.slope == pytest.approx(golden["observed slope"], abs=1e-9)
    assert ours.ratio == pytest.approx(golden["slope ratio"], abs=1e-9)
    assert ours.expected_z_spacing == pytest.approx(golden["expected z-spacing"], abs=1e-9)


def test_a_straight_line_stays_where_it_is() -> None:
    """Mirrored smoothing bends only the last 4 sigma (40 mm) at each end."""
    line = 40 + 0.118 * 3 * np.arange(100)
    result = clean(line)
    np.testing.assert_allclose(result.values[14:-14], line[14:-14], atol=1e-9)
    assert result.valid_z_spacing is True
    assert result.reverse is False


def test_slices_without_a_patient_have_no_score_and_shift_nothing() -> None:
    line = 40 + 0.118 * 3 * np.arange(60)
    empty = np.zeros(60, bool)
    empty[[0, 1, 30, 59]] = True
    noisy = line.copy()
    noisy[empty] = 500
    result = clean(noisy, empty=empty)
    assert np.flatnonzero(np.isnan(result.values)).tolist() == [0, 1, 30, 59]
    np.testing.assert_allclose(result.values[20:28], line[20:28], atol=0.6)


def test_known_background_scores_count_as_empty() -> None:
    raw = np.linspace(-1, 0, 40)
    raw[3] = 6.2199
    result = clean_scores(raw, np.zeros(40, bool), 3.0, PARAMS)
    assert np.flatnonzero(np.isnan(result.values)).tolist() == [3]


def test_tails_are_cut_beyond_pelvis_and_eyes() -> None:
    """Worked out by hand: 5 mm slices, flat at -8 below slice 20 (legs), rising to 100 at 200, then a steep jump."""
    body = 0.12 * 5 * np.arange(172)
    line = np.concatenate([np.full(40, -8.0) + 6 * np.sin(np.arange(40)), body, np.full(20, 160.0)])
    result = clean(line, spacing=5.0)
    cut = np.isnan(result.values)
    assert cut[:30].all()
    assert not cut[60:195].any()
    assert cut[-15:].all()


def test_a_falling_series_keeps_the_tails_that_its_mirror_image_keeps() -> None:
    """Limits of the tangential slope mean rising scores; bpreg applies them to falling ones as they are."""
    body = 0.12 * 5 * np.arange(172)
    line = np.concatenate([np.full(40, -8.0) + 6 * np.sin(np.arange(40)), body])
    up, down = clean(line, spacing=5.0), clean(line[::-1], spacing=5.0)
    np.testing.assert_array_equal(up.values, down.values[::-1])
    assert (up.reverse, down.reverse) == (False, True)
    assert up.ratio == pytest.approx(down.ratio)


def test_wrong_spacing_is_seen_in_the_ratio() -> None:
    """Slices are 3 mm apart, the header says 1.5: scores rise twice as fast as a body does."""
    result = clean(40 + 0.118 * 3 * np.arange(100), spacing=1.5)
    assert result.ratio == pytest.approx(2.0, abs=0.05)
    assert result.valid_z_spacing is False
    assert result.expected_z_spacing == pytest.approx(3.0, abs=0.08)


@pytest.mark.parametrize(("ratio", "valid"), [(0.73, True), (0.71, False), (1.27, True), (1.29, False)])
def test_limits_of_the_slope_ratio(ratio: float, valid: bool) -> None:
    """300 slices, so that the bent ends do not count."""
    result = clean(5 + ratio * 0.118 * 2 * np.arange(300), spacing=2.0)
    assert result.ratio == pytest.approx(ratio, abs=0.008)
    assert result.valid_z_spacing is valid


def test_one_slice_and_no_slice_with_a_patient() -> None:
    one = clean([50.0])
    assert one.values.tolist() == pytest.approx([50.0])
    assert (one.slope, one.ratio, one.valid_z_spacing, one.reverse) == (None, None, None, None)
    none = clean([50.0, 51.0, 52.0], empty=[True] * 3)
    assert np.isnan(none.values).all()
    assert none.slope is None


@settings(deadline=None)
@given(st.lists(st.floats(-30, 120), min_size=2, max_size=60), st.floats(0.5, 10))
def test_the_mirrored_stack_gives_the_mirrored_scores(line: list[float], spacing: float) -> None:
    up, down = clean(line, spacing), clean(line[::-1], spacing)
    if up.slope is None or abs(up.slope) < 1e-6:  # no direction: nothing to mirror
        return
    np.testing.assert_allclose(up.values, down.values[::-1], atol=1e-9)
