"""Find the axes that a model was trained on: run it in all three on CTs with an expert's contours, and compare."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.errors import UsageError
from ctenrich.masks import dice_of_counts, full_mask
from ctenrich.models.parity import Case
from ctenrich.nnunet.conventions import AXES, Conventions
from ctenrich.nnunet.segmenter import NnunetSegmenter, open_nnunet
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import Product, ProductKind, SegmentMasks, Volume
from ctenrich.series_store import SeriesStore
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace, load_array

__all__ = ["AxesOptions", "AxesReport", "ExpertCase", "OrganDice", "check_axes", "expert_cases"]

_GOOD = 0.5
"""Mean Dice from which axes fit: a network that sees other axes is far below on organs with a side."""

_EQUAL = 0.01
"""Difference of mean Dice up to which two axes fit equally well."""


@dataclass(frozen=True, kw_only=True)
class ExpertCase:
    """One CT with the masks of an expert's contours."""

    case: Case
    masks: Mapping[str, NDArray[np.bool_]]
    """Segment name -> mask, [k, j, i], on the grid of the CT."""


@dataclass(frozen=True, kw_only=True)
class OrganDice:
    """Overlap of a model's answer with the expert's mask of one organ of one CT, for each of the axes."""

    case: str
    organ: str
    dice: Mapping[str, float]
    """Axes -> Dice."""


@dataclass(frozen=True, kw_only=True)
class AxesOptions:
    """Choice of configuration and folds for a check of the axes."""

    configuration: str | None = None
    """Needed where the model has several."""
    folds: tuple[str, ...] | None = None
    """By default all."""
    mirror: bool = False
    """Average over mirrored passes; the axes show without them."""


@dataclass(frozen=True, kw_only=True)
class AxesReport:
    """Overlap of a model's answers with an expert's contours, for each of the axes."""

    model: str
    rows: tuple[OrganDice, ...]

    def mean(self, axes: str) -> float:
        """Mean Dice over organs and CTs for some axes."""
        return float(np.mean([row.dice[axes] for row in self.rows]))

    @property
    def fitting(self) -> tuple[str, ...]:
        """Axes that fit, best first: the best, and those that are as good; empty if none reaches a mean Dice of 0.5."""
        ordered = sorted(AXES, key=self.mean, reverse=True)
        best = self.mean(ordered[0])
        return tuple(axes for axes in ordered if best >= _GOOD and self.mean(axes) >= best - _EQUAL)

    @property
    def verdict(self) -> str:
        """The answer in one sentence."""
        means = ", ".join(f"{axes} {self.mean(axes):.3f}" for axes in sorted(AXES, key=self.mean, reverse=True))
        if not self.fitting:
            return f"no axes fit (mean Dice {means}): the model does not find the expert's organs in these CTs"
        if len(self.fitting) == 1:
            return f"{self.fitting[0]} fits best (mean Dice {means})"
        return f"{' and '.join(self.fitting)} fit equally well on these organs (mean Dice {means}); take either"

    def table(self) -> tuple[dict[str, str], ...]:
        """One row per CT and organ, and one of the means, as text."""
        rows = [
            {"series": row.case, "organ": row.organ, **{axes: f"{row.dice[axes]:.3f}" for axes in AXES}}
            for row in self.rows
        ]
        return (*rows, {"series": "mean", "organ": "", **{axes: f"{self.mean(axes):.3f}" for axes in AXES}})


def check_axes(
    model: str,
    cases: Iterable[ExpertCase],
    *,
    settings: Settings,
    options: AxesOptions | None = None,
    progress: Progress = SILENT,
) -> AxesReport:
    """Run a model in all three axes and compare with an expert's masks (``ctenrich models check MODEL --axes``).

    Parameters
    ----------
    model : str
        Name or folder of an nnU-Net model; what it states about its axes is not used.
    cases : iterable of ExpertCase
        CTs with an expert's masks; those without an organ of the model are passed over.
    settings : Settings
        `segment`.
    options : AxesOptions, optional
    progress : Progress

    Returns
    -------
    AxesReport
        One row per organ and CT; `fitting` names the axes that fit.

    Raises
    ------
    UsageError
        EMPTY_INPUT if no CT has an expert's mask of an organ of the model; BAD_PARAMETER if the model has several
        configurations and none was chosen.
    ModelError
        As `open_nnunet`, except UNKNOWN_AXES.
    """
    chosen = options or AxesOptions()
    segmenter = open_nnunet(
        model,
        configuration=chosen.configuration,
        folds=chosen.folds,
        mirror=chosen.mirror,
        conventions=Conventions(axes=AXES[0]),
        settings=settings,
    )
    values = {name: value for value, name, _ in segmenter.names}
    rows: list[OrganDice] = []
    for found in cases:
        masks = {name: mask for name, mask in found.masks.items() if name in values and mask.any()}
        if not masks:
            continue
        answers = {axes: _label_in(segmenter, axes, found.case, progress) for axes in AXES}
        rows += [
            OrganDice(
                case=found.case.name,
                organ=name,
                dice={axes: _dice(labels == values[name], mask) for axes, labels in answers.items()},
            )
            for name, mask in masks.items()
        ]
    if not rows:
        organs = ", ".join(sorted(values)[:8])
        raise UsageError(
            Reason.EMPTY_INPUT,
            f"no series has an expert's contours of an organ of the model: {organs}",
            "give a run with --segmenter expert, or a cohort file, of series with contours of these organs",
        )
    return AxesReport(model=segmenter.product.model, rows=tuple(rows))


def _label_in(segmenter: NnunetSegmenter, axes: str, case: Case, progress: Progress) -> NDArray[Any]:
    """Label map [k, j, i] of a CT that the network sees in the given axes."""
    progress.note(f"{case.name}: {axes}")
    turned = replace(segmenter, axes=axes).turned(case.affine_lps)
    return turned.back(segmenter.label(case.array, turned, case.spacing, progress=progress).labels)


def _dice(found: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> float:
    return dice_of_counts(int((found & wanted).sum()), int(found.sum()), int(wanted.sum())) or 0.0


def expert_cases(root: Path) -> Iterator[ExpertCase]:
    """Read the CTs of a run that have masks of an expert's contours, one after the other.

    Raises
    ------
    InputError
        BAD_RUN if a record is damaged.
    """
    store = SeriesStore(Workspace(root))
    expert = Product(ProductKind.EXPERT)
    for number, uid in enumerate(store.series(), start=1):
        volume, masks = store.find(Volume, uid), store.find(SegmentMasks, uid, expert)
        if volume is None or masks is None:
            continue
        array = load_array(store.workspace.resolve(uid, volume.array_path))
        case = Case(f"series {number}", array, volume.affine_lps, volume.spacing)
        drawn = {s.name: full_mask(masks, s.number, store.workspace) for s in masks.segments if not s.absent}
        yield ExpertCase(case=case, masks=drawn)
