"""Contours along the edges of pixels enclose exactly the pixels of the mask, whatever its shape."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy import ndimage

from ctenrich.contours.raster import grid_of, rasterise
from ctenrich.contours.rtstruct import Contour
from ctenrich.encode.outlines import join_holes, trace_mask
from tests.support.contours import make_series, to_mm

SHAPE = (24, 30)
SERIES = make_series(shape=(1, *SHAPE), row=(0, 1, 0), column=(-1, 0, 0))


def masks() -> Iterator[np.ndarray]:
    generator = np.random.default_rng(7)
    for share in (0.1, 0.3, 0.5, 0.7, 0.9, 1.0):
        for _ in range(4):
            yield generator.random(SHAPE) < share
    for _ in range(8):
        yield ndimage.gaussian_filter(generator.random(SHAPE), 2) > 0.5


@pytest.mark.parametrize("holes", ["keyhole", "xor"])
def test_a_mask_that_is_traced_and_drawn_again_is_the_same(holes: str) -> None:
    for mask in masks():
        contours = []
        for outline in trace_mask(mask):
            if holes == "keyhole":
                contours.append(Contour(to_mm(SERIES, 0, join_holes(outline))))
            else:
                parts = (outline.outer, *outline.holes)
                contours += [Contour(to_mm(SERIES, 0, part), exclusive=True) for part in parts]
        drawn = rasterise(contours, grid_of(SERIES)).mask[0]
        assert np.array_equal(drawn, mask)


def test_corners_of_a_ring_by_hand() -> None:
    mask = np.ones((3, 3), bool)
    mask[1, 1] = False
    (outline,) = trace_mask(mask)
    assert sorted(map(tuple, outline.outer.tolist())) == [(-0.5, -0.5), (-0.5, 2.5), (2.5, -0.5), (2.5, 2.5)]
    assert [sorted(map(tuple, hole.tolist())) for hole in outline.holes] == [
        [(0.5, 0.5), (0.5, 1.5), (1.5, 0.5), (1.5, 1.5)]
    ]
    # outer corners, and the channel there and back with the hole closed
    assert len(join_holes(outline)) == 4 + 4 + 1 + 2


def test_pixels_that_touch_at_a_corner_are_two_regions() -> None:
    for mask in (np.eye(2, dtype=bool), np.eye(2, dtype=bool)[::-1]):
        assert [len(outline.outer) for outline in trace_mask(mask)] == [4, 4]
    assert trace_mask(np.zeros((4, 4), bool)) == []
