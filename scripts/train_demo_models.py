"""Trains the two demonstration models on generated phantoms and writes them into the package.

    python scripts/train_demo_models.py organs bodypart

Both need about half an hour on two CPU cores together. The same seeds give the same data; the weights agree with the
shipped ones up to the order in which a machine adds floating point numbers. Patients with seeds below 10,000 are never
trained on, so that tests and the demo use phantoms that the networks have not seen.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from ctenrich.phantom import SEGMENTS, Phantom, PhantomOptions, make_phantom
from ctenrich.phantom.patient import SCORES

MODELS = Path(__file__).resolve().parents[1] / "pipeline" / "ctenrich" / "models"
FIRST_SEED = 10_000

ORGANS = ("esophagus", "heart", "trachea", "aorta")
SPACING = (4.0, 3.2, 3.2)
PATCH = (40, 128, 128)
FEATURES = [8, 16, 32, 64, 96]
STRIDES = [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]]
CONVOLUTIONS, DECODER_CONVOLUTIONS = [1, 2, 2, 2, 2], [2, 2, 2, 1]
MIRROR_AXES = (1,)

VGG16 = (0, 0, "M", 1, 1, "M", 2, 2, 2, "M", 3, 3, 3, "M", 4, 4, 4, "M")
WIDTHS = (8, 16, 32, 64, 64)
SCORE_OFFSET, SCORE_SCALE = 60.0, 25.0
IN_PLANE, SIDE = 3.5, 128


# ---------------------------------------------------------------- data


def random_options(number: int, *, low: float, high: float, spacing: tuple[float, float]) -> PhantomOptions:
    """Options of training patient `number`: another body, field of view, spacing and place on the table."""
    rng = np.random.default_rng([FIRST_SEED, number])
    field = rng.uniform(350, 480)
    pixel = rng.uniform(1.8, 3.2)
    step = rng.uniform(*spacing)
    bottom, top = low + rng.uniform(-30, 30), high + rng.uniform(-30, 30)
    matrix = round(field / pixel)
    return PhantomOptions(
        seed=FIRST_SEED + number,
        rows=matrix,
        columns=matrix,
        pixel_spacing=(pixel, pixel),
        slices=round((top - bottom) / step),
        slice_spacing=step,
        centre=(rng.uniform(-15, 15), 5 + rng.uniform(-20, 20), (bottom + top) / 2),
    )


# ---------------------------------------------------------------- organs: nnU-Net


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


def organ_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross entropy plus soft Dice of the foreground, over the batch."""
    logarithms = output.log_softmax(1)
    entropy = functional.nll_loss(logarithms, target)
    shares = logarithms[:, 1:].exp()
    truth = (target[:, None] == torch.arange(1, output.shape[1]).view(1, -1, 1, 1, 1)).float()
    both = (shares * truth).sum((0, 2, 3, 4))
    total = shares.sum((0, 2, 3, 4)) + truth.sum((0, 2, 3, 4))
    return entropy + 1 - ((2 * both + 1) / (total + 1)).mean()


def train_organs(patients: int, iterations: int, batch: int) -> None:
    torch.manual_seed(1)
    properties = fingerprint(list(range(12)))
    data = [resampled(make_phantom(organ_options(n)), properties) for n in range(patients)]
    network = organ_network().train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=iterations, pct_start=0.1)
    started, running = time.monotonic(), 0.0
    for step, (image, target) in zip(range(iterations), organ_batches(data, batch, 2), strict=False):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = network(image)
        loss = organ_loss(output.float(), target)
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
    save_organs(network, properties, [float(n) for n in np.median(sizes, axis=0)])


def save_organs(network: nn.Module, properties: dict[str, float], median_size: list[float]) -> None:
    """Write a model folder in the format of nnU-Net v2."""
    folder = MODELS / "demo-organs"
    (folder / "fold_0").mkdir(parents=True, exist_ok=True)
    labels = {"background": 0} | {name: value for value, name in enumerate(ORGANS, start=1)}
    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 0, "file_ending": ".nii.gz"}
    del dataset["numTraining"]
    write_json(folder / "dataset.json", dataset)
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


# ---------------------------------------------------------------- body part regression


