"""The specifications ``totalsegmentator:...`` and ``recipe:...``, from text to masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ctenrich.errors import InputError, ModelError, UsageError
from ctenrich.inference.kinds import segmenter_kind
from ctenrich.inference.products import parse_segmenter
from ctenrich.recipes.recipe import Recipe
from ctenrich.recipes.segmenter import RecipeSegmenter, open_recipe, segment_names
from ctenrich.recipes.totalsegmentator import TaskOptions, task_recipe
from ctenrich.recipes.weights import weights_folders
from ctenrich.records import Product, Quantity
from ctenrich.settings import SegmentSettings, Settings
from ctenrich.workspace import Workspace, load_array
from tests.support.small_models import any_series, volume_record
from tests.support.totalsegmentator_cases import SPACING, image
from tests.support.totalsegmentator_models import write_dataset

SETTINGS = Settings(segment=SegmentSettings(threads=1, device="cpu"))
OWN = """
format = 1
family = "ours"
version = "3"
[weights.organs]
folder = "Dataset042_Organs"
[recipes.chest]
labels = { heart = 1, aorta = 2 }
spacing = 6
[[recipes.chest.parts]]
weights = "organs"
labels = { heart = 3, aorta = 1 }
"""


def opened(text: str) -> RecipeSegmenter:
    spec = parse_segmenter(text)
    found = segmenter_kind(spec.kind).open(spec, SETTINGS)
    assert isinstance(found, RecipeSegmenter)
    return found


def test_the_options_of_a_task_are_parsed() -> None:
    spec = parse_segmenter("totalsegmentator:total:fast:roi=liver,spleen:crop=robust:split=on:small=200:as=2.18")
    assert (spec.kind, spec.model, spec.configuration) == ("totalsegmentator", "total", "fast")
    expected = {"roi": ("liver", "spleen"), "crop": True, "split": True, "small": 200.0, "as": "2.18"}
    assert spec.options == expected | {"largest": False}
    name, recipe = task_recipe("total", "fast", TaskOptions(largest=True))
    assert (name, recipe.rules[-1].name) == ("total-fast-largest", "largest_component")


@pytest.mark.parametrize("part", ["roi=", "roi=liver,", "crop=yes", "split=maybe", "small=-1", "small=x", "size=3"])
def test_other_options_are_refused_with_the_form(part: str) -> None:
    with pytest.raises(UsageError, match=r"totalsegmentator:TASK\[:fast\|fastest\]"):
        parse_segmenter(f"totalsegmentator:total:{part}")


def test_a_task_that_does_not_exist_is_refused_before_weights_are_looked_for() -> None:
    kind = segmenter_kind("totalsegmentator")
    assert kind.check is not None
    kind.check(parse_segmenter("totalsegmentator:teeth"))
    with pytest.raises(UsageError, match=r"no recipe 'tooth'"):
        kind.check(parse_segmenter("totalsegmentator:tooth"))


def test_a_folder_with_the_name_of_a_task_is_not_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "total").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_segmenter("totalsegmentator:total").model == "total"


def test_a_task_makes_masks_with_model_and_version(
    small_weights: Callable[[Recipe], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, recipe = task_recipe("total", "fastest", TaskOptions())
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(small_weights(recipe)))
    segmenter = opened("totalsegmentator:total:fastest")
    assert str(segmenter.product) == "totalsegmentator:total-fastest"
    assert (segmenter.info.name, segmenter.info.version) == ("TotalSegmentator total-fastest", "2.18.0")
    assert (segmenter.info.licence, segmenter.info.mirror) == ("Apache-2.0", False)
    workspace = Workspace(tmp_path / "run")
    volume = volume_record(image(), SPACING, workspace)
    masks = segmenter.segment({"CT": volume}, any_series(volume), settings=SETTINGS, workspace=workspace)
    assert len(masks.segments) == 117
    assert [s.number for s in masks.segments] == list(range(1, 118))
    assert masks.segments[50].source_label == "heart"
    assert masks.label_map_path is not None
    labels = load_array(workspace.resolve(volume.series_instance_uid, masks.label_map_path))
    assert labels.shape == image().shape
    assert {s.number for s in masks.segments if not s.absent} == set(np.unique(labels).tolist()) - {0}
    assert {"shrink", "network", "paint", "grow"} <= masks.timings.keys()


def test_an_empty_crop_is_an_issue_of_the_masks(small_weights: Callable[[Recipe], Path], tmp_path: Path) -> None:
    name, recipe = task_recipe("total", "fast", TaskOptions(roi=("rib_left_1",)))
    folders = [small_weights(recipe)]
    product = Product("totalsegmentator", name)
    segmenter = open_recipe(recipe, product, settings=SETTINGS, folders=folders)
    workspace = Workspace(tmp_path / "run")
    volume = volume_record(image(), SPACING, workspace)
    masks = segmenter.segment({"CT": volume}, any_series(volume), settings=SETTINGS, workspace=workspace)
    assert [(s.name, s.absent) for s in masks.segments] == [(masks.segments[0].name, True)]
    [issue] = masks.issues
    assert issue.rule == "recipe.crop_empty"
    assert "found none of rib_left_1" in issue.message


def test_a_volume_that_is_not_in_hounsfield_units_is_refused(
    small_weights: Callable[[Recipe], Path], tmp_path: Path
) -> None:
    name, recipe = task_recipe("total", "fastest", TaskOptions())
    folders = [small_weights(recipe)]
    segmenter = open_recipe(recipe, Product("totalsegmentator", name), settings=SETTINGS, folders=folders)
    workspace = Workspace(tmp_path / "run")
    volume = volume_record(image(), SPACING, workspace, quantity=Quantity.UNKNOWN)
    with pytest.raises(InputError, match="WRONG_MODALITY"):
        segmenter.segment({"CT": volume}, any_series(volume), settings=SETTINGS, workspace=workspace)


def test_a_recipe_of_a_user_finds_its_weights_beside_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.toml").write_text(OWN)
    write_dataset(tmp_path / "Dataset042_Organs" / "nnUNetTrainer__nnUNetPlans__3d_fullres", 3, (6, 6, 6), seed=7)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"label 2 \(class_2\).*table of 2 labels"):
        opened("recipe:own.toml")
    (tmp_path / "own.toml").write_text(OWN.replace("{ heart = 3, aorta = 1 }", "{ heart = 2, aorta = 1 }"))
    write_dataset(tmp_path / "Dataset042_Organs" / "nnUNetTrainer__nnUNetPlans__3d_fullres", 2, (6, 6, 6), seed=7)
    segmenter = opened("recipe:own.toml:chest")
    assert str(segmenter.product) == "recipe:chest"
    assert [name for _, name, _ in segmenter.names] == ["heart", "aorta"]
    with pytest.raises(UsageError, match=r"no recipe 'chst'.*did you mean chest"):
        opened("recipe:own.toml:chst")


def test_a_class_without_a_code_is_named() -> None:
    _, recipe = task_recipe("total", None, TaskOptions())
    with pytest.raises(ModelError, match=r"UNMAPPED_LABEL.*'left thing' of total"):
        segment_names(replace(recipe, labels={"heart": 1, "left thing": 2}))


def test_weights_are_looked_for_among_imported_models_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTENRICH_MODELS", str(tmp_path / "own"))
    monkeypatch.delenv("TOTALSEG_WEIGHTS_PATH", raising=False)
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(tmp_path / "peer"))
    inner = tmp_path / "own" / "imported" / "weights"
    inner.mkdir(parents=True)
    peer = tmp_path / "peer" / "nnunet" / "results"
    assert weights_folders() == (inner.parent, inner, peer, peer / "nnUNet" / "3d_fullres")
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(tmp_path / "else"))
    assert weights_folders()[-2] == tmp_path / "else"
