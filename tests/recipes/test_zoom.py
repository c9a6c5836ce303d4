"""Resampling that is scipy's, voxel for voxel."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ctenrich.recipes.zoom import nearest_indices, zoom_labels, zoom_linear, zoomed_shape


@pytest.mark.parametrize("seed", range(12))
def test_images_are_those_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for n in range(6):
        shape = tuple(int(v) for v in rng.integers(1, 30, 3))
        zoom = rng.uniform(0.2, 3, 3)
        array = rng.integers(-1024, 3000, shape).astype(np.int16)
        if n % 2:  # equal values: sums that are a rounding below a whole number are truncated to the next one
            array[:] = rng.integers(-1024, 0)
        expected = ndimage.zoom(array.transpose(2, 1, 0).astype(float), zoom[::-1], order=1, mode="nearest")
        if expected.size:
            found = zoom_linear(array, expected.shape[::-1], 2)
            np.testing.assert_array_equal(found, expected.astype(np.int32).transpose(2, 1, 0))


def test_planes_that_lie_on_planes_of_the_source_are_those_of_scipy() -> None:
    """As many planes as before (slices of 3 mm for networks of 3 mm), and every second one of a corner-aligned axis."""
    rng = np.random.default_rng(4)
    array = rng.integers(-1024, 3000, (9, 40, 37)).astype(np.int16)
    array[:4] = -1000
    for planes in (9, 5, 17):
        zoom = (22 / 37, 19 / 40, planes / 9)
        expected = ndimage.zoom(array.transpose(2, 1, 0).astype(float), zoom, order=1, mode="nearest")
        found = zoom_linear(array, (planes, 19, 22))
        np.testing.assert_array_equal(found, expected.astype(np.int32).transpose(2, 1, 0))


def test_an_array_that_is_turned_is_resampled_as_its_copy() -> None:
    array = np.random.default_rng(1).integers(-1000, 1000, (9, 11, 13)).astype(np.int16)
    turned = np.flip(np.transpose(array, (2, 0, 1)), (0, 2))
    np.testing.assert_array_equal(zoom_linear(turned, (20, 7, 11)), zoom_linear(turned.copy(), (20, 7, 11)))


def test_nearest_voxels_are_those_of_scipy() -> None:
    for n_in in range(1, 40):
        line = np.arange(n_in, dtype=np.uint8)
        for n_out in range(1, 120, 3):
            expected = ndimage.zoom(line, n_out / n_in, order=0, mode="nearest")
            if len(expected) == n_out:
                np.testing.assert_array_equal(line[nearest_indices(n_in, n_out)], expected)


@pytest.mark.parametrize("shape", [(5, 6, 7), (31, 44, 20), (12, 9, 40)])
def test_label_maps_are_those_of_scipy(shape: tuple[int, int, int]) -> None:
    labels = np.random.default_rng(2).integers(0, 200, (14, 20, 17)).astype(np.uint8)
    expected = ndimage.zoom(labels, np.array(shape) / labels.shape, order=0, mode="nearest")
    np.testing.assert_array_equal(zoom_labels(labels, shape), expected)


def test_halves_of_a_shape_are_rounded_to_the_even_number() -> None:
    assert zoomed_shape((5, 7, 91), (1.0, 1.0, 3.0), (2.0, 2.0, 1.5)) == (2, 4, 182)
