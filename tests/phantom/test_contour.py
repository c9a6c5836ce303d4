"""Contours along pixel edges."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ctenrich.phantom.contour import trace


def fill(loop: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Even-odd fill at pixel centres, by counting crossings to the left."""
    j, i = np.mgrid[: shape[0], : shape[1]]
    inside = np.zeros(shape, bool)
    for (x0, y0), (x1, y1) in zip(loop, np.roll(loop, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        crosses = (np.minimum(y0, y1) <= j) & (j < np.maximum(y0, y1))
        inside ^= crosses & (i < x0 + (j - y0) * (x1 - x0) / (y1 - y0))
    return inside


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.floats(0.2, 0.9))
def test_union_of_filled_contours_is_the_mask(seed: int, rows: int, columns: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((rows, columns)) < share
    filled = np.zeros_like(mask)
    for loop in trace(mask):
        part = fill(loop, mask.shape)
        assert not (part & ~mask).any(), "no contour covers a hole"
        filled |= part
    assert np.array_equal(filled, mask)


def test_a_square_has_four_corners_on_pixel_edges() -> None:
    mask = np.zeros((6, 6), bool)
    mask[1:4, 2:5] = True
    (loop,) = trace(mask)
    assert {tuple(p) for p in loop.tolist()} == {(1.5, 0.5), (4.5, 0.5), (4.5, 3.5), (1.5, 3.5)}


def test_a_ring_is_cut_in_two() -> None:
    mask = np.ones((7, 7), bool)
    mask[2:5, 2:5] = False
    loops = trace(mask)
    assert len(loops) == 2
    assert np.array_equal(fill(loops[0], mask.shape) | fill(loops[1], mask.shape), mask)


def test_an_empty_mask_has_no_contour() -> None:
    assert trace(np.zeros((4, 4), bool)) == []
