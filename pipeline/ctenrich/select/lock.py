"""The lock of a selection: what it was made of, so that it can be run again and compared."""

from __future__ import annotations

import datetime as dt
import os
from collections import Counter
from typing import Any

from ctenrich import __version__
from ctenrich.catalog.citations import citations_of
from ctenrich.catalog.sql import table_names
from ctenrich.select.selection import Selection
from ctenrich.select.spool import heads_of, with_counts

__all__ = ["LOCK_FORMAT", "lock_of"]

LOCK_FORMAT = 1


def lock_of(selection: Selection) -> dict[str, Any]:
    """What goes into NAME.lock.json.

    The time is the only value that differs when the same selection is run twice; SOURCE_DATE_EPOCH fixes it.
    """
    cohort = selection.cohort
    datasets = {name.split(".")[1] for name in _tables(selection) if name.count(".") == 2}
    return {
        "format": LOCK_FORMAT,
        "ctenrich": __version__,
        "time": _now(),
        "catalog": selection.catalog,
        "catalog_version": selection.catalog_version,
        "idc_datasets": sorted(datasets),
        "engine": selection.engine,
        "bytes_read": selection.bytes_read,
        "notes": list(selection.notes),
        "query": {"name": selection.query.name, "sha256": selection.query.sha256, "text": selection.query.text},
        "parameters": selection.parameters,
        "cohort": {"name": cohort.name, "sha256": cohort.sha256, "series": len(cohort.series)},
        "excluded": dict(sorted(Counter(selection.excluded["reason"].to_pylist()).items())),
        "collections": _collections(selection),
        "series": [
            {
                "SeriesInstanceUID": s.series_instance_uid,
                "crdc_series_uuid": s.crdc_series_uuid,
                "instances": s.expected_instances if s.expected_instances is not None else count,
            }
            for s, count in with_counts(cohort.series)
        ],
    }


def _tables(selection: Selection) -> tuple[str, ...]:
    return table_names(selection.query.text) if selection.query.text.strip() else ()


def _collections(selection: Selection) -> dict[str, Any]:
    """Licences and citations of the data, by collection."""
    found: dict[str, dict[str, set[str]]] = {}
    for entry in heads_of(selection.cohort.series):
        terms = found.setdefault(entry.collection_id, {"licences": set(), "dois": set()})
        terms["licences"].update({entry.license_short_name} - {""})
        terms["dois"].update({entry.source_doi} - {""})
    return {
        name: {
            "licences": sorted(terms["licences"]),
            "cite": [
                {"doi": c.doi, "url": c.url, "title": c.title, "reference": c.text, "license_url": c.license_url}
                for c in citations_of(terms["dois"])
            ],
        }
        for name, terms in sorted(found.items())
    }


def _now() -> str:
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    moment = dt.datetime.fromtimestamp(int(epoch), dt.UTC) if epoch.isdigit() else dt.datetime.now(dt.UTC)
    return moment.isoformat(timespec="seconds")
