"""Small weights of networks other than nnU-Net, in their own formats, for tests and for their own packages.

scripts/make_networks_golden.py gives the same weights and volumes to lungmask and MONAI.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.totalsegmentator_cases import SPACING

SHAPE = (8, 44, 52)
"""Slices, rows and columns of the chest of all cases."""


def chest() -> NDArray[np.int16]:
    """HU values [k, j, i]: a body with two lungs, vessels, a table below, noise."""
    rng = np.random.default_rng(11)
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    out = np.full(SHAPE, -1000.0)
    out[(j / 0.72) ** 2 + (i / 0.88) ** 2 < 1] = 40
    for side, radius in ((-0.42, 0.34), (0.42, 0.3)):
        lung = ((i - side) / radius) ** 2 + ((j + 0.05) / 0.5) ** 2 + (k / 1.4) ** 2 < 1
        out[lung] = -840
        out[lung & (((i - side) * 9) % 2 + ((j + k) * 9) % 2 < 0.4)] = 20
    out[(abs(j - 0.86) < 0.03) & (abs(i) < 0.7)] = 300
    return np.clip(out + rng.normal(scale=30, size=SHAPE), -1024, 2000).astype(np.int16)


# ---------------------------------------------------------------- lungmask


@dataclass(frozen=True, kw_only=True)
class LungmaskCase:
    """One task of lungmask on one stack."""

    name: str
    task: str
    stack: str = "lps"


LUNGMASK_CASES = (
    LungmaskCase(name="r231", task="R231"),
    LungmaskCase(name="r231-oblique", task="R231", stack="oblique"),
    LungmaskCase(name="r231-coronal", task="R231", stack="coronal"),
    LungmaskCase(name="r231-feet-first", task="R231", stack="feet-first"),
    LungmaskCase(name="r231-reversed", task="R231", stack="reversed"),
    LungmaskCase(name="lobes", task="LTRCLobes"),
    LungmaskCase(name="lobes-fused", task="LTRCLobes_R231", stack="reversed"),
)

LUNGMASK_CLASSES = {"R231": 3, "R231CovidWeb": 3, "LTRCLobes": 6}
_WIDTH = 2


def lungmask_arrays(model: str, width: int = _WIDTH) -> dict[str, NDArray[np.float32]]:
    """Tensors of a narrow U-Net with lungmask's names, the same on every machine.

    The last layer is set so that the classes share the values that the layer before it gives.
    """
    classes = LUNGMASK_CLASSES[model]
    rng = np.random.default_rng(72 if classes == 6 else classes)
    out: dict[str, NDArray[Any]] = {}

    def conv(name: str, outputs: int, inputs: int, size: int) -> None:
        scale = np.sqrt(2 / (inputs * size * size))
        out[f"{name}.weight"] = rng.normal(scale=scale, size=(outputs, inputs, size, size))
        out[f"{name}.bias"] = rng.normal(scale=0.05, size=outputs)

    def norm(name: str, channels: int) -> None:
        out[f"{name}.weight"] = rng.uniform(0.8, 1.2, channels)
        out[f"{name}.bias"] = rng.normal(scale=0.1, size=channels)
        out[f"{name}.running_mean"] = rng.uniform(0, 0.4, channels)
        out[f"{name}.running_var"] = rng.uniform(0.5, 1.0, channels)
        out[f"{name}.num_batches_tracked"] = np.asarray(1)

    def block(name: str, outputs: int, inputs: int) -> None:
        conv(f"{name}.residual_input_conv", outputs, inputs, 1)
        norm(f"{name}.residual_batchnorm", outputs)
        conv(f"{name}.block.0", outputs, inputs, 3)
        norm(f"{name}.block.2", outputs)
        conv(f"{name}.block.3", outputs, outputs, 3)
        norm(f"{name}.block.5", outputs)

    widths = [width * 2**level for level in range(5)]
    for level, outputs in enumerate(widths):
        block(f"down_path.{level}", outputs, 1 if level == 0 else widths[level - 1])
    for step, outputs in enumerate(widths[-2::-1]):
        name = f"up_path.{step}"
        conv(f"{name}.residual_input_conv", outputs, 2 * outputs, 1)
        norm(f"{name}.residual_batchnorm", outputs)
        conv(f"{name}.up.1", outputs, 2 * outputs, 1)
        block(f"{name}.conv_block", outputs, 2 * outputs)
    conv("last", classes, width, 1)
    out["last.weight"] *= 2
    return {key: value if value.dtype.kind == "i" else value.astype(np.float32) for key, value in out.items()}


def tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """The same as tensors of torch."""
    import torch

    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def volume_spacing() -> tuple[float, float, float]:
    """Of the slices, rows and columns, mm."""
    return SPACING
