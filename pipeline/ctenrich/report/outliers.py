"""Rank series that look unusual: values far from the cohort's median, absent landmarks and organs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ctenrich.report.data import CohortData, Group, load_cohort, load_features, open_tables
from ctenrich.results.outliers import LIMIT, outlier_scores
from ctenrich.workspace import Workspace

__all__ = ["Outlier", "OutlierRanking", "box", "unusual_series"]

_KEPT = 12
"""Reasons that are kept of a series; the rest are counted."""


@dataclass(frozen=True)
class Outlier:
    """One series to review, with its reasons, the strongest first."""

    series: str
    score: float
    reasons: tuple[str, ...]
    more: int = 0
    """Reasons beyond those that are listed."""


def box(values: Sequence[float]) -> dict[str, float]:
    """Number, extremes, quartiles, mean and whiskers (1.5 interquartile ranges, Tukey 1977) of a group."""
    array = np.asarray(values, float)
    low, first, middle, third, high = (float(v) for v in np.percentile(array, (0, 25, 50, 75, 100)))
    reach = 1.5 * (third - first)
    inside = array[(array >= first - reach) & (array <= third + reach)]
    return {
        "n": float(array.size),
        "min": low,
        "q1": first,
        "median": middle,
        "q3": third,
        "max": high,
        "mean": float(array.mean()),
        "low": float(inside.min()),
        "high": float(inside.max()),
    }


@dataclass
class OutlierRanking:
    """Collects the signs of all series, group by group, and ranks the series by their strongest sign."""

    data: CohortData
    _signs: dict[str, list[tuple[float, str]]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.add(self.data.lung)
        self.add(self.data.regions)
        for row in self.data.absent:
            text = f"{row['organ']} is absent: {row['why']}" if row["why"] else f"{row['organ']} is absent"
            self._signs[row["series"]].append((LIMIT, f"{text} ({row['product']})"))

    def add(self, groups: Iterable[Group]) -> None:
        """Add the values of some groups."""
        uids = self.data.series.column("SeriesInstanceUID")
        for group in groups:
            scores = np.array(outlier_scores(group.values.tolist()))
            middle = float(np.median(group.values)) if group.values.size else 0.0
            for place in np.flatnonzero(np.abs(scores) > LIMIT).tolist():
                text = f"{group.organ}, {group.quantity}: {group.values[place]:.4g} {group.unit}".rstrip()
                text += f", median {middle:.4g} ({group.product}, z {scores[place]:+.1f})"
                self._signs[uids[int(group.series[place])]].append((abs(float(scores[place])), text))

    def ranked(self, most: int | None = None) -> list[Outlier]:
        """Return the series by their strongest sign, the strongest first; at most `most` of them."""
        found = []
        for series, signs in self._signs.items():
            signs.sort(key=lambda sign: (-sign[0], sign[1]))
            texts = tuple(text for _, text in signs[:_KEPT])
            found.append(Outlier(series, signs[0][0], texts, max(0, len(signs) - _KEPT)))
        return sorted(found, key=lambda o: (-o.score, -len(o.reasons) - o.more, o.series))[:most]


def unusual_series(workspace: Workspace, most: int | None = None) -> list[Outlier]:
    """Rank the series of a run by their strongest sign.

    Parameters
    ----------
    workspace : Workspace
        A run whose tables have been built.
    most : int, optional
        Largest number of series returned.

    Returns
    -------
    list of Outlier
        The strongest first.
    """
    with open_tables(workspace) as db:
        data = load_cohort(workspace, db)
        ranking = OutlierRanking(data)
        for quantity in data.quantities:
            ranking.add(load_features(db, quantity))
    return ranking.ranked(most)
