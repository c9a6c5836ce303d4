"""Values far from the others of a group, by the modified z-score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["LIMIT", "outlier_scores"]

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
