"""Clean the network's raw scores: map, smooth, cut the tails, check direction and spacing.

The steps are those of bpreg 1.1.0, in its order, with its parameters (they are part of the published JSON):

1. the known score of an empty slice, and every slice without a patient, has no value;
2. linear map: `transform_min` (pelvis_start) becomes 0 and `transform_max` (eyes_end) 100;
3. Gaussian smoothing along the slices that have a value, sigma 10 mm;
4. outside the slices nearest to 0 and 100 (where the series reaches within 10 of them), everything beyond the first
   slope outside `tangential_slope_min` .. `tangential_slope_max` has no value: legs and air above the head;
5. line through position and score; the ratio of its slope to the expected one shows whether the spacing can be right
   (`ratio` within 0.28 of 1), and its sign whether the scores rise from feet to head.

Two deliberate differences: a series whose scores fall is cleaned in the order in which they rise, since the limits of
step 4 mean rising scores; and the sign that decides this comes from the slices that show a patient.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

__all__ = ["CleanScores", "CleanUp", "clean_scores"]

Float = NDArray[np.float64]
_REACH = 10.0
"""A series reaches an end of the scale if a score comes within this many points of it."""


@dataclass(frozen=True)
class CleanUp:
    """Parameters of the cleaning, named as the published JSON names them."""

    transform_min: float
    """Raw score that becomes 0 (pelvis_start)."""
    transform_max: float
    """Raw score that becomes 100 (eyes_end)."""
    slope_mean: float = 0.118
    """Expected score per mm."""
    tangential_slope_min: float = -0.037
    tangential_slope_max: float = 0.25
    r_slope_threshold: float = 0.28
    smoothing_sigma: float = 10.0
    """mm."""
    background_scores: tuple[float, ...] = (110.83, 6.14, 108.92, 6.22)
    """Raw scores, rounded to 2 decimals, of an empty slice in the public models."""

    def as_json(self) -> dict[str, Any]:
        """Plain data for the record and the JSON document."""
        return asdict(self) | {"background_scores": list(self.background_scores)}


@dataclass(frozen=True)
class CleanScores:
    """Cleaned scores in feet-to-head order, with the line through them."""

    mapped: Float
    """``[slice]``, mapped to 0..100, nothing else done; NaN where there is no raw score."""
    values: Float
    """``[slice]``, cleaned; NaN where not valid."""
    slope: float | None
    """Score per mm towards the head."""
    ratio: float | None
    valid_z_spacing: bool | None
    reverse: bool | None
    expected_z_spacing: float | None


def clean_scores(raw: Float, empty: NDArray[np.bool_], z_spacing: float, parameters: CleanUp) -> CleanScores:
    """Clean the scores of one series.

    Parameters
    ----------
    raw : NDArray[np.float64]
        ``[slice]``, from feet to head by the geometry; NaN where the network gave no number.
    empty : NDArray[np.bool_]
        ``[slice]``: the slice shows no patient.
    z_spacing : float
        mm, above 0.
    parameters : CleanUp

    Returns
    -------
    CleanScores
    """
    p = parameters
    mapped = (raw - p.transform_min) * 100 / (p.transform_max - p.transform_min)
    background = np.isin(np.round(raw, 2), p.background_scores)
    kept = np.where(empty | background, np.nan, mapped)
    rough = _score_slope(kept, z_spacing)
    if rough is not None and rough < 0:
        values = _cut_tails(_smooth_scores(kept[::-1], z_spacing, p), z_spacing, p)[::-1].copy()
    else:
        values = _cut_tails(_smooth_scores(kept, z_spacing, p), z_spacing, p)
    slope = _score_slope(values, z_spacing)
    if slope is None:
        return CleanScores(mapped, values, None, None, None, None, None)
    ratio = abs(slope) / p.slope_mean
    valid = abs(1 - ratio) <= p.r_slope_threshold
    return CleanScores(mapped, values, slope, ratio, valid, slope < 0, slope * z_spacing / p.slope_mean)


def _smooth_scores(scores: Float, z_spacing: float, p: CleanUp) -> Float:
    out = scores.copy()
    known = ~np.isnan(scores)
    if known.any():
        out[known] = gaussian_filter1d(scores[known], p.smoothing_sigma / z_spacing)
    return out


def _cut_tails(scores: Float, z_spacing: float, p: CleanUp) -> Float:
    """Remove scores beyond pelvis and eyes that do not rise as in a body (scores rise with the index)."""
    if len(scores) < 2 or np.isnan(scores).all():
        return scores
    bottom, top = _nearest_slice(scores, 0.0), _nearest_slice(scores, 100.0)
    if bottom is not None and top is not None and bottom > top:
        bottom = None
    steps = np.diff(scores)
    slopes = np.append(steps, steps[-1]) / z_spacing
    odd = np.flatnonzero((slopes < p.tangential_slope_min) | (slopes > p.tangential_slope_max))
    below = odd[odd < bottom] if bottom is not None else odd[:0]
    above = odd[odd > top] if top is not None else odd[:0]
    out = scores.copy()
    if below.size:
        out[: int(below.max())] = np.nan
    if above.size:
        out[int(above.min()) :] = np.nan
    return out


def _nearest_slice(scores: Float, value: float) -> int | None:
    distance = np.abs(scores - value)
    index = int(np.nanargmin(distance))
    return index if distance[index] < _REACH else None


def _score_slope(scores: Float, z_spacing: float) -> float | None:
    """Score per mm of the least-squares line; None with fewer than two values."""
    known = np.flatnonzero(~np.isnan(scores))
    if len(known) < 2:
        return None
    z = known * z_spacing
    centred = z - z.mean()
    return float(centred @ (scores[known] - scores[known].mean()) / (centred @ centred))
