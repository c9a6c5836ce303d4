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
    plans = {part.weights.name: _check_part(part, stored[part.weights.name]) for part in parts}
    demo = any(model.demo for model in models.values())
    return CheckedWeights(stored=stored, notes=_name_notes(recipe, plans), demo=demo)


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


def _check_part(part: Part, stored: StoredModel) -> Mapping[str, int]:
    """Check configuration, folds and labels of a part; return the labels that the model's files name."""
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
            f"{len(part.labels)} labels: it is another version of these weights"
        )
    for fold in weights.folds:
        if fold not in stored.folds(configuration):
            fail(f"{stored.name} has no fold {fold}", f"it has: {', '.join(stored.folds(configuration))}")
    return names


def _open_part(part: Part, stored: StoredModel, settings: SegmentSettings) -> Any:
    folds = _folds(part.weights, stored)
    return open_engine(
        stored,
        _configuration(part.weights, stored),
        folds,
        mirror=part.mirror,
        settings=replace(settings, step_size=part.step),
    )


def _name_notes(recipe: Recipe, models: Mapping[str, Mapping[str, int]]) -> tuple[str, ...]:
    """One sentence per part whose own files give a number to another class of the recipe than the recipe does."""
    out = []
    for part in recipe.parts:
        differing = [
            name
            for name, value in models[part.weights.name].items()
            if name in recipe.labels and part.labels[value] not in (recipe.labels[name], 0)
        ]
        if differing and part.weights.own_names:
            fail(
                f"the weights {part.weights.name} give the class {differing[0]} another number than the recipe's "
                "table: they are another version",
                "use them as nnunet:FOLDER, which takes the names of their own files",
            )
        if differing:
            out.append(
                f"the weights {part.weights.name} name {len(differing)} of their labels otherwise than the recipe's "
                f"table, e.g. {differing[0]}; the numbers of the table apply"
            )
    return tuple(out)
