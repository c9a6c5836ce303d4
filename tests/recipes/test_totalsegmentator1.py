"""Version 1 against label maps that TotalSegmentator 1.5.6 wrote (scripts/make_totalsegmentator1_golden.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from ctenrich.errors import ModelError, UsageError
from ctenrich.inference.products import parse_segmenter
from ctenrich.models.collection import find_data_sets, import_collection
from ctenrich.recipes.executor import run_recipe
from ctenrich.recipes.networks import open_networks
from ctenrich.recipes.recipe import Resampling
from ctenrich.recipes.segmenter import segment_names
from ctenrich.recipes.totalsegmentator import TaskOptions, task_recipe
from ctenrich.recipes.weights import weights_folders
from ctenrich.recipes.zoom import planes_beyond, zoom_cubic, zoom_labels, zoomed_shape
from ctenrich.settings import SegmentSettings
from tests.support.totalsegmentator1_models import write_v1_dataset
from tests.support.totalsegmentator_cases import CASES_1, TASKS_1, PeerCase, affine_ras, image

GOLDEN = Path(__file__).parents[1] / "golden" / "totalsegmentator"
SETTINGS = SegmentSettings(threads=1, device="cpu")
TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TotalSegmentator's folder of results with the data sets of version 1."""
    folder = tmp_path_factory.mktemp("results")
    for name, trainer, labels, spacing, number in TASKS_1:
        where = folder / "nnUNet" / "3d_fullres" / name / f"{trainer}__nnUNetPlansv2.1"
        write_v1_dataset(where, labels, spacing, seed=number)
    return folder


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c.name, marks=[pytest.mark.long] if c.long else []) for c in CASES_1]
)
def test_the_answer_is_that_of_version_1(case: PeerCase, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """0 to 4 voxels differed where the maps were made; nnU-Net v1 added up its tiles in single precision for them."""
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(results))
    expected = np.load(GOLDEN / f"{case.name}.npz")["labels"]
    _, recipe = task_recipe(case.task, case.mode or None, TaskOptions(version="1.5.6", **case.ours))
    networks = open_networks(recipe, weights_folders(), SETTINGS)
    found = run_recipe(recipe, networks, image(), TO_LPS @ affine_ras(case.stack))  # type: ignore[arg-type]
    assert np.unique(expected).size > 20
    assert 0.1 < np.mean(expected > 0) < 0.9
    assert np.count_nonzero(found.labels != expected) <= 2e-4 * expected.size


def test_version_1_has_104_classes_with_codes_and_its_own_product() -> None:
    spec = parse_segmenter("totalsegmentator:total:fast:as=1.5.6")
    name, recipe = task_recipe(spec.model, spec.configuration, TaskOptions(version=spec.options["as"]))
    assert name == "total-fast-1.5.6"
    assert len(segment_names(recipe)) == len(recipe.labels) == 104
    assert (recipe.labels["pulmonary_artery"], recipe.labels["urinary_bladder"]) == (49, 104)
    assert recipe.resampling is Resampling.CUBIC
    with pytest.raises(UsageError, match="no recipe 'body'"):
        task_recipe("body", None, TaskOptions(version="1.5.6"))
    with pytest.raises(UsageError, match=r"1\.4 are not known"):
        task_recipe("total", None, TaskOptions(version="1.4"))


def test_a_subset_runs_the_parts_that_have_it_without_a_crop() -> None:
    name, recipe = task_recipe("total", None, TaskOptions(version="1.5.6", roi=("liver", "heart_atrium_left")))
    assert name == "total-roi-heart_atrium_left-liver-1.5.6"
    assert [part.weights.name for part in recipe.parts] == ["251", "253"]
    assert recipe.crop is None
    with pytest.raises(UsageError, match="no class 'prostate'"):
        task_recipe("total", None, TaskOptions(version="1.5.6", roi=("prostate",)))


def test_networks_of_version_1_are_imported_with_the_names_of_their_classes(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CTENRICH_MODELS", str(tmp_path / "home"))
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(tmp_path / "none"))
    sets = find_data_sets(results)
    assert [p.name for p in sets] == [row[0] for row in TASKS_1]
    [model] = import_collection(sets[-1:])
    assert (model.state, model.error) == ("imported", None)
    _, recipe = task_recipe("total", "fast", TaskOptions(version="1.5.6"))
    assert open_networks(recipe, weights_folders(), SETTINGS).notes == ()
    _, total = task_recipe("total", None, TaskOptions(version="1.5.6"))
    with pytest.raises(ModelError, match=r"NOT_FOUND.*Task251_") as caught:
        open_networks(total, weights_folders(), SETTINGS)
    assert "zenodo.org/record/6802342" in caught.value.hint


@pytest.mark.parametrize("seed", range(12))
def test_cubic_resampling_is_scipys(seed: int) -> None:
    """Also where the last plane of an axis is 0 because its coordinate is rounded up."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(5, 40, 3))
    array = rng.integers(-1024, 2000, shape).astype(np.int16)
    spacing = tuple(float(np.float32(v)) for v in rng.uniform(0.6, 5, 3))
    made = zoom_cubic(array, spacing, (3.0, 3.0, 3.0))  # type: ignore[arg-type]
    zoom = np.array(spacing[::-1]) / 3.0
    expected = ndimage.zoom(array.transpose(2, 1, 0).astype(float), zoom, order=3).astype(np.int32)
    np.testing.assert_array_equal(made, expected.transpose(2, 1, 0))
    assert made.shape == zoomed_shape(shape, spacing, (3.0, 3.0, 3.0))  # type: ignore[arg-type]
    labels = rng.integers(1, 9, made.shape).astype(np.uint8)
    factor = np.array(shape) / np.array(labels.shape)
    back = ndimage.zoom(labels.transpose(2, 1, 0), factor[::-1], order=0).transpose(2, 1, 0)
    np.testing.assert_array_equal(zoom_labels(labels, shape, constant=True), back)


def test_some_axes_end_beyond_their_last_voxel() -> None:
    ends = [planes_beyond(n_in, n_out) for n_in in range(2, 60) for n_out in range(2, 60)]
    assert 0 < sum(len(end) for end in ends) < len(ends)
