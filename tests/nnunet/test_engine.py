"""Our engine gives what nnunetv2's predictor gives in single precision, for every kind of plan; and its parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.support.nnunet_engines import engines
from tests.support.small_models import CT, residual_plans, smooth_volume, v2_dataset, v2_plans, write_v2

from ctenrich.errors import UsageError
from ctenrich.nnunet import sliding_window
from ctenrich.nnunet.engine import Engine
from ctenrich.nnunet.segmenter import open_nnunet
from ctenrich.reasons import Reason
from ctenrich.settings import SegmentSettings, Settings


def agree(folder: Path, array: NDArray[Any], spacing: tuple[float, ...], mirror: bool = True) -> None:
    ours, theirs = (e.label(array, spacing).labels for e in engines(folder, mirror))
    assert len(np.unique(theirs)) > 2, "the test network says too little"
    assert int((ours != theirs).sum()) <= max(1, theirs.size // 1_000_000)


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[float, float, float]]] = {
    "together": ({}, {}, (3.0, 1.3, 1.2)),
    "separate z": ({}, {}, (5.0, 1.1, 1.2)),
    "target anisotropic": ({"configuration": {"spacing": [7.0, 2.0, 2.0]}}, {}, (2.0, 1.3, 1.2)),
    "other axis apart": ({}, {}, (1.0, 1.2, 4.5)),
    "no resampling": ({}, {}, (4.0, 2.0, 2.0)),
    "transposed": ({"transpose_forward": [1, 2, 0], "transpose_backward": [2, 0, 1]}, {}, (1.5, 3.0, 1.4)),
    "z score": ({"configuration": {"normalization_schemes": ["ZScoreNormalization"]}}, {}, (3.0, 1.3, 1.2)),
    "regions": (
        {},
        {
            "labels": {"background": 0, "heart": [1, 2, 3], "aorta": [2, 3], "trachea": 3},
            "regions_class_order": [1, 2, 3],
        },
        (3.0, 1.3, 1.2),
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_labels_equal_the_reference(tmp_path: Path, case: str) -> None:
    change, dataset, spacing = CASES[case]
    write_v2(tmp_path / "m", v2_plans(**change), v2_dataset(**dataset))
    array = smooth_volume((18, 40, 36), seed=1)
    array[:, :3] = 0
    array[-1:] = 0
    agree(tmp_path / "m", array, spacing)


def test_two_dimensions_folds_and_no_mirrors(tmp_path: Path) -> None:
    write_v2(tmp_path / "flat", v2_plans(2), folds=("0", "1"))
    agree(tmp_path / "flat", smooth_volume((6, 40, 44), 2), (3.0, 1.2, 1.3))
    write_v2(tmp_path / "deep", folds=("0", "1", "2"))
    agree(tmp_path / "deep", smooth_volume((18, 40, 36), 2), (3.0, 1.2, 1.3), mirror=False)


def test_volume_smaller_than_the_patch(tmp_path: Path) -> None:
    write_v2(tmp_path / "m")
    agree(tmp_path / "m", smooth_volume((3, 20, 22), 4), (4.0, 2.0, 2.0))


DIRECT: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[float, float, float]]] = {
    "plain": ({}, {}, (4.0, 2.0, 2.0)),
    "regions": (CASES["regions"][0], CASES["regions"][1], (4.0, 2.0, 2.0)),
    "transposed": ({"transpose_forward": [1, 2, 0], "transpose_backward": [2, 0, 1]}, {}, (2.0, 4.0, 2.0)),
}


@pytest.mark.parametrize("shape", [(18, 40, 36), (3, 20, 22)])
@pytest.mark.parametrize("case", list(DIRECT))
def test_labels_on_the_networks_grid_need_no_scores_of_the_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, shape: tuple[int, int, int]
) -> None:
    """Bit for bit the labels of the whole volume's scores, which are never made: they are most of the memory."""
    change, dataset, spacing = DIRECT[case]
    write_v2(tmp_path / "m", v2_plans(**change), v2_dataset(**dataset))
    array = smooth_volume(shape, seed=1)
    array[:, :3] = 0
    for mirror in (True, False):
        engine, _ = engines(tmp_path / "m", mirror)
        with monkeypatch.context() as whole:
            whole.setattr(Engine, "_labels_directly", lambda *_: False)
            wanted = engine.label(array, spacing).labels
        with monkeypatch.context() as direct:
            direct.setattr(sliding_window, "_predict_tiles", None)
            found = engine.label(array, spacing).labels
        assert len(np.unique(wanted)) > 2
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)


