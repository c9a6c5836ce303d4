"""Even-odd at pixel centres, exact on edges, any orientation."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctenrich.contours.polygon import fill_polygon
from ctenrich.contours.raster import grid_of, rasterise
from ctenrich.contours.rtstruct import Contour, load_contours
from tests.support.contours import make_series, sorted_real, to_mm
from tests.support.drawing import exact_even_odd

GRID = (12, 14)
corner = st.tuples(st.integers(-4, 36), st.integers(-4, 32)).map(lambda c: (c[0] / 2, c[1] / 2))


def plain(shape: tuple[int, int], corners) -> np.ndarray:
    """The definition, pixel by pixel, in exact arithmetic."""
    return exact_even_odd(shape, [corners])[0]


def filled(corners, shape=GRID) -> np.ndarray:
    mask = np.zeros(shape, bool)
    uv = np.asarray(corners, float)
    fill_polygon(mask, uv[:, 0], uv[:, 1])
    return mask


@settings(max_examples=60, deadline=None)
@given(st.lists(corner, min_size=3, max_size=9))
def test_any_polygon_equals_the_definition(corners):
    """Half-pixel corners: edges run through pixel centres, corners touch them, polygons cross themselves."""
    assert np.array_equal(filled(corners), plain(GRID, corners))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(-3, 16), st.floats(-3, 14)), min_size=3, max_size=12))
def test_free_corners_equal_the_definition_off_the_edge(corners):
    got, expected = filled(corners), plain(GRID, corners)
    for j, i in np.argwhere(got != expected):
        assert _distance(corners, i, j) < 2e-6


def _distance(corners, i, j) -> float:
    best = np.inf
    for (x1, y1), (x2, y2) in pairwise([*corners, corners[0]]):
        d = np.array([x2 - x1, y2 - y1])
        length = float(d @ d)
        t = 0.0 if length == 0 else float(np.clip(np.dot([i - x1, j - y1], d) / length, 0, 1))
        best = min(best, float(np.hypot(x1 + t * d[0] - i, y1 + t * d[1] - j)))
    return best


def test_a_centre_on_the_contour_is_outside():
    square = [(2, 2), (6, 2), (6, 5), (2, 5)]
    mask = filled(square)
    assert mask.sum() == 3 * 2
    assert not mask[2].any()
    assert not mask[:, 2].any()
    assert mask[3:5, 3:6].all()


def test_rounding_of_millimetres_does_not_move_an_edge():
    """0.977 mm pixels: corners on pixel centres come out 1e-15 off, and still count as on the edge."""
    series = make_series(spacing=(3.0, 0.977, 0.977), origin=(-250.112, -250.112, -179.4))
    contour = Contour(to_mm(series, 2, [(3, 3), (9, 3), (9, 8), (3, 8)]))
    mask = rasterise([contour], grid_of(series)).mask
    assert mask.sum() == 5 * 4
    assert mask[2, 4:8, 4:9].all()


ORIENTATIONS = {
    "axial": ((1, 0, 0), (0, 1, 0)),
    "feet up": ((-1, 0, 0), (0, 1, 0)),
    "prone": ((-1, 0, 0), (0, -1, 0)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
    "oblique": ((0.6, 0.64, 0.48), (-0.8, 0.48, 0.36)),
}


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_the_grid_may_lie_anyhow(name):
    """The same pixel polygon gives the same pixels, whatever the orientation of the stack."""
    row, column = ORIENTATIONS[name]
    polygon = [(4.25, 3.5), (30.75, 6.25), (25.5, 33.25), (8.0, 20.125)]
    series = make_series(row=row, column=column)
    result = rasterise([Contour(to_mm(series, 3, polygon))], grid_of(series))
    assert result.drawn == 1
    assert np.array_equal(result.mask[3], plain((40, 50), polygon))
    assert not np.delete(result.mask, 3, axis=0).any()


@pytest.mark.parametrize(("shift", "k"), [(-1.5, 1), (-1.4, 2), (1.4, 2), (1.5, 2), (1.6, 3), (-1.6, 1)])
def test_a_contour_goes_to_the_nearest_slice(shift, k):
    series = make_series()
    points = to_mm(series, 2, [(4.5, 4.5), (9.5, 4.5), (9.5, 9.5), (4.5, 9.5)]) + np.array([0, 0, shift])
    mask = rasterise([Contour(points)], grid_of(series)).mask
    assert [int(n) for n in np.flatnonzero(mask.any(axis=(1, 2)))] == [k]


def test_contours_off_the_stack_or_tilted_are_counted_not_drawn():
    series = make_series()
    square = [(4.5, 4.5), (9.5, 4.5), (9.5, 9.5), (4.5, 9.5)]
    above = Contour(to_mm(series, 4, square) + np.array([0, 0, 1.6]))
    tilted = Contour(to_mm(series, 2, square) + np.outer([0, 0, 2, 2], [0, 0, 1]))
    result = rasterise([above, tilted], grid_of(series))
    assert (result.drawn, result.off_slice, result.tilted, int(result.mask.sum())) == (0, 1, 1, 0)


def test_a_polygon_larger_than_the_image_is_cut():
    mask = filled([(-1e9, -1e9), (1e9, -1e9), (1e9, 1e9), (-1e9, 1e9)])
    assert mask.all()


def test_the_heart_of_a_real_series_in_exact_arithmetic(real_data):
    """Every pixel near an edge of the real contours is decided again in rational numbers."""
    series = sorted_real(real_data("LUNG1-005"))
    (structures,) = (load_contours(Path(path)) for path in series.companions)
    heart = next(roi for roi in structures.rois if roi.name == "Heart")
    grid = grid_of(series)
    spacing = Fraction(str(series.pixel_spacing[1])), Fraction(str(series.pixel_spacing[0]))
    k_of = {round(d, 3): k for k, d in enumerate(grid.distances)}
    expected = np.zeros(grid.shape, bool)
    for contour in heart.contours:
        k = k_of[round(float(contour.points[0, 2]), 3)]
        origin = [Fraction(repr(float(v))) for v in grid.origins[k]]
        corners = [
            tuple((Fraction(repr(float(p[a]))) - origin[a]) / spacing[a] for a in (0, 1)) for p in contour.points
        ]
        _scan_exactly(expected[k], corners)
    assert np.array_equal(rasterise(heart.contours, grid).mask, expected)
    assert abs(int(expected.sum()) - 267_979) <= 3


def _scan_exactly(plane, corners) -> None:
    """Even-odd row by row with fractions."""
    low, high = min(y for _, y in corners), max(y for _, y in corners)
    for j in range(int(low), int(high) + 1):
        crossings, on_edge = [], []
        for (x1, y1), (x2, y2) in pairwise([*corners, corners[0]]):
            if y1 == y2 == j:
                on_edge += range(int(min(x1, x2)), int(max(x1, x2)) + 1)
            elif min(y1, y2) <= j <= max(y1, y2):
                x = x1 + (j - y1) * (x2 - x1) / (y2 - y1)
                if x.denominator == 1:
                    on_edge.append(int(x))
                if (y1 > j) != (y2 > j):
                    crossings.append(x)
        crossings.sort()
        for left, right in zip(crossings[::2], crossings[1::2], strict=True):
            plane[j, int(-(-left // 1)) : int(right // 1) + 1] = True
        for i in on_edge:
            plane[j, i] = False
