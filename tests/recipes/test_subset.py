"""A subset of a task's classes becomes a SEG, whose segment numbers may have no gaps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest

from ctenrich.encode.seg import encode_seg
from ctenrich.recipes import segmenter as module
from ctenrich.recipes.executor import RecipeResult
from ctenrich.recipes.segmenter import RecipeSegmenter, segment_names
from ctenrich.recipes.totalsegmentator import TaskOptions, task_recipe
from ctenrich.records import Quantity
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace, save_array
from tests.support.encode_cases import MODEL, NNUNET, make_series


def test_classes_of_interest_are_numbered_from_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(tmp_path / "run")
    series, volume = make_series(tmp_path / "ct")
    volume = replace(volume, quantity=Quantity.HU)
    save_array(workspace.resolve(series.series_instance_uid, volume.array_path), np.zeros(series.shape, np.int16))
    labels = np.zeros(series.shape, np.uint8)
    labels[2:5, 4:9, 5:11], labels[7:9, 20:30, 3:8] = 51, 5
    monkeypatch.setattr(module, "run_recipe", lambda *_args, **_options: RecipeResult(labels=labels))
    _, recipe = task_recipe("total", "fast", TaskOptions(roi=("liver", "heart", "spleen")))
    networks: Any = SimpleNamespace(notes=())
    subset = RecipeSegmenter(NNUNET, MODEL, segment_names(recipe), recipe, networks)
    options = {"settings": Settings(), "workspace": workspace}
    masks = subset.segment({"CT": volume}, series, **options)
    assert [(s.number, s.name, s.voxels) for s in masks.segments] == [
        (1, "spleen", 0),
        (2, "liver", 100),
        (3, "heart", 90),
    ]
    seg = encode_seg(masks, volume, series, **options)
    dataset = pydicom.dcmread(workspace.resolve(series.series_instance_uid, seg.path))
    assert [(s.SegmentNumber, s.SegmentedPropertyTypeCodeSequence[0].CodeMeaning) for s in dataset.SegmentSequence] == [
        (1, "Spleen"), (2, "Liver"), (3, "Heart"),
    ]  # fmt: skip
