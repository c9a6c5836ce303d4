"""Random masks on anisotropic grids, and what other programs measure on them: tests/golden/segmentation_metrics.json.

``python -m tests.support.metric_golden`` writes it again, with MedPy 0.5.2, SimpleITK and surface-distance 0.1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "segmentation_metrics.json"
PAIRS = 200
TOLERANCES = (0.8, 1.5, 3.0)

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]


def random_pairs() -> Iterator[tuple[Mask, Mask, Spacing]]:
    """Pairs of masks: smooth blobs, some shifted, some of other noise, some with single voxels; spacing 0.5 to 4 mm."""
    from scipy.ndimage import uniform_filter

    rng = np.random.default_rng(19)
    for number in range(PAIRS):
        shape = tuple(int(n) for n in rng.integers((6, 10, 10), (14, 22, 24)))
        spacing: Spacing = tuple(round(float(s), 3) for s in rng.uniform(0.5, 4.0, 3))  # type: ignore[assignment]
        noise = uniform_filter(rng.standard_normal(shape), 3)
        one = noise > np.quantile(noise, rng.uniform(0.4, 0.95))
        other = uniform_filter(noise + rng.uniform(0, 0.6) * rng.standard_normal(shape), 1 + 2 * (number % 2))
        two = np.roll(other > np.quantile(other, rng.uniform(0.4, 0.95)), int(rng.integers(0, 3)), axis=number % 3)
        if number % 10 == 0:
            two = rng.random(shape) < 0.02
            two[0, 0, 0] = True
        yield one, two, spacing


def _measure_with_others(one: Mask, two: Mask, spacing: Spacing) -> dict[str, Any]:
    import SimpleITK as sitk
    import surface_distance
    from medpy.metric import binary

    image = sitk.GetImageFromArray(two.astype(np.uint8))
    mine = sitk.GetImageFromArray(one.astype(np.uint8))
    contours = [sitk.GetArrayFromImage(_contours(i)) for i in (image, mine)]
    surfaces = surface_distance.compute_surface_distances(two, one, spacing)
    directed = [binary.__dict__["__surface_distances"](*p, spacing, 1) for p in ((one, two), (two, one))]
    return {
        "dice": binary.dc(one, two),
        "hausdorff": binary.hd(one, two, spacing),
        "hausdorff_95_max": max(float(np.percentile(d, 95)) for d in directed),
        "hausdorff_95_pooled": binary.hd95(one, two, spacing),
        "mean_surface_distance": (binary.asd(one, two, spacing) + binary.asd(two, one, spacing)) / 2,
        "surface_dice": [surface_distance.compute_surface_dice_at_tolerance(surfaces, t) for t in TOLERANCES],
        "added_path_length": float((contours[0] & ~contours[1] & 1).sum() * (spacing[1] + spacing[2]) / 2),
    }


def _contours(image: Any) -> Any:
    """Contours of each slice by SimpleITK, on a grid with a border of one pixel."""
    import SimpleITK as sitk

    slices = [
        sitk.LabelContour(sitk.ConstantPad(image[:, :, k], [1, 1], [1, 1]), False) for k in range(image.GetDepth())
    ]
    return sitk.JoinSeries(slices)


def main() -> None:
    """Write the file."""
    rows = [_measure_with_others(*pair) for pair in random_pairs()]
    GOLDEN.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", "utf-8")


if __name__ == "__main__":
    main()
