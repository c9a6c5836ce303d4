"""The weights that the package's recipes name, as entries of models: licence, address, labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType

from ctenrich.inference.registry import ModelEntry, ModelKind
from ctenrich.recipes.moose import moose_book
from ctenrich.recipes.recipe import Recipe, Weights
from ctenrich.recipes.totalsegmentator import VERSIONS, task_book

__all__ = ["published_entry", "published_models", "recipe_weights"]


@cache
def published_models() -> Mapping[str, ModelEntry]:
    """All data sets of the recipes of this package, by the name of their folder."""
    return MappingProxyType({weights.folder: published_entry(weights) for weights in _all_weights()})


def published_entry(weights: Weights) -> ModelEntry:
    """Return what is known about some weights; the licence has to be accepted where they are not published openly."""
    return ModelEntry(
        name=weights.folder,
        kind=ModelKind.NNUNET_V1 if weights.version == 1 else ModelKind.NNUNET_V2,
        url=weights.url,
        licence=weights.licence,
        accept=bool(weights.licence) and not weights.url,
        labels=weights.class_names,
    )


def _all_weights() -> Iterator[Weights]:
    for book in (*map(task_book, VERSIONS), moose_book()):
        yield from recipe_weights(*book.recipes.values())


def recipe_weights(*recipes: Recipe) -> Iterator[Weights]:
    """Yield the weights of recipes and of the recipes that they need, each data set once."""
    seen: set[str] = set()
    for recipe in recipes:
        for part in recipe.all_parts:
            if part.weights.folder not in seen:
                seen.add(part.weights.folder)
                yield part.weights
