"""Statistics of repeated measurements: intraclass correlations, repeatability coefficient, limits of agreement.

Definitions: ICC of Shrout and Fleiss, Psychol Bull 1979;86:420-428; repeatability coefficient and coefficient of
variation of Raunig et al. (QIBA), Stat Methods Med Res 2015;24:27-67; limits of agreement of Bland and Altman, Lancet
1986;327:307-310.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Intraclass", "Repeatability", "intraclass_correlations", "measure_repeatability"]

_LEVEL = 0.05
_LEAST = 2
"""Subjects without which nothing can be estimated."""
_ROUNDING = 1e-12
"""Share of the largest value below which a standard deviation is rounding error."""

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Intraclass:
    """Intraclass correlations of single measurements; None where every value is the same."""

    icc_1_1: float | None = None
    """ICC(1,1): one-way random effects; the repetitions of a subject are in no order."""
    icc_1_1_low: float | None = None
    """95 % interval; None where all repetitions are equal."""
    icc_1_1_high: float | None = None
    icc_2_1: float | None = None
    """ICC(2,1): two-way random effects, absolute agreement; a shift between first and second lowers it."""
    icc_3_1: float | None = None
    """ICC(3,1): two-way mixed effects, consistency; a shift between first and second does not count."""
    icc_3_1_low: float | None = None
    icc_3_1_high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Repeatability:
    """Repeatability of one quantity that was measured twice in every subject."""

    subjects: int
    """Subjects with both values."""
    mean: float | None = None
    """Mean of all values."""
    intraclass: Intraclass | None = None
    within_sd: float | None = None
    """Within-subject standard deviation: sqrt(sum(d^2) / 2n) with d = second - first."""
    rc: float | None = None
    """Repeatability coefficient: 1.96 sqrt(2) within_sd; 95 % of repeated measurements differ by no more."""
    rc_low: float | None = None
    """95 % interval of `rc` by the chi-squared distribution with n degrees of freedom."""
    rc_high: float | None = None
    within_cv: float | None = None
    """Within-subject coefficient of variation: sqrt(mean((d^2 / 2) / m^2)) with m = (first + second) / 2."""
    bias: float | None = None
    """Mean of second - first."""
    difference_sd: float | None = None
    """Standard deviation of second - first, n - 1."""
    limit_low: float | None = None
    """Limits of agreement: bias - 1.96 difference_sd ..."""
    limit_high: float | None = None
    """... and bias + 1.96 difference_sd."""
    note: str = ""
    """Why a number is missing."""


def intraclass_correlations(values: Values) -> Intraclass:
    """Estimate the intraclass correlations ICC(1,1), ICC(2,1) and ICC(3,1) from mean squares.

    Parameters
    ----------
    values : array of float, [subject, repetition]
        At least two subjects and two repetitions, without NaN.

    Returns
    -------
    Intraclass
        With 95 % intervals by the F distribution.
    """
    n, k = values.shape
    scale = float(np.abs(values).max())
    if float(np.ptp(values)) <= _ROUNDING * scale:
        return Intraclass()
    data = values - values.mean()
    rows, columns = data.mean(axis=1), data.mean(axis=0)
    between = k * float(np.sum(rows**2)) / (n - 1)
    within = float(np.sum((data - rows[:, None]) ** 2)) / (n * (k - 1))
    repetition = n * float(np.sum(columns**2)) / (k - 1)
    error = float(np.sum((data - rows[:, None] - columns) ** 2)) / ((n - 1) * (k - 1))
    least = (_ROUNDING * scale) ** 2
    one = _ratio(between - within, between + (k - 1) * within, least)
    two = _ratio(between - error, between + (k - 1) * error + k * (repetition - error) / n, least)
    three = _ratio(between - error, between + (k - 1) * error, least)
    one_low, one_high = _interval(between, within, (n - 1, n * (k - 1)), k, least)
    three_low, three_high = _interval(between, error, (n - 1, (n - 1) * (k - 1)), k, least)
    return Intraclass(
        icc_1_1=one, icc_1_1_low=one_low, icc_1_1_high=one_high, icc_2_1=two, icc_3_1=three,
        icc_3_1_low=three_low, icc_3_1_high=three_high,
    )  # fmt: skip


def _ratio(above: float, below: float, least: float) -> float | None:
    return above / below if below > least else None


def _interval(
    between: float, residual: float, freedom: tuple[int, int], k: int, least: float
) -> tuple[float | None, float | None]:
    """95 % interval of an ICC from the ratio of two mean squares; none without a residual."""
    from scipy.stats import f as f_distribution  # heavy; only comparisons need it

    if residual <= least:
        return None, None
    first, second = freedom
    observed = between / residual
    low = observed / float(f_distribution.ppf(1 - _LEVEL / 2, first, second))
    high = observed * float(f_distribution.ppf(1 - _LEVEL / 2, second, first))
    return (low - 1) / (low + k - 1), (high - 1) / (high + k - 1)


def measure_repeatability(first: Values, second: Values) -> Repeatability:
    """Measure the repeatability of one quantity from two measurements of each subject.

    Parameters
    ----------
    first : array of float, [subject]
        First measurements; NaN where there is none.
    second : array of float, [subject]
        Second measurements of the same subjects.

    Returns
    -------
    Repeatability
        With a note in place of numbers that cannot be computed.
    """
    complete = np.isfinite(first) & np.isfinite(second)
    values = np.stack((first[complete], second[complete]), axis=1)
    n = len(values)
    if n < _LEAST:
        return Repeatability(subjects=n, note=f"{n} of {len(first)} pairs have both values; two are needed")
    differences, means = values[:, 1] - values[:, 0], values.mean(axis=1)
    within = math.sqrt(float(np.sum(differences**2)) / (2 * n))
    factor = 1.96 * math.sqrt(2)
    low, high = _chi_squared_factors(n)
    bias, spread = float(differences.mean()), float(differences.std(ddof=1))
    intraclass = intraclass_correlations(values)
    notes = []
    if intraclass.icc_1_1 is None:
        notes.append("every value is the same: no intraclass correlation")
    positive = bool((means > 0).all())
    if not positive:
        notes.append("some means are not positive: no coefficient of variation")
    if n < len(first):
        notes.append(f"{len(first) - n} of {len(first)} pairs lack a value")
    return Repeatability(
        subjects=n,
        mean=float(values.mean()),
        intraclass=intraclass,
        within_sd=within,
        rc=factor * within,
        rc_low=factor * within * low,
        rc_high=factor * within * high,
        within_cv=math.sqrt(float(np.mean(differences**2 / 2 / means**2))) if positive else None,
        bias=bias,
        difference_sd=spread,
        limit_low=bias - 1.96 * spread,
        limit_high=bias + 1.96 * spread,
        note="; ".join(notes),
    )


def _chi_squared_factors(n: int) -> tuple[float, float]:
    """Factors of a within-subject standard deviation of `n` pairs that give the ends of its 95 % interval."""
    from scipy.stats import chi2  # heavy; only comparisons need it

    return math.sqrt(n / float(chi2.ppf(1 - _LEVEL / 2, n))), math.sqrt(n / float(chi2.ppf(_LEVEL / 2, n)))
