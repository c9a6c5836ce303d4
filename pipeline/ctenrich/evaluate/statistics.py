"""Compare metrics of several products on the same series: paired differences, tests, effect sizes, win counts.

Every comparison is paired by series. The difference is described by its median with a bootstrap interval, tested with
Wilcoxon's signed-rank test, and its p-value corrected by Holm's method over all organs and pairs of products of one
metric. Three or more products are also compared together by a repeated-measures analysis of variance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ctenrich.evaluate.spooled import MetricTable, MetricTables, SeriesValues, in_order

__all__ = [
    "ALL_SERIES",
    "METRIC_RULES",
    "AnalysisOfVariance",
    "MetricRule",
    "MetricValue",
    "PairedDifference",
    "Summary",
    "analyse_variance",
    "compare_pairs",
    "holm",
    "summarise_values",
    "tables_of",
]

ALL_SERIES = "all"
"""Name of the stratum that contains every series."""

_LEVEL = 0.05
_RESAMPLES = 2000
_DRAWN = 4_000_000
"""Differences that the bootstrap draws at once; the draws are the same however many."""
_DRAWN_SINGLY = 1_000
"""Series up to which the bootstrap draws every difference; of more, it draws the places of the medians."""
_LEAST = 6
"""With fewer series that differ, Wilcoxon's test cannot give p < 0.05."""

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class MetricRule:
    """Direction, unit and smallest relevant difference of a metric."""

    higher_is_better: bool
    unit: str
    margin: float
    """Differences of the median below it are called small, whatever their p-value."""


METRIC_RULES: Mapping[str, MetricRule] = {
    "dice": MetricRule(higher_is_better=True, unit="", margin=0.01),
    "hausdorff": MetricRule(higher_is_better=False, unit="mm", margin=1.0),
    "hausdorff_95_max": MetricRule(higher_is_better=False, unit="mm", margin=0.5),
    "hausdorff_95_pooled": MetricRule(higher_is_better=False, unit="mm", margin=0.5),
    "hausdorff_95_voxels": MetricRule(higher_is_better=False, unit="mm", margin=0.5),
    "mean_surface_distance": MetricRule(higher_is_better=False, unit="mm", margin=0.25),
    "surface_dice_1mm": MetricRule(higher_is_better=True, unit="", margin=0.01),
    "surface_dice_2mm": MetricRule(higher_is_better=True, unit="", margin=0.01),
    "surface_dice_3mm": MetricRule(higher_is_better=True, unit="", margin=0.01),
    "volume_error": MetricRule(higher_is_better=False, unit="mL", margin=1.0),
    "centroid_distance": MetricRule(higher_is_better=False, unit="mm", margin=0.5),
    "added_path_length": MetricRule(higher_is_better=False, unit="mm", margin=10.0),
}
"""Metric -> rule. The margins are conventions of this package, stated beside every result."""


@dataclass(frozen=True, kw_only=True)
class MetricValue:
    """One metric of one organ of one product in one series."""

    series: str
    segment: str
    product: str
    metric: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A metric of one organ and product over the series."""

    segment: str
    product: str
    metric: str
    stratum: str
    series: int
    median: float
    first_quartile: float
    third_quartile: float
    mean: float
    minimum: float
    maximum: float


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """Comparison of two products by one metric of one organ, paired by series."""

    segment: str
    metric: str
    stratum: str
    first: str
    second: str
    series: int
    """Series in which both have a value."""
    median_first: float
    median_second: float
    median_difference: float
    """Median of the paired differences, first minus second."""
    low: float | None
    """95 % interval of the median difference by the percentile bootstrap; None with a single series."""
    high: float | None
    p: float | None
    """Wilcoxon's signed-rank test, two-sided; None if fewer than 6 series differ."""
    p_holm: float | None
    """Corrected by Holm's method over all organs and pairs of the metric in the stratum."""
    effect: float | None
    """Matched-pairs rank-biserial correlation, -1 to 1: positive where the first has the higher values."""
    first_better: int
    second_better: int
    ties: int
    finding: str
    """``no difference shown``, ``higher``, ``lower``, ``small`` or ``not tested``."""
    sentence: str


