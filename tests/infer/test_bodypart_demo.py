"""The demonstration model on phantoms that it has not seen: planted landmarks lie on their slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ctenrich.infer.bodypart import open_bodypart
from ctenrich.measure.landmarks import find_landmarks
from ctenrich.measure.regions import find_regions
from ctenrich.phantom import PhantomOptions, hand_over, make_phantom
from ctenrich.settings import SegmentSettings, Settings
from ctenrich.workspace import Workspace

SETTINGS = Settings(segment=SegmentSettings(device="cpu"))


def options(seed: int, orientation: str) -> PhantomOptions:
    return PhantomOptions(seed=seed, slices=110, slice_spacing=3.0).oriented(orientation)


@pytest.mark.parametrize(("seed", "orientation"), [(4, "axial_LP"), (9, "axial_LP"), (9, "axial_RP"), (9, "axial_PL")])
def test_planted_landmarks_are_found_within_one_slice(seed: int, orientation: str, tmp_path: Path) -> None:
    phantom = make_phantom(options(seed, orientation))
    workspace = Workspace(tmp_path)
    volume, series = hand_over(phantom, workspace)
    scores = open_bodypart("demo-bodypart", settings=SETTINGS).score(
        volume, series, settings=SETTINGS, workspace=workspace
    )
    assert (scores.valid_z_spacing, scores.reverse_z_ordering) == (True, False)
    landmarks = find_landmarks(scores, settings=SETTINGS, workspace=workspace)
    heights = np.array([s.position[2] for s in series.slices])
    inside = {n: z for n, z in phantom.landmarks.items() if heights.min() + 10 < z < heights.max() - 10}
    found = {i.name: i.slice_index for i in landmarks.items if i.slice_index is not None}
    assert set(inside) <= set(found)
    assert {"lung_start", "lung_end", "Th8"} <= set(inside)
    off = {name: abs(found[name] - int(np.argmin(abs(heights - z)))) for name, z in inside.items()}
    assert max(off.values()) <= 1, off
    regions = find_regions(scores, settings=SETTINGS, workspace=workspace)
    assert "CHEST" in regions.examined
