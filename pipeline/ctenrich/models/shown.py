"""Describe a segmenter for ``ctenrich models show``: a recipe, the weights that it needs, the codes of its classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ctenrich.errors import ModelError
from ctenrich.inference.kinds import segmenter_kind
from ctenrich.inference.products import SegmenterSpec, parse_segmenter
from ctenrich.inference.segmentation import class_rows
from ctenrich.models.library import show_model
from ctenrich.recipes.kind import folders_of_spec, is_recipe, recipe_of_spec
from ctenrich.recipes.recipe import Crop, Part, Recipe, Resampling, recipe_sha256
from ctenrich.recipes.segmenter import segment_names
from ctenrich.recipes.weights import find_all_weights

__all__ = ["show_segmenter"]


def show_segmenter(text: str) -> Mapping[str, Any]:
    """Describe what a segmenter runs, whether or not its weights are on this machine.

    Parameters
    ----------
    text : str
        Specification, e.g. ``totalsegmentator:total:fast``.

    Returns
    -------
    mapping
        Plain data in the order in which to print it; for kinds that run one model, what `show_model` returns.

    Raises
    ------
    UsageError
        BAD_PARAMETER for a segmenter or recipe that does not exist.
    ModelError
        As `show_model`.
    """
    spec = parse_segmenter(text)
    if is_recipe(spec):
        return _recipe_rows(text, spec)
    registered = segmenter_kind(spec.kind).registry_models
    names = registered(spec) if registered is not None else (spec.model,)
    return show_model(names[0] if names else spec.model)


def _recipe_rows(text: str, spec: SegmenterSpec) -> dict[str, Any]:
    recipe = recipe_of_spec(spec)
    names = segment_names(recipe)
    return {
        "name": text,
        "title": f"{recipe.family} {recipe.version}: {recipe.name}",
        **({"citation": recipe.citation} if recipe.citation else {}),
        **({"source": recipe.source} if recipe.source else {}),
        **{f"weights_{part.weights.name}": _weights_text(part, folders_of_spec(spec)) for part in recipe.all_parts},
        "axes": recipe.axes,
        "spacing": _spacing_text(recipe),
        "step": ", ".join(dict.fromkeys(f"{part.step:g}" for part in recipe.parts)),
        "crop": _crop_text(recipe.crop) if recipe.crop is not None else "none",
        "afterwards": ", ".join(_rule_texts(recipe)) or "nothing",
        "recipe_sha256": recipe_sha256(recipe),
        "classes": class_rows(names),
    }


def _weights_text(part: Part, folders: tuple[Path, ...]) -> str:
    weights = part.weights
    try:
        find_all_weights([weights], folders, weights.name)
        state = "on this machine"
    except ModelError as error:
        state = f"not usable: {error.message}" if weights.folder not in error.message else "not on this machine"
    licence = f"; {weights.licence}" if weights.licence else ""
    return f"{weights.folder}, {state}{licence}"


def _spacing_text(recipe: Recipe) -> str:
    if recipe.resampling is Resampling.BSPLINE:
        return "that of the network's plan"
    if recipe.spacing is None:
        return "that of the CT; the networks resample by their plans"
    return f"{' x '.join(f'{size:g}' for size in recipe.spacing)} mm"


def _crop_text(crop: Crop) -> str:
    shown = ", ".join(crop.classes[:8]) + (f" and {len(crop.classes) - 8} more" if len(crop.classes) > 8 else "")
    return f"{crop.margin:g} mm around {shown} of {crop.rough.name}"


def _rule_texts(recipe: Recipe) -> Iterator[str]:
    for rule in (*recipe.rules, *recipe.after):
        amount = f" {rule.amount:g}" if rule.amount else ""
        yield f"{rule.name.value}{amount}"
