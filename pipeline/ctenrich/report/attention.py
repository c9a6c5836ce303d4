"""List what needs a look first: products by their findings of ``ctenrich quality``, then series with unusual values."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ctenrich.report.data import CohortData, rows_of

if TYPE_CHECKING:
    import duckdb

__all__ = ["Attention", "QualityScore", "Sign", "load_attention", "load_scores"]

_SHOWN = 6
"""Findings that are listed of a product."""


@dataclass(frozen=True, kw_only=True)
class Sign:
    """One finding."""

    severity: str
    organ: str
    sentence: str
    slice_index: int | None


@dataclass(frozen=True, kw_only=True)
class Attention:
    """One product of one series that needs a look, with its findings, the gravest first."""

    series: str
    product: str
    score: float
    signs: tuple[Sign, ...]
    more: int
    """Findings beyond those that are listed."""

    @property
    def slice_index(self) -> int | None:
        """Slice on which the gravest finding with a place is."""
        return next((sign.slice_index for sign in self.signs if sign.slice_index is not None), None)


@dataclass(frozen=True, kw_only=True)
class QualityScore:
    """Highest score of the products of a series, and whether one of the findings is an error."""

    score: float
    error: bool


_RANKED = """
SELECT SeriesInstanceUID AS series, product, score, findings FROM quality_ranking WHERE score > 0 ORDER BY rank LIMIT ?
"""
_FINDINGS = """
SELECT q.SeriesInstanceUID AS series, q.product, q.severity, coalesce(q.organ, '') AS organ, q.sentence, q.slice_index
FROM quality AS q
JOIN (SELECT SeriesInstanceUID, product FROM quality_ranking WHERE score > 0 ORDER BY rank LIMIT ?) AS r
  ON r.SeriesInstanceUID = q.SeriesInstanceUID AND r.product = q.product
WHERE q.weight > 0 ORDER BY q.weight DESC, organ, q.rule
"""
_SCORES = """
SELECT r.SeriesInstanceUID AS series, max(r.score) AS score, coalesce(bool_or(e.error), FALSE) AS error
FROM quality_ranking AS r
LEFT JOIN (SELECT SeriesInstanceUID, bool_or(severity = 'error') AS error FROM quality GROUP BY 1) AS e
  ON e.SeriesInstanceUID = r.SeriesInstanceUID
WHERE r.score > 0 GROUP BY 1
"""


def load_attention(db: duckdb.DuckDBPyConnection, data: CohortData, most: int) -> list[Attention]:
    """Load the first entries of the ranked list; empty where ``ctenrich quality`` has not been run.

    Parameters
    ----------
    db : DuckDBPyConnection
        The tables.
    data : CohortData
        The cohort; entries of other series are left out.
    most : int
        Largest number of entries.

    Returns
    -------
    list of Attention
    """
    signs: dict[tuple[str, str], list[Sign]] = defaultdict(list)
    for row in rows_of(db, _FINDINGS, [most]):
        key = row.pop("series"), row.pop("product")
        if row["sentence"] not in {sign.sentence for sign in signs[key]}:
            signs[key].append(Sign(**row))
    return [
        Attention(
            series=row["series"],
            product=row["product"],
            score=row["score"],
            signs=tuple(signs[row["series"], row["product"]][:_SHOWN]),
            more=max(0, len(signs[row["series"], row["product"]]) - _SHOWN),
        )
        for row in rows_of(db, _RANKED, [most])
        if row["series"] in data.places
    ]


def load_scores(db: duckdb.DuckDBPyConnection) -> dict[str, QualityScore]:
    """Load the score of every series with findings."""
    found: list[dict[str, Any]] = rows_of(db, _SCORES)
    return {row["series"]: QualityScore(score=row["score"], error=row["error"]) for row in found}
