"""The networks of a recipe, loaded once and kept."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ctenrich.errors import ModelError, UsageError
from ctenrich.nnunet.plans import fail
from ctenrich.nnunet.segmenter import open_engine
from ctenrich.nnunet.store import StoredModel, prepare
from ctenrich.reasons import Reason
from ctenrich.recipes.published import published_models
from ctenrich.recipes.recipe import Part, Recipe, Weights, recipe_sha256
from ctenrich.recipes.weights import find_all_weights
from ctenrich.settings import SegmentSettings
from ctenrich.tools import need_package

__all__ = ["CheckedWeights", "Networks", "check_networks", "open_networks"]

Key = tuple[str, float, bool]


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The loaded networks of a recipe and of the recipes that it needs."""

    engines: Mapping[Key, Any]
    sha256: str
    """Of the recipe and of all weights: everything that decides the answer."""
    notes: tuple[str, ...] = ()
    """What is unusual about the weights, one sentence each."""
    demo: bool = False
    """Whether one of the networks is for demonstration only."""

    def engine(self, part: Part) -> Any:
        """The engine of a part; see `ctenrich.nnunet.engine.Engine.label`."""
        return self.engines[_key(part)]

    def spacing(self, part: Part) -> tuple[float, float, float]:
        """Spacing (z, y, x) that the network of a part was trained at, mm."""
        plan = self.engines[_key(part)].plan
        z, y, x = (plan.spacing[axis] for axis in plan.transpose_back)
        return float(z), float(y), float(x)


def _key(part: Part) -> Key:
    return part.weights.name, part.step, part.mirror


def open_networks(recipe: Recipe, folders: Sequence[Path], settings: SegmentSettings) -> Networks:
    """Find, check and load all networks of a recipe; every fault is found here, before any series is touched.

    Parameters
    ----------
    recipe : Recipe
    folders : sequence of Path
        Folders that hold the folders of the weights.
    settings : SegmentSettings
        Device, engine, precision, batch, threads. Step and mirrors are those of the recipe.

    Returns
    -------
    Networks

    Raises
    ------
    ModelError
        NOT_FOUND, naming what is missing; BAD_MODEL, UNSAFE_WEIGHTS, HASH_MISMATCH, WRONG_MODALITY.
    UsageError
        BAD_SETTINGS; MISSING_EXTRA.
    """
    _check_settings(settings)
    parts = recipe.all_parts
    found = check_networks(recipe, folders)
    stored = found.stored
    engines = {_key(part): _open_part(part, stored[part.weights.name], settings) for part in parts}
    digest = hashlib.sha256(recipe_sha256(recipe).encode())
    for part in parts:
        model = stored[part.weights.name]
        folds = _folds(part.weights, model)
        identity = model.identity(_configuration(part.weights, model), folds)
        digest.update(f"{part.weights.name} {identity}\n".encode())
    return Networks(engines=engines, sha256=digest.hexdigest(), notes=found.notes, demo=found.demo)


@dataclass(frozen=True, kw_only=True)
class CheckedWeights:
    """Weights of a recipe that are on this machine and fit it; they are not loaded."""

    stored: Mapping[str, StoredModel]
    """By the name of the weights."""
    notes: tuple[str, ...]
    """What is unusual about the weights, one sentence each."""
    demo: bool
    """Whether one of the networks is for demonstration only."""


def check_networks(recipe: Recipe, folders: Sequence[Path]) -> CheckedWeights:
    """Find, convert and check all networks of a recipe without loading their weights.

    Parameters
    ----------
    recipe : Recipe
    folders : sequence of Path
        Folders that hold the folders of the weights.

    Returns
    -------
    CheckedWeights

    Raises
    ------
    ModelError
        As `open_networks`.
    """
    parts = recipe.all_parts
    models = find_all_weights([part.weights for part in parts], folders, f"{recipe.family} {recipe.name}")
    stored = {name: prepare(model) for name, model in models.items()}
    for part in parts:
        _check_part(part, stored[part.weights.name])
    demo = any(model.demo for model in models.values())
    return CheckedWeights(stored=stored, notes=_notes(recipe, stored), demo=demo)


