"""Trains the demonstration model for organs: an nnU-Net v2 network in a short loop."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scripts.demo_patients import random_options, write_json
from torch import nn
from torch.nn import functional

from ctenrich.phantom import SEGMENTS, Phantom, PhantomOptions, make_phantom

ORGANS = ("esophagus", "heart", "trachea", "aorta")
SPACING = (4.0, 3.2, 3.2)
PATCH = (40, 128, 128)
FEATURES = [8, 16, 32, 64, 96]
STRIDES = [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]]
CONVOLUTIONS, DECODER_CONVOLUTIONS = [1, 2, 2, 2, 2], [2, 2, 2, 1]
MIRROR_AXES = (1,)
BATCH = 2
WEIGHTS = (1.0, 2.0, 1.0, 4.0, 1.0)


def organ_labels(phantom: Phantom) -> npt.NDArray[np.uint8]:
    table = np.zeros(len(SEGMENTS) + 1, np.uint8)
    for value, name in enumerate(ORGANS, start=1):
        table[SEGMENTS.index(name) + 1] = value
    return table[phantom.labels]


def resampled(phantom: Phantom, properties: dict[str, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring a phantom to the network's spacing: normalised image (float16) and labels (uint8)."""
    options = phantom.options
    voxel = (options.slice_spacing, *options.pixel_spacing)
    size = [round(n * s / t) for n, s, t in zip(phantom.array.shape, voxel, SPACING, strict=True)]
    clipped = np.clip(phantom.array.astype(np.float32), properties["percentile_00_5"], properties["percentile_99_5"])
    image = torch.from_numpy((clipped - properties["mean"]) / properties["std"])[None, None]
    image = functional.interpolate(image, size, mode="trilinear", align_corners=False)[0, 0]
    one_hot = functional.one_hot(torch.from_numpy(organ_labels(phantom).astype(np.int64)), len(ORGANS) + 1)
    shares = functional.interpolate(one_hot.movedim(-1, 0)[None].float(), size, mode="trilinear", align_corners=False)
    return image.half(), shares[0].argmax(0).to(torch.uint8)


def fingerprint(numbers: list[int]) -> dict[str, float]:
    """Intensities inside the organs, as nnU-Net's experiment planning takes them."""
    values = []
    for number in numbers:
        phantom = make_phantom(organ_options(number))
        inside = phantom.array[organ_labels(phantom) > 0]
        values.append(np.random.default_rng(number).choice(inside, 10_000))
    v = np.concatenate(values).astype(np.float64)
    return {
        "max": float(v.max()),
        "mean": float(v.mean()),
        "median": float(np.median(v)),
        "min": float(v.min()),
        "percentile_00_5": float(np.percentile(v, 0.5)),
        "percentile_99_5": float(np.percentile(v, 99.5)),
        "std": float(v.std()),
    }


def organ_options(number: int) -> PhantomOptions:
    return random_options(number, low=-220, high=110, spacing=(1.5, 5.0))


def organ_network() -> nn.Module:
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    return PlainConvUNet(
        input_channels=1,
        n_stages=len(FEATURES),
        features_per_stage=FEATURES,
        conv_op=nn.Conv3d,
        kernel_sizes=[[3, 3, 3]] * len(FEATURES),
        strides=STRIDES,
        n_conv_per_stage=CONVOLUTIONS,
        num_classes=len(ORGANS) + 1,
        n_conv_per_stage_decoder=DECODER_CONVOLUTIONS,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=False,
    )


