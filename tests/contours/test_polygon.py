"""Even-odd of several polygons: what bounds nothing, what is on the rim."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctenrich.contours.polygon import Polygon, Window, fill_polygons, signed_area, snap
from tests.support.drawing import exact_even_odd

SHAPE = (12, 14)
WINDOW = Window(0, SHAPE[0], 0, SHAPE[1])
corner = st.tuples(st.integers(-2, 15), st.integers(-2, 13))
half = st.tuples(st.integers(-4, 30), st.integers(-4, 26)).map(lambda c: (c[0] / 2, c[1] / 2))


def fill(*polygons):
    made = [Polygon(*(snap(np.asarray(v, float)) for v in zip(*p, strict=True))) for p in polygons]
    return fill_polygons(made, WINDOW)


def rim_of(filled) -> np.ndarray:
    return filled.closed & ~filled.inside


@settings(max_examples=120, deadline=None)
@given(st.lists(st.lists(st.one_of(corner, half), min_size=1, max_size=6), min_size=1, max_size=3))
def test_any_polygons_together_equal_the_definition(polygons):
    inside, rim = exact_even_odd(SHAPE, polygons)
    found = fill(*polygons)
    assert np.array_equal(found.inside, inside)
    assert np.array_equal(rim_of(found), rim)


RING = [(1, 1), (12, 1), (12, 10), (1, 10)]
HOLE = [(4, 4), (4, 7), (8, 7), (8, 4)]
CHANNELS = {
    "diagonal through centres": ([(1, 1)], [(4, 4)]),
    "straight through a corner of the hole": ([(1, 4)], [(4, 4)]),
    "with corners on the way": ([(1, 1), (2, 2), (3, 2)], [(4, 4)]),
    "along a row that is no edge's end": ([(1, 5.5), (2.5, 5.5)], [(4, 5.5)]),
}


@pytest.mark.parametrize("name", CHANNELS)
@pytest.mark.parametrize("split", [False, True])
def test_the_channel_of_a_keyhole_bounds_nothing(name, split):
    """A keyhole encloses what its ring and its hole enclose as two contours, wherever the channel runs."""
    out, (at,) = CHANNELS[name]
    start = out[0]
    ring = [start, *RING[1:], (1, 10), *([RING[0]] if start != RING[0] else []), start]
    hole = [at, (4, 7), (8, 7), (8, 4), *([(4, 4)] if at != (4, 4) else []), at]
    if start != RING[0]:
        ring = [start, (1, 1), (12, 1), (12, 10), (1, 10), start]
    back = [*reversed(out[1:])]
    if split:  # the way back has a corner that the way there does not have
        last = back[-1] if back else at
        back.append(((last[0] + start[0]) / 2, (last[1] + start[1]) / 2))
    keyhole = [*ring, *out[1:], *hole, *back]
    expected = fill(RING, HOLE)
    assert np.array_equal(fill(keyhole).inside, expected.inside)
    assert np.array_equal(rim_of(fill(keyhole)), rim_of(expected))
    assert expected.inside[2:4, 2:12].all()


def test_neighbours_with_a_common_edge_have_no_seam():
    left, right = [(1, 1), (6, 1), (6, 9), (1, 9)], [(6, 1), (11, 1), (11, 9), (6, 9)]
    whole = [(1, 1), (11, 1), (11, 9), (1, 9)]
    assert np.array_equal(fill(left, right).inside, fill(whole).inside)


@settings(max_examples=80, deadline=None)
@given(st.lists(half, min_size=3, max_size=8), st.integers(0, 7), st.booleans())
def test_start_and_direction_do_not_matter(corners, start, back):
    turned = corners[start % len(corners) :] + corners[: start % len(corners)]
    turned = turned[::-1] if back else turned
    assert np.array_equal(fill(corners).inside, fill(turned).inside)
    area = signed_area(Polygon(*(np.asarray(v, float) for v in zip(*corners, strict=True))))
    other = signed_area(Polygon(*(np.asarray(v, float) for v in zip(*turned, strict=True))))
    assert other == pytest.approx(-area if back else area)


@settings(max_examples=80, deadline=None)
@given(st.lists(half, min_size=3, max_size=7), st.lists(half, min_size=3, max_size=7))
def test_xor_is_symmetric_and_a_polygon_twice_is_none(one, other):
    assert np.array_equal(fill(one, other).inside, fill(other, one).inside)
    assert not fill(one, one).inside.any()
    assert np.array_equal(fill(one, other, other).inside, fill(one).inside)
