"""Recipes as segmenters: open a recipe with its networks, write masks on the source grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.inference.segmentation import Classes, CtAnswer, class_names, segment_ct
from ctenrich.progress import SILENT, Progress
from ctenrich.recipes.executor import RecipeResult, run_recipe
from ctenrich.recipes.networks import Networks, open_networks
from ctenrich.recipes.recipe import Recipe, recipe_sha256
from ctenrich.recipes.weights import weights_folders
from ctenrich.records import Issue, ModelInfo, Product, SegmentMasks, Severity, SortedSeries, Volume
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace

__all__ = ["RecipeSegmenter", "open_recipe", "segment_names"]

RULE_EMPTY = "recipe.crop_empty"
RULE_NOTE = "recipe.weights"


def open_recipe(
    recipe: Recipe, product: Product, *, settings: Settings, folders: Sequence[Path] | None = None
) -> RecipeSegmenter:
    """Load the networks of a recipe; every fault of recipe and weights is found here, before any series is touched.

    Parameters
    ----------
    recipe : Recipe
    product : Product
        Key of what it makes.
    settings : Settings
        `segment`: device, engine, precision, batch, threads.
    folders : sequence of Path, optional
        Folders that hold the folders of the weights; by default `ctenrich.recipes.weights.weights_folders`.

    Returns
    -------
    RecipeSegmenter

    Raises
    ------
    ModelError
        NOT_FOUND, naming every data set that is missing and where it was published; BAD_MODEL, UNSAFE_WEIGHTS,
        HASH_MISMATCH, WRONG_MODALITY or UNMAPPED_LABEL.
    UsageError
        BAD_SETTINGS; MISSING_EXTRA if the reference engine is asked for without nnunetv2.
    """
    names = segment_names(recipe)
    networks = open_networks(recipe, weights_folders() if folders is None else folders, settings.segment)
    folds = sorted({fold for part in recipe.parts for fold in part.weights.folds})
    info = ModelInfo(
        name=f"{recipe.family} {product.model}",
        version=recipe.version,
        sha256=networks.sha256,
        configuration=f"recipe {recipe_sha256(recipe)[:16]}",
        folds=tuple(folds),
        mirror=any(part.mirror for part in recipe.parts),
        licence=", ".join(dict.fromkeys(part.weights.licence for part in recipe.parts if part.weights.licence)),
        citation=recipe.citation,
        source_url=recipe.source,
        demo=networks.demo,
    )
    return RecipeSegmenter(product, info, names, recipe, networks)


def segment_names(recipe: Recipe) -> Classes:
    """(label value, segment name, class of the recipe) for every class of the answer.

    Raises
    ------
    ModelError
        UNMAPPED_LABEL, naming the classes that no row of mappings/segments.csv knows; BAD_MAPPING if two are one.
    """
    return class_names(recipe.kept, recipe.name, recipe.segments)


def _without_gaps(labels: NDArray[Any], names: Classes) -> tuple[NDArray[Any], Classes]:
    """Number the classes of a subset (``roi=``) 1, 2, ...: segment numbers have no gaps (PS3.3 C.8.20.2)."""
    values = [value for value, _, _ in names]
    if values == list(range(1, len(values) + 1)):
        return labels, names
    table = np.zeros(max(int(labels.max(initial=0)), *values) + 1, labels.dtype)
    table[values] = np.arange(1, len(values) + 1)
    return table[labels], tuple((n, segment, name) for n, (_, segment, name) in enumerate(names, start=1))


@dataclass(frozen=True)
class RecipeSegmenter:
    """A recipe with its networks; implements `ctenrich.inference.segmenter.Segmenter`."""

    product: Product
    info: ModelInfo
    names: Classes
    recipe: Recipe
    networks: Networks

    def segment(
        self,
        inputs: Mapping[str, Volume],
        series: SortedSeries,
        *,
        settings: Settings,
        workspace: Workspace,
        progress: Progress = SILENT,
    ) -> SegmentMasks:
        """Segment one series (see `ctenrich.inference.segmenter.Segmenter.segment`).

        Raises
        ------
        InputError
            WRONG_MODALITY without a CT volume in HU; OUT_OF_MEMORY.
        """

        def label(volume: Volume, array: NDArray[Any]) -> CtAnswer:
            answer = run_recipe(self.recipe, self.networks, array, volume.affine_lps, progress=progress)
            labels, names = _without_gaps(answer.labels, self.names)
            issues = self._issues(answer, volume.series_instance_uid)
            return CtAnswer(labels=labels, classes=names, timings=answer.timings, issues=issues)

        return segment_ct(inputs, workspace, self.product, self.info, label)

    def _issues(self, answer: RecipeResult, uid: str) -> tuple[Issue, ...]:
        notes = [Issue(RULE_NOTE, Severity.WARNING, uid, note) for note in self.networks.notes]
        if answer.empty_crop:
            text = f"{answer.empty_crop}: nothing to segment around, so all classes are absent"
            notes.append(Issue(RULE_EMPTY, Severity.WARNING, uid, text))
        return tuple(notes)
