"""Run a recipe on one volume: crop, axes, one resampling for all parts, painting, post-processing and the way back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.inference.components import keep_largest_component
from ctenrich.inference.process import return_excess_memory
from ctenrich.nnunet.preprocess import Axes
from ctenrich.progress import SILENT, Progress
from ctenrich.recipes.moose_grid import in_pieces, resample_blocks, resample_labels
from ctenrich.recipes.networks import Networks
from ctenrich.recipes.postprocess import (
    cut_to_mask,
    keep_band,
    relabel_vertebrae,
    remove_outside,
    remove_small_components,
)
from ctenrich.recipes.recipe import Crop, Recipe, Resampling, Rule, RuleName, Split
from ctenrich.recipes.zoom import zoom_cubic, zoom_labels, zoom_linear, zoomed_shape
from ctenrich.records import Matrix4

__all__ = ["RecipeResult", "closest_axes", "run_recipe", "voxel_sizes"]

Labels = NDArray[np.unsignedinteger]
Image = NDArray[np.signedinteger]
Box = tuple[slice, slice, slice]
Spacing = tuple[float, float, float]

_SPLIT_SLICES = 200
_MARGIN = 20
"""Voxels that the thirds of a split volume overlap."""
_EVERYWHERE: Box = (slice(None), slice(None), slice(None))


@dataclass(frozen=True, kw_only=True)
class RecipeResult:
    """The answer of a recipe for one volume."""

    labels: Labels
    """[k, j, i], uint8 or uint16, on the source grid."""
    empty_crop: str = ""
    """Why the answer is empty without any network of the recipe having run; empty if they ran."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds: shrink, network (all parts, with their own preprocessing), paint, grow, rough."""


def closest_axes(affine_lps: Matrix4, towards: str = "RAS") -> Axes:
    """Exchange and flips to the nearest axes in some directions, as nibabel chooses them.

    Parameters
    ----------
    affine_lps : 4 x 4
        (i, j, k, 1) -> mm, LPS.
    towards : str
        Directions of growing x, y, z.

    Returns
    -------
    Axes
        From arrays [k, j, i] to [z, y, x].
    """
    columns = np.asarray(affine_lps, float)[:3, :3]
    left, _, right = np.linalg.svd(columns / np.sqrt((columns**2).sum(axis=0)))
    nearest = left @ right  # the rotation, perhaps with a mirror, next to the matrix
    index_of: dict[int, int] = {}
    signs: dict[int, float] = {}
    for index in np.argsort(-(nearest**2).max(axis=0), kind="stable").tolist():  # the clearest axis first
        world = int(np.argmax(np.abs(nearest[:, index])))
        index_of[world], signs[world] = index, nearest[world, index]
        nearest[world] = 0
    wanted = [1 if letter in "LPS" else -1 for letter in towards]
    flips = tuple(axis for axis, world in enumerate((2, 1, 0)) if signs[world] * wanted[world] < 0)
    return Axes((2 - index_of[2], 2 - index_of[1], 2 - index_of[0]), flips)


def voxel_sizes(affine_lps: Matrix4) -> Spacing:
    """Voxel sizes (k, j, i), mm, as a NIfTI header holds them: single precision, from a matrix in single precision."""
    columns = np.asarray(affine_lps, np.float32).astype(float)[:3, :3]
    sizes = np.sqrt((columns**2).sum(axis=0)).astype(np.float32)
    return float(sizes[2]), float(sizes[1]), float(sizes[0])


def run_recipe(
    recipe: Recipe, networks: Networks, array: Image, affine_lps: Matrix4, *, progress: Progress = SILENT
) -> RecipeResult:
    """Segment one volume.

    Parameters
    ----------
    recipe : Recipe
    networks : Networks
        As `ctenrich.recipes.networks.open_networks` opened them for this recipe.
    array : array of int, [k, j, i], HU
    affine_lps : 4 x 4
        (i, j, k, 1) -> mm, LPS.
    progress : Progress

    Returns
    -------
    RecipeResult

    Raises
    ------
    InputError
        OUT_OF_MEMORY.
    """
    return _Run(networks, array, affine_lps, progress).answer(recipe)


