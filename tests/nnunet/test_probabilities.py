"""The file of probabilities: which channel is which segment, on the axes of the source, 0 outside the box."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.support.small_models import UID, v2_dataset, v2_plans

from ctenrich.nnunet.plans import LabelPlan, parse_v2
from ctenrich.nnunet.preprocess import Axes, Grids
from ctenrich.nnunet.probabilities import Probabilities
from ctenrich.workspace import Workspace

PLAN = parse_v2(v2_plans(), v2_dataset(), "3d_fullres", ())


@pytest.mark.parametrize("transpose", [((0, 1, 2), (0, 1, 2)), ((2, 0, 1), (1, 2, 0))])
def test_values_come_back_on_the_axes_of_the_source(
    workspace: Workspace, transpose: tuple[tuple[int, int, int], tuple[int, int, int]]
) -> None:
    plan = replace(PLAN, transpose=transpose[0], transpose_back=transpose[1])
    axes = Axes((1, 0, 2), (0, 2))
    source = np.random.default_rng(0).random((4, 5, 6, 7)).astype(np.float32)  # class, k, j, i
    path = workspace.series_dir(UID) / "masks" / "probabilities.npy"
    sink = Probabilities(path, plan, axes, source.shape[1:])
    on_plan = np.transpose(axes.turn_channels(source), (0, *(a + 1 for a in plan.transpose)))
    shape = on_plan.shape[1:]
    grids = Grids(shape, tuple((1, n) for n in shape), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))  # type: ignore[arg-type]
    for plane in range(shape[1] - 1):
        slab = torch.from_numpy(np.ascontiguousarray(on_plan[:, 1:, plane + 1, 1:]))
        sink(np.array([plane]), slab, grids, 1)
    assert not path.exists()
    assert workspace.resolve(UID, sink.save(workspace, UID)) == path
    found = np.load(path)
    assert found.dtype == np.float16
    wanted = np.zeros_like(on_plan)
    wanted[:, 1:, 1:, 1:] = on_plan[:, 1:, 1:, 1:]
    turned = np.transpose(axes.turn_channels(found), (0, *(a + 1 for a in plan.transpose)))
    np.testing.assert_allclose(turned, wanted[1:], atol=1e-3)
    assert [p.name for p in path.parent.iterdir()] == ["probabilities.npy"]


def test_regions_are_ordered_by_their_label_value(workspace: Workspace) -> None:
    """Channels come in the order of the dataset; the file has them in the order of the segment numbers."""
    labels = LabelPlan({"whole": 9, "core": 2, "rim": 5}, regions=True, order=(9, 2, 5))
    path = workspace.series_dir(UID) / "p.npy"
    sink = Probabilities(path, replace(PLAN, labels=labels), Axes((0, 1, 2), ()), (1, 1, 1))
    grids = Grids((1, 1, 1), ((0, 1), (0, 1), (0, 1)), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    sink(np.array([0]), torch.tensor([0.75, 0.25, 0.5]).reshape(3, 1, 1), grids, 0)
    sink.save(workspace, UID)
    assert np.load(path).ravel().tolist() == [0.25, 0.5, 0.75]
