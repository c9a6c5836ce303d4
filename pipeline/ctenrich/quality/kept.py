"""Findings of the checks of a series, kept with its records until these or the limits change."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ctenrich.errors import CtenrichError
from ctenrich.quality.cohort import OrganValues
from ctenrich.quality.finding import Finding
from ctenrich.quality.limits import Limits
from ctenrich.records import (
    DoseMeasurements,
    Landmarks,
    Regions,
    SegmentMasks,
    SeriesFacts,
    SliceScores,
    SortedSeries,
    Volume,
)
from ctenrich.series_store import PRODUCT_RECORDS, SERIES_RECORDS, SeriesStore
from ctenrich.workspace import load_record, save_record

__all__ = ["CheckedProduct", "CheckedSeries", "find_kept", "keep", "key_of_series"]

_NAME = "quality.json"
_VERSION = "2"
"""Raised when a check gives another result for the same records."""
_OF_SERIES = tuple(SERIES_RECORDS[kind] for kind in (SortedSeries, Volume))
_OF_PRODUCT = tuple(PRODUCT_RECORDS[kind] for kind in (SegmentMasks, SliceScores, Landmarks, Regions, DoseMeasurements))


@dataclass(frozen=True)
class CheckedProduct:
    """Findings in one product, and the values of its organs that are compared over the cohort."""

    product: str
    findings: tuple[Finding, ...]
    values: tuple[OrganValues, ...]
    mean_doses: Mapping[str, float] = field(default_factory=dict)
    """Organ -> mean dose, Gy."""


@dataclass(frozen=True)
class CheckedSeries:
    """The products of one series that were checked, and the key of what they were checked by."""

    key: str
    products: tuple[CheckedProduct, ...]


def key_of_series(store: SeriesStore, uid: str, facts: SeriesFacts, limits: Limits) -> str:
    """Hash of all records that the checks of a series depend on; they name the arrays by their hashes.

    Parameters
    ----------
    store : SeriesStore
        Records of the run.
    uid : str
        Series Instance UID.
    facts : SeriesFacts
        Of the header.
    limits : Limits
        Of the checks.

    Returns
    -------
    str
        SHA-256, hexadecimal.
    """
    folder = store.folder(uid)
    products = [store.folder(uid, product) for product in store.products(uid)]
    files = [folder / name for name in _OF_SERIES] + [path / name for path in products for name in _OF_PRODUCT]
    digest = hashlib.sha256(f"{_VERSION} {limits.sha256} {facts.patient_sex} {facts.body_part_examined}".encode())
    for path in files:
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def find_kept(store: SeriesStore, uid: str, key: str) -> CheckedSeries | None:
    """Load the findings of a series that were kept under a key; None if there are none.

    Parameters
    ----------
    store : SeriesStore
        Records of the run.
    uid : str
        Series Instance UID.
    key : str
        Of `key_of_series`.
    """
    try:
        found = load_record(_path(store, uid), CheckedSeries)
    except (CtenrichError, OSError):
        return None
    return found if found.key == key else None


def keep(store: SeriesStore, uid: str, checked: CheckedSeries) -> None:
    """Keep the findings of a series for the next report.

    Parameters
    ----------
    store : SeriesStore
        Records of the run.
    uid : str
        Series Instance UID.
    checked : CheckedSeries
        Its products, with the key of what they were checked by.
    """
    save_record(_path(store, uid), checked)


def _path(store: SeriesStore, uid: str) -> Path:
    return store.folder(uid) / _NAME
