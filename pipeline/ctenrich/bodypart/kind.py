"""The kind ``bodypart``: slice scores by body part regression."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctenrich.inference.imported import check_imported_files
from ctenrich.inference.kinds import SegmenterKind
from ctenrich.inference.products import SegmenterSpec
from ctenrich.inference.registry import resolve_model
from ctenrich.records import SliceScores
from ctenrich.settings import Settings

if TYPE_CHECKING:
    from ctenrich.bodypart.scorer import BodyPartScorer

__all__ = ["BODYPART"]


def _open(spec: SegmenterSpec, settings: Settings) -> BodyPartScorer:
    from ctenrich.bodypart.scorer import open_bodypart  # imports torch, which reports and queries never need

    return open_bodypart(spec.model, settings=settings)


def _find_files(spec: SegmenterSpec) -> None:
    check_imported_files(resolve_model(spec.model).folder)


BODYPART = SegmenterKind(
    key="bodypart",
    title="body part regression",
    makes=SliceScores,
    open=_open,
    stages=("score", "measure", "encode", "validate"),
    objects=("landmarks_sr", "regions_sr"),
    algorithm_type="AUTOMATIC",
    series_title=lambda _product: "BPR",
    seconds_per_slice={"score": 0.14, "measure": 0.0002, "encode": 0.012, "validate": 0.01},
    find_files=_find_files,
)
