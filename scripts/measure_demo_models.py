"""Measures the demonstration models on phantoms that they have not seen, with the package's own inference.

python -m scripts.measure_demo_models [--patients 10]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ctenrich.bodypart.landmarks import find_landmarks
from ctenrich.bodypart.scorer import open_bodypart
from ctenrich.nnunet.segmenter import open_nnunet
from ctenrich.phantom import Phantom, PhantomOptions, as_records, make_phantom
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace, load_array

ORGANS = ("esophagus", "heart", "trachea", "aorta")


@dataclass(frozen=True)
class Measured:
    """What one held-out phantom gave."""

    seed: int
    dice: dict[str, float]
    slices_off: dict[str, int]
    """Landmark -> distance of the chosen slice from the true one; 99 if it was not found."""
    score_error: float
    """Largest difference of a cleaned score from the true one."""
    rising: bool
    """Whether the cleaned scores rise from feet to head."""
    organ_seconds: float
    score_seconds: float


def held_out_options(seed: int) -> PhantomOptions:
    """Fields of view and spacings that real chest CTs have; seeds below 10,000 are never trained on."""
    rng = np.random.default_rng([seed, 77])
    spacing = float(rng.choice([2.0, 2.5, 3.0, 5.0]))
    pixel = float(rng.uniform(2.2, 3.0))
    return PhantomOptions(
        seed=seed,
        rows=160,
        columns=160,
        pixel_spacing=(pixel, pixel),
        slices=round(330 / spacing),
        slice_spacing=spacing,
        centre=(float(rng.uniform(-10, 10)), float(rng.uniform(-10, 20)), -55.0),
    )


def measurer(settings: Settings | None = None) -> Callable[[Phantom], Measured]:
    """Open both models once; the result measures one phantom."""
    settings = settings or Settings()
    segmenter = open_nnunet("demo-organs", configuration=None, folds=None, mirror=True, settings=settings)
    scorer = open_bodypart("demo-bodypart", settings=settings)

    def measure(phantom: Phantom) -> Measured:
        with tempfile.TemporaryDirectory() as folder:
            workspace = Workspace(Path(folder))
            volume, series = as_records(phantom, workspace)
            where: dict[str, Any] = {"settings": settings, "workspace": workspace}
            start = time.perf_counter()
            masks = segmenter.segment({"CT": volume}, series, **where)
            organ_seconds = time.perf_counter() - start
            assert masks.label_map_path is not None
            labels = np.array(load_array(workspace.resolve(volume.series_instance_uid, masks.label_map_path)))
            numbers = {segment.name: segment.number for segment in masks.segments}
            start = time.perf_counter()
            scores = scorer.score(volume, series, **where)
            score_seconds = time.perf_counter() - start
            landmarks = find_landmarks(scores)
        heights = phantom.positions[:, 2]
        found = {item.name: item.slice_index for item in landmarks.items}
        cleaned = np.array([np.nan if v is None else v for v in scores.cleaned])
        rising = np.diff(cleaned if heights[-1] > heights[0] else cleaned[::-1])
        return Measured(
            seed=phantom.options.seed,
            dice={name: dice(labels == numbers[name], phantom.masks[name]) for name in ORGANS},
            slices_off={
                name: 99 if found.get(name) is None else abs(found[name] - int(np.argmin(abs(heights - z))))
                for name, z in well_inside(phantom).items()
            },
            score_error=float(np.nanmax(abs(cleaned - phantom.score(heights)))),
            rising=bool(np.nanmin(rising) > 0),
            organ_seconds=organ_seconds,
            score_seconds=score_seconds,
        )

    return measure


def well_inside(phantom: Phantom) -> dict[str, float]:
    """Landmarks at least 10 mm from the ends of the series: nearer ones may be cut off by the clean-up."""
    heights = phantom.positions[:, 2]
    return {n: z for n, z in phantom.landmarks.items() if heights.min() + 10 < z < heights.max() - 10}


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the demonstration models on held-out phantoms.")
    parser.add_argument("--patients", type=int, default=10)
    patients = parser.parse_args().patients
    measure = measurer()
    results = [measure(make_phantom(held_out_options(seed))) for seed in range(1, patients + 1)]
    print("seed  " + "  ".join(f"{n:>9}" for n in ORGANS) + "  worst landmark  score error  rising  seconds")
    for r in results:
        worst = max(r.slices_off, key=lambda name: r.slices_off[name])
        organs = "  ".join(f"{r.dice[name]:9.3f}" for name in ORGANS)
        seconds = f"{r.organ_seconds:.1f} + {r.score_seconds:.1f}"
        marks = f"{worst:>10} {r.slices_off[worst]:3}  {r.score_error:11.2f}  {r.rising!s:>6}"
        print(f"{r.seed:4}  {organs}  {marks}  {seconds}")
    for name in ORGANS:
        values = [r.dice[name] for r in results]
        print(f"{name}: mean Dice {np.mean(values):.3f}, lowest {min(values):.3f}")
    off = np.array([n for r in results for n in r.slices_off.values()])
    shares = ", ".join(f"within {n}: {np.mean(off <= n):.1%}" for n in (0, 1, 2))
    print(f"landmarks ({len(off)}): {shares}; farthest {off.max()} slices")


if __name__ == "__main__":
    main()
