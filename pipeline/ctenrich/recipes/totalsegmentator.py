"""TotalSegmentator's tasks: from ``TASK[:fast|:fastest]`` and options to a recipe of the package."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.recipes.recipe import Recipe, Rule, RuleName, Split, restrict_to
from ctenrich.recipes.recipe_file import RecipeBook, read_recipes

__all__ = ["DEFAULT_VERSION", "VERSIONS", "TaskOptions", "task_book", "task_recipe"]

VERSIONS: Mapping[str, str] = MappingProxyType(
    {"2.18": "totalsegmentator-2.18.toml", "1.5.6": "totalsegmentator-1.5.6.toml"}
)
"""Version of TotalSegmentator -> file of recipes in this folder."""
DEFAULT_VERSION = "2.18"
_MODES = ("fast", "fastest", "small")
_TASKS_OF_MR = frozenset({"brain_aneurysm"})
"""Beside those whose name ends with ``_mr``."""


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """Options of a task, beside its mode."""

    roi: tuple[str, ...] = ()
    """The only classes that are wanted."""
    robust_crop: bool = False
    """Whether the crop is made by the model of 3 mm instead of that of 6 mm."""
    split: bool = False
    """Whether the volume is always segmented in three parts."""
    small: float = 0.0
    """Components of any class up to this size are removed, mm3; 0: none."""
    largest: bool = False
    """Whether only the largest component of each class stays."""
    version: str = DEFAULT_VERSION


@cache
def task_book(version: str) -> RecipeBook:
    """Return the recipes of a version of TotalSegmentator.

    Raises
    ------
    UsageError
        BAD_PARAMETER for a version that is not known.
    """
    if version not in VERSIONS:
        message = f"the recipes of TotalSegmentator {version} are not known"
        raise UsageError(Reason.BAD_PARAMETER, message, f"known versions: {', '.join(VERSIONS)}")
    return read_recipes(Path(__file__).with_name(VERSIONS[version]))


def task_recipe(task: str, mode: str | None, options: TaskOptions) -> tuple[str, Recipe]:
    """Return the recipe of a task, and the name under which its product is kept.

    Parameters
    ----------
    task : str
        E.g. ``total``.
    mode : str or None
        ``fast``, ``fastest`` (or ``small``, for total_v3); a task without ``fastest`` takes its ``fast``.
    options : TaskOptions

    Returns
    -------
    str
        E.g. ``total-fast``; different for different options.
    Recipe

    Raises
    ------
    UsageError
        BAD_PARAMETER for a task, mode, class, option or version that does not exist; WRONG_MODALITY for a task for MR.
    """
    book = task_book(options.version)
    recipe = _of_mode(book, task, mode)
    name = [recipe.name]
    if options.roi:
        if recipe.name not in book.roi:
            raise UsageError(
                Reason.BAD_PARAMETER, f"roi is not possible with {task}", "only with the tasks total and total_v3"
            )
        recipe = restrict_to(recipe, tuple(sorted(set(options.roi))), book.roi[recipe.name])
        name.append(f"roi-{_short(recipe.keep)}")
    if options.robust_crop:
        if recipe.crop is None:
            raise UsageError(Reason.BAD_PARAMETER, f"{task} has no crop, so crop=robust is not possible", "add roi=...")
        recipe = replace(recipe, crop=book.with_robust_crop(recipe.crop))
        name.append("robust")
    if options.split:
        recipe = replace(recipe, split=Split.ALWAYS)
        name.append("split")
    if options.small:
        rule = Rule(name=RuleName.SMALL_COMPONENTS, classes=tuple(recipe.labels), amount=options.small)
        recipe = replace(recipe, rules=(*recipe.rules, rule))
        name.append(f"small-{options.small:g}")
    if options.largest:
        rule = Rule(name=RuleName.LARGEST_COMPONENT, classes=tuple(recipe.labels))
        recipe = replace(recipe, rules=(*recipe.rules, rule))
        name.append("largest")
    if options.version != DEFAULT_VERSION:
        name.append(options.version)
    return "-".join(name), recipe


def _of_mode(book: RecipeBook, task: str, mode: str | None) -> Recipe:
    if task in _TASKS_OF_MR or task.endswith("_mr"):
        message = f"{task} of TotalSegmentator segments MR, and only CT is segmented here"
        raise UsageError(Reason.WRONG_MODALITY, message, "for the tasks for CT, run: ctenrich codes list")
    modes = [known for known in _MODES if f"{task}-{known}" in book.recipes]
    if mode is None or task not in book.recipes:
        return book.find(task)
    if mode == "fastest" and modes == ["fast"]:
        mode = "fast"
    if mode not in modes:
        hint = f"it has {' and '.join(modes)}" if modes else "it has one resolution only"
        raise UsageError(Reason.BAD_PARAMETER, f"the task {task} has no mode {mode!r}", hint)
    return book.find(f"{task}-{mode}")


def _short(classes: tuple[str, ...]) -> str:
    """Up to four names, else a digest of them: it names folders."""
    text = "-".join(classes)
    return text if len(classes) <= 4 and len(text) <= 80 else hashlib.sha256(text.encode()).hexdigest()[:12]
