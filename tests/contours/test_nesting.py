"""Contours of one plane: copies, holes, islands, union, exclusive or; contours traced through pixel centres."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ctenrich.contours.raster import grid_of, rasterise
from ctenrich.contours.rtstruct import Contour
from tests.support.contours import make_series, to_mm
from tests.support.drawing import trace_through_centres, winding

SHAPE = (5, 40, 50)
SERIES = make_series(SHAPE)
GRID = grid_of(SERIES)
RULES = ("holes", "union", "xor")


UP = np.array([0, 0, 0.9])


def square(low: float, high: float, *, back: bool = False):
    corners = [(low, low), (high, low), (high, high), (low, high)]
    return corners[::-1] if back else corners


def draw(*polygons, nesting="holes", k=2, exclusive=False, shift=0.0):
    contours = [Contour(to_mm(SERIES, k, p) + np.array([0, 0, shift]), exclusive=exclusive) for p in polygons]
    return rasterise(contours, GRID, nesting=nesting)


def circle(radius: float, centre=(20.2, 19.7), n=48, *, back=False, phase=0.0):
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)[:: -1 if back else 1] + phase
    return [(centre[0] + radius * np.cos(a), centre[1] + radius * np.sin(a)) for a in t]


def disc(polygon) -> np.ndarray:
    return winding(SHAPE[1:], polygon)


def test_a_ring_is_a_ring():
    ring = draw(circle(15), circle(8, back=True))
    assert np.array_equal(ring.mask[2], disc(circle(15)) & ~disc(circle(8)))
    assert ring.counts.holes == 1
    assert ring.voxels["holes"] == ring.voxels["xor"] < ring.voxels["union"]


def test_the_same_way_round_is_filled_and_counted():
    disc_in_disc = draw(circle(15), circle(8))
    assert np.array_equal(disc_in_disc.mask[2], disc(circle(15)))
    assert (disc_in_disc.counts.same_way, disc_in_disc.counts.holes) == (1, 0)


def test_partial_overlap_is_union_whatever_the_direction():
    one, other = circle(9), circle(9, (30.1, 21.3), back=True)
    for second in (other, other[::-1]):
        found = draw(one, second)
        assert np.array_equal(found.mask[2], disc(one) | disc(other))
        assert (found.counts.holes, found.counts.same_way) == (0, 0)


def test_an_island_in_a_hole_and_a_hole_in_the_island():
    found = draw(circle(17), circle(12, back=True), circle(8), circle(4, back=True))
    expected = (disc(circle(17)) & ~disc(circle(12))) | (disc(circle(8)) & ~disc(circle(4)))
    assert np.array_equal(found.mask[2], expected)


def test_a_hole_is_cut_out_of_all_that_contain_it():
    found = draw(circle(17), circle(12), circle(6, back=True))
    assert np.array_equal(found.mask[2], disc(circle(17)) & ~disc(circle(6)))


def test_what_overlaps_a_hole_in_part_fills_that_part():
    ring, hole, other = circle(17), circle(7, back=True), circle(5, (27.3, 19.7))
    found = draw(ring, hole, other)
    assert np.array_equal(found.mask[2], (disc(ring) & ~disc(hole)) | disc(other))


def test_a_hole_that_touches_the_outline_is_a_hole():
    """Boundaries traced from a mask share corners."""
    outer = [(2.5, 2.5), (12.5, 2.5), (12.5, 12.5), (2.5, 12.5)]
    hole = [(2.5, 2.5), (2.5, 6.5), (6.5, 6.5), (6.5, 2.5)]
    found = draw(outer, hole)
    assert found.counts.holes == 1
    assert found.mask.sum() == 100 - 16


@pytest.mark.parametrize("copies", [2, 3, 4, 25])
@pytest.mark.parametrize("back", [False, True])
def test_copies_count_once_in_every_rule(copies, back):
    rolled = circle(9)
    others = [np.roll(np.asarray(rolled), n, axis=0)[:: -1 if back and n % 2 else 1] + 1e-4 * n for n in range(copies)]
    for nesting in RULES:
        found = draw(*others, nesting=nesting)
        assert np.array_equal(found.mask[2], disc(rolled))
        assert found.counts.copies == copies - 1


def test_copies_with_other_points_and_equal_pixels_count_once():
    finer = [(x, y) for a, b in zip(square(4.4, 12.6), [*square(4.4, 12.6)[1:], (4.4, 4.4)], strict=True)
             for x, y in (a, ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2))]  # fmt: skip
    found = draw(square(4.4, 12.6), finer, square(4.3, 12.7), nesting="xor")
    assert (found.counts.copies, int(found.mask.sum())) == (2, 64)


def test_contours_without_area_or_pixel_count_as_none():
    line, point, speck = [(3, 3), (9, 9), (3, 3)], [(5, 5)], [(5.2, 5.2), (5.4, 5.2), (5.4, 5.4)]
    for nesting in RULES:
        found = draw(circle(9), line, point, speck, nesting=nesting)
        assert np.array_equal(found.mask[2], disc(circle(9)))
        assert found.without_pixel == 3


def test_a_ring_without_a_pixel_centre_is_filled_with_a_count():
    found = draw(square(4.3, 12.7), square(4.4, 12.6, back=True))
    assert (found.counts.opposed_copies, int(found.mask.sum())) == (1, 64)


def test_xor_contours_are_combined_by_exclusive_or_whatever_the_rule():
    one, other = circle(9), circle(9, (27.1, 21.3))
    for nesting in RULES:
        found = draw(one, other, nesting=nesting, exclusive=True)
        assert np.array_equal(found.mask[2], disc(one) ^ disc(other))


def test_types_that_are_mixed_in_a_plane_are_counted():
    outer, inner = (to_mm(SERIES, 2, p) for p in (circle(15), circle(8)))
    found = rasterise([Contour(outer), Contour(inner, exclusive=True)], GRID)
    assert np.array_equal(found.mask[2], disc(circle(15)) & ~disc(circle(8)))
    assert found.counts.mixed_planes == 1


def test_contours_of_two_planes_of_one_slice_are_united_not_nested():
    one, other = Contour(to_mm(SERIES, 2, circle(15))), Contour(to_mm(SERIES, 2, circle(8, back=True)) + UP)
    for nesting in RULES:
        found = rasterise([one, other], GRID, nesting=nesting)
        assert np.array_equal(found.mask[2], disc(circle(15)))
        assert (found.between_slices, found.furthest) == (1, pytest.approx(0.9))


RADII = st.lists(st.integers(2, 17), min_size=1, max_size=5, unique=True)


@settings(max_examples=25, deadline=None)
@given(RADII, st.lists(st.booleans(), min_size=5, max_size=5), st.randoms(use_true_random=False))
def test_laws_of_nested_circles(radii, back, random):
    """Order does not matter; the union holds every rule; alternating directions are even-odd."""
    drawn = [circle(r, back=b) for r, b in zip(radii, back, strict=False)]
    shuffled = random.sample(drawn, len(drawn))
    masks = {rule: draw(*drawn, nesting=rule).mask for rule in RULES}
    for rule in RULES:
        assert np.array_equal(draw(*shuffled, nesting=rule).mask, masks[rule])
        assert draw(*drawn).voxels[rule] == masks[rule].sum()
        assert not (masks[rule] & ~masks["union"]).any()
    alternating = [circle(r, back=n % 2 == 1) for n, r in enumerate(sorted(radii, reverse=True))]
    assert np.array_equal(draw(*alternating).mask, masks["xor"])
    assert np.array_equal(draw(*[circle(r) for r in radii]).mask, masks["union"])
    mirrored = [p[::-1] for p in drawn]
    assert np.array_equal(draw(*mirrored).mask, masks["holes"])


blob = st.tuples(st.integers(3, 9), st.integers(6, 40), st.integers(6, 32), st.booleans(), st.integers(0, 9))


@settings(max_examples=25, deadline=None)
@given(st.lists(blob, min_size=1, max_size=4))
def test_disjoint_contours_are_the_same_by_every_rule(blobs):
    polygons = [circle(r + 0.137, (x + 0.217, y + 0.381), 20, back=b, phase=p / 10) for r, x, y, b, p in blobs]
    parts = [disc(p) for p in polygons]
    assume(sum(int(p.sum()) for p in parts) == int(np.logical_or.reduce(parts).sum()))
    for rule in RULES:
        assert np.array_equal(draw(*polygons, nesting=rule).mask[2], np.logical_or.reduce(parts))


# ---------------------------------------------------------------- traced through pixel centres


def traced(mask: np.ndarray, shorten: bool = False):
    loops = trace_through_centres(mask)
    return [_corners(loop) for loop in loops] if shorten else loops


def _corners(loop):
    """Only the points where a loop turns, as OpenCV's CHAIN_APPROX_SIMPLE keeps."""
    if len(loop) < 3:
        return loop
    points = np.asarray(loop)
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    return [tuple(p) for p in points[(before != after).any(axis=1)].tolist()]


