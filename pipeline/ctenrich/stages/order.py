"""The names of the stages in their order, the workers that run each, and the stages that a series or product has.

Apart from the stage table, so that a forecast or the state of a run is computed without loading what the stages do.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from ctenrich.inference.kinds import SegmenterKind, segmenter_kind
from ctenrich.records import ObjectKind, SegmentMasks
from ctenrich.stages.stage import WorkerPool

if TYPE_CHECKING:
    from ctenrich.settings import Settings

__all__ = ["SERIES_STAGES", "STAGE_POOLS", "product_stages", "series_output", "with_doses", "with_features"]

STAGE_POOLS: Mapping[str, WorkerPool] = MappingProxyType(
    {
        "fetch": WorkerPool.INPUT,
        "sort": WorkerPool.INPUT,
        "convert": WorkerPool.INPUT,
        "compress": WorkerPool.OUTPUT,
        "segment": WorkerPool.INFER,
        "features": WorkerPool.INFER,
        "score": WorkerPool.INFER,
        "measure": WorkerPool.OUTPUT,
        "dose": WorkerPool.OUTPUT,
        "encode": WorkerPool.OUTPUT,
        "validate": WorkerPool.OUTPUT,
    }
)
"""Name of a stage -> workers that run it, in the order of execution."""

SERIES_STAGES = ("fetch", "sort", "convert")
"""Stages of every series, in order."""


def product_stages(kind: str | SegmenterKind, settings: Settings | None = None) -> tuple[str, ...]:
    """Return the names of the stages of a product's kind, in order.

    Parameters
    ----------
    kind : str or SegmenterKind
        Key or descriptor of the kind.
    settings : Settings, optional
        Of the run; they decide whether the product has the stages ``features`` and ``dose``. None: it has not.
    """
    kind = segmenter_kind(kind) if isinstance(kind, str) else kind
    if settings is None:
        return kind.stages
    asked = {"dose": with_doses(kind, settings), "features": with_features(kind, settings)}
    if not any(asked.values()):
        return kind.stages
    own = {*kind.stages, *(name for name, wanted in asked.items() if wanted)}
    return tuple(name for name in STAGE_POOLS if name in own)


def series_output(settings: Settings) -> tuple[str, ...]:
    """Return the stages of a series that no other stage needs; they run during the inference of the same series.

    Parameters
    ----------
    settings : Settings
        Of the run.
    """
    return ("compress",) if settings.convert.nifti and settings.convert.compress_nifti else ()


def with_doses(kind: SegmenterKind, settings: Settings) -> bool:
    """Whether doses are calculated for the products of a kind: for those with masks and a SEG, if asked for.

    Parameters
    ----------
    kind : SegmenterKind
        Descriptor of the kind.
    settings : Settings
        Of the run.
    """
    return settings.doses.enabled and _has_segments(kind)


def with_features(kind: SegmenterKind, settings: Settings) -> bool:
    """Whether feature vectors are made for the products of a kind: for those with masks and a SEG, if asked for.

    Parameters
    ----------
    kind : SegmenterKind
        Descriptor of the kind.
    settings : Settings
        Of the run.
    """
    return bool(settings.features.models) and _has_segments(kind)


def _has_segments(kind: SegmenterKind) -> bool:
    return kind.makes is SegmentMasks and ObjectKind.SEG in kind.objects
