"""Tiles, weights and batches of the sliding window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.nnunet_engines import CPU, engines
from tests.support.small_models import smooth_volume, v2_dataset, v2_plans, write_v2

from ctenrich.errors import InputError
from ctenrich.nnunet import sliding_window
from ctenrich.nnunet.plans import parse_v2
from ctenrich.nnunet.sliding_window import Window, mirrors, predict
from ctenrich.reasons import Reason
from ctenrich.settings import SegmentSettings


def test_memory_ladder_gives_the_same_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_v2(tmp_path / "m")
    array = smooth_volume((18, 40, 36), 6)
    engine, _ = engines(tmp_path / "m", settings=SegmentSettings(batch_size=8, threads=1))
    wanted = engine.label(array, (3.0, 1.2, 1.3)).labels
    real = sliding_window._forward_batch
    sizes: list[int] = []

    def short(limit: int) -> Any:
        def run(plan: Any, network: Any, data: Any, jobs: Any, precision: str) -> Any:
            sizes.append(len(jobs))
            if len(jobs) > limit:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return real(plan, network, data, jobs, precision)

        return run

    for limit in (4, 1):
        sizes.clear()
        monkeypatch.setattr(sliding_window, "_forward_batch", short(limit))
        assert int((engine.label(array, (3.0, 1.2, 1.3)).labels != wanted).sum()) <= 1
        assert max(sizes) == 8
        assert sizes[-1] <= limit
    monkeypatch.setattr(sliding_window, "_forward_batch", short(0))
    with pytest.raises(InputError) as caught:
        engine.label(array, (3.0, 1.2, 1.3))
    assert caught.value.reason is Reason.OUT_OF_MEMORY


def test_other_errors_are_not_taken_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_v2(tmp_path / "m")
    engine, _ = engines(tmp_path / "m")

    def broken(*_: Any) -> Any:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(sliding_window, "_forward_batch", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        engine.label(smooth_volume((4, 20, 20)), (4.0, 2.0, 2.0))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 300), st.integers(1, 128), st.sampled_from([0.3, 0.5, 0.75, 1.0]))
def test_tiles_are_nnunetv2s(size: int, patch: int, step: float) -> None:
    from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

    size = max(size, patch)
    assert sliding_window.tile_starts(size, patch, step) == compute_steps_for_sliding_window((size,), (patch,), step)[0]


@pytest.mark.parametrize("patch", [(8, 16, 24), (1, 5, 7), (33, 64), (40, 31, 2)])
def test_gaussian_is_nnunetv2s(patch: tuple[int, ...]) -> None:
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian

    theirs = compute_gaussian(patch, 1 / 8, 10, torch.float32, CPU)
    assert torch.equal(sliding_window.gaussian(patch, 10.0), theirs)


def test_mirrors_are_all_sets_of_axes() -> None:
    assert mirrors(()) == [()]
    assert mirrors((0, 2)) == [(), (0,), (2,), (0, 2)]
    assert len(mirrors((0, 1, 2))) == 8


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_pointwise_network_is_undisturbed_by_tiles_and_mirrors(dims: int, batch: int) -> None:
    """Each voxel's scores depend on its own value alone, so the mean over tiles and mirrors must be the same scores."""
    plan = parse_v2(v2_plans(dims), v2_dataset(), "3d_fullres" if dims == 3 else "2d", tuple(range(dims)))
    data = torch.randn(1, 11, 37, 41, generator=torch.Generator().manual_seed(4))
    factors = torch.tensor([1.0, -2.0, 0.5, 3.0]).reshape(1, 4, *(1,) * dims)
    found = predict(plan, lambda x: x * factors, data, Window(batch=batch))
    assert found.dtype == torch.float32
    wanted = data * factors.reshape(4, 1, 1, 1)
    assert float((found - wanted).abs().max()) < 1e-5


def test_a_volume_smaller_than_the_patch_is_padded_around_its_middle() -> None:
    """A network that returns where it is in the patch: the volume's voxels come from the middle of the patch."""
    plan = parse_v2(v2_plans(), v2_dataset(), "3d_fullres", ())
    place = torch.arange(8 * 16 * 24, dtype=torch.float32).reshape(1, 1, 8, 16, 24).expand(1, 4, -1, -1, -1)
    found = predict(plan, lambda x: place.repeat(len(x), 1, 1, 1, 1), torch.ones(1, 4, 5, 6), Window(mirror=False))
    wanted = place[0, :, 2:6, 5:10, 9:15]
    assert found.shape == (4, 4, 5, 6)
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-6)
