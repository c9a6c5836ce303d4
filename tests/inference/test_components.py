"""The largest component of each class: what stays, and what the masks of a product state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.support.report_runs import make_run, uid_of

from ctenrich.inference.components import keep_largest_component
from ctenrich.inference.segmentation import CtAnswer, segment_ct
from ctenrich.masks import full_mask
from ctenrich.records import ModelInfo, Product, ProductKind, Volume
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace


def test_only_the_largest_component_by_faces_stays() -> None:
    labels = np.zeros((4, 6, 6), np.uint8)
    labels[0, :3, :3] = 1
    labels[1, 3, 3] = 1  # touches by a corner only
    labels[3, 0, 0] = 2
    assert keep_largest_component(labels, 1) == 1
    assert keep_largest_component(labels, 2) == 0
    assert keep_largest_component(labels, 3) == 0
    assert (int((labels == 1).sum()), int((labels == 2).sum())) == (9, 1)


def test_masks_without_islands_have_a_note_for_each_class_that_lost_voxels(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 1)
    volume = _volume(run)
    product = Product(ProductKind.NNUNET, "m", "3d_fullres", ("0",), largest_component=True)

    def label(volume: Volume, _: object) -> CtAnswer:
        labels = np.zeros(volume.shape, np.uint8)
        labels[2:6, 2:6, 2:6] = 1
        labels[9, 9, 9] = 1
        labels[12:14, 2:4, 2:4] = 2
        return CtAnswer(labels=labels, classes=((1, "heart", "heart"), (2, "aorta", "aorta")))

    model = ModelInfo("m", "1", "00" * 32)
    masks = segment_ct({"CT": volume}, run, product, model, label)
    assert [(segment.name, segment.voxels) for segment in masks.segments] == [("heart", 64), ("aorta", 8)]
    assert not full_mask(masks, 1, run)[9, 9, 9]
    (note,) = masks.issues
    assert (note.rule, note.object) == ("segment.largest_component", "heart")
    assert "1 voxel beside the largest component removed, 64 kept" in note.message


def _volume(run: Workspace) -> Volume:
    found = SeriesStore(run).find_valid(Volume, uid_of(0))
    assert found is not None
    return found
