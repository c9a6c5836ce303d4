"""Checks against other results of the series, and of the series itself: products, folds, spacing, order of slices."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ctenrich.masks import dice_of_counts
from ctenrich.quality.case import OrganMask, QualityCase
from ctenrich.quality.finding import Finding, above, below
from ctenrich.quality.limits import Limits
from ctenrich.records import Severity

__all__ = ["check_folds", "check_products", "check_series"]


def check_products(case: QualityCase, limits: Limits) -> Iterator[Finding]:
    """Dice with the same organ of the other products of the series.

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
