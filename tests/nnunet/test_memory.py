"""A volume whose scores cannot fit is refused before the network runs, and only then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.small_models import any_series, smooth_volume, v2_plans, volume_record, write_v2

from ctenrich.errors import InputError
from ctenrich.nnunet.engine import Engine
from ctenrich.nnunet.memory import check_memory, device_memory, score_bytes
from ctenrich.nnunet.preprocess import to_network
from ctenrich.nnunet.segmenter import NnunetSegmenter, open_nnunet
from ctenrich.reasons import Reason
from ctenrich.settings import RunSettings, SegmentSettings, Settings
from ctenrich.workspace import Workspace

CPU = torch.device("cpu")
SHAPE, SPACING = (18, 40, 36), (3.0, 1.2, 1.3)


def opened(folder: Path, dims: int = 3, **change: Any) -> NnunetSegmenter:
    write_v2(folder, v2_plans(dims, **change), folds=("0", "1"))
    return open_nnunet(str(folder), settings=Settings(segment=SegmentSettings(threads=1)))


@pytest.mark.parametrize(
    ("dims", "change"), [(3, {}), (2, {}), (3, {"transpose_forward": [1, 0, 2], "transpose_backward": [1, 0, 2]})]
)
def test_the_forecast_has_the_shape_of_the_networks_grid(tmp_path: Path, dims: int, change: dict[str, Any]) -> None:
    plan = opened(tmp_path / "model", dims, **change).engines[0].plan
    data, _ = to_network(smooth_volume(SHAPE, 1), SPACING, plan, CPU)
    scores = 4 * data.numel() * plan.network.classes
    assert score_bytes(plan, SHAPE, SPACING, 1) == 2 * 4 * data.numel() + scores
    assert score_bytes(plan, SHAPE, SPACING, 5) == 2 * 4 * data.numel() + 2 * scores


def segment(segmenter: NnunetSegmenter, array: Any, workspace: Workspace, limit: int) -> None:
    record = volume_record(array, SPACING, workspace)
    settings = Settings(segment=SegmentSettings(threads=1), run=RunSettings(memory_limit=limit))
    segmenter.segment({"CT": record}, any_series(record), settings=settings, workspace=workspace)


def test_what_cannot_fit_is_refused_before_the_network_runs(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = opened(tmp_path / "model")
    need = score_bytes(segmenter.engines[0].plan, SHAPE, SPACING, 2)
    array = smooth_volume(SHAPE, 1)
    assert (array != 0).any(axis=(1, 2)).all()
    segment(segmenter, array, workspace, need)

    def label(*_: object, **__: object) -> None:
        raise AssertionError("the network ran")

    monkeypatch.setattr(Engine, "label", label)
    with pytest.raises(InputError) as caught:
        segment(segmenter, array, workspace, need // 2)
    assert caught.value.reason is Reason.OUT_OF_MEMORY
    assert "18 x 40 x 36" in caught.value.message
    assert "memory_limit" in caught.value.hint


def test_empty_parts_of_a_volume_do_not_count(tmp_path: Path) -> None:
    plan = opened(tmp_path / "model").engines[0].plan
    array = np.zeros(SHAPE, np.int16)
    array[:9, :20] = 40
    half = score_bytes(plan, (9, 20, 36), SPACING, 1)
    check_memory(plan, array, SPACING, folds=1, limits=(half,))
    with pytest.raises(InputError, match="9 x 20 x 36"):
        check_memory(plan, array, SPACING, folds=1, limits=(half - 1,))


def test_either_memory_is_enough(tmp_path: Path) -> None:
    plan = opened(tmp_path / "model").engines[0].plan
    array = smooth_volume(SHAPE, 1)
    need = score_bytes(plan, SHAPE, SPACING, 1)
    check_memory(plan, array, SPACING, folds=1, limits=(1, need))
    check_memory(plan, array, SPACING, folds=1, limits=(need, 0))
    with pytest.raises(InputError):
        check_memory(plan, array, SPACING, folds=1, limits=(1, 0))
    assert device_memory(CPU) == 0
