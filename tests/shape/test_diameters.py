"""Largest distances: what all pairs of surface vertices give, for any mask and any spacing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ctenrich.shape.diameters import largest_distance, millimetres, outermost_vertices, plane_diameters

SPACINGS = st.tuples(*[st.sampled_from([0.5, 0.977, 1.0, 1.25, 2.5, 3.0])] * 3)


def all_pairs(padded: NDArray[np.uint8], spacing: tuple[float, float, float]) -> tuple[float, ...]:
    """Largest distance in planes of axis 0, 1, 2 and in space, from every vertex to every other."""
    parts = []
    for axis in range(3):
        at = np.argwhere(np.diff(padded.astype(np.int8), axis=axis)).astype(np.int32) * 2
        at[:, axis] += 1
        parts.append(at)
    vertices = np.concatenate(parts)
    k, j, i = (np.subtract.outer(x, x) ** 2 for x in millimetres(vertices, spacing).T)
    squares = (k + j) + i
    shared = [np.equal.outer(x, x) for x in vertices.T]
    return tuple(float(np.sqrt(np.where(s, squares, 0).max())) for s in (*shared, np.True_))


def measured(padded: NDArray[np.uint8], spacing: tuple[float, float, float]) -> tuple[float, ...]:
    along_i, along_j = (outermost_vertices(padded, line) for line in (2, 1))
    return (*plane_diameters(along_i, along_j, spacing), largest_distance(millimetres(along_i, spacing)))


def body(kind: str, shape: tuple[int, int, int], rng: np.random.Generator) -> NDArray[np.bool_]:
    grid = np.indices(shape).astype(float)
    if kind == "noise":
        return np.asarray(rng.random(shape) < rng.random())
    if kind == "block":
        return np.ones(shape, bool)
    if kind == "ellipsoid":
        centre, radii = rng.random(3) * shape, rng.random(3) * shape / 1.5 + 0.6
        level = sum(((grid[a] - centre[a]) / radii[a]) ** 2 for a in range(3))
        return np.asarray(level < 1)
    mask = np.zeros(shape, bool)  # a wandering tube
    place: Any = rng.random(3) * shape
    for _ in range(30):
        place = np.clip(place + rng.normal(0, 1.2, 3), 0, np.subtract(shape, 1))
        mask |= sum((grid[a] - place[a]) ** 2 for a in range(3)) < 3
    return mask


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["noise", "block", "ellipsoid", "tube"]),
    shape=st.tuples(*[st.integers(1, 14)] * 3),
    spacing=SPACINGS,
    seed=st.integers(0, 2**32 - 1),
)
def test_any_mask_has_the_diameters_of_all_pairs(kind, shape, spacing, seed) -> None:
    mask = body(kind, shape, np.random.default_rng(seed))
    mask.flat[0] = True
    padded = np.pad(mask, 1).astype(np.uint8)
    assert measured(padded, spacing) == pytest.approx(all_pairs(padded, spacing), rel=1e-15)


def test_a_long_bent_tube_has_the_diameters_of_all_pairs() -> None:
    mask = np.zeros((60, 24, 24), bool)
    j, i = np.ogrid[:24, :24]
    for k in range(60):
        mask[k] = (j - 8 - 6 * np.sin(k / 17)) ** 2 + (i - 9 - k / 12) ** 2 < 16
    padded = np.pad(mask, 1).astype(np.uint8)
    assert measured(padded, (3.0, 0.977, 0.977)) == pytest.approx(all_pairs(padded, (3.0, 0.977, 0.977)), rel=1e-15)


def test_few_points_have_their_distance() -> None:
    assert largest_distance(np.zeros((0, 3))) == 0
    assert largest_distance(np.zeros((1, 3))) == 0
    assert largest_distance(np.array([(0.0, 0, 0), (1, 2, 2), (0, 1, 0)])) == 3