def random_mask(seed: int) -> np.ndarray:
    from scipy import ndimage

    noise = np.random.default_rng(seed).normal(size=SHAPE[1:])
    return np.asarray(ndimage.gaussian_filter(noise, 2.2) > 0.03)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shorten", [False, True])
def test_a_mask_that_was_traced_through_pixel_centres_comes_back(seed, shorten):
    """Holes, islands in holes, single pixels, bridges of one pixel: every voxel is as it was."""
    mask = random_mask(seed)
    found = draw(*traced(mask, shorten))
    assert found.with_rim
    assert np.array_equal(found.mask[2], mask)


def test_decimals_of_a_millimetre_do_not_hide_how_it_was_traced():
    series = make_series((3, 64, 64), (3.0, 0.9765625, 0.9765625), (-250.112, -250.117, -179.4))
    mask = np.zeros((64, 64), bool)
    mask[10:50, 12:40] = np.pad(random_mask(3)[:38, :26], 1)
    contours = [Contour(np.round(to_mm(series, 1, loop), 3)) for loop in traced(mask)]
    found = rasterise(contours, grid_of(series))
    assert found.with_rim
    assert np.array_equal(found.mask[1], mask)


def test_a_polygon_on_pixel_centres_that_nothing_shows_to_be_traced_keeps_its_rim_outside():
    box = square(4, 12)
    found = draw(box)
    assert (found.on_centres, found.with_rim, found.rim_voxels) == (True, False, 32)
    assert found.mask.sum() == 49


def test_contours_between_pixel_centres_are_not_taken_for_traced_ones():
    found = draw(square(4.5, 12.5), square(20, 25))
    assert not found.on_centres
