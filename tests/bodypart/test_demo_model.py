"""The demonstration model on phantoms that it has not seen: planted landmarks lie on their slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.support.bodypart_cases import affine, make_series, make_volume

from ctenrich.bodypart.landmarks import find_landmarks
from ctenrich.bodypart.regions import find_regions
from ctenrich.bodypart.scorer import open_bodypart
from ctenrich.phantom import PhantomOptions, as_records, make_phantom
from ctenrich.settings import SegmentSettings, Settings
from ctenrich.workspace import Workspace

SETTINGS = Settings(segment=SegmentSettings(device="cpu"))


def options(seed: int, orientation: str) -> PhantomOptions:
    return PhantomOptions(seed=seed, slices=110, slice_spacing=3.0).oriented(orientation)


@pytest.mark.parametrize(("seed", "orientation"), [(4, "axial_LP"), (9, "axial_LP"), (9, "axial_RP"), (9, "axial_PL")])
def test_planted_landmarks_are_found_within_one_slice(seed: int, orientation: str, tmp_path: Path) -> None:
    phantom = make_phantom(options(seed, orientation))
    workspace = Workspace(tmp_path)
    volume, series = as_records(phantom, workspace)
    scores = open_bodypart("demo-bodypart", settings=SETTINGS).score(
        volume, series, settings=SETTINGS, workspace=workspace
    )
    assert (scores.valid_z_spacing, scores.reverse_z_ordering) == (True, False)
    landmarks = find_landmarks(scores)
    heights = np.array([s.position[2] for s in series.slices])
    inside = {n: z for n, z in phantom.landmarks.items() if heights.min() + 10 < z < heights.max() - 10}
    found = {i.name: i.slice_index for i in landmarks.items if i.slice_index is not None}
    assert set(inside) <= set(found)
    assert {"lung_start", "lung_end", "Th8"} <= set(inside)
    off = {name: abs(found[name] - int(np.argmin(abs(heights - z)))) for name, z in inside.items()}
    assert max(off.values()) <= 1, off
    regions = find_regions(scores)
    assert "CHEST" in regions.examined


def test_a_tilted_gantry_has_a_defined_result(tmp_path: Path) -> None:
    """Conversion refuses such a stack (LATERAL_DRIFT); if it comes anyway, slices keep their scores."""
    phantom = make_phantom(PhantomOptions(seed=6, slices=60, slice_spacing=5.0, gantry_tilt=18.5))
    workspace = Workspace(tmp_path)
    volume, series = as_records(phantom, workspace)
    scores = open_bodypart("demo-bodypart", settings=SETTINGS).score(
        volume, series, settings=SETTINGS, workspace=workspace
    )
    assert scores.reverse_z_ordering is False
    assert len(scores.cleaned) == 60


def test_an_extremity_is_doubted_and_gets_no_summary(tmp_path: Path) -> None:
    """A leg: the same round slice 120 times, with noise. No slope of a body, so no word on what was examined."""
    rng = np.random.default_rng(8)
    y, x = np.mgrid[-80:80, -80:80] * 2.0
    leg = np.where(np.hypot(x, y) < 70, 50.0, -1000.0)
    leg[np.hypot(x - 5, y) < 14] = 1100
    array = np.clip(leg + rng.normal(0, 12, (120, 160, 160)), -1024, 3071).astype(np.int16)
    workspace = Workspace(tmp_path)
    volume = make_volume(workspace, array, affine(row=(1, 0, 0), column=(0, 1, 0), spacing=(3.0, 2.0, 2.0)))
    scores = open_bodypart("demo-bodypart", settings=SETTINGS).score(
        volume, make_series(120, 3.0), settings=SETTINGS, workspace=workspace
    )
    assert scores.valid_z_spacing is False
    assert "invalid_z_spacing" in {issue.rule for issue in scores.issues}
    landmarks = find_landmarks(scores)
    assert sum(i.slice_index is not None for i in landmarks.items) <= 1
    assert find_regions(scores).examined == "NONE"
