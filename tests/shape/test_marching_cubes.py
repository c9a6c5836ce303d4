"""The table of cubes says what pyradiomics says, case by case."""

from __future__ import annotations

import numpy as np
import pytest
from tests.conftest import need_package

from ctenrich.shape.marching_cubes import TRIANGLES, cube_codes, cube_table

SPACINGS = [(1.0, 1.0, 1.0), (3.1, 1.3, 0.7), (0.9, 2.3, 1.7)]


def one_cube(case: int) -> np.ndarray:
    return np.array([case >> n & 1 for n in range(8)], np.uint8).reshape(2, 2, 2)


def test_codes_of_a_cube_are_its_case():
    assert [int(cube_codes(one_cube(case))[0, 0, 0]) for case in range(256)] == list(range(256))


def test_opposite_cases_are_one_surface_turned_inside_out():
    table = cube_table()
    assert len(TRIANGLES) == 128
    assert np.array_equal(table.counts, table.counts[::-1])
    assert np.array_equal(table.normals, -table.normals[::-1])
    assert np.array_equal(table.volumes, -table.volumes[::-1])


@pytest.mark.parametrize("spacing", SPACINGS)
def test_area_and_volume_of_every_case_equal_pyradiomics(spacing):
    need_package("pyradiomics", "radiomics")
    from radiomics import cShape

    table = cube_table()
    areas = table.counts @ table.kind_areas(spacing)
    volumes = table.volumes / 48 * np.prod(spacing)
    for case in range(1, 255):
        area, volume, _ = cShape.calculate_coefficients(one_cube(case).astype(bool), np.array(spacing))
        assert areas[case] == pytest.approx(area, rel=1e-13)
        assert volumes[case] == pytest.approx(volume, rel=1e-12, abs=1e-13)


@pytest.mark.parametrize("axis", range(3))
def test_the_volume_moves_with_the_cube_as_pyradiomics_has_it(axis):
    """Where the surface of a cube is open, its signed volume depends on where the cube is: the normals say how."""
    need_package("pyradiomics", "radiomics")
    from radiomics import cShape

    table, shift = cube_table(), np.zeros(3)
    shift[axis] = 2
    for case in range(1, 128):
        size = [2, 2, 2]
        size[axis] = 4
        mask = np.zeros(size, bool)
        mask[tuple(slice(int(s), int(s) + 2) for s in shift)] = one_cube(case)
        codes = cube_codes(mask.astype(np.uint8))
        _, volume, _ = cShape.calculate_coefficients(mask, np.ones(3))
        expected = 0.0
        for at in np.ndindex(codes.shape):
            expected += (2 * np.array(at) @ table.normals[codes[at]] + table.volumes[codes[at]]) / 48
        assert expected == pytest.approx(volume, abs=1e-12)
