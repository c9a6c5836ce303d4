"""Trains the demonstration model for body part regression: VGG16's layers, narrow, on slices with known scores."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scripts.demo_patients import random_options, write_json
from torch import nn
from torch.nn import functional

from ctenrich.phantom import PhantomOptions, make_phantom
from ctenrich.phantom.patient import SCORES

VGG16 = (0, 0, "M", 1, 1, "M", 2, 2, 2, "M", 3, 3, 3, "M", 4, 4, 4, "M")
WIDTHS = (8, 16, 32, 64, 64)
SCORE_OFFSET, SCORE_SCALE = 60.0, 25.0
IN_PLANE, SIDE = 3.5, 128


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


def bodypart_options(number: int) -> PhantomOptions:
    return random_options(5000 + number, low=-300, high=150, spacing=(2.5, 4.0))


def bodypart_data(patients: int) -> tuple[torch.Tensor, torch.Tensor]:
    images, scores = [], []
    for number in range(patients):
        options = bodypart_options(number)
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


@dataclass(frozen=True)
class Course:
    """One stretch of training the scorer."""

    patients: int
    iterations: int
    batch: int
    rate: float
    turned: bool
    """Show slices in all eight flips and transpositions, or only as viewers show them."""


def train_bodypart(course: Course, models: Path, *, seed: int) -> None:
    """Train the scorer; a course of upright slices goes on from the weights that are there."""
    torch.manual_seed(seed)
    images, scores = bodypart_data(course.patients)
    network = BodyPartNetwork().train()
    if not course.turned:
        network.load_state_dict(torch.load(models / "demo-bodypart" / "model.pt", weights_only=True))
    optimiser = torch.optim.AdamW(network.parameters(), lr=course.rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, course.rate, total_steps=course.iterations, pct_start=0.1)
    rng, noise = np.random.default_rng(seed + 1), torch.Generator().manual_seed(seed + 2)
    started, running = time.monotonic(), 0.0
    for step in range(course.iterations):
        chosen = torch.from_numpy(rng.integers(0, len(images), course.batch))
        x = images[chosen].float()[:, None]
        if course.turned:
            x = torch.cat([dihedral(part, int(rng.integers(8))) for part in x.chunk(4)])
        x = torch.roll(x, (int(rng.integers(-4, 5)), int(rng.integers(-4, 5))), (2, 3))
        x = x * float(rng.uniform(0.97, 1.03)) + float(rng.uniform(-0.02, 0.02))
        x = x + torch.randn(x.shape, generator=noise) * float(rng.uniform(0, 0.012))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = network(x)
        loss = functional.smooth_l1_loss(output.float(), scores[chosen], beta=0.1 if course.turned else 0.02)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        running += float((output.float() - scores[chosen]).abs().mean().detach()) * SCORE_SCALE
        if (step + 1) % 100 == 0:
            passed = time.monotonic() - started
            print(
                f"bodypart {step + 1}/{course.iterations} error {running / 100:.3f} score, {passed:.0f} s", flush=True
            )
            running = 0.0
    save_bodypart(network, models, landmark_spread(network, min(40, course.patients)))


@torch.no_grad()
def landmark_spread(network: nn.Module, patients: int) -> dict[str, float]:
    """Root mean square error of the scores at each landmark, over training patients; never under 0.1."""
    network.eval()
    errors: dict[str, list[float]] = {}
    for number in range(patients):
        options = bodypart_options(number)
        phantom = make_phantom(options)
        images = torch.from_numpy(preprocess(phantom.array, options.pixel_spacing))[:, None]
        scores = network(images).numpy() * SCORE_SCALE + SCORE_OFFSET
        for name, z in phantom.landmarks.items():
            errors.setdefault(name, []).append(float(np.interp(z, phantom.positions[:, 2], scores)) - SCORES[name])
    return {name: max(0.1, round(float(np.sqrt(np.mean(np.square(e)))), 3)) for name, e in errors.items()}


def save_bodypart(network: nn.Module, models: Path, spread: dict[str, float]) -> None:
    """Write model.pt, inference-settings.json and config.json as the public body part regression model has them."""
    folder = models / "demo-bodypart"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({name: tensor.half() for name, tensor in network.state_dict().items()}, folder / "model.pt")
    table = dict(sorted(({"pelvis_start": 0.0} | SCORES | {"eyes_end": 100.0}).items(), key=lambda item: item[1]))
    mapped = {name: {"mean": score, "std": spread.get(name, 1.0)} for name, score in table.items()}
    raw = {
        name: {"mean": round((score - SCORE_OFFSET) / SCORE_SCALE, 8), "std": spread.get(name, 1.0) / SCORE_SCALE}
        for name, score in table.items()
    }
    tables = {"original": raw, "transformed": mapped}
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
    config = {"base_model": "vgg", "model_name": "demo-bodypart", "image axes": "viewer"}
    write_json(folder / "config.json", config)
