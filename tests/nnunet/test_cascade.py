"""Cascades against nnunetv2's own functions, and v1's removal of small components."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.float32_predictor import Float32Predictor
from numpy.typing import NDArray
from tests.support.nnunet_engines import FAST
from tests.support.small_models import smooth_volume, v2_dataset, v2_plans, write_v2

from ctenrich.inference.registry import resolve_model
from ctenrich.nnunet.cascade import keep_largest
from ctenrich.nnunet.plans import ModelPlan, parse_v2
from ctenrich.nnunet.preprocess import Axes
from ctenrich.nnunet.reference import ReferenceEngine
from ctenrich.nnunet.segmenter import open_nnunet
from ctenrich.nnunet.store import load_weights, prepare
from ctenrich.settings import Settings


def test_cascades_equal_the_reference(tmp_path: Path) -> None:
    """Both stages, the second with the labels of the first as channels, put together from nnunetv2's own functions."""
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot

    low, full = v2_plans(configuration={"spacing": [6.0, 4.0, 4.0]}), v2_plans()
    low["configurations"] = {"3d_lowres": low["configurations"]["3d_fullres"]}
    second = full["configurations"]["3d_fullres"] | {"previous_stage": "3d_lowres"}
    full["configurations"] = {"3d_cascade_fullres": second}
    write_v2(tmp_path / "m" / "low", low)
    write_v2(tmp_path / "m" / "full", full)
    array, spacing = smooth_volume((18, 40, 36), 3), (3.0, 1.3, 1.2)
    array[:, :4] = 0
    segmenter = open_nnunet(str(tmp_path / "m"), configuration="3d_cascade_fullres", settings=Settings(segment=FAST))
    ours = segmenter.label(array, Axes((0, 1, 2), ()), spacing).labels

    stored = prepare(resolve_model(str(tmp_path / "m")))
    stages = {}
    for name in ("3d_lowres", "3d_cascade_fullres"):
        weights = {"0": load_weights(stored, name, "0")}
        source = stored.meta["configurations"][name]
        stages[name] = ReferenceEngine(stored.plan(name), source, weights, FAST, True, Float32Predictor)
    first = stages["3d_lowres"].label(array, spacing).labels
    last = stages["3d_cascade_fullres"]
    data, seg, properties = DefaultPreprocessor(verbose=False).run_case_npy(
        array[None].astype(np.float32), first[None].astype(np.int16), {"spacing": list(spacing)},
        last.plans, last.configuration, last.dataset,
    )  # fmt: skip
    channels = convert_labelmap_to_one_hot(seg[0], [1, 2, 3], data.dtype)
    logits = last.predictor.predict_logits_from_preprocessed_data(torch.from_numpy(np.vstack((data, channels))))
    theirs = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, last.plans, last.configuration, last.predictor.label_manager, properties
    )
    assert len(np.unique(theirs)) > 2
    assert int((ours != theirs).sum()) <= 1


def plan_with(sets: tuple[tuple[int, ...], ...], minimum: dict[str, float] | None = None) -> ModelPlan:
    plan = parse_v2(v2_plans(), v2_dataset(), "3d_fullres", ())
    return replace(plan, keep_largest=sets, minimum_volume=minimum)


def blobs() -> NDArray[np.uint8]:
    """Label 1: 8, 2 and 8 voxels; label 2 touches the small part of label 1 by a face, and the first by a corner."""
    labels = np.zeros((4, 8, 12), np.uint8)
    labels[0:2, 0:2, 0:2] = 1
    labels[0, 5, 5:7] = 1
    labels[2:4, 6:8, 10:12] = 1
    labels[0, 5, 7:9] = 2
    labels[2, 2, 2] = 2
    return labels


def counts(labels: NDArray[np.uint8]) -> tuple[int, int]:
    return int((labels == 1).sum()), int((labels == 2).sum())


def test_only_the_largest_components_stay() -> None:
    assert counts(keep_largest(blobs(), plan_with(((1,),)), (1.0, 1.0, 1.0))) == (16, 3)
    assert counts(keep_largest(blobs(), plan_with(((2,),)), (1.0, 1.0, 1.0))) == (18, 2)
    assert counts(keep_largest(blobs(), plan_with(((1, 2),)), (1.0, 1.0, 1.0))) == (16, 0)


@pytest.mark.parametrize(("voxel", "kept"), [(4.9, 16), (5.0, 18)])
def test_components_that_are_large_enough_stay(voxel: float, kept: int) -> None:
    """The second component of label 1 has two voxels; 10 mm3 are enough."""
    plan = plan_with(((1,),), {"1": 10.0})
    assert counts(keep_largest(blobs(), plan, (voxel, 1.0, 1.0)))[0] == kept
