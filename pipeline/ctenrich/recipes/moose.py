"""MOOSE's clinical CT models: from the name of a model to a recipe of the package."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ctenrich.recipes.recipe_file import RecipeBook, read_recipes

__all__ = ["moose_book"]


@cache
def moose_book() -> RecipeBook:
    """Return the recipes of MOOSE 3.2.2, by the names of its models (``clin_ct_organs``)."""
    return read_recipes(Path(__file__).with_name("moose-3.2.2.toml"))
