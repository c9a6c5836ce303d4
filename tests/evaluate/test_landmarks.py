"""Lung landmarks against the extents that experts drew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ctenrich.bodypart.landmarks import find_landmarks
from ctenrich.errors import UsageError
from ctenrich.evaluate.landmarks import compare_lung_extents, compare_run, read_expert_extents, summarise
from ctenrich.series_store import SeriesStore
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace
from tests.support.bodypart_cases import SERIES, make_scores, make_series

LINE: list[float | None] = [40 + 0.5 * k for k in range(81)]  # slice 8 shows lung_start (8.286), slice 71 lung_end
SUFFIX = "298991776521342375010861296712563382046"


def test_errors_by_hand() -> None:
    series = make_series(81, 4.0)
    experts = {SERIES: {"lung_start": 24.0, "lung_end": 290.0}}
    bottom, top = compare_lung_extents(find_landmarks(make_scores(LINE, 4.0)), series, experts)
    assert (bottom.landmark, bottom.slice_z, bottom.error) == ("lung_start", 32.0, 8.0)
    assert bottom.z == pytest.approx(8.286 * 4, abs=1e-3)
    assert (top.landmark, top.slice_z, top.error) == ("lung_end", 284.0, -6.0)


def test_stored_from_head_to_feet() -> None:
    """Row cosines to the right: the normal and the slice index run towards the feet."""
    series = make_series(81, 4.0, row=(-1, 0, 0))
    landmarks = find_landmarks(make_scores(LINE[::-1], 4.0, feet_to_head=False))
    experts = {SERIES: {"lung_start": -320.0 + 24.0, "lung_end": -320.0 + 290.0}}
    bottom, top = compare_lung_extents(landmarks, series, experts)
    assert (bottom.error, top.error) == (8.0, -6.0)
    assert bottom.z == pytest.approx(-320 + 8.286 * 4, abs=1e-3)


def test_absent_landmarks_and_unknown_series() -> None:
    series = make_series(20, 4.0)
    landmarks = find_landmarks(make_scores([50 + 0.5 * k for k in range(20)], 4.0))
    ends = compare_lung_extents(landmarks, series, {SERIES: {"lung_start": 1.0, "lung_end": 2.0}})
    assert [end.error for end in ends] == [None, None]
    assert [(end.absent_reason or "").split(":")[0] for end in ends] == ["below_range", "above_range"]
    assert compare_lung_extents(landmarks, series, {"1.2.3": {"lung_start": 1.0}}) == ()


def test_the_same_series_under_another_root() -> None:
    series = replace(make_series(81, 4.0), series_instance_uid=f"1.9.{SUFFIX}")
    experts = {f"1.3.6.1.{SUFFIX}": {"lung_start": 24.0}, "1.3.2": {"lung_start": 0.0}}
    assert len(compare_lung_extents(find_landmarks(make_scores(LINE, 4.0)), series, experts)) == 1


def test_a_run_and_its_summary(workspace: Workspace, tmp_path: Path) -> None:
    landmarks, store = find_landmarks(make_scores(LINE, 4.0)), SeriesStore(workspace)
    store.save(landmarks, SERIES, landmarks.product)
    store.save(make_series(81, 4.0), SERIES)
    table = tmp_path / "experts.csv"
    table.write_text(f"PatientID,SeriesInstanceUID,lung,position\nx,{SERIES},min,24.0\nx,{SERIES},max,290\n")
    bottom, top = summarise(compare_run(workspace, table))
    assert (bottom.series, bottom.found, bottom.median_error, bottom.bias) == (1, 1, 8.0, 8.0)
    assert (top.largest_error, top.mean_error, top.sd_error, top.bias) == (6.0, 6.0, None, -6.0)
    assert summarise([])[0].found == 0


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "SeriesInstanceUID,lung,position\n1.2,middle,3\n", "x"])
def test_another_kind_of_table(tmp_path: Path, text: str) -> None:
    path = tmp_path / "experts.csv"
    path.write_text(text)
    with pytest.raises(UsageError):
        read_expert_extents(path)
    with pytest.raises(UsageError):
        read_expert_extents(tmp_path / "none.csv")


@pytest.mark.data
def test_the_published_table(published: Path) -> None:
    table = read_expert_extents(published / "lung_segmentation_locations_expert.csv")
    assert len(table) > 300
    heights = sorted(ends["lung_end"] - ends["lung_start"] for ends in table.values())
    assert 182 < heights[0] < 184
    assert 245 <= heights[len(heights) // 2] <= 247


@pytest.mark.data
@pytest.mark.long
@pytest.mark.parametrize("name", ["LUNG1-001", "LUNG1-002-RT", "LUNG1-005"])
def test_real_series(
    name: str, published: Path, real_data: Callable[[str], Path], shared_model: Callable[[str], Path],
    workspace: Workspace,
) -> None:  # fmt: skip
    """The model was fitted on these very series: this shows that places come out right, no more."""
    from ctenrich.bodypart.scorer import open_bodypart
    from tests.support.bodypart_cases import read_ct

    volume, series = read_ct(real_data(name), workspace)
    scorer = open_bodypart(str(shared_model("bpr-lung1-demo")), settings=Settings())
    scores = scorer.score(volume, series, settings=Settings(), workspace=workspace)
    experts = read_expert_extents(published / "lung_segmentation_locations_expert.csv")
    named = replace(series, series_instance_uid=series_uid(real_data(name)))
    ends = compare_lung_extents(find_landmarks(scores), named, experts)
    assert {end.landmark for end in ends} == {"lung_start", "lung_end"}
    assert all(end.error is None or abs(end.error) < 20 for end in ends)
    assert any(end.error is not None for end in ends)


def series_uid(folder: Path) -> str:
    import pydicom

    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        ds = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        if ds.get("Modality") == "CT":
            return str(ds.SeriesInstanceUID)
    raise AssertionError
