"""The demonstration models on phantoms that they have not seen: good enough for what the demo promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from scripts.measure_demo_models import ORGANS, Measured, held_out_options, measurer

from ctenrich.bodypart.scorer import open_bodypart
from ctenrich.inference.registry import resolve_model
from ctenrich.nnunet.conventions import Conventions
from ctenrich.nnunet.segmenter import open_nnunet
from ctenrich.phantom import PhantomOptions, make_phantom
from ctenrich.settings import Settings

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def measure():
    return measurer()


def check(result: Measured) -> None:
    assert {name: result.dice[name] >= 0.85 for name in ORGANS} == dict.fromkeys(ORGANS, True), result.dice
    assert len(result.slices_off) >= 10
    assert max(result.slices_off.values()) <= 2, result.slices_off
    assert {"lung_start", "lung_end"} <= set(result.slices_off)
    assert result.rising


@pytest.mark.long
def test_one_patient(measure) -> None:
    check(measure(make_phantom(held_out_options(1))))


def test_stored_upside_down_and_mirrored(measure) -> None:
    options = PhantomOptions(seed=21, pixel_spacing=(2.6, 2.6), slice_spacing=4.0, slices=82)
    check(measure(make_phantom(options.oriented("axial_PL", extent=(400.0, 400.0, 328.0)))))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 5))
def test_more_patients(measure, seed: int) -> None:
    check(measure(make_phantom(held_out_options(seed))))


def test_they_are_small_and_explained() -> None:
    total = 0
    for name in ("demo-organs", "demo-bodypart"):
        folder = resolve_model(name).folder
        total += sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        card = (folder / "MODEL_CARD.md").read_text("utf-8")
        assert "for demonstration only" in card
        assert "phantom" in card
    assert total < 8 * MEGABYTE


def test_labels_are_those_of_the_card() -> None:
    labels = json.loads((resolve_model("demo-organs").folder / "dataset.json").read_text("utf-8"))["labels"]
    assert labels == {"background": 0, "esophagus": 1, "heart": 2, "trachea": 3, "aorta": 4}


def test_training_patients_are_not_held_out_ones() -> None:
    from scripts.demo_patients import FIRST_SEED, random_options

    trained = {random_options(n, low=-200, high=100, spacing=(2.0, 3.0)).seed for n in (0, 1, 69, 5000, 5159)}
    assert min(trained) >= FIRST_SEED > 9999
    assert held_out_options(8).seed < FIRST_SEED


@pytest.mark.long
def test_the_training_script_writes_models_that_open(tmp_path: Path) -> None:
    courses = ["organs", "organs-polish", "bodypart", "bodypart-upright"]
    command = [sys.executable, "-m", "scripts.train_demo_models", *courses, "--quick", "--out", str(tmp_path)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2], timeout=300)
    settings = Settings()
    segmenter = open_nnunet(
        str(tmp_path / "demo-organs"),
        configuration=None,
        folds=None,
        mirror=True,
        conventions=Conventions(axes="LPS"),
        settings=settings,
    )
    assert str(segmenter.product) == "nnunet:demo-organs:3d_fullres:0:mirror"
    scorer = open_bodypart(str(tmp_path / "demo-bodypart"), settings=settings)
    assert scorer.info.sha256 != open_bodypart("demo-bodypart", settings=settings).info.sha256