class BodyPartNetwork(nn.Module):
    """VGG16's layers at an eighth of their width, a 1x1 convolution, the mean, one number."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for item in VGG16:
            if item == "M":
                layers.append(nn.MaxPool2d(2, 2))
                continue
            width = WIDTHS[int(item)]
            layers += [nn.Conv2d(before, width, 3, padding=1, bias=bool(layers)), nn.ReLU(inplace=True)]
            before = width
        self.model = nn.Sequential(*layers)
        self.conv6 = nn.Conv2d(before, before, 1)
        self.fc7 = nn.Linear(before, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = functional.relu(self.conv6(self.model(x)))
        return self.fc7(features.mean((2, 3)))[:, 0]


def preprocess(array: npt.NDArray[np.int16], pixel_spacing: tuple[float, float]) -> npt.NDArray[np.float32]:
    """Slices as body part regression sees them: 3.5 mm, 128 x 128, -1000..1500 HU to -1..1."""
    from scipy.ndimage import gaussian_filter1d

    values = np.clip(array.astype(np.float32), -1000, 1500)
    values = (values + 1000) / 1250 - 1
    size = []
    for axis, spacing in zip((1, 2), pixel_spacing, strict=True):
        if spacing < IN_PLANE:
            values = gaussian_filter1d(values, 0.2 * IN_PLANE / spacing, axis=axis, truncate=3)
        size.append(int(values.shape[axis] * spacing / IN_PLANE + 0.5))
    image = functional.interpolate(torch.from_numpy(values)[:, None], size, mode="bilinear", align_corners=False)
    result = np.full((len(values), SIDE, SIDE), -1, np.float32)
    source, place = [slice(None)], [slice(None)]
    for length in size:
        if length >= SIDE:
            start = (length - SIDE) // 2
            source.append(slice(start, start + SIDE))
            place.append(slice(None))
        else:
            start = (SIDE - length) // 2
            source.append(slice(None))
            place.append(slice(start, start + length))
    result[tuple(place)] = image[:, 0].numpy()[tuple(source)]
    return result


def bodypart_data(patients: int) -> tuple[torch.Tensor, torch.Tensor]:
    images, scores = [], []
    for number in range(patients):
        options = random_options(5000 + number, low=-300, high=150, spacing=(2.5, 4.0))
        phantom = make_phantom(options)
        images.append(torch.from_numpy(preprocess(phantom.array, options.pixel_spacing)).half())
        scores.append(torch.from_numpy(phantom.score(phantom.positions[:, 2])).float())
    return torch.cat(images), (torch.cat(scores) - SCORE_OFFSET) / SCORE_SCALE


def dihedral(images: torch.Tensor, number: int) -> torch.Tensor:
    """One of the eight flips and transpositions of a slice."""
    if number & 1:
        images = images.flip(-1)
    if number & 2:
        images = images.flip(-2)
    return images.transpose(-1, -2) if number & 4 else images


def train_bodypart(patients: int, iterations: int, batch: int) -> None:
    torch.manual_seed(3)
    images, scores = bodypart_data(patients)
    network = BodyPartNetwork().train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=iterations, pct_start=0.1)
    rng, noise = np.random.default_rng(4), torch.Generator().manual_seed(5)
    started, running = time.monotonic(), 0.0
    for step in range(iterations):
        chosen = torch.from_numpy(rng.integers(0, len(images), batch))
        x = images[chosen].float()[:, None]
        x = torch.cat([dihedral(part, int(rng.integers(8))) for part in x.chunk(4)])
        x = torch.roll(x, (int(rng.integers(-4, 5)), int(rng.integers(-4, 5))), (2, 3))
        x = x * float(rng.uniform(0.97, 1.03)) + float(rng.uniform(-0.02, 0.02))
        x = x + torch.randn(x.shape, generator=noise) * float(rng.uniform(0, 0.012))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = network(x)
        loss = functional.smooth_l1_loss(output.float(), scores[chosen], beta=0.1)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        running += float((output.float() - scores[chosen]).abs().mean().detach()) * SCORE_SCALE
        if (step + 1) % 100 == 0:
            passed = time.monotonic() - started
            print(f"bodypart {step + 1}/{iterations} error {running / 100:.3f} score, {passed:.0f} s", flush=True)
            running = 0.0
    save_bodypart(network)


def save_bodypart(network: nn.Module) -> None:
    """Write model.pt, inference-settings.json and config.json as the public body part regression model has them."""
    folder = MODELS / "demo-bodypart"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({name: tensor.half() for name, tensor in network.state_dict().items()}, folder / "model.pt")
    table = {"pelvis_start": 0.0} | SCORES | {"eyes_end": 100.0}
    table = dict(sorted(table.items(), key=lambda item: item[1]))
    spread = {name: {"mean": score, "std": 1.0} for name, score in table.items()}
    raw = {
        name: {"mean": round((score - SCORE_OFFSET) / SCORE_SCALE, 8), "std": 1 / SCORE_SCALE}
        for name, score in table.items()
    }
    tables = {"original": raw, "transformed": spread}
    settings = {
        "settings": {"start-landmark": "pelvis_start", "end-landmark": "eyes_end"},
        "lookuptable_train_val": tables,
        "lookuptable_train": tables,
        "slope_mean": 0.118,
        "slope_std": 0.012,
        "lower_quantile_tangential_slope": -0.037,
        "upper_quantile_tangential_slope": 0.25,
    }
    write_json(folder / "inference-settings.json", settings)
    config = {"batch_size": 64, "num_slices": 4, "alpha": 0, "lr": 0.002, "base_model": "vgg", "model_name": "demo"}
    write_json(folder / "config.json", config)


# ---------------------------------------------------------------- command line


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demonstration models on generated phantoms.")
    parser.add_argument("models", nargs="+", choices=["organs", "bodypart"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a few iterations, to see that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for model in arguments.models:
        if model == "organs":
            train_organs(*((4, 50, 2) if arguments.quick else (70, 1100, 2)))
        else:
            train_bodypart(*((4, 100, 32) if arguments.quick else (160, 5000, 64)))


if __name__ == "__main__":
    main()
