"""Recipes against label maps that TotalSegmentator 2.18.0 wrote (scripts/make_totalsegmentator_golden.py)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ctenrich.recipes.executor import run_recipe
from ctenrich.recipes.networks import open_networks
from ctenrich.recipes.recipe import Recipe
from ctenrich.recipes.totalsegmentator import TaskOptions, task_recipe
from ctenrich.settings import SegmentSettings
from tests.support.totalsegmentator_cases import CASES, PeerCase, affine_ras, image

GOLDEN = Path(__file__).parents[1] / "golden" / "totalsegmentator"
IMAGE = "f45c67491f8e98c5b60883b8a651ba821a21680bae6919b43615124fd45d0371"
REFERENCE = SegmentSettings(engine="reference", threads=1, device="cpu")
TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def test_the_image_is_the_one_that_the_peer_saw() -> None:
    assert hashlib.sha256(image().tobytes()).hexdigest() == IMAGE


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c.name, marks=[pytest.mark.long] if c.long else []) for c in CASES]
)
def test_the_answer_is_that_of_totalsegmentator(case: PeerCase, small_weights: Callable[[Recipe], Path]) -> None:
    """No voxel differs on the machine that made the maps; another processor may round a few scores otherwise."""
    expected = np.load(GOLDEN / f"{case.name}.npz")["labels"]
    _, recipe = task_recipe(case.task, case.mode or None, TaskOptions(**case.ours))
    networks = open_networks(recipe, [small_weights(recipe)], REFERENCE)
    found = run_recipe(recipe, networks, case.image, TO_LPS @ affine_ras(case.stack))  # type: ignore[arg-type]
    assert np.unique(expected).size > 1
    assert np.count_nonzero(found.labels != expected) <= 1e-4 * expected.size
