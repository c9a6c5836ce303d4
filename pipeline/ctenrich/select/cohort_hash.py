"""The hash by which a cohort is known: of its series and instances, whatever the catalog and the order of its rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ctenrich.records import SeriesEntry

__all__ = ["cohort_sha256", "sha256_in_order"]


def cohort_sha256(series: Iterable[SeriesEntry]) -> str:
    """Hash over the sorted series and instance UIDs (URLs where a catalog has no instances)."""
    return sha256_in_order(sorted(series, key=lambda s: s.series_instance_uid))


def sha256_in_order(series: Iterable[SeriesEntry]) -> str:
    """:func:`cohort_sha256` of series that come in the order of their UIDs; only one of them is needed at a time."""
    digest = hashlib.sha256()
    for entry in series:
        digest.update(f"S {entry.series_instance_uid}\n".encode())
        for name in sorted(i.sop_instance_uid or i.url for i in entry.instances):
            digest.update(f"I {name}\n".encode())
    return digest.hexdigest()
