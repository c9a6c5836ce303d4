"""Rank series that look unusual: values far from the cohort's median, absent landmarks and organs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctenrich.report.data import Group, RunData
from ctenrich.results.outliers import LIMIT, outlier_scores

__all__ = ["Outlier", "box", "rank"]


@dataclass(frozen=True)
class Outlier:
    """One series to review, with its reasons, the strongest first."""

    series: str
    score: float
    reasons: tuple[str, ...]


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


def rank(data: RunData, most: int = 100) -> list[Outlier]:
    """Rank series by their strongest sign.

    Parameters
    ----------
    data : RunData
        The run.
    most : int
        Largest number of series returned.

    Returns
    -------
    list of Outlier
        The strongest first.
    """
    found: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for group in (*data.features, *data.lung, *data.regions):
        for series, score, text in _outlying_values(group):
            found[series].append((score, text))
    for row in data.landmarks:
        if row["landmark"] in ("lung_start", "lung_end") and row["slice_index"] is None:
            why = row["absent_reason"] or "not on any slice"
            found[row["SeriesInstanceUID"]].append((LIMIT, f"{row['landmark']} is absent: {why}"))
    for row in data.segments:
        if row["absent"]:
            found[row["SeriesInstanceUID"]].append((LIMIT, f"{row['segment']} is absent ({row['product']})"))
    ranked = [
        Outlier(series, max(s for s, _ in signs), tuple(t for _, t in sorted(signs, key=lambda x: (-x[0], x[1]))))
        for series, signs in found.items()
    ]
    return sorted(ranked, key=lambda o: (-o.score, -len(o.reasons), o.series))[:most]


def _outlying_values(group: Group) -> list[tuple[str, float, str]]:
    values = [p.value for p in group.points]
    middle = float(np.median(values)) if values else 0.0
    out = []
    for point, score in zip(group.points, outlier_scores(values), strict=True):
        if abs(score) > LIMIT:
            what = f"{group.organ}, {group.quantity}: {point.value:.4g} {group.unit}".rstrip()
            out.append((point.series, abs(score), f"{what}, median {middle:.4g} ({group.product}, z {score:+.1f})"))
    return out
