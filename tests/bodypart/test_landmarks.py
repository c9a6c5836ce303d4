"""Landmarks on score lines that were worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.bodypart_cases import FRAME, LOOKUP, SERIES, affine, make_scores, make_series
from tests.support.bodypart_golden import PARAMETERS

from ctenrich.bodypart.images import ImageAxes
from ctenrich.bodypart.landmarks import ABSENT, find_landmarks
from ctenrich.bodypart.regions import find_regions
from ctenrich.bodypart.scorer import BodyPartModel, RawScores, scores_of
from ctenrich.bodypart.scores import CleanUp
from ctenrich.records import Landmark, Landmarks, ModelInfo, SliceScores, Volume
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace

Line = list[float | None]

# One score a slice, slices 8 mm apart: slice k has score 40 + k, so a landmark of score s lies at k = s - 40.
RISING: Line = [40.0 + k for k in range(41)]
ON_PAPER = {"L1": 1, "lung_start": 4, "Th12": 5, "Th9": 14, "Th8": 17, "Th3": 31, "Th2": 33, "lung_end": 35, "Th1": 36}


def found(landmarks: Landmarks) -> dict[str, int]:
    return {item.name: item.slice_index for item in landmarks.items if item.slice_index is not None}


def reasons(landmarks: Landmarks) -> dict[str, str]:
    return {i.name: i.absent_reason.split(":")[0] for i in landmarks.items if i.absent_reason is not None}


def item(landmarks: Landmarks, name: str) -> Landmark:
    return next(i for i in landmarks.items if i.name == name)


def test_ascending() -> None:
    landmarks = find_landmarks(make_scores(RISING, 8.0))
    assert found(landmarks) == ON_PAPER
    assert [i.name for i in landmarks.items] == list(LOOKUP)
    assert reasons(landmarks) == {
        "pelvis_start": "below_range",
        "L5": "below_range",
        "pelvis_end": "below_range",
        "C5": "above_range",
        "C2": "above_range",
        "eyes_end": "above_range",
    }
    lung = item(landmarks, "lung_start")  # crossing at 4.143 slices
    assert lung.sop_instance_uid == "2.25.1004"
    assert lung.position == pytest.approx(4.143 * 8)
    assert lung.distance == pytest.approx(-0.143 * 8)


def test_descending_by_geometry() -> None:
    """The first slice is nearest the head, and the affine says so: slice k has score 80 - k."""
    landmarks = find_landmarks(make_scores(RISING[::-1], 8.0, feet_to_head=False))
    assert found(landmarks) == {name: 40 - k for name, k in ON_PAPER.items()}
    lung = item(landmarks, "lung_start")
    assert lung.position == pytest.approx((40 - 4.143) * 8)
    assert lung.distance == pytest.approx(0.143 * 8)


def test_scores_that_fall_against_the_geometry_give_no_landmark() -> None:
    landmarks = find_landmarks(make_scores(RISING[::-1], 8.0, reverse=True))
    assert found(landmarks) == {}
    assert set(reasons(landmarks).values()) == {"reversed_or_invalid"}
    assert [issue.rule for issue in landmarks.issues] == ["reversed_or_invalid"]


def test_tails_without_a_score() -> None:
    """Slices 0..4 and 35..40 have no score: 45..74 are left. Nothing lands on the last valid slice for lack of more."""
    line: Line = [None] * 5 + RISING[5:35] + [None] * 6
    landmarks = find_landmarks(make_scores(line, 8.0))
    assert found(landmarks) == {"Th9": 14, "Th8": 17, "Th3": 31, "Th2": 33}
    assert {reasons(landmarks)[n] for n in ("L1", "lung_start", "Th12")} == {"below_range"}
    assert {reasons(landmarks)[n] for n in ("lung_end", "Th1", "C5")} == {"above_range"}


def test_a_score_at_the_end_of_the_range_is_not_inside() -> None:
    line: Line = [44.143, 50.0, 60.0, 75.389]
    landmarks = find_landmarks(make_scores(line, 60.0))
    assert found(landmarks) == {"Th12": 0, "Th9": 1, "Th8": 2, "Th3": 3, "Th2": 3}


def test_a_landmark_among_slices_without_a_score() -> None:
    line: Line = [*RISING[:12], None, None, None, *RISING[15:]]  # 52..54 have no value: Th9 is 53.994
    landmarks = find_landmarks(make_scores(line, 8.0))
    assert "Th9" not in found(landmarks)
    assert reasons(landmarks)["Th9"] == "in_gap"
    assert found(landmarks)["Th8"] == 17


def test_too_short() -> None:
    assert found(find_landmarks(make_scores([56.0, 57.0], 8.0))) == {"Th8": 1}
    one = find_landmarks(make_scores([56.0], 8.0))
    assert set(reasons(one).values()) == {"no_scores"}
    assert set(reasons(find_landmarks(make_scores([None, None], 8.0))).values()) == {"no_scores"}


def test_wrong_spacing_moves_no_landmark_to_another_slice() -> None:
    """The published notebooks took the spacing flag for a sign and mirrored such series."""
    landmarks = find_landmarks(make_scores(RISING, 4.0, valid_z_spacing=False))
    assert found(landmarks) == ON_PAPER


def test_nearest_slice_and_the_tie_goes_to_the_feet() -> None:
    up = make_scores([56.0, 57.712, 59.0], 5.0)  # Th8, 56.856, lies half-way between slices 0 and 1
    assert found(find_landmarks(up))["Th8"] == 0
    down = make_scores([59.0, 57.712, 56.0], 5.0, feet_to_head=False)
    assert found(find_landmarks(down))["Th8"] == 2


def test_a_line_that_passes_a_score_three_times() -> None:
    wobble: Line = [55.0, 56.0, 57.5, 56.5, 57.0, 58.0, 60.0]  # up at 1, down at 2, up at 3
    assert found(find_landmarks(make_scores(wobble, 5.0)))["Th8"] == 2
    far = find_landmarks(make_scores(wobble, 40.0))
    assert reasons(far)["Th8"] == "ambiguous"
    assert "unsettled_landmarks" in {issue.rule for issue in far.issues}


def test_confidence_follows_slope_and_spread() -> None:
    """At the expected slope Th8's sd of 2.36 is 20 mm: 1 / (1 + (20 / 25)^2) = 0.61."""
    usual = find_landmarks(make_scores([40 + 0.118 * 8 * k for k in range(41)], 8.0))
    assert item(usual, "Th8").confidence == pytest.approx(0.6098, abs=1e-3)
    assert item(usual, "lung_end").confidence == pytest.approx(0.7994, abs=1e-3)
    flat = find_landmarks(make_scores([50 + 0.03 * 8 * k for k in range(41)], 8.0))
    steep = find_landmarks(make_scores([40 + 0.5 * 8 * k for k in range(12)], 8.0))
    assert (item(flat, "Th8").confidence or 0) < 0.1
    assert item(steep, "Th8").confidence == item(usual, "Th8").confidence


