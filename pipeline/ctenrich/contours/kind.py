"""The kind ``expert``: contours that experts drew."""

from __future__ import annotations

from ctenrich.contours.expert import ExpertSegmenter
from ctenrich.inference.kinds import SegmenterKind
from ctenrich.records import SegmentMasks

__all__ = ["EXPERT"]

EXPERT = SegmenterKind(
    key="expert",
    title="expert contours (RTSTRUCT)",
    makes=SegmentMasks,
    open=lambda _spec, _settings: ExpertSegmenter(),
    stages=("segment", "measure", "encode", "validate"),
    objects=("seg", "shape_sr"),
    algorithm_type="MANUAL",
    series_title=lambda _product: "Manual_segmentations",
    seconds_per_slice={"segment": 0.01, "measure": 0.004, "encode": 0.012, "validate": 0.02},
    needs_model=False,
)
