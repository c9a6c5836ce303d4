"""Resampling as matrix products against nnunetv2 and against what an interpolation must do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctenrich.errors import ModelError
from ctenrich.nnunet.plans import Resampling
from ctenrich.nnunet.resample import axis_matrix, nearest_index, new_shape, resample_image, separate_axis
from ctenrich.reasons import Reason

CPU = torch.device("cpu")


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 12), st.integers(2, 30), st.integers(2, 30)),
    st.tuples(*[st.floats(0.5, 6.0)] * 3),
    st.tuples(*[st.floats(0.5, 6.0)] * 3),
    st.sampled_from([1, 3]),
)
def test_resampling_equals_nnunetv2(shape: Any, spacing: Any, target: Any, order: int) -> None:
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    wanted = new_shape(shape, spacing, target)
    rule = Resampling(order, 0, None)
    theirs = resample_data_or_seg_to_shape(
        image[None], wanted, spacing, target, is_seg=False, order=order, order_z=0, force_separate_z=None
    )[0]
    ours = resample_image(image, wanted, rule, separate_axis(rule, spacing, target), CPU).numpy()
    assert ours.shape == theirs.shape
    assert float(np.abs(ours - theirs).max()) <= 2e-6


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([0, 1, 3]))
def test_rows_of_a_matrix_sum_to_one(n_in: int, n_out: int, order: int) -> None:
    matrix = axis_matrix(n_in, n_out, order)
    assert matrix.shape == (n_out, n_in)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-9)
    if n_in == n_out:
        np.testing.assert_allclose(matrix, np.eye(n_in), atol=1e-9)


def test_nearest_takes_the_sample_whose_pixel_holds_the_centre() -> None:
    assert nearest_index(3, 6).tolist() == [0, 0, 1, 1, 2, 2]
    assert nearest_index(6, 3).tolist() == [1, 3, 5]
    assert nearest_index(5, 1).tolist() == [2]


def test_linear_interpolation_keeps_a_ramp_inside() -> None:
    ramp = np.arange(10.0)
    found = axis_matrix(10, 20, 1) @ ramp
    np.testing.assert_allclose(found[1:-1], np.arange(18) * 0.5 + 0.25)
    assert (found[0], found[-1]) == (0.0, 9.0)


@pytest.mark.parametrize(
    ("force", "spacing", "target", "axis"),
    [
        (None, (5.0, 1.0, 1.0), (1.0, 1.0, 1.0), 0),
        (None, (3.0, 1.0, 1.0), (1.0, 1.0, 1.0), None),  # the ratio must be above 3
        (None, (1.0, 1.0, 3.01), (1.0, 1.0, 1.0), 2),
        (None, (1.0, 1.0, 1.0), (1.0, 7.0, 1.0), 1),
        (None, (4.0, 4.0, 1.0), (1.0, 1.0, 1.0), None),  # two axes are the coarsest
        (False, (9.0, 1.0, 1.0), (9.0, 1.0, 1.0), None),
        (True, (2.0, 1.0, 1.0), (1.0, 1.0, 1.0), 0),
    ],
)
def test_axis_that_is_resampled_on_its_own(force: bool | None, spacing: Any, target: Any, axis: int | None) -> None:
    assert separate_axis(Resampling(3, 0, force), spacing, target) == axis


def test_shapes_are_rounded_and_never_empty() -> None:
    assert new_shape((10, 100, 3), (3.0, 0.7, 1.0), (1.5, 1.0, 9.0)) == (20, 70, 1)


def test_cubic_overshoot_is_clipped() -> None:
    step = np.zeros((4, 4, 12), np.float32)
    step[:, :, 6:] = 100
    for rule, separate in ((Resampling(3, 0, None), None), (Resampling(3, 0, None), 0)):
        found = resample_image(step, (4, 4, 40), rule, separate, CPU)
        assert float(found.min()) >= 0
        assert float(found.max()) <= 100


def test_the_number_of_workers_does_not_matter() -> None:
    image = np.random.default_rng(1).normal(size=(40, 12, 14)).astype(np.float32)
    for separate in (None, 0):
        one, two = (
            resample_image(image, (50, 20, 9), Resampling(3, 0, None), separate, CPU, workers) for workers in (1, 2)
        )
        assert torch.equal(one, two)


def test_orders_that_are_not_supported() -> None:
    image = np.zeros((3, 4, 5), np.float32)
    for order, order_z, separate in ((2, 0, None), (3, 1, 0)):
        with pytest.raises(ModelError) as caught:
            resample_image(image, (6, 8, 10), Resampling(order, order_z, None), separate, CPU)
        assert caught.value.reason is Reason.BAD_MODEL
