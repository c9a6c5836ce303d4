"""The hash by which a cohort is known: of its series and instances, whatever the catalog and the order of its rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from ctenrich.records import SeriesEntry
from ctenrich.select.spool import SpooledSeries

__all__ = ["cohort_sha256", "sha256_in_order"]


def cohort_sha256(series: Iterable[SeriesEntry]) -> str:
    """Hash over the sorted series and instance UIDs (URLs where a catalog has no instances)."""
    return sha256_in_order(sorted(series, key=lambda s: s.series_instance_uid))


def sha256_in_order(series: Iterable[SeriesEntry]) -> str:
    """:func:`cohort_sha256` of series that come in the order of their UIDs; only one of them is needed at a time."""
    digest = hashlib.sha256()
    for uid, names in _names_in(series) if isinstance(series, SpooledSeries) else map(_names_of, series):
        digest.update("".join([f"S {uid}\n", *(f"I {name}\n" for name in sorted(names))]).encode())
    return digest.hexdigest()


def _names_of(entry: SeriesEntry) -> tuple[str, list[str]]:
    """UID of a series, and those of its instances."""
    return entry.series_instance_uid, [i.sop_instance_uid or i.url for i in entry.instances]


def _names_in(series: SpooledSeries) -> Iterator[tuple[str, list[str]]]:
    """:func:`_names_of` each series, from columns."""
    import pyarrow.compute as pc

    for heads, lists in series.listed():
        flat = lists.flatten()
        uids = flat.field("sop_instance_uid")
        names = pc.if_else(pc.equal(uids, ""), flat.field("url"), uids).to_pylist()
        end = 0
        for head, length in zip(heads, lists.value_lengths().to_pylist(), strict=True):
            start, end = end, end + length
            yield head.series_instance_uid, names[start:end]
