"""MOOSE's models against label maps that MOOSE 3.2.2 wrote (scripts/make_moose_golden.py)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ctenrich.errors import ModelError, UsageError
from ctenrich.inference.kinds import segmenter_kind
from ctenrich.inference.products import parse_segmenter
from ctenrich.recipes.executor import RecipeResult, run_recipe
from ctenrich.recipes.kind import recipe_of_spec
from ctenrich.recipes.moose import moose_book
from ctenrich.recipes.moose_grid import in_pieces, resample_blocks
from ctenrich.recipes.networks import open_networks
from ctenrich.recipes.postprocess import keep_band
from ctenrich.recipes.recipe import Recipe
from ctenrich.recipes.segmenter import segment_names
from ctenrich.settings import SegmentSettings
from tests.support.moose_cases import CASES, FOLDERS, PATCH, SEEDS, TRAINER, MooseCase
from tests.support.totalsegmentator_cases import affine_ras
from tests.support.totalsegmentator_models import phantom, write_dataset

GOLDEN = Path(__file__).parents[1] / "golden" / "moose"
REFERENCE = SegmentSettings(engine="reference", threads=1, device="cpu")
TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MOOSE's folder of models."""
    home = tmp_path_factory.mktemp("moose")
    for number, (model, (folder, labels, spacing, folds)) in enumerate(FOLDERS.items()):
        seed = SEEDS.get(model, number + 1)
        write_dataset(home / folder / TRAINER, labels, spacing, seed=seed, patch=PATCH, folds=folds)
    return home


def answer(recipe: Recipe, models: Path, case: MooseCase) -> RecipeResult:
    networks = open_networks(recipe, [models], REFERENCE)
    return run_recipe(recipe, networks, case.image, TO_LPS @ affine_ras(case.stack))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c.name, marks=[pytest.mark.long] if c.long else []) for c in CASES]
)
def test_the_answer_is_that_of_moose(case: MooseCase, models: Path) -> None:
    """No voxel differs on the machine that made the maps; another processor may round a few scores otherwise."""
    expected = np.load(GOLDEN / f"{case.name}.npz")["labels"]
    found = answer(moose_book().find(case.model), models, case)
    assert np.unique(expected).size > 2
    assert np.count_nonzero(found.labels != expected) <= 1e-4 * expected.size


def test_all_clinical_ct_models_are_known_with_codes_and_licence() -> None:
    book = moose_book()
    assert len(book.recipes) == 20
    for recipe in book.recipes.values():
        assert segment_names(recipe)
        [part] = recipe.parts
        assert part.mirror
        assert part.weights.licence
        assert part.weights.url.startswith("https://")
    spec = parse_segmenter("moose:clin_ct_organs")
    assert recipe_of_spec(spec).parts[0].weights.folder == "Dataset123_Organs"
    kind = segmenter_kind("moose")
    assert kind.check is not None
    with pytest.raises(UsageError, match=r"no recipe 'clin_ct_organ'.*clin_ct_organs"):
        kind.check(parse_segmenter("moose:clin_ct_organ"))


def test_weights_that_name_their_classes_otherwise_are_another_version(tmp_path: Path) -> None:
    recipe = moose_book().find("clin_ct_lungs")
    folder = tmp_path / recipe.parts[0].weights.folder / TRAINER
    write_dataset(folder, len(recipe.labels), (3, 3, 3), seed=1, patch=PATCH)
    first, second, *_ = recipe.labels
    path = folder / "dataset.json"
    path.write_text(path.read_text().replace('"class_1"', f'"{second}"').replace('"class_2"', f'"{first}"'))
    with pytest.raises(ModelError, match=r"BAD_MODEL.*another number than the recipe's table"):
        open_networks(recipe, [tmp_path], REFERENCE)


def test_without_the_vertebrae_body_composition_is_empty(models: Path) -> None:
    recipe = moose_book().find("clin_ct_body_composition")
    assert recipe.crop is not None
    assert recipe.crop.classes == ("vertebra_L1", "vertebra_L2", "vertebra_L3", "vertebra_L4", "vertebra_L5")
    recipe = replace(recipe, crop=replace(recipe.crop, classes=("vertebra_C7",)))
    found = answer(recipe, models, MooseCase(name="empty", model=recipe.name, shape=(8, 10, 12)))
    assert not found.labels.any()
    assert found.empty_crop == "clin_ct_fast_vertebrae found none of vertebra_C7"


def test_pieces_cover_an_image_once_and_read_their_neighbours() -> None:
    image = np.arange(3 * 1051, dtype=np.int32).reshape(3, 1, 1051)
    read: list[int] = []

    def make(piece: np.ndarray) -> np.ndarray:
        read.append(piece.shape[2])
        return (piece % 251).astype(np.uint8)

    np.testing.assert_array_equal(in_pieces(image, make), image % 251)
    assert read == [263 + 20, 263 + 40, 263 + 40, 262 + 20]


def test_an_axis_that_cannot_be_divided_is_one_block() -> None:
    whole = phantom((4, 4, 301))  # 301 = 7 * 43
    assert resample_blocks(whole, (2, 2, 2), (2, 2, 1)).shape == (4, 4, 602)
    assert resample_blocks(phantom((4, 4, 304)), (2, 2, 1.0), (2, 2, 3.0)).shape == (4, 4, 2 * round(152 / 3))


def test_a_band_is_that_of_the_largest_component() -> None:
    labels = np.ones((8, 3, 3), np.uint8)
    mask = np.zeros_like(labels, bool)
    mask[1, 0, 0] = mask[4:6, 1, 1] = True
    assert np.flatnonzero(keep_band(labels, mask, 0).any(axis=(1, 2))).tolist() == [4, 5]
    assert keep_band(labels, np.zeros_like(mask), 0) is labels