@dataclass(frozen=True, kw_only=True)
class AnalysisOfVariance:
    """Repeated-measures analysis of variance of one metric of one organ over all products."""

    segment: str
    metric: str
    stratum: str
    products: tuple[str, ...]
    series: int
    """Series in which every product has a value."""
    f: float
    df_products: float
    df_error: float
    p: float
    epsilon: float
    """Greenhouse and Geisser's estimate of sphericity."""
    p_corrected: float
    """With the degrees of freedom multiplied by `epsilon`."""
    p_holm: float | None
    """`p_corrected` by Holm's method over the organs of the metric in the stratum."""
    partial_eta_squared: float


def tables_of(values: Iterable[MetricValue]) -> MetricTables:
    """Return values by organ and metric, on disk if they are many; the functions of this module read them.

    Parameters
    ----------
    values : iterable of MetricValue
        Read once.
    """
    tables = MetricTables()
    for v in values:
        tables.add(series=v.series, segment=v.segment, product=v.product, metric=v.metric, value=v.value)
    return tables


def summarise_values(
    values: Iterable[MetricValue] | MetricTables, *, strata: Mapping[str, str] | None = None
) -> tuple[Summary, ...]:
    """Summarise every metric of every organ and product.

    Parameters
    ----------
    values : iterable of MetricValue, or MetricTables
    strata : mapping, optional
        Series -> stratum; without it all series are one stratum.

    Returns
    -------
    tuple of Summary
    """
    out = []
    for table in _tables(values, strata):
        for product, of_series in table.values.items():
            found = of_series.values
            low, middle, high = np.percentile(found, (25, 50, 75))
            summary = Summary(
                segment=table.segment,
                product=product,
                metric=table.metric,
                stratum=table.stratum,
                series=found.size,
                median=float(middle),
                first_quartile=float(low),
                third_quartile=float(high),
                mean=float(found.mean()),
                minimum=float(found.min()),
                maximum=float(found.max()),
            )
            out.append((table.place, summary))
    return tuple(in_order(out))


def compare_pairs(
    values: Iterable[MetricValue] | MetricTables, *, strata: Mapping[str, str] | None = None, seed: int = 0
) -> tuple[PairedDifference, ...]:
    """Compare every pair of products by every metric of every organ that both have.

    Parameters
    ----------
    values : iterable of MetricValue, or MetricTables
    strata : mapping, optional
        Series -> stratum; without it all series are one stratum.
    seed : int
        Of the bootstrap.

    Returns
    -------
    tuple of PairedDifference
    """
    made: list[tuple[int, PairedDifference]] = []
    for table in _tables(values, strata):
        for first, second in combinations(table.values, 2):
            pair = _of_shared_series([table.values[first], table.values[second]])
            if pair.size:
                made.append((table.place, _difference(table, (first, second), pair, seed)))
    found = in_order(made)
    corrected: dict[int, float] = {}
    for family in {(d.metric, d.stratum) for d in found}:
        places = [n for n, d in enumerate(found) if (d.metric, d.stratum) == family and d.p is not None]
        corrected |= dict(zip(places, holm([found[n].p or 0.0 for n in places]), strict=True))
    return tuple(_with_words(replace(d, p_holm=corrected.get(n))) for n, d in enumerate(found))


