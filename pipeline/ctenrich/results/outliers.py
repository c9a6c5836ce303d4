"""Values far from the others of a group, by the modified z-score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["LIMIT", "find_outliers", "outlier_scores"]

_LEAST = 8
"""Groups with fewer values are not searched for outliers."""
LIMIT = 3.5
"""Modified z-score from which a value is called an outlier (Iglewicz and Hoaglin, 1993)."""


def outlier_scores(values: Sequence[float]) -> list[float]:
    """Return the modified z-score of every value; zeros for fewer than 8 values, or if half of them are equal."""
    array = np.asarray(values, float)
    if array.size < _LEAST:
        return [0.0] * array.size
    middle = float(np.median(array))
    spread = float(np.median(np.abs(array - middle)))
    if spread == 0:
        return [0.0] * array.size
    scores: list[float] = (0.6745 * (array - middle) / spread).tolist()
    return scores


def find_outliers(groups: NDArray[np.integer], values: NDArray[np.floating]) -> dict[int, float]:
    """Find values whose modified z-score within their group is above `LIMIT`.

    Parameters
    ----------
    groups : array of int, shape (rows, columns)
        Rows with equal numbers form a group.
    values : array of float, shape (rows,)
        Missing values are NaN, and belong to no group.

    Returns
    -------
    dict
        Index of the row -> modified z-score.
    """
    present = np.flatnonzero(~np.isnan(values.astype(float)))
    if present.size == 0:
        return {}
    _, numbers = np.unique(groups[present], axis=0, return_inverse=True)
    order = present[np.argsort(numbers, kind="stable")]
    found: dict[int, float] = {}
    for rows in np.split(order, np.cumsum(np.bincount(numbers.ravel()))[:-1]):
        scores = outlier_scores(values[rows].tolist())
        found |= {int(row): score for row, score in zip(rows, scores, strict=True) if abs(score) > LIMIT}
    return found