def test_batch_threads_and_repetition_do_not_matter(tmp_path: Path) -> None:
    write_v2(tmp_path / "m", folds=("0", "1"))
    array = smooth_volume((18, 40, 36), 5)
    answers = [
        engines(tmp_path / "m", settings=SegmentSettings(batch_size=batch, threads=threads))[0].label(
            array, (3.0, 1.2, 1.3)
        )
        for batch, threads in ((1, 1), (1, 1), (1, 2), (3, 1), (16, 2))
    ]
    assert all(int((a.labels != answers[0].labels).sum()) <= 1 for a in answers)
    assert np.array_equal(answers[0].labels, answers[1].labels)
    assert np.array_equal(answers[0].labels, answers[2].labels)
    assert set(answers[0].agreement) == {1, 2, 3}
    assert all(0 <= v <= 1 for v in answers[0].agreement.values())


@pytest.mark.parametrize("value", [50, -1024, 3071])
def test_constant_volumes_equal_the_reference(tmp_path: Path, value: int) -> None:
    write_v2(tmp_path / "m")
    array = np.full((6, 20, 22), value, np.int16)
    ours, theirs = (engine.label(array, (4.0, 2.0, 2.0)).labels for engine in engines(tmp_path / "m"))
    np.testing.assert_array_equal(ours, theirs)


def test_a_volume_of_zeros_is_not_cropped_away(tmp_path: Path) -> None:
    """There is nothing to crop to: the network sees every voxel, each with the normalised value of 0 HU."""
    write_v2(tmp_path / "m")
    engine, _ = engines(tmp_path / "m", mirror=False)
    shape = (8, 32, 32)
    labels = engine.label(np.zeros(shape, np.int16), (4.0, 2.0, 2.0)).labels
    normalised = torch.full((1, *shape), (0.0 - CT["mean"]) / CT["std"])
    (network,) = engine.networks.values()
    scores = sliding_window.predict(engine.plan, network, normalised, engine.window)
    np.testing.assert_array_equal(labels, scores.argmax(0).numpy())


def test_bf16_stays_near(tmp_path: Path) -> None:
    write_v2(tmp_path / "m")
    array = smooth_volume((18, 40, 36), 6)
    exact = engines(tmp_path / "m")[0].label(array, (3.0, 1.2, 1.3)).labels
    rough = engines(tmp_path / "m", settings=SegmentSettings(precision="bf16", threads=1))[0].label(
        array, (3.0, 1.2, 1.3)
    )
    assert 0 < float((rough.labels == exact).mean()) >= 0.97


@pytest.mark.parametrize("change", [{"device": "tpu"}, {"device": "cuda:99"}, {"precision": "fp8"}])
@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_devices_and_precisions_are_checked(tmp_path: Path, change: dict[str, str], engine: str) -> None:
    write_v2(tmp_path / "m")
    wanted = Settings(segment=SegmentSettings(engine=engine, threads=1, **change))  # type: ignore[arg-type]
    with pytest.raises(UsageError) as caught:
        open_nnunet(str(tmp_path / "m"), settings=wanted)
    assert caught.value.reason is Reason.BAD_SETTINGS


def test_residual_encoders_run(tmp_path: Path) -> None:
    write_v2(tmp_path / "m", residual_plans())
    agree(tmp_path / "m", smooth_volume((10, 30, 30), 8), (4.0, 1.5, 1.5))
