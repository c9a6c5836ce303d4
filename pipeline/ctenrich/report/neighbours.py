"""Find, for every series, the series of the run whose feature vectors (deep features) are nearest to its own."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.report.data import rows_of
from ctenrich.report.series_tables import patient_of, words

if TYPE_CHECKING:
    import duckdb

__all__ = ["MOST_SERIES", "NEIGHBOURS", "neighbours_of"]

Row = dict[str, Any]
NEIGHBOURS = 5
"""Series that a page lists for each vector."""
MOST_SERIES = 20_000
"""Series of a kind of vector up to which neighbours are computed: every pair is compared."""
_AT_ONCE = 500
"""Series that are compared with all others at once."""
_KINDS = """
SELECT model_sha256, min(features) AS features, length, coalesce(segment, '') AS segment,
  CASE WHEN segment IS NULL THEN '' ELSE product END AS product, count(DISTINCT SeriesInstanceUID) AS n
FROM deep_features WHERE norm > 0 GROUP BY 1, 3, 4, 5 HAVING n > 1 ORDER BY features, model_sha256, segment, product
"""
_VECTORS = """
SELECT SeriesInstanceUID, any_value(vector) AS vector FROM deep_features
WHERE norm > 0 AND model_sha256 = ? AND length = ? AND coalesce(segment, '') = ?
  AND CASE WHEN segment IS NULL THEN '' ELSE product END = ?
GROUP BY 1 ORDER BY 1
"""
_PATIENTS = """
SELECT SeriesInstanceUID, PatientID FROM series
WHERE SeriesInstanceUID IN (SELECT SeriesInstanceUID FROM deep_features)
"""


def neighbours_of(db: duckdb.DuckDBPyConnection) -> dict[str, list[Row]]:
    """Compare the vectors of each model: those of one structure and product, or those of whole volumes.

    The measure is the cosine of the angle between two vectors, in double precision; equal ones are in the order of
    their Series Instance UIDs. One kind of vector is in memory at a time.

    Parameters
    ----------
    db : DuckDBPyConnection
        The run's tables; see :func:`ctenrich.report.data.open_tables`.

    Returns
    -------
    dict
        Series Instance UID -> a row per kind of vector: ``features``, ``structure``, ``product``, ``of`` (number of
        other series with such a vector) and ``similar``, the nearest series with ``uid``, ``patient``, ``same``
        (whether it is the same patient) and ``similarity``. Series without such a vector, and kinds of more than
        :data:`MOST_SERIES` series, have none.
    """
    found: dict[str, list[Row]] = defaultdict(list)
    kinds = rows_of(db, _KINDS)
    patients = dict(db.execute(_PATIENTS).fetchall()) if kinds else {}
    for kind in kinds:
        if kind["n"] > MOST_SERIES:
            continue
        keys = [kind[name] for name in ("model_sha256", "length", "segment", "product")]
        table = db.execute(_VECTORS, keys).to_arrow_table()
        uids = [str(uid) for uid in table.column("SeriesInstanceUID").to_pylist()]
        flat = table.column("vector").combine_chunks().flatten().to_numpy(zero_copy_only=False)
        vectors = np.array(flat, np.float64).reshape(len(uids), -1)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        for uid, places, values in _nearest(vectors, uids):
            own = patients.get(uid)
            similar = [
                {
                    "uid": other,
                    "patient": patient_of({"PatientID": patients.get(other)}),
                    "same": bool(own) and patients.get(other) == own,
                    "similarity": f"{value:.4f}",
                }
                for other, value in zip(places, values, strict=True)
            ]
            structure = words(kind["segment"]) or "whole volume"
            found[uid].append(
                {
                    "features": kind["features"],
                    "structure": structure,
                    "product": kind["product"],
                    "of": len(uids) - 1,
                    "similar": similar,
                }
            )
    return dict(found)


def _nearest(vectors: NDArray[np.float64], uids: list[str]) -> list[tuple[str, list[str], list[float]]]:
    """Nearest other series of each, from vectors of length 1 in the order of their series."""
    out = []
    for first in range(0, len(uids), _AT_ONCE):
        part = vectors[first : first + _AT_ONCE] @ vectors.T
        for n, row in enumerate(part):
            row[first + n] = -np.inf
            order = np.argsort(-row, kind="stable")[: min(NEIGHBOURS, len(uids) - 1)]
            out.append((uids[first + n], [uids[k] for k in order], [float(row[k]) for k in order]))
    return out
