"""The weights that the package's recipes name, as entries of models: licence, address, labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from ctenrich.inference.registry import ModelEntry, ModelKind
from ctenrich.nnunet.conventions import is_moose_release
from ctenrich.recipes.moose import moose_book
from ctenrich.recipes.recipe import Part, Recipe, Weights
from ctenrich.recipes.totalsegmentator import VERSIONS, task_book

__all__ = [
    "fits_published_labels",
    "published_entry",
    "published_model",
    "published_models",
    "published_segments",
    "recipe_weights",
]


@cache
def published_models() -> Mapping[str, ModelEntry]:
    """All data sets of the recipes of this package, by the name of their folder."""
    return MappingProxyType({weights.folder: published_entry(weights) for weights in _all_weights()})


def published_model(name: str, folder: Path, file: str = "") -> ModelEntry | None:
    """Return what is known about a model whose name and files show that it is the published one.

    The names of TotalSegmentator's data sets are used by nobody else. Those of MOOSE's folders (``Dataset001_body``)
    may be anyone's: they count only beside MOOSE's own record of the download, or in the zip file that MOOSE publishes.

    Parameters
    ----------
    name : str
        Of the data set's folder.
    folder : Path
        Its files, or a zip file that holds them.
    file : str
        Name of the file that it was imported from.

    Returns
    -------
    ModelEntry or None
    """
    entry = published_models().get(name)
    if entry is None or name not in _common_names():
        return entry
    known = file == Path(entry.url).name if file else False
    return entry if known or (folder.is_dir() and is_moose_release(folder)) else None


def fits_published_labels(name: str, labels: Mapping[str, int]) -> bool:
    """Whether the labels of a model are those that a recipe of the package expects of the weights of this name.

    Parameters
    ----------
    name : str
        Of the data set's folder.
    labels : mapping of str to int
        The model's name of a class -> label value.

    Returns
    -------
    bool
        False for a name that no recipe has. Numbers must be in the recipe's table; where the recipe asks for the names
        of the weights' own files, the names of the classes must be the table's, too.
    """
    return any(_fits(recipe, part, labels) for recipe, part in _parts_of(name))


def published_segments(name: str) -> dict[int, str]:
    """Label value -> segment of the weights of a name, as the first recipe that uses them states; empty if none does.

    Parameters
    ----------
    name : str
        Of the data set's folder.

    Returns
    -------
    dict of int to str
        Classes that the recipe removes from its answer are not included.
    """
    for recipe, part in _parts_of(name):
        names = {value: label for label, value in recipe.labels.items()}
        made = {value: names[to] for value, to in part.labels.items() if to in names}
        return {value: recipe.segments.get(label, label) for value, label in made.items()}
    return {}


def _fits(recipe: Recipe, part: Part, labels: Mapping[str, int]) -> bool:
    if not set(labels.values()) <= set(part.labels):
        return False
    if not part.weights.own_names:
        return True
    return all(name in recipe.labels and part.labels[value] == recipe.labels[name] for name, value in labels.items())


def _parts_of(name: str) -> Iterator[tuple[Recipe, Part]]:
    for book in (*map(task_book, VERSIONS), moose_book()):
        for recipe in book.recipes.values():
            yield from ((recipe, part) for part in recipe.parts if part.weights.folder == name)


@cache
def _common_names() -> frozenset[str]:
    """Names of folders that other models than the published ones may have."""
    return frozenset(weights.folder for weights in recipe_weights(*moose_book().recipes.values()))


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