class _Run:
    """One volume on its way through a recipe; the answers of rough recipes are kept."""

    def __init__(self, networks: Networks, array: Image, affine_lps: Matrix4, progress: Progress) -> None:
        self.networks = networks
        self.array = array
        self.affine = affine_lps
        self.sizes = voxel_sizes(affine_lps)
        self.progress = progress
        self.rough: dict[str, RecipeResult] = {}
        self.timings = dict.fromkeys(("rough", "shrink", "network", "paint", "grow"), 0.0)

    def answer(self, recipe: Recipe, *, uncropped: bool = False) -> RecipeResult:
        """Labels on the source grid; `uncropped`: of the whole volume where the crop is empty."""
        box: Box = _EVERYWHERE
        if recipe.crop is not None:
            found, why = self._box(recipe.crop)
            if found is None and uncropped:
                found = _EVERYWHERE
            if found is None:
                empty = np.zeros(self.array.shape, _dtype(recipe))
                return RecipeResult(labels=empty, empty_crop=why, timings=self.timings)
            box = found
        labels = np.zeros(self.array.shape, _dtype(recipe))
        axes = closest_axes(self.affine, recipe.axes)
        labels[box] = axes.back(self._on_grid(recipe, axes, box))
        if recipe.keep:
            labels[~_table(recipe)[labels]] = 0
        for rule in recipe.after:
            labels = self._after(rule, labels)
        return RecipeResult(labels=labels, timings=self.timings)

    # ------------------------------------------------------------ crop

    def _rough_answer(self, recipe: Recipe, *, uncropped: bool = False) -> Labels:
        if recipe.name not in self.rough:
            before = dict(self.timings)
            start = time.perf_counter()
            self.rough[recipe.name] = self.answer(recipe, uncropped=uncropped)
            self.timings = before | {"rough": before["rough"] + time.perf_counter() - start}
        return self.rough[recipe.name].labels

    def _classes(self, recipe: Recipe, classes: tuple[str, ...], *, uncropped: bool = False) -> NDArray[np.bool_]:
        labels = self._rough_answer(recipe, uncropped=uncropped)
        table = np.zeros(int(np.iinfo(labels.dtype).max) + 1, bool)
        table[[recipe.labels[name] for name in classes]] = True
        return np.asarray(table[labels])

    def _box(self, crop: Crop) -> tuple[Box | None, str]:
        """Box of the classes with its margin; None and the reason if there is nothing of them."""
        mask = self._classes(crop.rough, crop.classes, uncropped=crop.uncropped)
        if not mask.any():
            shown = ", ".join(crop.classes[:6]) + (" ..." if len(crop.classes) > 6 else "")
            return None, f"{crop.rough.name} found none of {shown}"
        ends = []
        body_axis = closest_axes(self.affine).order[0]
        for axis, size in enumerate(self.sizes):
            if crop.slices_only and axis != body_axis:
                ends.append(slice(0, mask.shape[axis]))
                continue
            hits = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
            add = int(crop.margin / size)
            ends.append(slice(max(0, int(hits[0]) - add), min(mask.shape[axis], int(hits[-1]) + 1 + add)))
        return (ends[0], ends[1], ends[2]), ""

    # ------------------------------------------------------------ networks

    def _on_grid(self, recipe: Recipe, axes: Axes, box: Box) -> Labels:
        """Labels [z, y, x] of a box, on canonical axes."""
        source = axes.turn(self.array[box])
        sizes = tuple(self.sizes[axis] for axis in axes.order)
        if recipe.resampling is Resampling.BSPLINE:
            return self._by_blocks(recipe, source, sizes)  # type: ignore[arg-type]
        target = sizes if recipe.spacing is None else recipe.spacing[::-1]
        image, same = source, target == sizes
        start = time.perf_counter()
        if not same:
            image = _resampled(recipe, source, sizes, target)  # type: ignore[arg-type]
        shrunk = time.perf_counter()
        self.timings["shrink"] += shrunk - start
        labels = self._segment(recipe, image, target)  # type: ignore[arg-type]
        start = time.perf_counter()
        for rule in recipe.rules:
            labels = _apply_rule(rule, recipe, labels, self._header_sizes(axes, target))  # type: ignore[arg-type]
        constant = recipe.resampling is Resampling.CUBIC
        out = labels if same else zoom_labels(labels, source.shape, constant=constant)
        self.timings["grow"] += time.perf_counter() - start
        return out

    def _by_blocks(self, recipe: Recipe, source: Image, sizes: Spacing) -> Labels:
        """Labels [z, y, x] as MOOSE makes them."""
        target = self.networks.spacing(recipe.parts[0])
        start = time.perf_counter()
        image = resample_blocks(source, sizes, target)
        self.timings["shrink"] += time.perf_counter() - start
        labels = in_pieces(image, lambda piece: self._paint(recipe, piece, target))
        start = time.perf_counter()
        out = resample_labels(labels, target, sizes, source.shape)
        self.timings["grow"] += time.perf_counter() - start
        return out

    def _header_sizes(self, axes: Axes, target: Spacing) -> Spacing:
        """Sizes (z, y, x) that the header of the resampled image has: the target's, but for roundings.

        The columns of the affine are divided by the zoom, which is made of sizes in single precision.
        """
        columns = np.asarray(self.affine, np.float32).astype(float)[:3, :3]
        exact = np.sqrt((columns**2).sum(axis=0))[::-1]  # k, j, i
        made = [np.float32(exact[a] / (self.sizes[a] / new)) for a, new in zip(axes.order, target, strict=True)]
        return float(made[0]), float(made[1]), float(made[2])

    def _segment(self, recipe: Recipe, image: Image, spacing: Spacing) -> Labels:
        def paint(part: Image) -> Labels:
            return self._paint(recipe, part, spacing)

        return _in_thirds(image, paint) if _is_split(recipe, image.shape) else paint(image)

    def _paint(self, recipe: Recipe, image: NDArray[Any], spacing: Spacing) -> Labels:
        out = np.zeros(image.shape, _dtype(recipe))
        for part in recipe.parts:
            start = time.perf_counter()
            answer = self.networks.engine(part).label(image, spacing, progress=self.progress)
            ready = time.perf_counter()
            table = np.zeros(max(part.labels) + 1, out.dtype)
            table[list(part.labels)] = list(part.labels.values())
            painted = table[answer.labels]
            np.copyto(out, painted, where=painted != 0)
            self.timings["network"] += ready - start
            self.timings["paint"] += time.perf_counter() - ready
            return_excess_memory()
        return out

    # ------------------------------------------------------------ source grid

    def _after(self, rule: Rule, labels: Labels) -> Labels:
        assert rule.other is not None
        mask = self._classes(rule.other, rule.classes)
        if rule.name is RuleName.INSIDE:
            mean = np.mean(np.asarray(self.sizes[::-1], np.float32))
            remove_outside(labels, mask, int(rule.amount / mean))
            return labels
        if rule.name is RuleName.BAND:
            return keep_band(labels, mask, closest_axes(self.affine).order[0])
        axes = closest_axes(self.affine, "LAS")  # the orientation of a DICOM series in TotalSegmentator
        x, y, z = (self.sizes[axis] for axis in reversed(axes.order))
        turned, inside = (axes.turn(a).transpose(2, 1, 0) for a in (labels, mask))
        grown = cut_to_mask(np.ascontiguousarray(turned), inside, (x, y, z), rule.amount)
        return np.ascontiguousarray(axes.back(grown.transpose(2, 1, 0)))


