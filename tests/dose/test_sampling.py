"""Sampling points of structures: steps and numbers that the rule promises, and the volume that they keep."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ctenrich.contours.raster import Grid, grid_of
from ctenrich.dose.bounds import sample_structure
from ctenrich.dose.grid import DoseSampler
from ctenrich.dose.sampling import Region, SamplingRule, region_of_mask
from tests.support.contours import make_series
from tests.support.doses import grid_of_function

DOSE = grid_of_function(lambda x, y, z: 20 + 0.1 * x, spacing=20.0, reach=400.0)


def box(spacing: tuple[float, float, float], voxels: tuple[int, int, int]) -> Region:
    shape = tuple(count + 2 for count in voxels)
    grid: Grid = grid_of(make_series(shape=shape, spacing=spacing, origin=(0.0, 0.0, 0.0)))  # type: ignore[arg-type]
    mask = np.zeros(shape, bool)
    mask[1:-1, 1:-1, 1:-1] = True
    return region_of_mask(mask, grid)


@pytest.mark.parametrize(
    ("spacing", "voxels"),
    [
        ((3.0, 0.977, 0.977), (1, 1, 1)),
        ((1.0, 1.0, 1.0), (1, 1, 1)),
        ((3.0, 0.5, 0.5), (2, 3, 4)),
        ((20.0, 1.5, 1.25), (2, 3, 4)),
        ((5.0, 2.0, 2.0), (5, 30, 30)),
    ],
)
def test_small_structures_have_steps_of_a_millimetre_and_ten_thousand_points(
    spacing: tuple[float, float, float], voxels: tuple[int, int, int]
) -> None:
    region = box(spacing, voxels)
    found = sample_structure(region, DoseSampler(DOSE, region.row, region.column), SamplingRule(), bounds=False)
    assert max(found.step) <= 1.0 + 1e-9
    assert 10_000 <= found.samples.doses.size < 40_000 * max(1, math.prod(voxels) / 1000)
    assert found.samples.volume == pytest.approx(math.prod(spacing) * math.prod(voxels))
    steps = found.refinement.within_slice, found.refinement.rows, found.refinement.columns
    assert found.step == pytest.approx([size / parts for size, parts in zip(spacing, steps, strict=True)])


def test_the_centres_of_voxels_suffice_above_200_cm3() -> None:
    for voxels, refined in (((10, 50, 133), True), ((10, 50, 134), False)):
        region = box((3.0, 1.0, 1.0), voxels)
        found = sample_structure(region, DoseSampler(DOSE, region.row, region.column), SamplingRule(), bounds=False)
        assert (found.samples.volume > 200_000) != refined
        assert (found.samples.doses.size > math.prod(voxels)) == refined
