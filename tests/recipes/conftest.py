"""The models' folder of the session, and small weights of TotalSegmentator's data sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ctenrich.recipes.recipe import Recipe
from tests.support.models_home import in_process, models_home
from tests.support.totalsegmentator_cases import PLAN_SPACINGS
from tests.support.totalsegmentator_models import write_dataset

__all__ = ["in_process", "models_home"]


@pytest.fixture(autouse=True)
def _converted_in_process(in_process: None) -> None:
    """Networks are converted in this process."""


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recipe], Path]:
    """Writes the small networks of a recipe, once each, and returns the folder that has them."""
    folder = tmp_path_factory.mktemp("weights")

    def write(recipe: Recipe) -> Path:
        for part in recipe.all_parts:
            where = folder / part.weights.folder / part.weights.subfolder
            if not where.exists():
                number = int(part.weights.name)
                spacing = PLAN_SPACINGS.get(number) or _spacing_of(recipe, number)
                write_dataset(where, len(part.labels), spacing, seed=number)
        return folder

    return write


def _spacing_of(recipe: Recipe, number: int) -> tuple[float, float, float]:
    found = _find_spacing(recipe, number)
    assert found is not None, number
    return found


def _find_spacing(recipe: Recipe, number: int) -> tuple[float, float, float] | None:
    if any(part.weights.name == str(number) for part in recipe.parts) and recipe.spacing is not None:
        return recipe.spacing[::-1]
    return next((found for rough in recipe.rough_recipes if (found := _find_spacing(rough, number))), None)
