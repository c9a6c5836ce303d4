"""The list of all checks, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeAlias

from ctenrich.quality.case import QualityCase
from ctenrich.quality.dose_checks import check_doses
from ctenrich.quality.finding import Finding
from ctenrich.quality.image_checks import check_alignment, check_attenuation, check_landmarks, check_lungs
from ctenrich.quality.limits import Limits
from ctenrich.quality.other_checks import check_folds, check_products, check_series
from ctenrich.quality.place_checks import (
    check_body_part,
    check_kidneys,
    check_neighbours,
    check_region,
    check_sides,
    check_symmetry,
    check_trachea,
)
from ctenrich.quality.shape_checks import (
    check_cross_section,
    check_edge,
    check_empty,
    check_ends,
    check_extent,
    check_holes,
    check_islands,
    check_volume,
)

__all__ = ["CHECKS", "Check", "run_checks"]

Check: TypeAlias = Callable[[QualityCase, Limits], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    check_series,
    check_empty,
    check_islands,
    check_holes,
    check_ends,
    check_cross_section,
    check_edge,
    check_volume,
    check_extent,
    check_sides,
    check_symmetry,
    check_neighbours,
    check_trachea,
    check_kidneys,
    check_region,
    check_body_part,
    check_attenuation,
    check_lungs,
    check_alignment,
    check_landmarks,
    check_products,
    check_folds,
    check_doses,
)
"""A new check is a function of this form and a line here."""


def run_checks(case: QualityCase, limits: Limits) -> tuple[Finding, ...]:
    """Run every check on one product of one series.

    Parameters
    ----------
    case : QualityCase
    limits : Limits

    Returns
    -------
    tuple of Finding
        The gravest first.
    """
    found = [_placed(finding, case) for check in CHECKS for finding in check(case, limits)]
    return tuple(sorted(found, key=lambda f: (-f.weight, f.organ, f.check)))


def _placed(finding: Finding, case: QualityCase) -> Finding:
    """The finding with a slice to look at: the middle of its organ, where the check named none."""
    organ = case.organs.get(finding.organ)
    if finding.slice_index is not None or organ is None:
        return finding
    return replace(finding, slice_index=case.slice_of(float(organ.centre[0]) / case.spacing[0]))
