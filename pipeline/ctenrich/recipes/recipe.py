"""Records of a recipe: orientation, crop by a rough model, resampling, parts, post-processing and the way back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from ctenrich.errors import UsageError, did_you_mean
from ctenrich.reasons import Reason

__all__ = [
    "SPLIT_VOXELS",
    "Crop",
    "Part",
    "Recipe",
    "Resampling",
    "Rule",
    "RuleName",
    "Split",
    "Weights",
    "recipe_sha256",
    "restrict_to",
]

Millimetres = tuple[float, float, float]


class Split(StrEnum):
    """When a volume is segmented in three parts along the body axis, to bound memory."""

    NEVER = "never"
    LARGE = "large"
    """If it has more than 200 slices and more voxels than the recipe's `split_voxels`."""
    ALWAYS = "always"


SPLIT_VOXELS = 512 * 512 * 900
"""Above so many voxels TotalSegmentator 2 splits a volume."""


class Resampling(StrEnum):
    """How an image gets the spacing of the networks, and the labels the grid of the image."""

    LINEAR = "linear"
    """scipy's zoom of order 1, whole numbers; beyond the last voxel its value is repeated."""
    CUBIC = "cubic"
    """scipy's zoom of order 3, whole numbers; beyond the last voxel there is 0, in the labels as well."""
    BSPLINE = "bspline"
    """ITK's cubic B-spline in blocks, to the spacing of the first network; networks get pieces of the image (MOOSE)."""


class RuleName(StrEnum):
    """Rules that change a label map."""

    LARGEST_COMPONENT = "largest_component"
    """Only the largest component of each class stays."""
    SMALL_COMPONENTS = "small_components"
    """Components of a class that are not larger than `amount` mm3 are removed."""
    RELABEL_VERTEBRAE = "relabel_vertebrae"
    """Vertebral bodies of one component get one label, counted along the body axis; then each grows by `amount` mm."""
    INSIDE = "inside"
    """Only what lies inside classes of another recipe, grown by `amount` mm, stays (on the source grid)."""
    BAND = "band"
    """Only slices of the body axis that the largest component of a class of another recipe has stay, if it is found."""
    REFINE_VERTEBRAE = "refine_vertebrae"
    """Vertebrae grow by `amount` mm and are cut to a class of another recipe (on the source grid)."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The weights of one network: where they are looked for, and where they were published."""

    name: str
    """Number of the data set, or a name of the recipe's own."""
    folder: str
    """Name of the data set's folder, e.g. ``Dataset297_TotalSegmentator_total_3mm_1559subj``, or a path."""
    trainer: str = "nnUNetTrainer"
    """Empty: that of the only configuration in the folder."""
    plans: str = "nnUNetPlans"
    configuration: str = "3d_fullres"
    folds: tuple[str, ...] = ("0",)
    """Empty: all folds that there are."""
    url: str = ""
    licence: str = ""
    version: int = 2
    """Version of nnU-Net that wrote them: 1 or 2."""
    own_names: bool = False
    """Whether weights are refused whose own files give a class of the recipe another number."""
    class_names: Mapping[str, int] = field(default_factory=dict)
    """Class -> value in the network, for nnU-Net v1, whose files do not name classes."""

    @property
    def subfolder(self) -> str:
        """Folder of the trainer, as nnU-Net names it."""
        trainer = f"{self.trainer}__{self.plans}"
        return trainer if self.version == 1 else f"{trainer}__{self.configuration}"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One network of a recipe."""

    weights: Weights
    labels: Mapping[int, int]
    """Label value of the network -> value in the answer; 0 for a class that is removed from the answer."""
    step: float = 0.5
    """Distance of two tiles as a share of the patch."""
    mirror: bool = False
    """Whether to average over mirrored passes, where training mirrored."""


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Box around classes of a rough recipe's answer."""

    rough: Recipe
    classes: tuple[str, ...]
    margin: float
    """mm on each side; whole voxels below it."""
    slices_only: bool = False
    """Whether only the ends along the body axis are cropped."""
    uncropped: bool = False
    """Whether the rough recipe segments the whole volume where its own crop is empty, instead of nothing."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One step of post-processing."""

    name: RuleName
    classes: tuple[str, ...] = ()
    """Of the recipe's own answer, or of that of `other`."""
    amount: float = 0.0
    """mm or mm3, see `RuleName`."""
    other: Recipe | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the answer beside the weights."""

    name: str
    """E.g. ``total-fast``."""
    family: str
    """Whose recipe it is, e.g. ``TotalSegmentator``."""
    version: str
    """Version of the software whose answer it gives."""
    labels: Mapping[str, int]
    """Class -> value in the answer, classes that are removed from it not included."""
    parts: tuple[Part, ...]
    """In the order of painting: where a later part is not background, it replaces the earlier ones."""
    axes: str = "RAS"
    """Directions of growing x, y, z that the networks were trained on."""
    spacing: Millimetres | None = None
    """(x, y, z), mm; None: the networks get the source grid (and resample it as their plans say)."""
    resampling: Resampling = Resampling.LINEAR
    crop: Crop | None = None
    split: Split = Split.NEVER
    split_voxels: int = SPLIT_VOXELS
    rules: tuple[Rule, ...] = ()
    """On the networks' grid."""
    after: tuple[Rule, ...] = ()
    """On the source grid."""
    keep: tuple[str, ...] = ()
    """The only classes of the answer; empty: all."""
    segments: Mapping[str, str] = field(default_factory=dict)
    """Class -> row of mappings/segments.csv, where that has another name."""
    citation: str = ""
    source: str = ""
    """Address of the software whose answer it gives."""

    @property
    def kept(self) -> dict[str, int]:
        """Class -> value of the classes that the answer can have."""
        return {name: value for name, value in self.labels.items() if not self.keep or name in self.keep}

    @property
    def rough_recipes(self) -> tuple[Recipe, ...]:
        """The recipes whose answers it needs first."""
        crop = (self.crop.rough,) if self.crop is not None else ()
        others = (rule.other for rule in (*self.rules, *self.after))
        return (*crop, *(other for other in others if other is not None))

    @property
    def all_parts(self) -> tuple[Part, ...]:
        """Its parts and those of the recipes that it needs, in the order in which they run, each weights once."""
        parts = [part for rough in self.rough_recipes for part in rough.all_parts]
        return tuple({(p.weights.name, p.step, p.mirror): p for p in (*parts, *self.parts)}.values())


