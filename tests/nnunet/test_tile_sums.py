"""Scores summed block by block: the same numbers as in one piece, and memory for a part of the volume alone."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.support.small_models import v2_dataset, v2_plans

from ctenrich.nnunet.plans import parse_v2
from ctenrich.nnunet.sliding_window import Window, predict, predict_blocks, tile_starts
from ctenrich.nnunet.tile_sums import TileGrid, TileSums

SHAPES = st.tuples(st.integers(1, 90), st.integers(1, 40), st.integers(1, 40))
PATCHES = st.tuples(st.integers(1, 70), st.integers(1, 20), st.integers(1, 20))
STEPS = st.sampled_from([0.3, 0.5, 0.8, 1.0])


_MOST_TILES = 100
"""Of an example: blocks of one voxel among thousands of tiles would take minutes."""


def grid_of(shape: tuple[int, ...], patch: tuple[int, ...], step: float) -> TileGrid:
    return TileGrid(shape, patch, [tile_starts(n, p, step) for n, p in zip(shape, patch, strict=True)])


def patch_within(shape: tuple[int, ...], patch: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(min(max(p, -(-n // 4)), n) for p, n in zip(patch, shape, strict=True))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(SHAPES, PATCHES, STEPS)
def test_the_blocks_are_the_volume_and_each_has_the_tiles_that_cover_it(
    shape: tuple[int, ...], patch: tuple[int, ...], step: float
) -> None:
    patch = patch_within(shape, patch)
    grid = grid_of(shape, patch, step)
    assume(math.prod(map(len, grid.starts)) <= _MOST_TILES)
    blocks = {block.key: block for tile in grid.tiles for slab in grid.slabs(tile) for block in slab}
    seen = np.zeros(shape, int)
    for block in blocks.values():
        seen[block.region] += 1
    assert (seen == 1).all()
    covered = {
        block.key: {tile for tile in grid.tiles if any(block in slab for slab in grid.slabs(tile))}
        for block in list(blocks.values())[:5]
    }
    for key, tiles in covered.items():
        assert list(grid.covering(blocks[key])) == sorted(tiles)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(SHAPES, PATCHES, STEPS)
def test_sums_are_bit_for_bit_those_of_whole_tiles(shape: tuple[int, ...], patch: tuple[int, ...], step: float) -> None:
    patch = patch_within(shape, patch)
    grid = grid_of(shape, patch, step)
    assume(math.prod(map(len, grid.starts)) <= _MOST_TILES)
    random = torch.Generator().manual_seed(1)
    weights = torch.rand(patch, generator=random) + 0.1
    total, norm = torch.zeros(2, *shape), torch.zeros(shape)
    found = torch.full((2, *shape), torch.nan)

    def finish(region: tuple[slice, ...], scores: torch.Tensor) -> None:
        assert found[(slice(None), *region)].isnan().all()
        found[(slice(None), *region)] = scores

    sums = TileSums(grid, weights, finish)
    most = 0
    for tile in grid.tiles:
        where = tuple(slice(row[n], row[n] + p) for row, n, p in zip(grid.starts, tile, patch, strict=True))
        scores = torch.randn(2, *patch, generator=random)
        total[(slice(None), *where)] += scores * weights
        norm[where] += weights
        sums.add(tile, lambda planes, scores=scores: scores[:, planes].clone())  # type: ignore[misc]
        most = max(most, sum(kept.numel() * kept.element_size() for kept in sums.kept.values()))
    assert torch.equal(found, total / norm)
    assert not sums.kept
    assert most <= grid.most_bytes(2)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("shape", [(11, 37, 41), (4, 5, 6), (30, 16, 24)])
def test_blocks_of_a_volume_are_those_of_its_scores(shape: tuple[int, ...], mirror: bool) -> None:
    plan = parse_v2(v2_plans(), v2_dataset(), "3d_fullres", (0, 1, 2))
    data = torch.randn(1, *shape, generator=torch.Generator().manual_seed(4))
    factors = torch.tensor([1.0, -2.0, 0.5, 3.0]).reshape(1, 4, 1, 1, 1)

    def network(x: torch.Tensor) -> torch.Tensor:
        return torch.cumsum(x, 2) * factors

    window = Window(mirror=mirror)
    found = torch.full((4, *shape), torch.nan)

    def finish(region: tuple[slice, ...], scores: torch.Tensor) -> None:
        found[(slice(None), *region)] = scores

    predict_blocks(plan, network, data, window, finish)
    assert torch.equal(found, predict(plan, network, data, window))


class _Live:
    """Bytes of the sums that are kept at the same time while a volume is segmented."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most = 0
        real = TileSums.add

        def add(sums: TileSums, tile: tuple[int, ...], scores: Any) -> None:
            real(sums, tile, scores)
            self.most = max(self.most, sum(4 * kept.numel() for kept in sums.kept.values()))

        monkeypatch.setattr(TileSums, "add", add)


def test_a_long_volume_takes_the_memory_of_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept depends on the patch and the planes of a slice, not on the number of slices."""
    plan = parse_v2(v2_plans(), v2_dataset(), "3d_fullres", ())
    kept = []
    for slices in (40, 400):
        live = _Live(monkeypatch)
        predict_blocks(
            plan,
            lambda x: x.repeat(1, 4, 1, 1, 1),
            torch.ones(1, slices, 40, 60),
            Window(mirror=False),
            lambda *_: None,
        )
        monkeypatch.undo()
        assert live.most <= grid_of((slices, 40, 60), plan.patch, 0.5).most_bytes(4)
        kept.append(live.most)
    assert kept[1] <= 1.2 * kept[0]
    assert kept[1] < 0.05 * 4 * 4 * 400 * 40 * 60


@pytest.mark.parametrize(
    ("shape", "share"),
    [((182, 333, 333), 0.43), ((400, 273, 273), 0.16), ((600, 333, 333), 0.095)],
    ids=["91 slices of 3 mm", "600 slices of 1 mm", "900 slices of 1 mm"],
)
def test_planned_memory_of_totalsegmentators_networks(shape: tuple[int, int, int], share: float) -> None:
    """Tiles of 128 voxels with step 0.8, as `total` has them, beside the scores of the whole volume."""
    grid = grid_of(shape, (128, 128, 128), 0.8)
    assert grid.most_voxels() <= share * np.prod(shape)
    assert grid.most_bytes(27) == grid.most_voxels() * 27 * 4


def test_the_last_layer_runs_for_parts_of_a_patch_alone() -> None:
    """Whatever it makes is a slab of the patch: never the scores of all classes for a whole tile."""
    grid = grid_of((182, 333, 333), (128, 128, 128), 0.8)
    planes = {
        s.region[0].stop - s.region[0].start for t in itertools.islice(grid.tiles, 20) for (s, *_) in grid.slabs(t)
    }
    assert max(planes) <= 32
