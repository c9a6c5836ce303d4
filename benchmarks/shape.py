"""Shape features: the fast engine compared with pyradiomics' shape class and feature extractor; results must agree.

``python -m benchmarks.shape [--quick]``. Bodies of the size and grid of heart, esophagus, spinal cord and a tumour
(0.98 x 0.98 x 3 mm), in an image of 512 x 512 x 91. One run, one process; ratios matter.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np

from ctenrich.masks import bounding_box
from ctenrich.shape.features import SHAPE_FEATURES, shape_features
from ctenrich.shape.measure import measure_mask

SPACING = (3.0, 0.977, 0.977)
SHAPE = (91, 512, 512)
DIAMETERS = ("Maximum3DDiameter", "Maximum2DDiameterSlice", "Maximum2DDiameterColumn", "Maximum2DDiameterRow")


def bodies(quick: bool) -> dict[str, np.ndarray]:
    """Masks that are as large and as rough as the organs that they are named after."""
    rng = np.random.default_rng(1)
    out = {
        "heart": ellipsoid((40, 250, 260), (13, 62, 62), rng),
        "esophagus": tube(8.5, 70, rng),
        "tumour": ellipsoid((50, 200, 330), (12, 24, 24), rng),
        "spinal cord": tube(8.0, 91, rng),
    }
    return {"tumour": out["tumour"], "esophagus": out["esophagus"]} if quick else out


def ellipsoid(centre, radii, rng) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    k, j, i = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    level = ((k - centre[0]) / radii[0]) ** 2 + ((j - centre[1]) / radii[1]) ** 2 + ((i - centre[2]) / radii[2]) ** 2
    noise = gaussian_filter(rng.standard_normal((SHAPE[0], 64, 64)), (1, 2, 2))
    return np.asarray(level + np.kron(noise, np.ones((1, 8, 8))) < 1)


def tube(radius, slices, rng) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    j, i = np.ogrid[: SHAPE[1], : SHAPE[2]]
    path = np.cumsum(rng.normal(0, 0.6, (slices, 2)), axis=0) + np.array((280, 256))
    for k, (cj, ci) in enumerate(path):
        mask[k] = (j - cj) ** 2 + (i - ci) ** 2 < radius**2
    return mask


def timed(work: Callable[[], dict[str, float]], repeats: int) -> tuple[float, dict[str, float]]:
    """Best time of several repeats, and the result."""
    best, result = np.inf, {}
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
    return best, result


def fast(mask: np.ndarray) -> dict[str, float]:
    """Crop and measure, like the stage."""
    box = bounding_box(mask)
    assert box is not None
    return shape_features(measure_mask(mask[box.k0 : box.k1, box.j0 : box.j1, box.i0 : box.i1], SPACING))[0]


def shape_class(image, label) -> dict[str, float]:
    """pyradiomics' shape class on the whole image, as its documentation starts it."""
    from radiomics.shape import RadiomicsShape

    features = RadiomicsShape(image, label, label=1)
    return {name: float(getattr(features, f"get{name}FeatureValue")()) for name in SHAPE_FEATURES}


def extractor(image, label) -> dict[str, float]:
    """pyradiomics' feature extractor with its default settings, shape only."""
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    engine = RadiomicsFeatureExtractor()
    engine.disableAllFeatures()
    engine.enableFeaturesByName(shape=list(SHAPE_FEATURES))
    result = engine.execute(image, label)
    return {name: float(result[f"original_shape_{name}"]) for name in SHAPE_FEATURES}


def check(name: str, ours: dict[str, float], theirs: dict[str, float]) -> None:
    """Equal to 1e-9, diameters to the bit (where the extractor crops as we do)."""
    for feature, value in ours.items():
        same = value == theirs[feature] if feature in DIAMETERS else abs(value / theirs[feature] - 1) <= 1e-9
        if not same:
            raise SystemExit(f"{name}: {feature} is {value!r} here and {theirs[feature]!r} there")


def main() -> None:
    """Measure and print."""
    import SimpleITK

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two bodies, one repeat")
    quick = parser.parse_args().quick
    warnings.simplefilter("ignore")
    import radiomics

    radiomics.logger.setLevel("ERROR")
    print(f"{'body':12} {'voxels':>8} {'fast ms':>8} {'class ms':>9} {'execute ms':>11} {'class':>7} {'execute':>8}")
    noise = np.random.default_rng(0).normal(0, 50, SHAPE).astype(np.float32)
    for name, mask in bodies(quick).items():
        image = SimpleITK.GetImageFromArray(noise)
        label = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
        for item in (image, label):
            item.SetSpacing(SPACING[::-1])
        ours, values = timed(lambda mask=mask: fast(mask), 1 if quick else 5)
        whole, _ = timed(lambda i=image, m=label: shape_class(i, m), 1)
        full, expected = timed(lambda i=image, m=label: extractor(i, m), 1)
        check(name, values, expected)
        ratios = f"{whole / ours:6.0f}x {full / ours:7.0f}x"
        print(f"{name:12} {mask.sum():8} {ours * 1e3:8.1f} {whole * 1e3:9.0f} {full * 1e3:11.0f} {ratios}")


if __name__ == "__main__":
    main()
