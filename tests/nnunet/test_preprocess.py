"""Canonical axes, the box of what is not zero, normalisation, and the grids of the way back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.small_models import smooth_volume, v2_dataset, v2_plans

from ctenrich.errors import InputError
from ctenrich.nnunet.plans import parse_v2
from ctenrich.nnunet.preprocess import canonical_axes, nonzero_box, to_network
from ctenrich.reasons import Reason

CPU = torch.device("cpu")


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(3)), st.tuples(*[st.sampled_from([-1, 1])] * 3), st.sampled_from(["LPS", "LAS"]))
def test_axes_turn_and_turn_back(order: Any, signs: Any, towards: str) -> None:
    """Whatever the orientation, the turned array's axes grow towards S, P (or A) and L, and `back` undoes it."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) * signs)[:, list(order)] * [0.5, 0.7, 2.0]
    axes = canonical_axes(tuple(map(tuple, affine)), towards)  # type: ignore[arg-type]
    k, j, i = np.meshgrid(*(np.arange(n, dtype=float) for n in (3, 4, 5)), indexing="ij")
    world = np.stack([i, j, k], -1) @ affine[:3, :3].T
    turned = [axes.turn(world[..., n]) for n in range(3)]
    assert (np.diff(turned[2], axis=0) > 0).all()
    assert (np.diff(turned[1], axis=1) * (1 if towards == "LPS" else -1) > 0).all()
    assert (np.diff(turned[0], axis=2) > 0).all()
    array = np.arange(60).reshape(3, 4, 5)
    assert np.array_equal(axes.back(axes.turn(array)), array)
    assert np.array_equal(axes.turn_channels(array[None])[0], axes.turn(array))


def test_oblique_series_take_the_nearest_axes() -> None:
    a = np.deg2rad(30)
    affine = ((1, 0, 0, 0), (0, np.cos(a), -np.sin(a), 0), (0, np.sin(a), np.cos(a), 0), (0, 0, 0, 1))
    assert canonical_axes(affine).order == (0, 1, 2)  # type: ignore[arg-type]


def test_box_of_what_is_not_zero() -> None:
    array = np.zeros((4, 5, 6), np.int16)
    assert nonzero_box(array) == ((0, 4), (0, 5), (0, 6))
    array[1, 2, 3] = array[2, 4, 1] = -5
    assert nonzero_box(array) == ((1, 3), (2, 5), (1, 4))


def test_values_are_clipped_then_normalised() -> None:
    """With the spacing of the plan nothing is resampled: (clip(HU, -900, 600) + 100) / 350."""
    array = np.array([-1024, -900, -100, 0, 250, 600, 3071, 1], np.int16).reshape(2, 2, 2)
    data, grids = to_network(array, (4.0, 2.0, 2.0), parse_v2(v2_plans(), v2_dataset(), "3d_fullres", ()), CPU)
    wanted = (np.clip(array, -900, 600).astype(np.float64) + 100) / 350
    np.testing.assert_allclose(data.numpy(), wanted, atol=1e-6)
    assert data.dtype == torch.float32
    assert grids.box == ((0, 2), (0, 2), (0, 2))


def test_grids_of_a_transposed_plan() -> None:
    plans = v2_plans(transpose_forward=[2, 0, 1], transpose_backward=[1, 2, 0])
    array = smooth_volume((10, 20, 30))
    array[:, :, :4] = 0
    data, grids = to_network(array, (3.0, 1.0, 2.0), parse_v2(plans, v2_dataset(), "3d_fullres", ()), CPU)
    assert grids.shape == (30, 10, 20)
    assert grids.spacing == (2.0, 3.0, 1.0)
    assert grids.target == (4.0, 2.0, 2.0)
    assert grids.cropped == (26, 10, 20)
    assert data.shape == (13, 15, 10)


def test_two_dimensional_plans_keep_the_slices() -> None:
    data, grids = to_network(
        smooth_volume((7, 20, 20)), (5.0, 1.0, 1.0), parse_v2(v2_plans(2), v2_dataset(), "2d", ()), CPU
    )
    assert data.shape == (7, 10, 10)
    assert grids.target == (5.0, 2.0, 2.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_numbers_are_refused(value: float) -> None:
    array = np.zeros((3, 4, 5), np.float32)
    array[1, 2, 3] = value
    with pytest.raises(InputError) as caught:
        to_network(array, (4.0, 2.0, 2.0), parse_v2(v2_plans(), v2_dataset(), "3d_fullres", ()), CPU)
    assert caught.value.reason is Reason.HU_RANGE
