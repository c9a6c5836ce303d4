"""Dice and surface Dice against values worked out by hand and against other tools."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import SimpleITK
from numpy.typing import NDArray

from ctenrich.masks import (
    dice,
    dice_of_counts,
    distance_from,
    label_statistics,
    masks_from_label_map,
    surface_dice,
    surface_of,
)
from ctenrich.records import SegmentMasks
from ctenrich.workspace import Workspace
from tests.support.encode_cases import EXPERT, make_series

EMPTY = np.zeros((6, 7, 8), bool)


def block(shape: tuple[int, int, int], *ranges: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*r) for r in ranges)] = True
    return mask


def test_dice_of_counts() -> None:
    assert dice_of_counts(0, 0, 0) is None
    assert dice_of_counts(0, 3, 0) == 0.0
    assert dice_of_counts(3, 3, 3) == 1.0
    assert dice_of_counts(1, 2, 4) == pytest.approx(1 / 3)


def test_dice_is_that_of_itk() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random((5, 6, 7)) < 0.4, rng.random((5, 6, 7)) < 0.6
    images = [SimpleITK.GetImageFromArray(m.astype(np.uint8)) for m in (a, b)]
    overlap = SimpleITK.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*images)
    assert dice(a, b) == pytest.approx(overlap.GetDiceCoefficient(), abs=1e-12)
    assert dice(EMPTY, EMPTY) is None


def test_surface_is_the_voxels_with_a_face_neighbour_outside() -> None:
    mask = block((6, 7, 8), (1, 5), (1, 6), (0, 4))
    inner = block((6, 7, 8), (2, 4), (2, 5), (1, 3))
    assert np.array_equal(surface_of(mask), mask & ~inner)
    assert np.array_equal(surface_of(np.ones((3, 3, 3), bool)).sum(), 26)


def test_distances_follow_the_spacing_of_each_axis() -> None:
    mask = block((6, 7, 8), (2, 3), (3, 4), (4, 5))
    distance = distance_from(mask, (5.0, 2.0, 0.5))
    assert distance[2, 3, 4] == 0
    assert (distance[3, 3, 4], distance[2, 4, 4], distance[2, 3, 5]) == (5.0, 2.0, 0.5)
    assert distance[4, 5, 6] == pytest.approx(np.sqrt(10.0**2 + 4.0**2 + 1.0**2))


def test_surface_dice_depends_on_tolerance_and_spacing() -> None:
    """Two plates of one voxel, a slice apart: near only where the tolerance reaches over the slice spacing."""
    a, b = block((6, 7, 8), (2, 3), (0, 7), (0, 8)), block((6, 7, 8), (3, 4), (0, 7), (0, 8))
    assert surface_dice(a, b, (2.0, 1.0, 1.0), 1.0) == 0.0
    assert surface_dice(a, b, (2.0, 1.0, 1.0), 2.0) == 1.0
    assert surface_dice(a, b, (0.5, 1.0, 1.0), 1.0) == 1.0
    half = block((6, 7, 8), (2, 3), (0, 7), (0, 4))
    # columns 0 to 4 of the plate are within 1 mm of the half plate: 7 * 5 of 56 voxels, and all 28 of the half plate
    assert surface_dice(a, half, (2.0, 1.0, 1.0), 1.0) == pytest.approx((35 + 28) / (56 + 28))


def test_surface_dice_of_empty_masks() -> None:
    mask = block((6, 7, 8), (2, 3), (3, 4), (4, 5))
    assert surface_dice(EMPTY, EMPTY, (1.0, 1.0, 1.0), 1.0) is None
    assert surface_dice(EMPTY, mask, (1.0, 1.0, 1.0), 1.0) == 0.0
    assert surface_dice(mask, EMPTY, (1.0, 1.0, 1.0), 1.0) == 0.0


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("step", [1, -1])
def test_statistics_of_labels_are_those_of_scipy(kind: type, step: int) -> None:
    """Noise, blocks and a label that touches every border; the view is that of an image with reversed axes."""
    generator = np.random.default_rng(3)
    blocks = np.kron(generator.integers(0, 9, (4, 5, 6)), np.ones((3, 4, 5))).astype(kind)
    noise = (generator.integers(0, 250, blocks.shape) * (generator.random(blocks.shape) < 0.05)).astype(kind)
    for array in (blocks, noise, np.full((2, 3, 4), 7, kind), np.zeros((2, 3, 4), kind), np.zeros((0, 3, 4), kind)):
        labels = array[::step, :, ::step]
        found = label_statistics(labels)
        assert np.array_equal(found.counts, np.bincount(labels.ravel(), minlength=len(found.counts)))
        boxes = scipy.ndimage.find_objects(labels.astype(int)) if labels.size else []
        expected = {
            value: [end for part in box for end in (part.start, part.stop)]
            for value, box in enumerate(boxes, 1)
            if box is not None
        }
        assert {v: [b.k0, b.k1, b.j0, b.j1, b.i0, b.i1] for v, b in found.boxes.items()} == expected


def test_statistics_are_bounded_by_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.random.default_rng(4).integers(0, 5, (7, 8, 9)).astype(np.uint8)
    whole = label_statistics(labels)
    monkeypatch.setattr("ctenrich.masks._SLAB", 100)
    parts = label_statistics(labels)
    assert np.array_equal(whole.counts, parts.counts)
    assert whole.boxes == parts.boxes


def test_statistics_of_renumbered_labels() -> None:
    labels = np.random.default_rng(5).integers(0, 6, (3, 8, 9)).astype(np.uint8)
    table = np.array([0, 3, 0, 1, 9, 0], np.uint8)
    found, expected = label_statistics(labels).renumbered(table), label_statistics(table[labels])
    assert np.array_equal(found.counts, expected.counts[:10])
    assert found.boxes == expected.boxes


def test_a_label_that_does_not_fit_the_type_is_no_other_label(tmp_path: Path) -> None:
    """257 is not 1 in 8 bits."""
    workspace = Workspace(tmp_path)
    series, _ = make_series(tmp_path / "ct")
    labels = np.zeros(series.shape, np.uint16)
    labels[3, 4, 5] = 257
    template = SegmentMasks(EXPERT, series.series_instance_uid, series.shape, (), None, "")
    with pytest.raises(ValueError, match="257"):
        masks_from_label_map(labels, [(1, "heart", "heart")], template, tmp_path / "labels.npy", workspace)
