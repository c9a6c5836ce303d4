"""Scores on the network's grid to labels on the source grid: classes, regions, slabs, and the way back of the axes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.small_models import v2_dataset, v2_plans

from ctenrich.nnunet.plans import LabelPlan, ModelPlan, parse_v2
from ctenrich.nnunet.postprocess import full_slabs, labels_of, probabilities_of, to_source
from ctenrich.nnunet.preprocess import Grids

PLAN = parse_v2(v2_plans(), v2_dataset(), "3d_fullres", ())


def scores_of(shape: tuple[int, ...], classes: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(classes, *shape, generator=torch.Generator().manual_seed(seed))


def same_grid(plan: ModelPlan, shape: tuple[int, int, int], box: Any = None) -> Grids:
    whole = tuple((0, n) for n in shape)
    return Grids(shape, box or whole, (4.0, 2.0, 2.0), (4.0, 2.0, 2.0))  # type: ignore[arg-type]


def test_the_largest_score_wins_and_the_first_of_two_equal_ones() -> None:
    scores = torch.tensor([[1.0, 0.0, 2.0], [1.0, 3.0, 2.0], [0.0, 3.0, 5.0]])
    assert labels_of(scores, LabelPlan({"a": 1, "b": 2}), 2).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("version", "scores"), [(1, [0.4, 0.6, 0.5]), (2, [-0.1, 0.1, 0.0])])
def test_regions_are_painted_one_over_the_other(version: int, scores: list[float]) -> None:
    """A region holds where its probability is above one half: 0.5 itself (logit 0) is outside."""
    labels = LabelPlan({"whole": 3, "core": 7}, regions=True, order=(3, 7))
    high = [0.9 if version == 1 else 2.0] * 3
    assert labels_of(torch.tensor([high, scores]), labels, version).tolist() == [3, 7, 3]
    assert labels_of(torch.tensor([scores, high]), labels, version).tolist() == [7, 7, 7]


def test_probabilities() -> None:
    scores = scores_of((2, 3))
    assert torch.allclose(probabilities_of(scores, PLAN).sum(0), torch.ones(2, 3))
    regions = replace(PLAN, labels=LabelPlan({"a": 1}, regions=True, order=(1,)))
    assert torch.equal(probabilities_of(scores, regions), torch.sigmoid(scores))
    assert probabilities_of(scores, replace(PLAN, version=1)) is scores


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(1, 7)] * 3), st.tuples(*[st.integers(1, 12)] * 3), st.integers(1, 3))
def test_slabs_are_torchs_trilinear_interpolation(before: Any, after: Any, workers: int) -> None:
    """What torch interpolates at pixel centres with repeated edges, plane by plane and in any parts."""
    scores = scores_of(before)
    wanted = torch.nn.functional.interpolate(scores[None], after, mode="trilinear", align_corners=False)[0]
    found = torch.empty_like(wanted)
    for part in (range(first, after[0], workers) for first in range(workers)):
        for where, slab in full_slabs(scores, after, None, part):
            found[:, where] = slab[:, None]
    assert float((found - wanted).abs().max()) < 1e-4


def test_an_axis_of_its_own_takes_the_nearest_plane() -> None:
    scores = scores_of((4, 3, 5))
    for where, slab in full_slabs(scores, (4, 3, 10), 2):
        assert len(where) == 2
        assert torch.equal(slab, scores[..., int(where[0]) // 2])


@pytest.mark.parametrize("workers", [1, 2])
def test_outside_the_box_all_is_background(workers: int) -> None:
    scores = scores_of((3, 4, 5)) + torch.tensor([-100.0, 0, 0, 0]).reshape(4, 1, 1, 1)
    grids = same_grid(PLAN, (6, 7, 8), ((1, 4), (2, 6), (0, 5)))
    labels = to_source(scores, PLAN, grids, workers=workers)
    inside = labels[1:4, 2:6, 0:5]
    np.testing.assert_array_equal(inside, scores.argmax(0).numpy())
    assert np.count_nonzero(labels) == inside.size
    assert labels.dtype == np.uint8


def test_axes_are_transposed_back() -> None:
    plan = replace(PLAN, transpose=(2, 0, 1), transpose_back=(1, 2, 0))
    scores = scores_of((3, 4, 5))
    labels = to_source(scores, plan, same_grid(plan, (3, 4, 5)))
    np.testing.assert_array_equal(np.transpose(labels, plan.transpose), scores.argmax(0).numpy())


def test_label_values_above_255_are_kept() -> None:
    plan = replace(PLAN, labels=LabelPlan({"a": 300}, regions=True, order=(300,)))
    labels = to_source(torch.ones(1, 2, 3, 4), plan, same_grid(plan, (2, 3, 4)))
    assert labels.dtype == np.uint16
    assert (labels == 300).all()


def test_every_plane_of_the_probabilities_is_given_once() -> None:
    seen = np.zeros(40, int)
    total = np.zeros((4, 40, 3, 3), np.float32)

    def keep(where: Any, slab: torch.Tensor, grids: Grids, axis: int) -> None:
        assert axis == 0
        seen[where] += 1
        total[:, where] = slab.numpy()[:, None]

    scores = scores_of((40, 3, 3))
    to_source(scores, PLAN, same_grid(PLAN, (40, 3, 3)), keep, workers=2)
    assert (seen == 1).all()
    np.testing.assert_allclose(total, torch.softmax(scores, 0).numpy(), atol=1e-6)
