"""Inputs of the golden values in tests/golden/bodypart.json: score lines, images and weights, made from numbers alone.

Needs numpy only, because scripts/make_bodypart_golden.py imports it in bpreg's own environment.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

PARAMETERS = {
    "transform_min": -2.4,
    "transform_max": 1.6,
    "slope_mean": 0.118,
    "tangential_slope_min": -0.037,
    "tangential_slope_max": 0.25,
}
"""Raw -2.4 is score 0, raw 1.6 is score 100: raw = score / 25 - 2.4."""

SAMPLES = 60


def score_lines() -> dict[str, tuple[NDArray[np.float64], float]]:
    """Name -> (raw scores from feet to head, slice spacing in mm)."""
    rng = np.random.default_rng(7)

    def line(start: float, count: int, spacing: float, slope: float = 0.118, noise: float = 0.0) -> Any:
        scores = start + slope * spacing * np.arange(count) + rng.normal(0, noise, count)
        return scores / 25 - 2.4, spacing

    body, step = line(-30.0, 240, 5.0, noise=0.6)
    body[:30] = (rng.normal(-12, 6, 30)) / 25 - 2.4  # legs: no slope of a body
    body[-20:] = (rng.normal(103, 9, 20)) / 25 - 2.4  # above the head
    empty, thin = line(42.0, 120, 2.5, noise=0.3)
    empty[:9] = 6.1404
    empty[-4:] = 110.8296
    return {
        "chest": line(41.0, 110, 3.0, noise=0.8),
        "chest, 1 mm": line(40.0, 300, 1.0, noise=2.0),
        "abdomen": line(20.0, 70, 5.0, noise=0.5),
        "head and neck": line(72.0, 90, 3.0, noise=0.5),
        "body with tails": (body, step),
        "empty slices at both ends": (empty, thin),
        "a third of the expected slope": line(45.0, 100, 3.0, slope=0.04, noise=0.2),
        "spacing twice too small": line(42.0, 100, 2.0, slope=0.236, noise=0.2),
        "falling": line(78.0, 100, 3.0, slope=-0.118, noise=0.3),
        "short": line(60.0, 12, 5.0, noise=0.2),
        "two slices": line(60.0, 2, 5.0),
    }


def volumes() -> dict[str, tuple[NDArray[np.int16], tuple[float, float, float]]]:
    """Name -> (HU [k, j, i], spacing (slices, rows, columns) in mm): bodies of different size and grid."""
    cases = {
        "512 at 0.977 mm": (512, 512, 0.977, 0.977),
        "512 at 0.6 mm": (512, 512, 0.6, 0.6),
        "256 x 320, rows and columns differ": (256, 320, 1.5, 1.2),
        "96 at 4 mm, coarser than the target": (96, 96, 4.0, 4.0),
        "odd sizes": (333, 301, 1.37, 1.41),
    }
    return {name: (_body(rows, cols, sj, si), (3.0, sj, si)) for name, (rows, cols, sj, si) in cases.items()}


def _body(rows: int, columns: int, row_spacing: float, column_spacing: float) -> NDArray[np.int16]:
    y = (np.arange(rows) - 0.45 * rows)[:, None] * row_spacing
    x = (np.arange(columns) - 0.52 * columns)[None, :] * column_spacing
    out = np.empty((3, rows, columns), np.int16)
    for k in range(3):
        hu = np.full((rows, columns), -1024.0)
        hu[(x / 160) ** 2 + (y / 105) ** 2 < 1] = 45
        hu[((x - 70) / (55 + 5 * k)) ** 2 + ((y + 5) / 75) ** 2 < 1] = -840
        hu[((x + 72) / 52) ** 2 + ((y + 8) / (60 + 9 * k)) ** 2 < 1] = -860
        hu[(x / 20) ** 2 + ((y - 70) / 18) ** 2 < 1] = 700 + 400 * k
        hu[((x + 30) / 9) ** 2 + ((y + 90) / 5) ** 2 < 1] = 2900
        hu += 12 * np.sin(x / 2.3) * np.cos(y / 3.1 + k)
        out[k] = np.clip(np.rint(hu), -1024, 3071)
    return out


def state(scale: float = 1.0) -> dict[str, NDArray[np.float32]]:
    """Weights of the full-width network: seeded normal numbers of the usual size (not trained)."""
    rng = np.random.default_rng(11)
    blocks = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
    out: dict[str, NDArray[np.float32]] = {}
    number, before = 0, 1
    for block in blocks:
        for width in block:
            sd = np.float32(scale * np.sqrt(2 / (9 * before)))
            out[f"model.{number}.weight"] = rng.standard_normal((width, before, 3, 3), np.float32) * sd
            if number:
                out[f"model.{number}.bias"] = rng.standard_normal(width, np.float32) * np.float32(0.05)
            number, before = number + 2, width
        number += 1
    out["conv6.weight"] = rng.standard_normal((512, 512, 1, 1), np.float32) * np.float32(np.sqrt(2 / 512))
    out["conv6.bias"] = rng.standard_normal(512, np.float32) * np.float32(0.05)
    out["fc7.weight"] = rng.standard_normal((1, 512), np.float32) * np.float32(np.sqrt(1 / 512))
    out["fc7.bias"] = np.zeros(1, np.float32)
    return out


def sample(images: NDArray[np.floating[Any]]) -> list[float]:
    """Values of [slice, 128, 128] images at fixed places, and each image's mean."""
    places = np.random.default_rng(13).integers(0, 128, (SAMPLES, 2))
    values = [float(images[n % len(images), a, b]) for n, (a, b) in enumerate(places)]
    return [round(v, 7) for v in (*values, *(float(m) for m in images.mean(axis=(1, 2), dtype=np.float64)))]
