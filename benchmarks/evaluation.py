"""CPU time and memory of evaluating a large cohort, with generated results.

    python -m benchmarks.evaluation [--series 126000] [--products 5] [--organs 4] [--quick]

Products are compared with an expert in every organ of every series. Records and metrics are generated, no mask is
compared: measured is what `evaluate-segmentations` does beside it, from the list of all masks to the tables and the
statistics. Each line states what a step took, and the largest memory until its end.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np

from ctenrich.evaluate import mask_sources
from ctenrich.evaluate.evaluation import EvaluatedMask, Evaluation, compare_metrics, metric_values, write_evaluation
from ctenrich.evaluate.mask_sources import run_masks
from ctenrich.evaluate.metrics import MaskMetrics, measure_agreement
from ctenrich.evaluate.spooled import RowSpool
from ctenrich.evaluate.statistics import summarise_values, tables_of
from ctenrich.records import Product, Segment, SegmentMasks
from ctenrich.workspace import Workspace


@contextmanager
def _step(name: str) -> Iterator[None]:
    start = time.process_time()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name:36} {time.process_time() - start:8.1f} s of CPU, {peak:7.0f} MB", flush=True)


def _uid(number: int) -> str:
    return f"1.2.826.0.1.3680043.8.498.{number:039d}"


class _GeneratedStore:
    """Records of products of each series, as they would be read."""

    def __init__(self, series: int, products: int, organs: int) -> None:
        self._series, self._products, self._organs = series, products, organs

    def series(self) -> list[str]:
        return [_uid(n) for n in range(self._series)]

    def products(self, uid: str) -> Iterator[Product]:
        yield Product("expert")
        yield from (Product("nnunet", f"Model{n}", "3d_fullres", tuple("01234")) for n in range(self._products))

    def find_valid(self, record: type[object], uid: str, product: Product | None = None) -> object:
        if product is None:
            return uid
        segments = tuple(
            Segment(number=n, name=f"organ_{n}", source_label=f"organ {n}", voxels=1)
            for n in range(1, self._organs + 1)
        )
        return SegmentMasks(product, uid, (200, 512, 512), segments, None, "")


def _metrics(template: MaskMetrics, values: np.ndarray) -> MaskMetrics:
    dice, far, near, mean, volume = values.tolist()
    return replace(
        template,
        dice=dice, hausdorff=far, hausdorff_95_max=near, hausdorff_95_pooled=near, hausdorff_95_voxels=near,
        mean_surface_distance=mean, surface_dice=dict.fromkeys((1.0, 2.0, 3.0), dice), volume=volume,
        centroid_distance=mean,
    )  # fmt: skip


def _results(series: int, products: int, organs: int) -> Iterator[EvaluatedMask]:
    mask = np.zeros((3, 8, 8), bool)
    mask[1, 2:6, 2:6] = True
    template = measure_agreement(mask, np.roll(mask, 1, axis=2), (2.0, 1.0, 1.0))
    noise = np.random.default_rng(1)
    for n in range(series):
        values = noise.random((organs, products, 5))
        for organ in range(organs):
            for product in range(products):
                yield EvaluatedMask(
                    series_instance_uid=_uid(n),
                    study_instance_uid=_uid(n),
                    patient_id=f"patient {n}",
                    segment=f"organ_{organ}",
                    reference="expert",
                    product=f"nnunet:Model{product}:3d_fullres:all:mirror",
                    metrics=_metrics(template, values[organ, product]),
                )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--series", type=int, default=126_000)
    parser.add_argument("--products", type=int, default=5)
    parser.add_argument("--organs", type=int, default=4)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    sizes = (2000 if options.quick else options.series, options.products, options.organs)
    print(f"{sizes[0]:,} series, {sizes[1]} products, {sizes[2]} organs: {int(np.prod(sizes)):,} comparisons")
    with tempfile.TemporaryDirectory() as scratch:
        workspace = Workspace(Path(scratch))
        with _step("loading of the package"):
            pass
        with _step("masks of the run"), patch.object(mask_sources, "SeriesStore", lambda _: _GeneratedStore(*sizes)):
            sets = list(run_masks(workspace))
        assert len(sets) == sizes[0] * (1 + sizes[1])
        spool: RowSpool[EvaluatedMask] = RowSpool()
        with _step("results, generated and kept"):
            for one in _results(*sizes):
                spool.add(one)
            evaluation = Evaluation(reference="expert", masks=spool.rows())
        with _step("values by organ and metric"):
            values = tables_of(metric_values(evaluation.masks))
        with _step("paired differences and variances"):
            comparison = compare_metrics(values)
        with _step("summary"):
            summarise_values(values)
        with _step("tables"):
            paths = write_evaluation(workspace, evaluation, comparison)
        print(f"table of {paths['evaluation'].stat().st_size / 1e6:.0f} MB, {len(comparison.differences)} differences")


if __name__ == "__main__":
    main()
