"""How much the series of a cohort are, for forecasts."""

from __future__ import annotations

from typing import NamedTuple

from ctenrich.records import SeriesEntry

__all__ = ["SeriesSize", "size_of_series"]


class SeriesSize(NamedTuple):
    """How much a series is, as far as the catalog states it: for forecasts."""

    series_instance_uid: str
    slices: int
    bytes: int | None
    """None if no size is known."""
    storage: str
    """``local``, ``remote``, or ``unknown`` if an instance has no address."""
    license_short_name: str
    source_doi: str


def size_of_series(entry: SeriesEntry) -> SeriesSize:
    """Return the size of a series from its instances."""
    known = [i.size for i in entry.instances if i.size]
    local = all(i.url.startswith("file:") for i in entry.instances)
    return SeriesSize(
        series_instance_uid=entry.series_instance_uid,
        slices=entry.expected_instances or len(entry.instances),
        bytes=sum(known) if known else None,
        storage="unknown" if not all(i.url for i in entry.instances) else "local" if local else "remote",
        license_short_name=entry.license_short_name,
        source_doi=entry.source_doi,
    )