def test_landmarks_survive_saving(workspace: Workspace) -> None:
    scores, store = make_scores(RISING, 8.0), SeriesStore(workspace)
    landmarks = find_landmarks(scores)
    store.save(landmarks, SERIES, scores.product)
    assert store.landmarks(SERIES, scores.product) == landmarks


def test_every_reason_has_its_sentence() -> None:
    landmarks = find_landmarks(make_scores(RISING, 8.0))
    for i in landmarks.items:
        if i.absent_reason:
            key, _, text = i.absent_reason.partition(": ")
            assert text.startswith(ABSENT[key])


def score_stack(raw: list[float], empty: list[bool], *, towards_head: bool) -> SliceScores:
    """Clean a stack that is stored in one of the two directions; slice n from the feet has UID 2.25.(1000 + n)."""
    count = len(raw)
    order = slice(None) if towards_head else slice(None, None, -1)
    row = (1, 0, 0) if towards_head else (-1, 0, 0)
    uids = tuple(f"2.25.{1000 + k}" for k in range(count))[order]
    series = make_series(count, 4.0, row=row, uids=uids)
    matrix = affine(row=row, column=(0, 1, 0), spacing=(4.0, 1.0, 1.0))
    volume = Volume(SERIES, "none.npy", (count, 64, 64), matrix, (4.0, 1.0, 1.0), FRAME, "")
    model = BodyPartModel(CleanUp(**PARAMETERS), LOOKUP, ImageAxes.VIEWER, "0" * 64)
    values, air = np.array(raw)[order] / 25 - 2.4, np.array(empty)[order]
    return scores_of(RawScores(values, air), volume, series, model=model, info=ModelInfo("m", "1", ""))


