"""The input of a feature network equals that of SimpleITK and numpy, for turned, mirrored and oblique volumes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from ctenrich.features.crop import Cropping, CropRule, NetworkInput, Resampling, VolumeInput
from ctenrich.masks import bounding_box
from ctenrich.networks.intensities import Intensity, IntensityStep

SHAPE = (14, 18, 22)
SPACING = (5.0, 2.0, 3.0)
"""[k, j, i], mm."""
RULE = CropRule(rule=Cropping.CENTROID, axes="RAS", size=(9, 7, 5), spacing=(2.5, 2.0, 3.5), fill=-2000.0)
TURNS = [(order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)]
"""Every exchange and reversal of axes: world axis of i, j and k, and its sign."""


def affine_of(order: tuple[int, ...], signs: tuple[int, ...], turned: float = 0.0) -> NDArray[np.float64]:
    """(i, j, k, 1) -> mm, LPS; `turned` about the third axis, radians."""
    matrix = np.zeros((3, 3))
    for column, (world, sign, side) in enumerate(zip(order, signs, SPACING[::-1], strict=True)):
        matrix[world, column] = sign * side
    rotation = np.array([[np.cos(turned), -np.sin(turned), 0], [np.sin(turned), np.cos(turned), 0], [0, 0, 1]])
    out = np.eye(4)
    out[:3, :3] = rotation @ matrix
    out[:3, 3] = (-31.0, 12.0, 250.0)
    return out


def volume_and_mask() -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    dice = np.random.default_rng(11)
    array = dice.integers(-1000, 500, SHAPE).astype(np.int16)
    mask = np.zeros(SHAPE, bool)
    mask[4:9, 5:12, 8:15] = dice.random((5, 7, 7)) > 0.4
    return array, mask


def made(rule: CropRule, array: NDArray[Any], mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> NetworkInput:
    box = bounding_box(mask)
    assert box is not None
    source = VolumeInput(array, tuple(map(tuple, affine.tolist())), SPACING)  # type: ignore[arg-type]
    return source.of_structure(rule, mask[box.k0 : box.k1, box.j0 : box.j1, box.i0 : box.i1], box)


def sampled_by_itk(array: NDArray[Any], mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> NDArray[np.float32]:
    """The box around the centroid, sampled in mm by SimpleITK; [x, y, z], x to the right, y to the front, z up."""
    image = sitk.GetImageFromArray(array.astype(np.float32))
    image.SetSpacing(SPACING[::-1])
    image.SetDirection((affine[:3, :3] / np.array(SPACING[::-1])).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    k, j, i = (float(where.mean()) for where in np.nonzero(mask))
    centre = np.array(image.TransformContinuousIndexToPhysicalPoint((i, j, k)))
    towards = np.diag([-1.0, -1.0, 1.0])  # RAS in LPS
    own = np.array(image.GetDirection()).reshape(3, 3)
    axes = np.stack([own[:, n] * np.sign(own[:, n] @ towards[:, w]) for w in range(3)
                     for n in [int(np.argmax(np.abs(own.T @ towards[:, w])))]], axis=1)  # fmt: skip
    assert RULE.spacing is not None
    half = (np.array(RULE.size) - 1) / 2 * np.array(RULE.spacing)
    target = sitk.Image(*RULE.size, sitk.sitkFloat32)
    target.SetSpacing(RULE.spacing)
    target.SetDirection(axes.ravel().tolist())
    target.SetOrigin((centre - axes @ half).tolist())
    found = sitk.Resample(image, target, sitk.Transform(), sitk.sitkLinear, -2000.0)
    return np.asarray(sitk.GetArrayFromImage(found).transpose(2, 1, 0))


@pytest.mark.parametrize(("order", "signs"), TURNS)
def test_a_box_around_the_centroid_equals_simpleitk_for_every_orientation(
    order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    array, mask = volume_and_mask()
    affine = affine_of(order, signs)
    if np.linalg.det(affine[:3, :3]) < 0:
        array, mask = array[::-1], mask[::-1]  # SimpleITK takes no mirrored grid: the same patient, slices reversed
        affine[:3, 3] += affine[:3, 2] * (SHAPE[0] - 1)
        affine[:3, 2] *= -1
    found = made(RULE, array, mask, affine)
    assert found.outside == 0.0
    np.testing.assert_allclose(found.data, sampled_by_itk(array, mask, affine), atol=2e-3)


def test_a_tilted_grid_keeps_its_own_axes_and_equals_simpleitk() -> None:
    array, mask = volume_and_mask()
    affine = affine_of((0, 1, 2), (1, 1, 1), turned=0.3)
    np.testing.assert_allclose(made(RULE, array, mask, affine).data, sampled_by_itk(array, mask, affine), atol=2e-3)


def test_a_box_that_leaves_the_volume_is_filled_and_says_how_much() -> None:
    array, mask = volume_and_mask()
    wide = replace(RULE, size=(9, 7, 41))
    found = made(wide, array, mask, affine_of((0, 1, 2), (1, 1, 1)))
    filled = (found.data == -2000.0).mean()
    assert 0.4 < found.outside < 0.8
    assert found.outside == pytest.approx(filled)
    shifted = np.zeros(SHAPE, bool)
    shifted[0, 0, 0] = True
    far = made(replace(RULE, spacing=(900.0, 900.0, 900.0)), array, shifted, affine_of((0, 1, 2), (1, 1, 1)))
    assert far.outside == pytest.approx(1 - 1 / np.prod(RULE.size)), "the middle alone is inside"


def test_a_bounding_box_with_its_margin_is_averaged_as_by_numpy() -> None:
    array, mask = volume_and_mask()
    rule = CropRule(rule=Cropping.BOUNDING_BOX, axes="LPS", size=(4, 3, 2), margin=4.0, resampling=Resampling.AREA)
    found = made(rule, array, mask, affine_of((0, 1, 2), (1, 1, 1)))
    box = bounding_box(mask)
    assert box is not None
    part = array[box.k0 - 1 : box.k1 + 1, box.j0 - 2 : box.j1 + 2, box.i0 - 2 : box.i1 + 2].astype(float)
    wanted = np.empty((4, 3, 2))
    for x, y, z in np.ndindex(4, 3, 2):
        cells = [
            slice(n * size // count, -(-(n + 1) * size // count))
            for n, size, count in zip((z, y, x), part.shape, (2, 3, 4), strict=True)
        ]
        wanted[x, y, z] = part[tuple(cells)].mean()
    np.testing.assert_allclose(found.data, wanted, rtol=1e-5)


def test_a_volume_is_cropped_to_what_is_above_the_threshold() -> None:
    array = np.full(SHAPE, -1000, np.int16)
    array[3:9, 4:14, 6:16] = 100
    array[3, 4, 6] = -999
    steps = (Intensity(step=IntensityStep.RANGE, values=(-1000.0, 200.0, 0.0, 1.0)),)
    rule = CropRule(
        rule=Cropping.VOLUME, axes="RAS", size=(5, 5, 3), threshold=-1000.0, resampling=Resampling.AREA,
        intensities=steps,
    )  # fmt: skip
    affine = ((3.0, 0.0, 0.0, 0.0), (0.0, 2.0, 0.0, 0.0), (0.0, 0.0, 5.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    source = VolumeInput(array, affine, SPACING)
    found = source.of_volume(rule).data
    assert found.shape == (5, 5, 3)
    np.testing.assert_allclose(np.delete(found.ravel(), 5 * 5 * 3 - 3), 1100 / 1200, rtol=1e-6)
    assert found[-1, -1, 0] < 0.9, "the first voxel of LPS is at the right and front ends of RAS"
    empty = VolumeInput(np.full(SHAPE, -1000, np.int16), affine, SPACING)
    assert empty.of_volume(rule).data.max() == 0.0, "without such voxels it is the whole volume"