def _check_settings(settings: SegmentSettings) -> None:
    if settings.engine not in ("fast", "reference"):
        raise UsageError(Reason.BAD_SETTINGS, f"unknown engine {settings.engine!r}", "fast or reference")
    if settings.engine == "reference":
        need_package("nnunetv2", extra="reference", purpose='segment.engine = "reference"')
    if settings.probabilities:
        raise UsageError(Reason.BAD_SETTINGS, "recipes do not keep probabilities", "set segment.probabilities = false")


def _configuration(weights: Weights, stored: StoredModel) -> str:
    return weights.configuration if weights.trainer else stored.configurations[0]


def _folds(weights: Weights, stored: StoredModel) -> tuple[str, ...]:
    return weights.folds or stored.folds(_configuration(weights, stored))


def _check_part(part: Part, stored: StoredModel) -> None:
    """Check configuration, folds and labels of a part."""
    weights = part.weights
    configuration = _configuration(weights, stored)
    if configuration not in stored.configurations:
        hint = f"it has: {', '.join(stored.configurations)}"
        raise ModelError(Reason.BAD_MODEL, f"{stored.name} has no configuration {configuration}", hint)
    plan = stored.plan(configuration)
    if plan.previous:
        fail(f"{configuration} of {stored.name} is the second stage of a cascade")
    names = plan.labels.names
    beyond = sorted(set(names.values()) - set(part.labels))
    if beyond:
        shown = next(name for name, value in names.items() if value == beyond[0])
        fail(
            f"{stored.name} has the label {beyond[0]} ({shown}), which is not in the recipe's table of "
            f"{len(part.labels)} labels: it is another version of these weights",
            "a recipe of your own lists every label of its networks, and keep = [...] the classes that are wanted",
        )
    for fold in weights.folds:
        if fold not in stored.folds(configuration):
            fail(f"{stored.name} has no fold {fold}", f"it has: {', '.join(stored.folds(configuration))}")


def _open_part(part: Part, stored: StoredModel, settings: SegmentSettings) -> Any:
    folds = _folds(part.weights, stored)
    return open_engine(
        stored,
        _configuration(part.weights, stored),
        folds,
        mirror=part.mirror,
        settings=replace(settings, step_size=part.step),
    )


def _otherwise_named(recipe: Recipe, part: Part, names: Mapping[str, int]) -> list[str]:
    """Classes of the recipe that the part makes of another number than the one that its own files give them."""
    made = set(part.labels.values())
    out = []
    for name, value in names.items():
        wanted, found = recipe.labels.get(name), part.labels.get(value, 0)
        if wanted is not None and found != wanted and (found != 0 or wanted in made):
            out.append(name)
    return out


def _notes(recipe: Recipe, stored: Mapping[str, StoredModel]) -> tuple[str, ...]:
    """One sentence per part of a recipe, or of one that it needs, whose own files state other classes than it does."""
    out = [note for rough in recipe.rough_recipes for note in _notes(rough, stored)]
    for part in recipe.parts:
        weights, model = part.weights, stored[part.weights.name]
        names = model.plan(_configuration(weights, model)).labels.names
        differing = _otherwise_named(recipe, part, names)
        if differing:
            _check_owner(part, model, differing[0])
            out.append(
                f"the weights {weights.name} name {len(differing)} of their labels otherwise than the recipe's "
                f"table, e.g. {differing[0]}; the numbers of the table apply, and are wrong if these are other weights"
            )
        lost = set(part.labels) - set(names.values())
        if lost:
            out.append(
                f"the weights {weights.name} have {len(names)} labels, and the recipe's table {len(part.labels)}: "
                "its other classes are absent in every series"
            )
    return tuple(dict.fromkeys(out))


def _check_owner(part: Part, model: StoredModel, name: str) -> None:
    """Refuse weights that name a class otherwise, if that is not expected of them or they state another data set."""
    weights = part.weights
    if weights.own_names:
        fail(
            f"the weights {weights.name} give the class {name} another number than the recipe's "
            "table: they are another version",
            "use them as nnunet:FOLDER, which takes the names of their own files",
        )
    plans = model.meta["configurations"][_configuration(weights, model)]["plans"]
    owner = str(plans.get("dataset_name", ""))
    if owner != weights.folder and owner in published_models():
        fail(f"the files in {weights.folder} are those of {owner}", "put each data set into a folder of its own name")
