"""Compare the masks of a series' products with one of them, for the series page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.codes.mappings import plain_name
from ctenrich.evaluate.metrics import measure_agreement
from ctenrich.masks import crop_of, dice_of_counts
from ctenrich.records import SegmentMasks, Severity
from ctenrich.workspace import Workspace

__all__ = ["MOST_DISTANCES", "Agreement", "agreement_of", "reference_of"]

MOST_DISTANCES = 12
"""Distances are computed for up to this number of structures; for more they come from ``ctenrich evaluate``."""

Spacing = tuple[float, float, float]
Masks = tuple[NDArray[np.bool_], NDArray[np.bool_]]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement of one structure of a product with the reference."""

    segment: str
    dice: float | None
    """None only if both masks are empty."""
    volume: float
    """mL."""
    reference_volume: float
    """mL."""
    hausdorff_95: float | None = None
    """mm: larger of both directions' 95th percentiles of the distances between surface voxels; None if a mask is empty
    or the distances were not computed."""
    mean_distance: float | None = None
    """mm: mean of both directions' mean distances."""


def reference_of(masks: Mapping[str, SegmentMasks]) -> str:
    """Key of the product with which the others are compared: the expert's, else the first; empty without masks."""
    return "expert" if "expert" in masks else next(iter(masks), "")


def agreement_of(
    reference: SegmentMasks,
    other: SegmentMasks,
    spacing: Spacing,
    workspace: Workspace,
    evaluated: Sequence[Mapping[str, Any]] = (),
) -> tuple[Agreement, ...]:
    """Compare the structures that two products have in common.

    Distances are taken from the table ``evaluation`` if the Dice coefficient of its row is that of the masks.

    Parameters
    ----------
    reference, other : SegmentMasks
        Masks on one grid.
    spacing : (float, float, float)
        mm, axes [k, j, i].
    workspace : Workspace
        The run's folder.
    evaluated : sequence of mapping
        Rows of the table ``evaluation`` of this series, reference and product.

    Returns
    -------
    tuple of Agreement
        In the order of the reference. Structures in whose source an error was found are left out.
    """
    known = {row["segment"]: row for row in evaluated}
    unsound = {i.object for m in (reference, other) for i in m.issues if i.severity is Severity.ERROR}
    numbers = {s.name: s.number for s in other.segments}
    pairs = [
        (s.name, s.number, number)
        for s in reference.segments
        if s.name not in unsound and (number := numbers.get(s.name, numbers.get(plain_name(s.name)))) is not None
    ]
    out = []
    for name, own, theirs in pairs:
        one, two = _on_common_box(other, theirs, reference, own, workspace)
        sizes = [int(np.count_nonzero(m)) for m in (one, two)]
        dice = dice_of_counts(int(np.count_nonzero(one & two)), *sizes)
        near: Mapping[str, Any] = known.get(name, {})
        if dice is None or near.get("dice") is None or abs(near["dice"] - dice) > 1e-9:
            near = {}
            if 0 not in sizes and len(pairs) <= MOST_DISTANCES:
                found = measure_agreement(one, two, spacing, tolerances=())
                near = {
                    "hausdorff_95_max": found.hausdorff_95_max,
                    "mean_surface_distance": found.mean_surface_distance,
                }
        millilitres = float(np.prod(spacing)) / 1000
        out.append(
            Agreement(
                segment=name,
                dice=dice,
                volume=sizes[0] * millilitres,
                reference_volume=sizes[1] * millilitres,
                hausdorff_95=near.get("hausdorff_95_max"),
                mean_distance=near.get("mean_surface_distance"),
            )
        )
    return tuple(out)


def _on_common_box(
    first: SegmentMasks, first_number: int, second: SegmentMasks, second_number: int, workspace: Workspace
) -> Masks:
    """Both masks on the smallest box that contains them, [k, j, i]."""
    crops = [crop_of(first, first_number, workspace), crop_of(second, second_number, workspace)]
    boxes = [((c[1].k0, c[1].k1), (c[1].j0, c[1].j1), (c[1].i0, c[1].i1)) for c in crops if c is not None]
    if not boxes:
        return np.zeros((1, 1, 1), bool), np.zeros((1, 1, 1), bool)
    low = [min(box[axis][0] for box in boxes) for axis in range(3)]
    high = [max(box[axis][1] for box in boxes) for axis in range(3)]
    out = []
    for crop in crops:
        mask = np.zeros([h - a for a, h in zip(low, high, strict=True)], bool)
        if crop is not None:
            start = (crop[1].k0 - low[0], crop[1].j0 - low[1], crop[1].i0 - low[2])
            mask[tuple(slice(s, s + n) for s, n in zip(start, crop[0].shape, strict=True))] = crop[0]
        out.append(mask)
    return out[0], out[1]
