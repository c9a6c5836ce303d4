"""Small networks in the folder layout of nnU-Net v2, with weights from numpy's generator: the same on every machine.

Needs torch and dynamic_network_architectures only, so that an environment with TotalSegmentator can make them too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from numpy.typing import NDArray
from scipy import ndimage

FEATURES = [6, 8, 8]
LOUD = (1, 2, 5, 51)
"""Labels that are found nearly everywhere: spleen, a kidney, liver and heart, in a table of all organs."""
BACKGROUND = 3.2


def phantom(shape: tuple[int, int, int] = (44, 60, 72), seed: int = 3) -> NDArray[np.int16]:
    """HU values [k, j, i] that vary smoothly inside an ellipse of a body, air outside."""
    rng = np.random.default_rng(seed)
    coarse = ndimage.gaussian_filter(rng.normal(size=shape), [s / 9 for s in shape])
    values = coarse / coarse.std() * 400 - 100 + rng.normal(scale=15, size=shape)
    grid = np.meshgrid(*(np.linspace(-1.15, 1.15, n) for n in shape[1:]), indexing="ij")
    values[:, sum(axis**2 for axis in grid) > 1] = -1024
    return np.clip(values, -1024, 2000).astype(np.int16)


def dataset_plans(spacing: tuple[float, float, float], patch: tuple[int, int, int], seed: int) -> dict[str, Any]:
    """plans.json; every data set has its own normalisation. Spacing and patch are (z, y, x)."""
    kwargs = {
        "n_stages": 3,
        "features_per_stage": FEATURES,
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * 3,
        "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
        "n_conv_per_stage": [2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    image = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "small",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch),
        "median_image_size_in_voxels": [60, 60, 60],
        "spacing": list(spacing),
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": image,
        "resampling_fn_seg_kwargs": image | {"is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": image | {"order": 1},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": kwargs,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }
    intensities = {"max": 3000.0, "min": -1024.0, "median": 0.0, "mean": -50.0 - 20 * (seed % 5)}
    intensities |= {"std": 300.0 + 10 * (seed % 7), "percentile_00_5": -1000.0 + seed % 90}
    intensities |= {"percentile_99_5": 700.0 + seed % 300}
    return {
        "dataset_name": "small",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": list(spacing),
        "original_median_shape_after_transp": [60, 60, 60],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": intensities},
    }


def small_network(classes: int) -> PlainConvUNet:
    """The network of `dataset_plans` for so many output channels."""
    norm = {"eps": 1e-5, "affine": True}
    conv, instance, leaky = torch.nn.Conv3d, torch.nn.InstanceNorm3d, torch.nn.LeakyReLU
    args = (1, 3, FEATURES, conv, 3, [1, 2, 2], 2, classes, 2, True, instance, norm, None, None, leaky)
    return PlainConvUNet(*args, {"inplace": True}, deep_supervision=False)


def seed_network(network: torch.nn.Module, seed: int) -> None:
    """Weights with which the label map has large regions of many labels."""
    rng = np.random.default_rng(seed)
    for name, parameter in network.named_parameters():
        shape = tuple(parameter.shape)
        if "seg_" in name:
            values = rng.normal(scale=1.0, size=shape)
            if name.endswith("weight"):
                values -= values.mean(axis=0, keepdims=True)
                for n in (n for n in range(len(LOUD)) if LOUD[n] < len(values)):
                    values[LOUD[n]] = 0
                    values[LOUD[n], n] = 6  # where one feature is high
            else:
                values *= 0.1
                values[0] = BACKGROUND * np.sqrt(np.log(len(values)))
        elif len(shape) > 1:
            values = rng.normal(scale=np.sqrt(2 / np.prod(shape[1:])), size=shape)
        else:
            values = rng.uniform(0.5, 1.5, shape) if name.endswith("norm.weight") else rng.uniform(-0.3, 0.3, shape)
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(np.asarray(values, np.float32)))


def write_dataset(
    folder: Path,
    labels: int,
    spacing: tuple[float, float, float],
    *,
    seed: int,
    patch: tuple[int, int, int] = (32, 48, 48),
    folds: tuple[str, ...] = ("0",),
) -> Path:
    """A trainer's folder with so many labels; spacing and patch are (z, y, x)."""
    trainer, _, configuration = folder.name.split("__")
    plans = dataset_plans(spacing, patch, seed)
    plans["configurations"] = {configuration: plans["configurations"]["3d_fullres"]}
    names = {"background": 0} | {f"class_{n}": n for n in range(1, labels + 1)}
    dataset = {"channel_names": {"0": "CT"}, "labels": names, "numTraining": 1, "file_ending": ".nii.gz"}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    for fold in folds:
        network = small_network(labels + 1)
        seed_network(network, seed + 1000 * int(fold))
        init = {"configuration": configuration, "fold": 0, "plans": plans, "dataset_json": dataset}
        checkpoint = {
            "network_weights": network.state_dict(),
            "optimizer_state": {},
            "grad_scaler_state": None,
            "logging": {},
            "_best_ema": 0,
            "current_epoch": 1,
            "init_args": init,
            "trainer_name": trainer,
            "inference_allowed_mirroring_axes": [0, 1, 2],
        }
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder
