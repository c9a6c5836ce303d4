"""Write the reviews of a run as the table ``reviews``."""

from __future__ import annotations

from pathlib import Path

from ctenrich.results.schema import arrow_schema
from ctenrich.review.store import ReviewStore
from ctenrich.workspace import Workspace, atomic_path

__all__ = ["write_reviews"]


def write_reviews(workspace: Workspace) -> Path | None:
    """Write ``tables/reviews.parquet``, a row per review; None if the run has no reviews.

    A review stays in the table when a newer one replaces it (column ``last``), or when the objects have been made again
    (column ``current``).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    store = ReviewStore(workspace)
    if not store.path.is_file():
        return None
    states = store.states()
    rows = []
    for review, imported in store.load_with_import():
        found = states[review.series_instance_uid, review.product]
        rows.append(
            {
                "SeriesInstanceUID": review.series_instance_uid,
                "product": review.product,
                "state": found.state.value,
                "decision": review.decision.value,
                "reason": review.reason or None,
                "comment": review.comment or None,
                "reviewer": review.reviewer,
                "time": review.time,
                "imported": imported,
                "objects": review.objects,
                "current": store.is_current(review),
                "last": review in found.last,
            }
        )
    path = workspace.tables / "reviews.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=arrow_schema("reviews")), temporary, compression="zstd")
    return path
