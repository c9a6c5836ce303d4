"""Small weights of networks other than nnU-Net, in their own formats, for tests and for their own packages.

scripts/make_networks_golden.py gives the same weights and volumes to lungmask and MONAI.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
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
    long: bool = False


LUNGMASK_CASES = (
    LungmaskCase(name="r231", task="R231"),
    LungmaskCase(name="r231-oblique", task="R231", stack="oblique"),
    LungmaskCase(name="r231-coronal", task="R231", stack="coronal", long=True),
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


# ---------------------------------------------------------------- MONAI


@dataclass(frozen=True, kw_only=True)
class MonaiCase:
    """A bundle on one stack."""

    name: str
    stack: str = "axial"
    low: bool = False
    """Whether the model of the lower resolution is run."""
    ranged: bool = False
    """Whether the bundle scales a range of Hounsfield units instead of the volume's own values."""


MONAI_CASES = (
    MonaiCase(name="highres"),
    MonaiCase(name="lowres", low=True),
    MonaiCase(name="lowres-oblique", low=True, stack="oblique"),
    MonaiCase(name="lowres-coronal", low=True, stack="coronal"),
    MonaiCase(name="lowres-feet-first", low=True, stack="feet-first"),
    MonaiCase(name="lowres-reversed", low=True, stack="reversed"),
    MonaiCase(name="ranged", low=True, stack="lps", ranged=True),
)

BUNDLE_CLASSES = ("background", "heart", "aorta", "lung_upper_lobe_left", "rib_left_1", "clavicula_right")


def bundle_config(ranged: bool = False) -> dict[str, Any]:
    """configs/inference.json in the form of wholeBody_ct_segmentation 0.2.5, of a smaller network."""
    intensities: list[dict[str, Any]] = [
        {"_target_": "NormalizeIntensityd", "keys": "@image_key", "nonzero": True},
        {"_target_": "ScaleIntensityd", "keys": "@image_key", "minv": -1.0, "maxv": 1.0},
    ]
    if ranged:
        ends = {"a_min": -600, "a_max": 164, "b_min": 0, "b_max": 1, "clip": True}
        intensities = [{"_target_": "ScaleIntensityRanged", "keys": "@image_key", **ends}]
    return {
        "displayable_configs": {"highres": True, "sw_overlap": 0.25, "sw_batch_size": 1},
        "bundle_root": ".",
        "image_key": "image",
        "datalist": "$list(sorted(glob.glob(@dataset_dir + '/imagesTs/*.nii.gz')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "pixdim": "$[2.0, 2.0, 2.0] if @displayable_configs#highres else [3.0, 3.0, 3.0]",
        "modelname": "$'model.pt' if @displayable_configs#highres else 'model_lowres.pt'",
        "network_def": {
            "_target_": "SegResNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": len(BUNDLE_CLASSES),
            "init_filters": 8,
            "blocks_down": [1, 2, 2],
            "blocks_up": [1, 1],
            "dropout_prob": 0.2,
        },
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "@image_key"},
                {"_target_": "EnsureTyped", "keys": "@image_key"},
                {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
                {"_target_": "Orientationd", "keys": "@image_key", "axcodes": "RAS"},
                {"_target_": "Spacingd", "keys": "@image_key", "pixdim": "@pixdim", "mode": "bilinear"},
                *intensities,
            ],
        },
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": [20, 24, 16],
            "sw_batch_size": "@displayable_configs#sw_batch_size",
            "overlap": "@displayable_configs#sw_overlap",
            "padding_mode": "replicate",
            "mode": "gaussian",
            "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {
                    "_target_": "Invertd",
                    "keys": "pred",
                    "transform": "@preprocessing",
                    "orig_keys": "@image_key",
                    "nearest_interp": True,
                    "to_tensor": True,
                },
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"},
            ],
        },
        "checkpointloader": {
            "_target_": "CheckpointLoader",
            "load_path": "$@bundle_root + '/models/' + @modelname",
            "load_dict": {"model": "@network"},
        },
    }


def bundle_metadata() -> dict[str, Any]:
    """configs/metadata.json."""
    image = {"type": "image", "format": "hounsfield", "modality": "CT", "num_channels": 1}
    pred = {"type": "image", "format": "segmentation", "num_channels": len(BUNDLE_CLASSES)}
    pred["channel_def"] = {str(n): name for n, name in enumerate(BUNDLE_CLASSES)}
    formats = {"inputs": {"image": image}, "outputs": {"pred": pred}}
    return {"version": "0.2.5", "name": "Small whole body", "references": ["A."], "network_data_format": formats}


def segresnet_arrays(seed: int) -> dict[str, NDArray[np.float32]]:
    """Tensors of the bundle's network, the same on every machine."""
    from ctenrich.networks.segresnet import SegResNet, segresnet_shapes

    network = SegResNet(classes=len(BUNDLE_CLASSES), blocks_down=(1, 2, 2), blocks_up=(1, 1))
    rng = np.random.default_rng(seed)
    out = {}
    for name, shape in segresnet_shapes(network).items():
        if len(shape) == 1:
            array = rng.normal(scale=0.1, size=shape) + (1.0 if name.endswith("weight") else 0.0)
        else:
            array = rng.normal(scale=np.sqrt(2 / np.prod(shape[1:])), size=shape)
        out[name] = array.astype(np.float32)
    return out


def write_bundle(folder: Path, *, ranged: bool = False, safe: bool = True) -> Path:
    """Write a bundle with both models, as safetensors or as files of torch."""
    import torch
    from safetensors.torch import save_file

    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(bundle_config(ranged)))
    (folder / "configs" / "metadata.json").write_text(json.dumps(bundle_metadata()))
    (folder / "LICENSE").write_text("\n   Apache License\n")
    for name, seed in (("model", 5), ("model_lowres", 6)):
        weights = tensors(segresnet_arrays(seed))
        if safe:
            save_file(weights, folder / "models" / f"{name}.safetensors")
        else:
            torch.save(weights, folder / "models" / f"{name}.pt")
    return folder
