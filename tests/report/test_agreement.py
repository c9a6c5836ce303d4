"""Agreement on a series page: the numbers of the evaluation, on the common box of two masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ctenrich.evaluate.metrics import measure_agreement
from ctenrich.masks import full_mask, masks_from_label_map, masks_from_segments
from ctenrich.records import Issue, Product, SegmentMasks, Severity
from ctenrich.report.agreement import agreement_of, reference_of
from ctenrich.workspace import Workspace

UID, SHAPE, SPACING = "1.2.3", (12, 20, 24), (3.0, 1.0, 0.8)


def two_products(workspace: Workspace) -> tuple[SegmentMasks, SegmentMasks]:
    """Overlapping masks of an expert, and a label map whose heart is shifted and whose aorta is absent."""
    heart, lung = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    heart[3:9, 5:15, 6:16] = True
    lung[1:11, 2:9, 2:20] = True
    folder = workspace.series_dir(UID)
    parts = [(1, "heart", heart), (2, "lung_left", lung), (3, "aorta", heart & lung), (4, "liver", heart & ~heart)]
    template = SegmentMasks(Product("expert"), UID, SHAPE, (), None, "")
    expert = masks_from_segments(((n, name, "", m) for n, name, m in parts), template, folder / "expert", workspace)
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:9, 6:17, 6:16] = 7
    names = [(7, "heart", ""), (8, "aorta", ""), (9, "liver", ""), (10, "spleen", "")]
    template = SegmentMasks(Product("nnunet", "m"), UID, SHAPE, (), None, "")
    return expert, masks_from_label_map(labels, names, template, folder / "labels.npy", workspace)


def test_numbers_are_those_of_the_evaluation(workspace: Workspace) -> None:
    expert, network = two_products(workspace)
    found = {one.segment: one for one in agreement_of(expert, network, SPACING, workspace)}
    assert list(found) == ["heart", "aorta", "liver"], "structures of both, in the order of the reference"
    whole = measure_agreement(full_mask(network, 7, workspace), full_mask(expert, 1, workspace), SPACING)
    heart = found["heart"]
    assert heart.dice == pytest.approx(whole.dice, abs=1e-12)
    assert heart.hausdorff_95 == pytest.approx(whole.hausdorff_95_max, abs=1e-9)
    assert heart.mean_distance == pytest.approx(whole.mean_surface_distance, abs=1e-9)
    assert (heart.volume, heart.reference_volume) == pytest.approx((whole.volume, whole.reference_volume))
    assert (found["aorta"].dice, found["aorta"].hausdorff_95, found["aorta"].volume) == (0.0, None, 0.0)
    assert found["liver"].dice is None


def test_rows_of_the_evaluation_are_used_if_they_fit(workspace: Workspace) -> None:
    expert, network = two_products(workspace)
    dice = agreement_of(expert, network, SPACING, workspace)[0].dice
    row = {"segment": "heart", "dice": dice, "hausdorff_95_max": 123.0, "mean_surface_distance": 45.0}
    assert agreement_of(expert, network, SPACING, workspace, [row])[0].hausdorff_95 == 123.0
    stale = agreement_of(expert, network, SPACING, workspace, [{**row, "dice": dice - 0.01}])[0]
    assert stale.hausdorff_95 != 123.0, "the masks have changed since the evaluation"


def test_structures_with_an_error_are_left_out(workspace: Workspace) -> None:
    expert, network = two_products(workspace)
    damaged = replace(expert, issues=(Issue("contours", Severity.ERROR, "heart", "cannot be read"),))
    assert [one.segment for one in agreement_of(damaged, network, SPACING, workspace)] == ["aorta", "liver"]


def test_the_expert_is_the_reference(workspace: Workspace) -> None:
    expert, network = two_products(workspace)
    assert reference_of({"a": network, "expert": expert}) == "expert"
    assert reference_of({"a": network, "b": network}) == "a"
    assert reference_of({}) == ""