def crop(image: torch.Tensor, labels: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut a random patch; outside of the image lies 0, as nnU-Net pads."""
    patch, target = torch.zeros(PATCH), torch.zeros(PATCH, dtype=torch.long)
    source, place = [], []
    for size, length in zip(image.shape, PATCH, strict=True):
        if size >= length:
            start = int(rng.integers(0, size - length + 1))
            source.append(slice(start, start + length))
            place.append(slice(0, length))
        else:
            start = (length - size) // 2
            source.append(slice(0, size))
            place.append(slice(start, start + size))
    patch[tuple(place)] = image[tuple(source)].float()
    target[tuple(place)] = labels[tuple(source)].long()
    return patch, target


def organ_batches(
    data: list[tuple[torch.Tensor, torch.Tensor]], batch: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    rng = np.random.default_rng(seed)
    noise = torch.Generator().manual_seed(seed)
    while True:
        images, targets = [], []
        for _ in range(batch):
            image, target = crop(*data[int(rng.integers(len(data)))], rng)
            image = image * float(rng.uniform(0.9, 1.1)) + float(rng.uniform(-0.1, 0.1))
            image = image + torch.randn(image.shape, generator=noise) * float(rng.uniform(0, 0.12))
            for axis in MIRROR_AXES:
                if rng.random() < 0.5:
                    image, target = image.flip(axis), target.flip(axis)
            images.append(image)
            targets.append(target)
        yield torch.stack(images)[:, None], torch.stack(targets)


def organ_loss(output: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Cross entropy, weighted by label, plus soft Dice of the foreground, over the batch."""
    logarithms = output.log_softmax(1)
    entropy = functional.nll_loss(logarithms, target, weight=weights)
    shares = logarithms[:, 1:].exp()
    truth = (target[:, None] == torch.arange(1, output.shape[1]).view(1, -1, 1, 1, 1)).float()
    both = (shares * truth).sum((0, 2, 3, 4))
    total = shares.sum((0, 2, 3, 4)) + truth.sum((0, 2, 3, 4))
    return entropy + 1 - ((2 * both + 1) / (total + 1)).mean()


def train_organs(patients: int, iterations: int, models: Path, *, seed: int, go_on: bool) -> None:
    """Train the network; with `go_on` from the weights that are there, and thin organs count more."""
    torch.manual_seed(seed)
    network = organ_network().train()
    if go_on:
        folder = models / "demo-organs"
        plans = json.loads((folder / "plans.json").read_text("utf-8"))
        properties = plans["foreground_intensity_properties_per_channel"]["0"]
        checkpoint = torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=True)
        network.load_state_dict(checkpoint["network_weights"])
    else:
        properties = fingerprint(list(range(min(12, patients))))
    weights = torch.tensor(WEIGHTS if go_on else [1.0] * len(WEIGHTS))
    data = [resampled(make_phantom(organ_options(n)), properties) for n in range(patients)]
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=iterations, pct_start=0.1)
    started, running = time.monotonic(), 0.0
    for step, (image, target) in zip(range(iterations), organ_batches(data, BATCH, seed + 1), strict=False):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = network(image)
        loss = organ_loss(output.float(), target, weights)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        running += float(loss.detach())
        if (step + 1) % 50 == 0:
            print(
                f"organs {step + 1}/{iterations} loss {running / 50:.4f} {time.monotonic() - started:.0f} s", flush=True
            )
            running = 0.0
    sizes = [list(image.shape) for image, _ in data]
    save_organs(network, properties, [float(n) for n in np.median(sizes, axis=0)], models)


def save_organs(network: nn.Module, properties: dict[str, float], median_size: list[float], models: Path) -> None:
    """Write a model folder in the format of nnU-Net v2."""
    folder = models / "demo-organs"
    (folder / "fold_0").mkdir(parents=True, exist_ok=True)
    labels = {"background": 0} | {name: value for value, name in enumerate(ORGANS, start=1)}
    write_json(folder / "dataset.json", {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"})
    write_json(folder / "plans.json", organ_plans(properties, median_size))
    halves: dict[tuple[int, int], torch.Tensor] = {}
    weights = {}
    for name, tensor in network.state_dict().items():
        key = tensor.data_ptr(), tensor.numel()
        weights[name] = halves.setdefault(key, tensor.half())
    checkpoint = {
        "network_weights": weights,
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": MIRROR_AXES,
        "init_args": {"configuration": "3d_fullres", "fold": 0},
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")


def organ_plans(properties: dict[str, float], median_size: list[float]) -> dict[str, object]:
    resampling = "resample_data_or_seg_to_shape"
    separate = {"order_z": 0, "force_separate_z": None}
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": len(FEATURES),
            "features_per_stage": FEATURES,
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * len(FEATURES),
            "strides": STRIDES,
            "n_conv_per_stage": CONVOLUTIONS,
            "n_conv_per_stage_decoder": DECODER_CONVOLUTIONS,
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    full = {
        "data_identifier": "demoPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(PATCH),
        "median_image_size_in_voxels": median_size,
        "spacing": list(SPACING),
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": resampling,
        "resampling_fn_seg": resampling,
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **separate},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **separate},
        "resampling_fn_probabilities": resampling,
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, **separate},
        "architecture": architecture,
        "batch_dice": True,
    }
    return {
        "dataset_name": "Dataset001_DemoOrgans",
        "plans_name": "demoPlans",
        "original_median_spacing_after_transp": [3.0, 2.5, 2.5],
        "original_median_shape_after_transp": [110, 160, 160],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": full},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": properties},
    }