def analyse_variance(
    values: Iterable[MetricValue] | MetricTables, *, strata: Mapping[str, str] | None = None
) -> tuple[AnalysisOfVariance, ...]:
    """Compare three or more products together, by metric and organ, on the series in which all have a value.

    Parameters
    ----------
    values : iterable of MetricValue, or MetricTables
    strata : mapping, optional
        Series -> stratum; without it all series are one stratum.

    Returns
    -------
    tuple of AnalysisOfVariance
        One per organ and metric with three or more products and series, and values that differ.
    """
    made: list[tuple[int, AnalysisOfVariance]] = []
    for table in _tables(values, strata):
        if len(table.values) < 3:
            continue
        matrix = np.ascontiguousarray(_of_shared_series(list(table.values.values())).T)
        if len(matrix) > 2 and np.ptp(matrix - matrix[:, :1]) > 0:
            made.append((table.place, _variance(table, matrix)))
    out = in_order(made)
    corrected: dict[int, float] = {}
    for family in {(a.metric, a.stratum) for a in out}:
        places = [n for n, a in enumerate(out) if (a.metric, a.stratum) == family]
        corrected |= dict(zip(places, holm([out[n].p_corrected for n in places]), strict=True))
    return tuple(replace(a, p_holm=corrected[n]) for n, a in enumerate(out))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number by Holm's step-down method (Scand J Stat 6, 1979)."""
    order = np.argsort(p_values, kind="stable")
    steps = np.array(p_values, float)[order] * np.arange(len(order), 0, -1)
    out = np.empty(len(order))
    out[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return [float(p) for p in out]


def _tables(values: Iterable[MetricValue] | MetricTables, strata: Mapping[str, str] | None) -> Iterator[MetricTable]:
    tables = values if isinstance(values, MetricTables) else tables_of(values)
    return tables.tables(strata, ALL_SERIES)


def _of_shared_series(products: Sequence[SeriesValues]) -> Values:
    """Values of the series that all products have, shape (products, series), in the order of the first product."""
    first, *others = products
    shared = np.ones(first.series.size, bool)
    places = []
    for other in others:
        order = np.argsort(other.series)
        at = np.minimum(np.searchsorted(other.series, first.series, sorter=order), other.series.size - 1)
        places.append(order[at])
        shared &= other.series[order[at]] == first.series
    found = [other.values[place[shared]] for other, place in zip(others, places, strict=True)]
    return np.stack([first.values[shared], *found])


def _difference(table: MetricTable, names: tuple[str, str], pair: Values, seed: int) -> PairedDifference:
    difference = pair[0] - pair[1]
    higher = METRIC_RULES[table.metric].higher_is_better
    more, less = int((difference > 0).sum()), int((difference < 0).sum())
    low, high = _bootstrap(difference, seed) if difference.size > 1 else (None, None)
    return PairedDifference(
        segment=table.segment,
        metric=table.metric,
        stratum=table.stratum,
        first=names[0],
        second=names[1],
        series=difference.size,
        median_first=float(np.median(pair[0])),
        median_second=float(np.median(pair[1])),
        median_difference=float(np.median(difference)),
        low=low,
        high=high,
        p=_wilcoxon(difference),
        p_holm=None,
        effect=_rank_biserial(difference),
        first_better=more if higher else less,
        second_better=less if higher else more,
        ties=difference.size - more - less,
        finding="",
        sentence="",
    )


def _bootstrap(difference: Values, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    if difference.size > _DRAWN_SINGLY:
        return _interval(_medians_of_resamples(np.sort(difference), rng))
    at_once = max(1, min(_RESAMPLES // 10, _DRAWN // difference.size))
    medians = np.concatenate(
        [
            np.median(difference[rng.integers(0, difference.size, (part, difference.size))], axis=1)
            for part in (min(at_once, _RESAMPLES - done) for done in range(0, _RESAMPLES, at_once))
        ]
    )
    return _interval(medians)


def _interval(medians: Values) -> tuple[float, float]:
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(low), float(high)


def _medians_of_resamples(ordered: Values, rng: np.random.Generator) -> Values:
    """Medians of bootstrap resamples of many values, without drawing every value of them.

    The k-th of n ordered uniform draws has the distribution Beta(k, n - k + 1), and the draws above it are uniform
    (David and Nagaraja, Order Statistics, 2003, 2.3 and 2.5): the place of a resample's median is drawn from it.
    """
    count = ordered.size
    middle = (count + 1) // 2
    below = rng.beta(middle, count - middle + 1, _RESAMPLES)
    lower = ordered[np.minimum((below * count).astype(np.int64), count - 1)]
    if count % 2:
        return lower
    above = below + (1 - below) * (1 - rng.random(_RESAMPLES) ** (1 / (count - middle)))
    upper = ordered[np.minimum((above * count).astype(np.int64), count - 1)]
    return np.asarray((lower + upper) / 2)


def _wilcoxon(difference: Values) -> float | None:
    from scipy.stats import wilcoxon

    return float(wilcoxon(difference).pvalue) if np.count_nonzero(difference) >= _LEAST else None


def _rank_biserial(difference: Values) -> float | None:
    """Sum of the ranks of positive differences minus that of negative ones, over the sum of all (Kerby 2014)."""
    from scipy.stats import rankdata

    kept = difference[difference != 0]
    if not kept.size:
        return None
    ranks = rankdata(np.abs(kept))
    return float((ranks * np.sign(kept)).sum() / ranks.sum())


def _variance(table: MetricTable, matrix: Values) -> AnalysisOfVariance:
    """Analyse a matrix of series by products; the error is the interaction of both."""
    from scipy.stats import f as f_distribution

    n, k = matrix.shape
    mean = matrix.mean()
    between = n * ((matrix.mean(axis=0) - mean) ** 2).sum()
    series = k * ((matrix.mean(axis=1) - mean) ** 2).sum()
    error = max(float(((matrix - mean) ** 2).sum() - between - series), 0.0)
    df, df_error = k - 1, (k - 1) * (n - 1)
    ratio = float(between / df / (error / df_error)) if error > 0 else float("inf")
    centre = np.eye(k) - 1 / k
    covariance = centre @ np.cov(matrix, rowvar=False) @ centre
    squares = float((covariance**2).sum())
    epsilon = min(1.0, float(np.trace(covariance) ** 2 / (df * squares))) if squares > 0 else 1.0
    return AnalysisOfVariance(
        segment=table.segment,
        metric=table.metric,
        stratum=table.stratum,
        products=tuple(table.values),
        series=n,
        f=ratio,
        df_products=float(df),
        df_error=float(df_error),
        p=float(f_distribution.sf(ratio, df, df_error)),
        epsilon=epsilon,
        p_corrected=float(f_distribution.sf(ratio, df * epsilon, df_error * epsilon)),
        p_holm=None,
        partial_eta_squared=float(between / (between + error)),
    )


# ---------------------------------------------------------------- words


def _with_words(d: PairedDifference) -> PairedDifference:
    """Add the finding: the size of the difference and the result of the test, each by its own words."""
    rule = METRIC_RULES[d.metric]
    unit = f" {rule.unit}" if rule.unit else ""
    size = f"{abs(d.median_difference):.4g}{unit}"
    interval = "" if d.low is None else f", 95 % interval {d.low:.4g} to {d.high:.4g}"
    head = f"{d.segment}, {d.metric}"
    where = "" if d.stratum == ALL_SERIES else f" ({d.stratum})"
    count = f"{d.series} series" if d.series != 1 else "one series"
    if d.p is None or d.p_holm is None:
        median = f"median difference {d.median_difference:.4g}{unit}"
        text = f"not tested in {count}: fewer than {_LEAST} series differ; {median}"
        return replace(d, finding="not tested", sentence=f"{head}{where}: {d.first} and {d.second} were {text}.")
    p = f"Wilcoxon p = {d.p:.2g}, after Holm's correction {d.p_holm:.2g}"
    facts = f"{count}, median difference {d.median_difference:.4g}{unit}{interval}, {p}"
    if d.p_holm >= _LEVEL:
        text = f"no difference shown between {d.first} and {d.second} ({facts}); this does not show that they are equal"
        if d.low is not None and d.high is not None and max(abs(d.low), abs(d.high)) < rule.margin:
            text += f", but the interval of the median lies within the margin of {rule.margin:g}{unit}"
        return replace(d, finding="no difference shown", sentence=f"{head}{where}: {text}.")
    if abs(d.median_difference) < rule.margin:
        text = (
            f"{d.first} and {d.second} differ with statistical significance, but by less than the margin of "
            f"{rule.margin:g}{unit} in the median ({facts})"
        )
        return replace(d, finding="small", sentence=f"{head}{where}: {text}.")
    word = "higher" if d.median_difference > 0 else "lower"
    better = rule.higher_is_better == (d.median_difference > 0)
    text = f"{d.first} is {word} than {d.second} by {size} in the median, which is {'better' if better else 'worse'}"
    return replace(d, finding=word, sentence=f"{head}{where}: {text} ({facts}).")
