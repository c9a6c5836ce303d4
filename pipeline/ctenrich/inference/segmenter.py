"""The interface of every segmenter: one object per process, volumes one after another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ctenrich.progress import SILENT, Progress
from ctenrich.records import ModelInfo, Product, SegmentMasks, SliceScores, SortedSeries, Volume
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace

__all__ = ["NamingSegmenter", "Scorer", "Segmenter"]


class Segmenter(Protocol):
    """Makes the masks of one product, series after series; what is heavy was loaded when it was opened."""

    @property
    def product(self) -> Product:
        """The key of what it makes."""

    @property
    def info(self) -> ModelInfo | None:
        """The model behind it; None for expert contours."""

    def segment(
        self,
        inputs: Mapping[str, Volume],
        series: SortedSeries,
        *,
        settings: Settings,
        workspace: Workspace,
        progress: Progress = SILENT,
    ) -> SegmentMasks:
        """Segment one series.

        Parameters
        ----------
        inputs : mapping of role to Volume
            ``{"CT": volume}``; axes [slice k, row j, column i], Hounsfield units.
        series : SortedSeries
            The slices that the volume was made of.

        Returns
        -------
        SegmentMasks
            On the exact grid of the source volume; its arrays are saved, the record is not.

        Raises
        ------
        InputError
            The series cannot be segmented by this segmenter.
        """


class NamingSegmenter(Segmenter, Protocol):
    """A segmenter of a kind with `SegmenterKind.takes_decided_names`."""

    def with_names(self, names: Mapping[str, str]) -> Segmenter:
        """Return a segmenter for a series with ROIs on whose names people decided: name of the ROI -> segment."""


class Scorer(Protocol):
    """Scores the slices of a series along the body axis; what is heavy was loaded when it was opened."""

    @property
    def product(self) -> Product:
        """The key of its results."""

    @property
    def info(self) -> ModelInfo | None:
        """The model behind it."""

    def score(
        self,
        volume: Volume,
        series: SortedSeries,
        *,
        settings: Settings,
        workspace: Workspace,
        progress: Progress = SILENT,
    ) -> SliceScores:
        """Score every slice of one series.

        Parameters
        ----------
        volume : Volume
            Axes [slice k, row j, column i], Hounsfield units.
        series : SortedSeries
            The slices that the volume was made of.

        Returns
        -------
        SliceScores
            By slice index; not saved.

        Raises
        ------
        InputError
            The series cannot be scored.
        """