def _resampled(recipe: Recipe, image: Image, sizes: Spacing, target: Spacing) -> NDArray[np.int32]:
    """An image [z, y, x] at the spacing of the networks."""
    if recipe.resampling is Resampling.CUBIC:
        return zoom_cubic(image, sizes, target)
    return zoom_linear(image, zoomed_shape(image.shape, sizes, target), 1)


def _dtype(recipe: Recipe) -> type[np.uint8] | type[np.uint16]:
    return np.uint8 if max(recipe.labels.values()) < 256 else np.uint16


def _table(recipe: Recipe) -> NDArray[np.bool_]:
    table = np.zeros(int(np.iinfo(_dtype(recipe)).max) + 1, bool)
    table[list(recipe.kept.values())] = True
    return table


def _is_split(recipe: Recipe, shape: tuple[int, ...]) -> bool:
    """Whether a volume is segmented in thirds; one that is too short for them never is."""
    large = int(np.prod(shape)) > recipe.split_voxels and shape[0] > _SPLIT_SLICES
    wanted = recipe.split is Split.ALWAYS or (recipe.split is Split.LARGE and large)
    return wanted and shape[0] // 3 >= _MARGIN


def _in_thirds(image: Image, make: Callable[[Image], Labels]) -> Labels:
    """Labels of a volume whose thirds along z are segmented one by one, each with 20 planes of its neighbours."""
    third, m = image.shape[0] // 3, _MARGIN
    first = make(image[: third + m])[:-m]
    second = make(image[third + 1 - m : 2 * third + m])[m - 1 : -m]
    last = make(image[2 * third + 1 - m :])[m - 1 :]
    return np.concatenate((first, second, last))


def _apply_rule(rule: Rule, recipe: Recipe, labels: Labels, spacing: Spacing) -> Labels:
    """Apply a rule on the networks' grid; `spacing` is (z, y, x)."""
    values = [recipe.labels[name] for name in rule.classes]
    if rule.name is RuleName.RELABEL_VERTEBRAE:
        x, y, z = reversed(spacing)
        turned = np.ascontiguousarray(labels.transpose(2, 1, 0))
        made = relabel_vertebrae(turned, (values[0], values[1]), (x, y, z), rule.amount)
        return np.ascontiguousarray(made.transpose(2, 1, 0))
    volume = np.prod(np.asarray(spacing[::-1], np.float32))
    for value in values:
        if rule.name is RuleName.LARGEST_COMPONENT:
            keep_largest_component(labels, value)
        else:
            remove_small_components(labels, value, float(rule.amount / volume))
    return labels
