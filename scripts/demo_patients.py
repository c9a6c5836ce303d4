"""The generated patients that the demonstration models are trained on, and where the models go."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ctenrich.phantom import PhantomOptions

MODELS = Path(__file__).resolve().parents[1] / "pipeline" / "ctenrich" / "models"
FIRST_SEED = 10_000


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


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
