"""The state of one proof: computed results, source slices, written objects, and the checks so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ctenrich.proof.checks import ObjectFile, Report
from ctenrich.proof.source import SourceSlices
from ctenrich.records import (
    DoseMeasurements,
    Landmarks,
    Product,
    Regions,
    SegmentMasks,
    ShapeMeasurements,
    SliceScores,
    SortedSeries,
    Volume,
)
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace

__all__ = ["BodypartResult", "ProofSession", "ProveObject", "SegmentationResult"]


@dataclass(frozen=True, kw_only=True)
class SegmentationResult:
    """The computed results that a segmenter's objects must express."""

    masks: SegmentMasks
    shape: ShapeMeasurements
    volume: Volume
    series: SortedSeries
    doses: DoseMeasurements | None = None
    """None where the run calculates none."""

    @property
    def product(self) -> Product:
        """The product."""
        return self.masks.product


@dataclass(frozen=True, kw_only=True)
class BodypartResult:
    """The computed results that a scorer's objects must express."""

    scores: SliceScores
    landmarks: Landmarks
    regions: Regions
    series: SortedSeries

    @property
    def product(self) -> Product:
        """The product."""
        return self.scores.product


@dataclass(kw_only=True)
class ProofSession:
    """State shared by the checks of one product."""

    report: Report
    result: SegmentationResult | BodypartResult
    source: SourceSlices
    settings: Settings
    workspace: Workspace
    files: Mapping[str, ObjectFile]
    """Object kind -> object, read again; without kinds whose object is missing or cannot be read."""
    segment_sizes: dict[int, tuple[int, float]] = field(default_factory=dict)
    """Segment number -> (voxels, mm3) of the SEG; filled by its proof."""


ProveObject = Callable[[ProofSession, ObjectFile], None]
"""Adds the checks of one object to the session's report."""
