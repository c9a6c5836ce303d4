"""Rank products of series by what their checks found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ctenrich.quality.finding import Finding

__all__ = ["RankedCase", "rank_cases", "score_of"]


@dataclass(frozen=True, kw_only=True)
class RankedCase:
    """One product of one series, with its score and findings."""

    series_instance_uid: str
    product: str
    findings: tuple[Finding, ...]
    """The gravest first."""
    score: float


def score_of(findings: Sequence[Finding]) -> float:
    """Sum over the checks of the largest weight of their findings: many organs with one fault count once."""
    largest: dict[str, float] = defaultdict(float)
    for finding in findings:
        largest[finding.check] = max(largest[finding.check], finding.weight)
    return sum(largest.values())


def rank_cases(found: Sequence[tuple[str, str, Sequence[Finding]]]) -> tuple[RankedCase, ...]:
    """Rank cases by their score.

    Parameters
    ----------
    found : sequence of (Series Instance UID, product, findings)

    Returns
    -------
    tuple of RankedCase
        The highest score first; equal scores by UID and product.
    """
    cases = [
        RankedCase(
            series_instance_uid=uid,
            product=product,
            findings=tuple(sorted(findings, key=lambda f: (-f.weight, f.organ, f.check))),
            score=score_of(findings),
        )
        for uid, product, findings in found
    ]
    return tuple(sorted(cases, key=lambda c: (-c.score, c.series_instance_uid, c.product)))
