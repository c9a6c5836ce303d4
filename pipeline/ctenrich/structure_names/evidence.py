"""Where an ROI is: its side, and the organs that it overlaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["OrganEvidence", "Overlap", "find_evidence", "find_side", "midline"]

Mask = NDArray[np.bool_]

_PAIRS = (("lung_left", "lung_right"), ("kidney_left", "kidney_right"), ("femur_left", "femur_right"))
_CLEAR = 0.8
"""Share of an ROI's voxels on one side of the midline from which it is on that side."""
_APART = 10.0
"""mm between the centre of an ROI and the midline from which it is on a side."""


class Overlap(NamedTuple):
    """Voxels of an organ."""

    shared: int
    """With the ROI."""
    voxels: int
    """All."""


@dataclass(frozen=True, kw_only=True)
class OrganEvidence:
    """What the voxels of an ROI show."""

    side: str
    """L or R of the patient; empty if it crosses the midline or lies on it."""
    organs: tuple[tuple[str, float], ...]
    """(segment of mappings/segments.csv, Dice), best first; without those that it does not touch."""
    contained: tuple[tuple[str, float], ...] = ()
    """(segment, share of the ROI inside it), largest first."""
    treated: str = ""
    """L or R: the treated side of the series; empty if it is not known."""


def midline(centres: Mapping[str, float], columns: int) -> float:
    """Return the column of the patient's midline.

    Parameters
    ----------
    centres : mapping
        Segment -> column of its centre.
    columns : int
        Columns of the image.

    Returns
    -------
    float
        The middle between the centres of a pair of organs; else the column of the spinal cord or the spine; else the
        middle of the image.
    """
    for left, right in _PAIRS:
        if left in centres and right in centres:
            return (centres[left] + centres[right]) / 2
    for name in ("spinal_cord", "vertebra", "sacrum"):
        if name in centres:
            return centres[name]
    return (columns - 1) / 2


def find_evidence(
    roi: Mask, organs: Mapping[str, Overlap], *, column_step: float, middle: float
) -> OrganEvidence | None:
    """Compare an ROI with organs.

    Parameters
    ----------
    roi : ndarray of bool
        Axes [slice, row, column].
    organs : mapping
        Segment of mappings/segments.csv -> voxels that it shares with the ROI, and its own.
    column_step : float
        mm by which x (to the patient's left) grows from one column to the next; negative where it falls.
    middle : float
        Column of the midline, see :func:`midline`.

    Returns
    -------
    OrganEvidence or None
        None for an ROI without voxels.
    """
    size = int(np.count_nonzero(roi))
    if not size:
        return None
    side = find_side(roi.sum(axis=(0, 1), dtype=np.int64), column_step=column_step, middle=middle)
    dice = {name: 2 * one.shared / (size + one.voxels) for name, one in organs.items() if one.shared}
    inside = {name: one.shared / size for name, one in organs.items() if one.shared}
    return OrganEvidence(side=side, organs=_largest_first(dice), contained=_largest_first(inside))


def find_side(counts: NDArray[np.int64] | NDArray[np.float64], *, column_step: float, middle: float) -> str:
    """Return the side on which voxels are: at least 80 % of them, with a centre at least 10 mm from the midline.

    Parameters
    ----------
    counts : ndarray
        Voxels in each column.
    column_step : float
        mm by which x (to the patient's left) grows from one column to the next; negative where it falls.
    middle : float
        Column of the midline, see :func:`midline`.

    Returns
    -------
    str
        L or R of the patient; empty if they cross the midline or are on it.
    """
    size = float(counts.sum())
    if not size:
        return ""
    columns = np.arange(counts.size)
    centre = float((counts * columns).sum() / size)
    beyond = float(counts[columns > middle].sum()) / size  # share in columns after the midline
    if abs(centre - middle) * abs(column_step) < _APART or max(beyond, 1 - beyond) < _CLEAR:
        return ""
    return "L" if (beyond > 0.5) == (column_step > 0) else "R"


def _largest_first(values: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    return tuple(sorted(values.items(), key=lambda one: (-one[1], one[0])))
