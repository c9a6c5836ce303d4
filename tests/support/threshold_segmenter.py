"""A kind of segmenter in one file, as another package would bring it: air and bone by thresholds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ctenrich.errors import ModelError
from ctenrich.inference.kinds import SegmenterKind, SegmenterOption
from ctenrich.inference.products import SegmenterSpec
from ctenrich.masks import masks_from_label_map
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import ModelInfo, Product, SegmentMasks, SortedSeries, Volume
from ctenrich.series_store import SeriesStore
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace, load_array

NAMES = ((1, "lung_left", "air"), (2, "heart", "soft tissue"))


class ThresholdSegmenter:
    """Air below a threshold, soft tissue above another."""

    def __init__(self, air: int, tissue: int) -> None:
        self.air, self.tissue = air, tissue
        self.product = Product("threshold", str(air))
        self.info = ModelInfo(f"threshold {air}", "1", f"{air}:{tissue}")

    def segment(
        self,
        inputs: Mapping[str, Volume],
        series: SortedSeries,
        *,
        settings: Settings,
        workspace: Workspace,
        progress: Progress = SILENT,
    ) -> SegmentMasks:
        """Label by HU."""
        volume = inputs["CT"]
        array = load_array(workspace.resolve(volume.series_instance_uid, volume.array_path))
        labels = np.where(array < self.air, 1, np.where(array > self.tissue, 2, 0)).astype(np.uint8)
        template = SegmentMasks(
            product=self.product,
            series_instance_uid=volume.series_instance_uid,
            shape=volume.shape,
            segments=(),
            label_map_path=None,
            sha256="",
            model=self.info,
        )
        path = SeriesStore(workspace).label_map(volume.series_instance_uid, self.product)
        return masks_from_label_map(labels, NAMES, template, path, workspace)


def open_threshold(spec: SegmenterSpec, _settings: Settings) -> ThresholdSegmenter:
    """Open ``threshold:AIR[:tissue=HU]``."""
    try:
        return ThresholdSegmenter(int(spec.model), spec.options["tissue"])
    except ValueError:
        raise ModelError(Reason.BAD_MODEL, "the threshold is not a whole number of HU") from None


THRESHOLD = SegmenterKind(
    key="threshold",
    title="thresholds",
    makes=SegmentMasks,
    open=open_threshold,
    stages=("segment", "measure", "encode", "validate"),
    objects=("seg", "shape_sr"),
    algorithm_type="AUTOMATIC",
    series_title=lambda product: f"threshold{product.model}",
    seconds_per_slice={"segment": 0.5, "measure": 0.01, "encode": 0.01, "validate": 0.01},
    options=(SegmenterOption(name="tissue", values="HU", parse=int, default=30),),
    registered_models=False,
    takes_crop=True,
)
