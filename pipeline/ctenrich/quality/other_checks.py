"""Checks against other results of the series, and of the series itself: products, folds, spacing, order of slices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from ctenrich.masks import dice_of_counts
from ctenrich.quality.case import OrganMask, QualityCase
from ctenrich.quality.finding import Finding, above, below
from ctenrich.quality.limits import Limits
from ctenrich.records import Severity

__all__ = ["check_folds", "check_products", "check_series"]

_LOBES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "lung_left": ("lung_upper_lobe_left", "lung_lower_lobe_left"),
        "lung_right": ("lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right"),
    }
)
"""Lobes of each lung: TotalSegmentator has the lobes, lungmask's R231 the lungs, and each is a witness of the other."""


def check_products(case: QualityCase, limits: Limits) -> Iterator[Finding]:
    """Dice with the same organ of the other products of the series; a lung may be its lobes in one of them.

    Parameters
    ----------
    case : QualityCase
    limits : Limits

    Yields
    ------
    Finding
    """
    limit = limits.number("products", "dice")
    for product, organs in case.others.items():
        for name, organ in case.organs.items():
            other = organs.get(name)
            if other is None or "gtv" in name:
                continue
            agreement = _dice(organ, other)
            if agreement < limit:
                text = f"{name}: Dice {agreement:.2f} with {product}, less than {limit:.2f}"
                yield below(name, "disagreement", agreement, limit, text, severity=Severity.WARNING)
        for side, lobes in _LOBES.items():
            one, two = _lung(case.organs, side, lobes), _lung(organs, side, lobes)
            if one is None or two is None or (side in case.organs) == (side in organs):
                continue
            agreement = _dice(one, two)
            if agreement < limit:
                shown = side if side in case.organs else max(lobes, key=lambda lobe: case.organs[lobe].voxels)
                text = f"{side}: Dice {agreement:.2f} of the lung and its lobes in {product}, less than {limit:.2f}"
                yield below(shown, "disagreement", agreement, limit, text, severity=Severity.WARNING)


def _lung(organs: Mapping[str, OrganMask], side: str, lobes: Sequence[str]) -> OrganMask | None:
    """A lung, or its lobes together; None if there is no lung and a lobe is missing."""
    if side in organs:
        return organs[side]
    if not all(lobe in organs for lobe in lobes):
        return None
    found = [organs[lobe] for lobe in lobes]
    low = np.min([lobe.start for lobe in found], axis=0)
    high = np.max([np.add(lobe.start, lobe.mask.shape) for lobe in found], axis=0)
    mask = np.zeros(high - low, bool)
    for lobe in found:
        z, y, x = lobe.start - low
        dz, dy, dx = lobe.mask.shape
        mask[z : z + dz, y : y + dy, x : x + dx] |= lobe.mask
    return replace(found[0], name=side, mask=mask, start=(int(low[0]), int(low[1]), int(low[2])))


def check_folds(case: QualityCase, limits: Limits) -> Iterator[Finding]:
    """Agreement of the folds of a network.

    Parameters
    ----------
    case : QualityCase
    limits : Limits

    Yields
    ------
    Finding
    """
    limit = limits.number("products", "folds")
    for name, agreement in sorted(case.agreement.items()):
        if agreement < limit and name in case.organs:
            text = f"{name}: mean Dice of its folds with the ensemble {agreement:.2f}, less than {limit:.2f}"
            yield below(name, "folds", agreement, limit, text, severity=Severity.WARNING)


def check_series(case: QualityCase, limits: Limits) -> Iterator[Finding]:
    """Distance between slices, number of slices, and what the slice scores tell about spacing and order.

    Parameters
    ----------
    case : QualityCase
    limits : Limits

    Yields
    ------
    Finding
    """
    spacing, slices = case.spacing[0], case.shape[0]
    largest, least = limits.number("series", "spacing_mm"), limits.number("series", "slices")
    if spacing > largest:
        text = f"the slices are {spacing:.4g} mm apart, more than {largest:g} mm"
        yield above("", "slice_spacing", spacing, largest, text, severity=Severity.WARNING)
    if slices < least:
        text = f"the series has {slices} slices, less than {least:g}"
        yield below("", "slices", float(slices), least, text, severity=Severity.WARNING)
    if case.spacing_valid is False:
        text = "the slice scores grow at another rate than the spacing of the slices implies: the spacing may be wrong"
        yield Finding(organ="", check="spacing", value=None, severity=Severity.WARNING, sentence=text)
    if case.order_reversed:
        text = "the slice scores fall from feet to head: the order of the slices, or their positions, may be reversed"
        yield Finding(organ="", check="reversed_order", value=None, severity=Severity.ERROR, sentence=text)


def _dice(one: OrganMask, two: OrganMask) -> float:
    """Dice coefficient of two cropped masks of one volume."""
    low = np.maximum(one.start, two.start)
    high = np.minimum(np.add(one.start, one.mask.shape), np.add(two.start, two.mask.shape))
    if (low >= high).any():
        return 0.0
    parts = [o.mask[tuple(slice(a - s, b - s) for a, b, s in zip(low, high, o.start, strict=True))] for o in (one, two)]
    return dice_of_counts(int(np.count_nonzero(parts[0] & parts[1])), one.voxels, two.voxels) or 0.0
