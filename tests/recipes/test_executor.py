"""Recipes on small networks against a second implementation (nibabel, scipy, nnunetv2's predictor), voxel for voxel."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from ctenrich.errors import ModelError, UnknownModelError, UsageError
from ctenrich.recipes.executor import RecipeResult, closest_axes, run_recipe, voxel_sizes
from ctenrich.recipes.networks import check_networks, open_networks
from ctenrich.recipes.recipe import Recipe
from ctenrich.recipes.totalsegmentator import TaskOptions, task_recipe
from ctenrich.settings import SegmentSettings
from tests.support.totalsegmentator_cases import affine_ras, image
from tests.support.totalsegmentator_models import write_dataset
from tests.support.totalsegmentator_peer import body_post, network_answer, predict

REFERENCE = SegmentSettings(engine="reference", threads=1, device="cpu")
TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
STACKS = ("axial", "oblique", "coronal", "feet-first", "reversed")


def answer(recipe: Recipe, folder: Path, stack: str, settings: SegmentSettings = REFERENCE) -> RecipeResult:
    networks = open_networks(recipe, [folder], settings)
    return run_recipe(recipe, networks, image(), TO_LPS @ affine_ras(stack))  # type: ignore[arg-type]


def peer_image(stack: str) -> Any:
    return nib.Nifti1Image(image().transpose(2, 1, 0), affine_ras(stack))


def peer_networks(recipe: Recipe, folder: Path) -> list[Any]:
    return [
        (partial(network_answer, folder / p.weights.folder / p.weights.subfolder, step=p.step), p.labels)
        for p in recipe.parts
    ]


def peer_answer(recipe: Recipe, folder: Path, stack: str, **more: Any) -> NDArray[np.uint8]:
    networks = [(lambda data, spacing, n=n: n(data, spacing), table) for n, table in peer_networks(recipe, folder)]
    return predict(peer_image(stack), networks, spacing=recipe.spacing, **more).transpose(2, 1, 0)


# ---------------------------------------------------------------- parity


@pytest.mark.parametrize("stack", STACKS)
def test_every_stack_gives_the_answer_of_the_facts(small_weights: Callable[[Recipe], Path], stack: str) -> None:
    _, recipe = task_recipe("total", "fastest", TaskOptions())
    folder = small_weights(recipe)
    expected = peer_answer(recipe, folder, stack)
    found = answer(recipe, folder, stack)
    np.testing.assert_array_equal(found.labels, expected)
    assert len(np.unique(expected)) > 5
    fast = answer(recipe, folder, stack, replace(REFERENCE, engine="fast"))
    assert np.mean(fast.labels != expected) < 0.01  # it gathers in single precision


@pytest.mark.parametrize("stack", ["reversed", "coronal"])
def test_a_crop_is_the_box_of_the_rough_answer(small_weights: Callable[[Recipe], Path], stack: str) -> None:
    _, recipe = task_recipe("liver_vessels", None, TaskOptions())
    assert recipe.crop is not None
    folder = small_weights(recipe)
    rough = peer_answer(recipe.crop.rough, folder, stack)
    mask = np.isin(rough, [recipe.crop.rough.labels["liver"]])
    expected = peer_answer(recipe, folder, stack, crop=(mask.transpose(2, 1, 0), 20))
    found = answer(recipe, folder, stack)
    np.testing.assert_array_equal(found.labels, expected)
    assert 0 < np.count_nonzero(mask) < mask.size / 2


def test_classes_of_interest_alone_are_in_the_answer(small_weights: Callable[[Recipe], Path]) -> None:
    _, recipe = task_recipe("total", "fast", TaskOptions(roi=("liver", "heart")))
    assert recipe.crop is not None
    folder = small_weights(recipe)
    mask = np.isin(peer_answer(recipe.crop.rough, folder, "oblique"), [5, 51])
    expected = peer_answer(recipe, folder, "oblique", crop=(mask.transpose(2, 1, 0), 20))
    expected[~np.isin(expected, [5, 51])] = 0
    np.testing.assert_array_equal(answer(recipe, folder, "oblique").labels, expected)
    assert set(np.unique(expected)) == {0, 5, 51}


def test_components_of_the_body_are_chosen(small_weights: Callable[[Recipe], Path]) -> None:
    _, recipe = task_recipe("body", "fast", TaskOptions())
    folder = small_weights(recipe)
    expected = peer_answer(recipe, folder, "axial", post=body_post)
    np.testing.assert_array_equal(answer(recipe, folder, "axial").labels, expected)
    assert (peer_answer(recipe, folder, "axial") != expected).any()


@pytest.mark.long
def test_a_split_volume_is_joined_again(small_weights: Callable[[Recipe], Path]) -> None:
    _, recipe = task_recipe("vertebrae_body", None, TaskOptions(split=True))
    folder = small_weights(recipe)
    expected = peer_answer(recipe, folder, "axial", split=True)
    np.testing.assert_array_equal(answer(recipe, folder, "axial").labels, expected)
    assert (peer_answer(recipe, folder, "axial") != expected).any()


def test_parts_are_painted_in_order_and_auxiliary_classes_vanish(small_weights: Callable[[Recipe], Path]) -> None:
    _, total = task_recipe("total", None, TaskOptions())
    first, second = total.parts[0], total.parts[2]
    recipe = replace(total, parts=(first, replace(second, labels={**second.labels, 1: 0})), spacing=(3.0, 3.0, 3.0))
    folder = small_weights(recipe)
    expected = peer_answer(recipe, folder, "axial")
    np.testing.assert_array_equal(answer(recipe, folder, "axial").labels, expected)
    assert {1, 5} & set(np.unique(expected).tolist())
    assert total.labels["heart"] not in expected


# ---------------------------------------------------------------- grid


def test_axes_and_sizes_are_those_of_nibabel() -> None:
    rng = np.random.default_rng(4)
    array = rng.integers(0, 9, (4, 5, 6)).astype(np.int16)
    for _ in range(100):
        rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        affine = np.eye(4)
        affine[:3] = np.column_stack((rotation * rng.uniform(0.5, 3, 3), rng.normal(size=3) * 50))
        source = nib.Nifti1Image(array.transpose(2, 1, 0), affine)
        axes = closest_axes(TO_LPS @ affine)
        canonical = np.asarray(nib.as_closest_canonical(source).dataobj)
        np.testing.assert_array_equal(axes.turn(array), canonical.transpose(2, 1, 0))
        np.testing.assert_array_equal(axes.back(axes.turn(array)), array)
        stored = nib.Nifti1Image.from_bytes(source.to_bytes())
        again = nib.Nifti1Image(np.asarray(stored.dataobj), stored.affine)
        assert voxel_sizes(TO_LPS @ affine) == tuple(float(v) for v in again.header.get_zooms()[::-1])


# ---------------------------------------------------------------- weights that cannot be used


def test_an_empty_crop_is_an_empty_answer_with_its_reason(small_weights: Callable[[Recipe], Path]) -> None:
    _, recipe = task_recipe("liver_vessels", None, TaskOptions())
    assert recipe.crop is not None
    recipe = replace(recipe, crop=replace(recipe.crop, classes=("rib_left_1",)))
    found = answer(recipe, small_weights(recipe), "axial")
    assert not found.labels.any()
    assert found.empty_crop == "total-fastest found none of rib_left_1"


def test_all_missing_weights_are_named_with_address_and_licence(tmp_path: Path) -> None:
    _, recipe = task_recipe("liver_vessels", None, TaskOptions())
    with pytest.raises(UnknownModelError, match=r"NOT_FOUND.*Dataset298_.*Dataset008_HepaticVessel") as raised:
        open_networks(recipe, [tmp_path], REFERENCE)
    assert "v2.4.0-weights/Dataset008_HepaticVessel.zip (Apache-2.0)" in raised.value.hint


def test_weights_with_a_key_are_not_published() -> None:
    _, recipe = task_recipe("face", None, TaskOptions())
    with pytest.raises(UnknownModelError, match=r"data set 303 is not published openly \(key, free for non-commercial"):
        open_networks(recipe, [], REFERENCE)


def test_weights_of_another_trainer_are_another_version(tmp_path: Path) -> None:
    _, recipe = task_recipe("total", "fastest", TaskOptions())
    folder = tmp_path / recipe.parts[0].weights.folder
    write_dataset(folder / "nnUNetTrainer__nnUNetPlans__3d_fullres", 117, (6, 6, 6), seed=1)
    with pytest.raises(ModelError, match=r"BAD_MODEL.*another version.*nnUNetTrainer__nnUNetPlans__3d_fullres"):
        open_networks(recipe, [tmp_path], REFERENCE)


def test_labels_beyond_the_table_are_another_version(tmp_path: Path) -> None:
    _, recipe = task_recipe("body", "fast", TaskOptions())
    weights_ = recipe.parts[0].weights
    write_dataset(tmp_path / weights_.folder / weights_.subfolder, 3, (6, 6, 6), seed=1)
    with pytest.raises(ModelError, match=r"BAD_MODEL.*label 3 \(class_3\).*table of 2 labels"):
        open_networks(recipe, [tmp_path], REFERENCE)


def _named(folder: Path, names: dict[str, int], dataset: str = "") -> None:
    """Give a small data set the names and the data set of another one."""
    described = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(described | {"labels": {"background": 0} | names}))
    plans = json.loads((folder / "plans.json").read_text())
    (folder / "plans.json").write_text(json.dumps(plans | ({"dataset_name": dataset} if dataset else {})))


def test_parts_in_each_others_folders_are_refused(tmp_path: Path) -> None:
    """The muscles have 23 labels, which all fit the table of the 24 organs: nothing but the names tells them apart."""
    _, recipe = task_recipe("total", None, TaskOptions(roi=("spleen",)))
    recipe = replace(recipe, crop=None)
    [organs] = recipe.parts
    _, whole = task_recipe("total", None, TaskOptions())
    muscles = next(part for part in whole.parts if part.weights.name == "294")
    classes = {value: name for name, value in whole.labels.items()}
    names = {classes[to]: value for value, to in muscles.labels.items()}
    folder = tmp_path / organs.weights.folder / organs.weights.subfolder
    write_dataset(folder, len(names), (1.5, 1.5, 1.5), seed=1)
    _named(folder, names, muscles.weights.folder)
    with pytest.raises(ModelError, match=f"files in {organs.weights.folder} are those of {muscles.weights.folder}"):
        check_networks(recipe, [tmp_path])
    _named(folder, names, "Dataset900_Small")
    names_differ, fewer = check_networks(recipe, [tmp_path]).notes
    assert "name 23 of their labels otherwise than the recipe's table" in names_differ
    assert "have 23 labels, and the recipe's table 24: its other classes are absent in every series" in fewer


def test_a_fold_that_is_missing_is_named(tmp_path: Path) -> None:
    _, recipe = task_recipe("body", "fast", TaskOptions())
    weights_ = recipe.parts[0].weights
    write_dataset(tmp_path / weights_.folder / weights_.subfolder, 2, (6, 6, 6), seed=1, folds=("1",))
    with pytest.raises(ModelError, match=r"has no fold 0.*it has: 1"):
        open_networks(recipe, [tmp_path], REFERENCE)


def test_changed_weights_have_another_identity(tmp_path: Path) -> None:
    _, recipe = task_recipe("body", "fast", TaskOptions())
    weights_ = recipe.parts[0].weights
    digests: list[str] = []
    for seed in (1, 2):
        write_dataset(tmp_path / weights_.folder / weights_.subfolder, 2, (6, 6, 6), seed=seed)
        digests.append(open_networks(recipe, [tmp_path], replace(REFERENCE, engine="fast")).sha256)
    other = replace(recipe, version="2.19.0")
    digests.append(open_networks(other, [tmp_path], replace(REFERENCE, engine="fast")).sha256)
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("change", "message"), [({"engine": "x"}, "unknown engine"), ({"probabilities": True}, "keep")]
)
def test_settings_that_recipes_cannot_follow_are_refused(change: dict[str, Any], message: str) -> None:
    _, recipe = task_recipe("body", "fast", TaskOptions())
    with pytest.raises(UsageError, match=f"BAD_SETTINGS.*{message}"):
        open_networks(recipe, [], replace(REFERENCE, **change))
