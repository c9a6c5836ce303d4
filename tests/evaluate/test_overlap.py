"""Overlap and distances against geometry, against all pairs, and against published numbers."""

from __future__ import annotations

import numpy as np
import pytest

from ctenrich.evaluate.overlap import compare_masks
from ctenrich.masks import dice

SPACING = (3.0, 1.0, 0.5)


def box(k, j, i, shape=(12, 30, 40)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[slice(*k), slice(*j), slice(*i)] = True
    return mask


def test_a_shifted_box_is_off_by_its_shift():
    one, two = box((2, 8), (5, 15), (10, 30)), box((2, 8), (8, 18), (10, 30))
    result = compare_masks(one, two, SPACING)
    assert result.dice == pytest.approx(0.7)
    assert result.hausdorff == 3.0
    assert result.centre_shift == pytest.approx(3.0)
    assert result.volume_difference == 0
    assert compare_masks(one, one, SPACING).hausdorff_95_surface == 0


def test_the_two_95_percent_distances_are_different_things():
    """A thin far spur: more than 5 in 100 of the surface, fewer of all voxels. The all-voxel number is 0."""
    body = box((1, 11), (2, 28), (2, 28))
    spur = body | box((5, 6), (14, 15), (28, 39)) | box((5, 7), (10, 16), (28, 34))
    result = compare_masks(spur, body, (1.0, 1.0, 1.0))
    assert result.hausdorff == 11.0
    assert result.hausdorff_95_voxels == 0.0
    thick = compare_masks(box((1, 11), (2, 28), (2, 32)), body, (1.0, 1.0, 1.0))
    assert thick.hausdorff_95_surface > thick.hausdorff_95_voxels > 0


def test_masks_that_are_empty():
    empty, full = np.zeros((12, 30, 40), bool), box((2, 8), (5, 15), (10, 30))
    assert compare_masks(empty, empty, SPACING).dice is None
    lost = compare_masks(empty, full, SPACING)
    assert (lost.dice, lost.hausdorff, lost.surface_dice) == (0.0, None, None)
    assert lost.volume_difference == -full.sum() * 1.5
    assert dice(full, full) == 1.0


def test_other_grids_are_refused():
    with pytest.raises(ValueError, match="grids"):
        compare_masks(np.ones((2, 2, 2), bool), np.ones((2, 2, 3), bool), SPACING)


def all_pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distance of every voxel of a from the nearest of b, by comparing all of them."""
    p, q = (np.argwhere(m) * SPACING for m in (a, b))
    return np.sqrt(((p[:, None] - q[None]) ** 2).sum(axis=2)).min(axis=1)


def surface(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1)
    inner = padded.copy()
    for axis in range(3):
        for step in (1, -1):
            inner &= np.roll(padded, step, axis)
    return mask & ~inner[1:-1, 1:-1, 1:-1]


def test_random_masks_equal_the_comparison_of_all_pairs():
    rng = np.random.default_rng(2)
    for _ in range(25):
        a, b = (rng.random((5, 8, 9)) < rng.uniform(0.1, 0.8) for _ in range(2))
        if not (a.any() and b.any()):
            continue
        result = compare_masks(a, b, SPACING, tolerance=1.2)
        far = all_pairs(a, b), all_pairs(b, a)
        near = all_pairs(surface(a), surface(b)), all_pairs(surface(b), surface(a))
        rank = [np.sort(d)[int(np.ceil(0.95 * d.size)) - 1] for d in (*far, *near)]
        assert result.hausdorff == pytest.approx(max(far[0].max(), far[1].max()))
        assert result.hausdorff_95_voxels == pytest.approx(max(rank[:2]))
        assert result.hausdorff_95_surface == pytest.approx(max(rank[2:]))
        assert result.mean_surface_distance == pytest.approx((near[0].mean() + near[1].mean()) / 2)
        expected = sum((d <= 1.2).sum() for d in near) / sum(d.size for d in near)
        assert result.surface_dice == pytest.approx(expected)


def test_concentric_balls():
    k, j, i = np.mgrid[-12:13, -36:37, -72:73]
    radius = np.sqrt((k * 3.0) ** 2 + j**2 + (i * 0.5) ** 2)
    result = compare_masks(radius <= 30, radius <= 24, SPACING)
    assert result.hausdorff == pytest.approx(6, abs=1.0)
    assert result.mean_surface_distance == pytest.approx(6, abs=0.7)
    assert result.dice == pytest.approx(2 * 24**3 / (30**3 + 24**3), abs=0.01)
    assert result.centre_shift == pytest.approx(0, abs=1e-9)