def test_feet_first_by_hand_from_raw_score_to_slice() -> None:
    """4 mm slices, 0.472 points each, from 20 at the feet: Th8 (56.856) lies 78.08 slices up.

    Lying feet first the rows run to the patient's right, so slice 0 of 150 is the one nearest the head.
    """
    raw = [20 + 0.472 * k for k in range(150)]
    head_first, feet_first = (score_stack(raw, [False] * 150, towards_head=t) for t in (True, False))
    assert (head_first.feet_to_head, feet_first.feet_to_head) == (True, False)
    assert (feet_first.reverse_z_ordering, feet_first.valid_z_spacing) == (False, True)
    expected = {"lung_start": 51, "Th8": 78, "lung_end": 117}
    assert expected.items() <= found(find_landmarks(head_first)).items()
    assert {name: 149 - k for name, k in expected.items()}.items() <= found(find_landmarks(feet_first)).items()
    assert item(find_landmarks(feet_first), "Th8").sop_instance_uid == "2.25.1078"
    for scores, chest in ((head_first, (53, 118)), (feet_first, (31, 96))):  # 44.952 is 52.9 slices up, 75.794 118.2
        here = [s.slice_index for s in find_regions(scores).slices if "chest" in s.regions]
        assert (here[0], here[-1], len(here)) == (*chest, 66)


@given(st.floats(-20, 80), st.floats(0.05, 0.25), st.integers(2, 90), st.data())
def test_flipping_the_stack_gives_the_same_instances(
    start: float, slope: float, count: int, data: st.DataObject
) -> None:
    noise = data.draw(st.lists(st.floats(-3, 3), min_size=count, max_size=count))
    empty = data.draw(st.lists(st.sampled_from([False] * 9 + [True]), min_size=count, max_size=count))
    empty[:2] = [False, False]
    raw = [start + slope * 4 * k + n for k, n in enumerate(noise)]
    up, down = (find_landmarks(score_stack(raw, empty, towards_head=t)) for t in (True, False))
    assert {i.name: i.sop_instance_uid for i in up.items} == {i.name: i.sop_instance_uid for i in down.items}
    assert [i.absent_reason for i in up.items] == [i.absent_reason for i in down.items]
    parts = [find_regions(score_stack(raw, empty, towards_head=t)) for t in (True, False)]
    by_uid = [{s.sop_instance_uid: s.regions for s in part.slices} for part in parts]
    assert by_uid[0] == by_uid[1]
    assert parts[0].examined == parts[1].examined
    for a, b in zip(up.items, down.items, strict=True):
        if a.position is not None and b.position is not None and a.distance is not None and b.distance is not None:
            assert a.position + b.position == pytest.approx((count - 1) * 4.0, abs=1e-5)
            assert a.distance == pytest.approx(-b.distance, abs=1e-5)


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(0, 110)), min_size=1, max_size=50))
def test_a_landmark_is_never_more_than_half_a_slice_away(line: Line) -> None:
    for i in find_landmarks(make_scores(line, 4.0)).items:
        if i.slice_index is not None and i.distance is not None:
            assert abs(i.distance) <= 2.0 + 1e-6
            assert line[i.slice_index] is not None
            assert i.sop_instance_uid == f"2.25.{1000 + i.slice_index}"
        else:
            assert i.absent_reason
