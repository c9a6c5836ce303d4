"""The kind ``expert``: contours that experts drew."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from ctenrich.codes.mappings import general_sha256, labels_sha256
from ctenrich.inference.products import SegmenterSpec
from ctenrich.inference.segmentation import segmentation_kind
from ctenrich.settings import Settings

if TYPE_CHECKING:
    from ctenrich.contours.expert import ExpertSegmenter

__all__ = ["EXPERT"]

_DRAWING = 3
"""Version of the rules by which contours become voxels; raised by hand when they give another result."""


def _open_expert(_spec: SegmenterSpec, settings: Settings) -> ExpertSegmenter:
    from ctenrich.contours.choice import check_patterns  # with pydicom, which a description of the kind does not need
    from ctenrich.contours.expert import ExpertSegmenter  # likewise

    check_patterns(settings.contours.rois)
    return ExpertSegmenter()


def _cache_key(settings: Settings) -> tuple[str, ...]:
    general = general_sha256() if settings.contours.rois else ""
    return f"drawing {_DRAWING}", json.dumps(asdict(settings.contours), sort_keys=True), general, labels_sha256()


EXPERT = segmentation_kind(
    "expert",
    "expert contours (RTSTRUCT)",
    _open_expert,
    lambda _product: "Manual_segmentations",
    algorithm_type="MANUAL",
    seconds_per_slice={"segment": 0.01, "measure": 0.004, "encode": 0.012, "validate": 0.02},
    needs_model=False,
    takes_decided_names=True,
    cache_key=_cache_key,
)
