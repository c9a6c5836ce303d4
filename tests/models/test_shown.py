"""``models show SEGMENTER``: recipes with their weights, and the code and side of every class of every task."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.support.models_home import in_process
from tests.support.totalsegmentator_models import write_dataset

from ctenrich.codes.describe import describe_task
from ctenrich.codes.tasks import load_tasks, task_classes
from ctenrich.models.library import import_model, show_model
from ctenrich.models.shown import show_segmenter
from ctenrich.recipes.totalsegmentator import DEFAULT_VERSION, task_book

__all__ = ["in_process"]

FASTEST = "Dataset298_TotalSegmentator_total_6mm_1559subj"
VESSELS = "Dataset008_HepaticVessel"
KEY = re.compile(r"(?:^|[_\s])(left|right)(?:[_\s]|$)")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: None) -> Path:
    """An empty folder of models for each test."""
    for name in ("CTENRICH_MODELS", "TOTALSEG_WEIGHTS_PATH"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("name", list(task_book(DEFAULT_VERSION).recipes))
def test_every_class_of_every_task_has_a_code_and_the_side_of_its_name(name: str) -> None:
    rows = show_segmenter(f"totalsegmentator:{name}")["classes"]
    assert rows
    for row in rows:
        assert re.fullmatch(r"\S+ (SCT|DCM|FMA|99CTENRICH) .+", row["code"]), row
        named = KEY.search(row["label"].casefold())
        assert row["side"] == (named.group(1).capitalize() if named else ""), row


@pytest.mark.parametrize("task", [name for name in load_tasks() if name.startswith(("moose:", "lungmask:", "monai:"))])
def test_the_side_of_a_class_of_another_model_is_that_of_its_name(task: str) -> None:
    names = {item.class_name for item in task_classes(task) if not item.auxiliary}
    for found in describe_task(task):
        named = KEY.search(found.label.casefold())
        if found.label in names and named:
            assert found.side == named.group(1).capitalize(), found


def test_a_recipe_names_its_weights_those_that_are_missing_too(tmp_path: Path) -> None:
    trainer = "nnUNetTrainer_4000epochs_NoMirroring__nnUNetPlans__3d_fullres"
    write_dataset(tmp_path / FASTEST / trainer, 117, (6, 6, 6), seed=1)
    import_model(tmp_path / FASTEST)
    shown = show_segmenter("totalsegmentator:liver_vessels")
    assert shown["weights_298"] == f"{FASTEST}, on this machine; Apache-2.0"
    assert shown["weights_8"] == f"{VESSELS}, not on this machine; Apache-2.0"
    assert shown["crop"] == "20 mm around liver of total-fastest"
    assert [row["label"] for row in shown["classes"]] == ["liver_vessels", "liver_tumor"]
    wanted = show_segmenter("totalsegmentator:total:fastest:roi=liver,kidney_left")
    assert [(row["value"], row["side"]) for row in wanted["classes"]] == [("3", "Left"), ("5", "")]


def test_labels_of_published_weights_that_no_mapping_knows_have_the_segments_of_their_recipe(tmp_path: Path) -> None:
    """The data set of the hepatic vessels names its labels otherwise than the task that uses it."""
    write_dataset(tmp_path / VESSELS / "nnUNetTrainer__nnUNetPlans__3d_fullres", 2, (2, 1, 1), seed=2)
    import_model(tmp_path / VESSELS)
    rows = show_model(VESSELS)["classes"]
    assert [row["segment"] for row in rows] == ["liver_vessels", "liver_tumor"]
    assert all(row["code"] for row in rows)
