"""Metrics of two masks equal MedPy, surface-distance and SimpleITK; empty masks and the time of a large volume."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from ctenrich.evaluate.metrics import measure_agreement
from ctenrich.evaluate.overlap import compare_masks
from tests.support.metric_golden import GOLDEN, PAIRS, TOLERANCES, random_pairs

SPACING = (3.0, 1.0, 0.5)


def test_random_masks_equal_other_programs() -> None:
    """200 pairs; the numbers are those of MedPy 0.5.2, surface-distance 0.1 and SimpleITK's LabelContour."""
    rows = json.loads(GOLDEN.read_text("utf-8"))
    assert len(rows) == PAIRS
    for number, ((one, two, spacing), row) in enumerate(zip(random_pairs(), rows, strict=True)):
        found = measure_agreement(one, two, spacing, tolerances=TOLERANCES)
        for name in ("dice", "hausdorff", "hausdorff_95_max", "hausdorff_95_pooled", "mean_surface_distance"):
            assert getattr(found, name) == pytest.approx(row[name], abs=1e-6), (number, name)
        assert found.added_path_length == pytest.approx(row["added_path_length"], abs=1e-6), number
        assert [found.surface_dice[t] for t in TOLERANCES] == pytest.approx(row["surface_dice"], abs=1e-6), number


def test_the_distance_of_published_tables_equals_the_other_implementation() -> None:
    for number, (one, two, spacing) in enumerate(random_pairs()):
        if number % 8 == 0:
            found, other = measure_agreement(one, two, spacing, tolerances=()), compare_masks(one, two, spacing)
            assert found.hausdorff_95_voxels == pytest.approx(other.hausdorff_95_voxels, abs=1e-9)
            assert found.centroid_distance == pytest.approx(other.centre_shift, abs=1e-9)
            assert found.volume_difference * 1000 == pytest.approx(other.volume_difference)
            assert found.surface_dice == {}


def test_masks_that_are_empty() -> None:
    empty, full = np.zeros((6, 10, 10), bool), np.zeros((6, 10, 10), bool)
    full[2:4, 3:7, 3:7] = True
    neither = measure_agreement(empty, empty, SPACING)
    assert (neither.dice, neither.surface_dice, neither.volume) == (None, {1.0: None, 2.0: None, 3.0: None}, 0)
    lost, extra = measure_agreement(empty, full, SPACING), measure_agreement(full, empty, SPACING)
    assert (lost.dice, lost.hausdorff, lost.centroid_distance, lost.surface_dice[1.0]) == (0.0, None, None, 0.0)
    assert (lost.reference_volume, extra.volume, lost.volume) == pytest.approx((0.048, 0.048, 0))
    assert (lost.added_path_length, extra.added_path_length) == (2 * 12 * 0.75, 0)
    with pytest.raises(ValueError, match="different grids"):
        measure_agreement(empty, empty[1:], SPACING)


def test_all_metrics_of_a_heart_in_a_whole_volume_take_less_than_a_second() -> None:
    k, j, i = np.ogrid[-40:41, -70:71, -70:71]
    heart = (k / 40) ** 2 + (j / 70) ** 2 + (i / 70) ** 2 < 1
    masks = [np.zeros((200, 512, 512), bool) for _ in range(2)]
    for n, mask in zip((0, 2), masks, strict=True):
        mask[40 + n : 121 + n, 180:321, 210 + n : 351 + n] = heart
    started = time.process_time()
    found = measure_agreement(masks[0], masks[1], (2.5, 0.8, 0.8))
    assert time.process_time() - started < 1
    assert found.centroid_distance == pytest.approx(np.hypot(5.0, 1.6), abs=0.02)
