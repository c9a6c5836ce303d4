"""The network of body part regression: as bpreg runs it, built from its state dict and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.bodypart_cases import affine
from tests.support.bodypart_golden import state, volumes

from ctenrich.bodypart.images import ImageMaker, plan_images
from ctenrich.bodypart.network import BodyPartNetwork, network_from_state
from ctenrich.errors import ModelError
from ctenrich.reasons import Reason

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "bodypart.json").read_text())
VOLUMES = sorted(volumes())
AXIAL = {"row": (1, 0, 0), "column": (0, 1, 0)}
WIDTHS = (4, 4, 6, 6, 8, 8, 8, 8, 8, 8, 8, 8, 8)


def test_network_as_bpreg_runs_it() -> None:
    network = network_from_state({k: torch.from_numpy(v) for k, v in state().items()})
    for name in VOLUMES[:2]:
        array, spacing = volumes()[name]
        images, _ = ImageMaker(array, plan_images(array.shape, affine(**AXIAL, spacing=spacing))).images(0, 8)  # type: ignore[arg-type]
        with torch.inference_mode():
            ours = network(torch.from_numpy(images)[:, None]).numpy()
        np.testing.assert_allclose(ours, GOLDEN["images"][name]["raw"], atol=1e-4)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda s: s.pop("model.28.weight"), "model.28.weight"),
        (lambda s: s.pop("fc7.bias"), "fc7.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "extra"),
        (lambda s: s.update({"model.0.bias": torch.zeros(4)}), "model.0.bias"),
        (lambda s: s.update({"conv6.weight": torch.zeros(8, 7, 1, 1)}), "conv6.weight"),
        (lambda s: s["fc7.weight"].fill_(float("nan")), "not numbers"),
    ],
)
def test_keys_are_strict(change: Callable[[dict[str, torch.Tensor]], object], word: str) -> None:
    weights = BodyPartNetwork(WIDTHS, 8).state_dict()
    change(weights)
    with pytest.raises(ModelError, match=word) as caught:
        network_from_state(weights)
    assert caught.value.reason is Reason.BAD_MODEL


def test_keys_are_those_of_vgg16() -> None:
    """VGG16 counts convolutions, activations and poolings in one row; the first convolution has no bias."""
    keys = BodyPartNetwork(WIDTHS, 8).state_dict().keys()
    convolutions = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    wanted = {f"model.{n}.weight" for n in convolutions} | {f"model.{n}.bias" for n in convolutions[1:]}
    assert set(keys) == wanted | {"conv6.weight", "conv6.bias", "fc7.weight", "fc7.bias"}


def test_a_network_has_thirteen_convolutions() -> None:
    with pytest.raises(ValueError, match="13"):
        BodyPartNetwork(WIDTHS[:-1], 8)
