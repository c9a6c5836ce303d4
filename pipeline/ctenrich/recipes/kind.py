"""The kinds ``totalsegmentator``, ``moose`` and ``recipe``: published ways of using networks."""

from __future__ import annotations

from pathlib import Path

from ctenrich.errors import UsageError
from ctenrich.inference.kinds import SegmenterOption
from ctenrich.inference.products import SegmenterSpec
from ctenrich.inference.registry import check_name
from ctenrich.inference.segmentation import parse_switch, segmentation_kind
from ctenrich.reasons import Reason
from ctenrich.recipes.moose import moose_book
from ctenrich.recipes.networks import check_networks
from ctenrich.recipes.recipe import Recipe
from ctenrich.recipes.recipe_file import read_recipes
from ctenrich.recipes.segmenter import RecipeSegmenter, open_recipe, segment_names
from ctenrich.recipes.totalsegmentator import DEFAULT_VERSION, VERSIONS, TaskOptions, task_recipe
from ctenrich.recipes.weights import weights_folders
from ctenrich.records import Product
from ctenrich.settings import Settings

__all__ = ["MOOSE", "RECIPE", "TOTALSEGMENTATOR", "folders_of_spec", "is_recipe", "recipe_of_spec"]

_TITLES = {"totalsegmentator": "TotalSegmentator", "moose": "MOOSE"}
_SECONDS = {"segment": 0.6, "measure": 0.02, "encode": 0.05, "validate": 0.08}


def _task_of(spec: SegmenterSpec) -> tuple[str, Recipe]:
    """Name of the product, and its recipe."""
    chosen = spec.options
    options = TaskOptions(
        roi=chosen["roi"],
        version=chosen["as"],
        robust_crop=chosen["crop"],
        split=chosen["split"],
        small=chosen["small"],
        largest=chosen["largest"],
    )
    return task_recipe(spec.model, spec.configuration, options)


def _check_task(spec: SegmenterSpec) -> None:
    """Refuse a task, mode or class that does not exist; the weights need not be on this machine yet."""
    _task_of(spec)


def _open_task(spec: SegmenterSpec, settings: Settings) -> RecipeSegmenter:
    name, recipe = _task_of(spec)
    return open_recipe(recipe, Product("totalsegmentator", check_name(name)), settings=settings)


def _open_moose(spec: SegmenterSpec, settings: Settings) -> RecipeSegmenter:
    recipe = moose_book().find(spec.model)
    return open_recipe(recipe, Product("moose", check_name(recipe.name)), settings=settings)


def _check_moose(spec: SegmenterSpec) -> None:
    """Refuse a model that MOOSE does not have."""
    moose_book().find(spec.model)


def _recipe_of(spec: SegmenterSpec) -> Recipe:
    path = Path(spec.model).expanduser()
    book = read_recipes(path)
    if spec.configuration is None and len(book.recipes) > 1:
        known = ", ".join(book.recipes)
        raise UsageError(Reason.BAD_PARAMETER, f"{path.name} has several recipes: {known}", "add :NAME of one")
    return book.find(spec.configuration or next(iter(book.recipes)))


def _check_file(spec: SegmenterSpec) -> None:
    """Refuse a file that holds no such recipe."""
    _recipe_of(spec)


def _open_file(spec: SegmenterSpec, settings: Settings) -> RecipeSegmenter:
    recipe = _recipe_of(spec)
    product = Product("recipe", check_name(recipe.name))
    return open_recipe(recipe, product, settings=settings, folders=folders_of_spec(spec))


def _find_weights(spec: SegmenterSpec) -> None:
    """Refuse a recipe whose classes have no codes, or whose weights are not on this machine or do not fit it."""
    recipe = recipe_of_spec(spec)
    segment_names(recipe)
    check_networks(recipe, folders_of_spec(spec))


def is_recipe(spec: SegmenterSpec) -> bool:
    """Whether a specification is of a kind that runs recipes."""
    return spec.kind in (TOTALSEGMENTATOR.key, MOOSE.key, RECIPE.key)


def folders_of_spec(spec: SegmenterSpec) -> tuple[Path, ...]:
    """Folders in which the weights of a recipe are looked for: that of a user's own file is the first."""
    own = (Path(spec.model).expanduser().resolve().parent,) if spec.kind == RECIPE.key else ()
    return (*own, *weights_folders())


def recipe_of_spec(spec: SegmenterSpec) -> Recipe:
    """Return the recipe that a specification names; its weights need not be on this machine.

    Raises
    ------
    UsageError
        BAD_PARAMETER for a kind that runs no recipes, or a recipe that does not exist.
    """
    if spec.kind == TOTALSEGMENTATOR.key:
        return _task_of(spec)[1]
    if spec.kind == MOOSE.key:
        return moose_book().find(spec.model)
    if spec.kind == RECIPE.key:
        return _recipe_of(spec)
    raise UsageError(Reason.BAD_PARAMETER, f"segmenters of the kind {spec.kind} run no recipe")


def _series_title(product: Product) -> str:
    return f"{product.model}_{_TITLES.get(product.kind, 'recipe')}"


def _classes(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise ValueError(text)
    return names


def _robust(text: str) -> bool:
    if text != "robust":
        raise ValueError(text)
    return True


def _volume(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1e9:
        raise ValueError(text)
    return value


TOTALSEGMENTATOR = segmentation_kind(
    "totalsegmentator",
    "TotalSegmentator",
    _open_task,
    _series_title,
    seconds_per_slice=_SECONDS,
    takes_path=False,
    registered_models=False,
    has_configurations=True,
    check=_check_task,
    find_files=_find_weights,
    words=("TASK", "fast|fastest"),
    options=(
        SegmenterOption(name="roi", values="liver,spleen", parse=_classes, default=()),
        SegmenterOption(name="crop", values="robust", parse=_robust, default=False),
        SegmenterOption(name="split", values="on", parse=parse_switch, default=False),
        SegmenterOption(name="small", values="200", parse=_volume, default=0.0),
        SegmenterOption(name="largest", values="on", parse=parse_switch, default=False),
        SegmenterOption(name="as", values="|".join(VERSIONS), parse=str, default=DEFAULT_VERSION),
    ),
)

MOOSE = segmentation_kind(
    "moose",
    "MOOSE",
    _open_moose,
    _series_title,
    seconds_per_slice=_SECONDS,
    takes_path=False,
    registered_models=False,
    check=_check_moose,
    find_files=_find_weights,
)

RECIPE = segmentation_kind(
    "recipe",
    "segmentation by a recipe",
    _open_file,
    _series_title,
    seconds_per_slice=_SECONDS,
    registered_models=False,
    has_configurations=True,
    check=_check_file,
    find_files=_find_weights,
    words=("FILE.toml", "NAME"),
)