def restrict_to(recipe: Recipe, classes: tuple[str, ...], crop: Crop | None) -> Recipe:
    """Restrict a recipe to some classes: a crop around them, the parts that have them, and no others in the answer.

    Parameters
    ----------
    recipe : Recipe
    classes : tuple of str
    crop : Crop or None
        With the rough recipe and the margin; its classes are replaced. None: the volume is not cropped.

    Returns
    -------
    Recipe

    Raises
    ------
    UsageError
        BAD_PARAMETER if the recipe, or the rough one, has no such class.
    """
    for answer in (recipe, *((crop.rough,) if crop is not None else ())):
        for name in classes:
            if name not in answer.labels:
                hint = did_you_mean(name, answer.labels)
                raise UsageError(Reason.BAD_PARAMETER, f"{answer.name} of {recipe.family} has no class {name!r}", hint)
    values = {recipe.labels[name] for name in classes}
    parts = tuple(part for part in recipe.parts if values & set(part.labels.values()))
    return replace(recipe, parts=parts, keep=classes, crop=replace(crop, classes=classes) if crop else None)


def recipe_sha256(recipe: Recipe) -> str:
    """SHA-256 of everything in a recipe that can change the answer: names of files, addresses and licences cannot.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    text = json.dumps(_content(recipe), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _content(recipe: Recipe) -> dict[str, Any]:
    content: dict[str, Any] = {
        "format": 1,
        "family": recipe.family,
        "version": recipe.version,
        "labels": dict(recipe.labels),
        "parts": [_part_content(part) for part in recipe.parts],
        "axes": recipe.axes,
        "spacing": recipe.spacing,
        "crop": recipe.crop and _crop_content(recipe.crop),
        "split": recipe.split.value,
        "rules": [_rule_content(rule) for rule in recipe.rules],
        "after": [_rule_content(rule) for rule in recipe.after],
        "keep": sorted(recipe.keep),
    }
    # later keys are there only where they are not the first version's rule, so that its recipes keep their hash
    if recipe.resampling is not Resampling.LINEAR:
        content["resampling"] = recipe.resampling.value
    if recipe.split_voxels != SPLIT_VOXELS:
        content["split_voxels"] = recipe.split_voxels
    return content


def _crop_content(crop: Crop) -> dict[str, Any]:
    content = {"rough": _content(crop.rough), "classes": sorted(crop.classes), "margin": crop.margin}
    content |= {"slices_only": True} if crop.slices_only else {}
    return content | ({"uncropped": True} if crop.uncropped else {})


def _part_content(part: Part) -> dict[str, Any]:
    weights = part.weights
    return {
        "weights": [weights.name, weights.subfolder, list(weights.folds)],
        "labels": sorted(part.labels.items()),
        "step": part.step,
        "mirror": part.mirror,
    }


def _rule_content(rule: Rule) -> dict[str, Any]:
    other = _content(rule.other) if rule.other is not None else None
    return {"name": rule.name.value, "classes": list(rule.classes), "amount": rule.amount, "other": other}
