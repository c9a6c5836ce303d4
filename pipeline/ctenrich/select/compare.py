"""What is in a cohort, what differs between two, and what a lock gives when it is run again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctenrich.catalog.base import Catalog
from ctenrich.catalog.queries import parse_query
from ctenrich.errors import InconsistencyError, UsageError
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason, current_code
from ctenrich.records import SeriesEntry
from ctenrich.select.cohort_file import read_cohort
from ctenrich.select.files import excluded_path, lock_path, read_excluded
from ctenrich.select.lock import LOCK_FORMAT, lock_of
from ctenrich.select.selection import Selection, select_cohort
from ctenrich.select.series_list import with_missing
from ctenrich.workspace import require_file

__all__ = [
    "CohortDiff",
    "CohortSummary",
    "SeriesChange",
    "compare_locks",
    "describe_cohort",
    "diff_cohorts",
    "read_lock",
    "relock",
]


@dataclass(frozen=True)
class CohortSummary:
    """A cohort file in numbers."""

    name: str
    sha256: str
    patients: int
    studies: int
    series: int
    instances: int
    bytes: int
    collections: dict[str, int]
    """Series by collection_id."""
    licences: dict[str, int]
    """Series by licence."""
    companions: dict[str, int]
    """Series with companions, by modality and link, e.g. ``RTSTRUCT by reference``."""
    excluded: dict[str, int]
    """Series by first reason."""
    geometry_unknown: int
    """Series whose verdict falls after the fetch."""
    lock: dict[str, Any]
    """The lock beside it; empty if there is none."""


def describe_cohort(path: Path) -> CohortSummary:
    """Summarize a cohort file and the files beside it.

    Raises
    ------
    UsageError
        NOT_FOUND, BAD_COHORT.
    InconsistencyError
        INCONSISTENT_TOTALS: the numbers are not those of the lock.
    """
    cohort = read_cohort(path)
    has_excluded = excluded_path(path).is_file()
    excluded = Counter(read_excluded(path)["reason"].to_pylist()) if has_excluded else Counter()
    lock = read_lock(lock_path(path)) if lock_path(path).is_file() else {}
    if lock and (lock["cohort"]["sha256"] != cohort.sha256 or lock["excluded"] != dict(excluded)):
        raise InconsistencyError(
            Reason.INCONSISTENT_TOTALS, f"{path.name} and its excluded series are not those that its lock counts"
        )
    counted = _Counts()
    for entry in cohort.series:
        counted.add(entry)
    return CohortSummary(
        name=cohort.name,
        sha256=cohort.sha256,
        patients=len(counted.patients),
        studies=len(counted.studies),
        series=len(cohort.series),
        instances=counted.instances,
        bytes=counted.bytes,
        collections=dict(sorted(counted.collections.items())),
        licences=dict(sorted(counted.licences.items())),
        companions=dict(sorted(counted.companions.items())),
        excluded=_by_reason(excluded),
        geometry_unknown=counted.geometry_unknown,
        lock=lock,
    )


class _Counts:
    """Numbers of a cohort, counted series by series."""

    def __init__(self) -> None:
        self.patients: set[tuple[str, str]] = set()
        self.studies: set[str] = set()
        self.instances = self.bytes = self.geometry_unknown = 0
        self.collections: Counter[str] = Counter()
        self.licences: Counter[str] = Counter()
        self.companions: Counter[str] = Counter()

    def add(self, entry: SeriesEntry) -> None:
        """Count a series."""
        self.patients.add((entry.collection_id, entry.patient_id))
        self.studies.add(entry.study_instance_uid)
        self.instances += entry.instance_count
        self.bytes += sum(instance.size or 0 for instance in entry.instances)
        self.geometry_unknown += not entry.geometry_known
        self.collections[entry.collection_id] += 1
        self.licences[entry.license_short_name or "unknown"] += 1
        self.companions.update({f"{c.modality} by {c.link.value}" for c in entry.companions})


def _by_reason(excluded: Mapping[str, int]) -> dict[str, int]:
    """Counts by today's code of each reason, in the order of the reasons."""
    counts: Counter[str] = Counter()
    for code, number in excluded.items():
        counts[current_code(code)] += number
    return {reason.value: counts[reason.value] for reason in Reason if counts[reason.value]}


@dataclass(frozen=True)
class SeriesChange:
    """One series that two cohorts do not have alike."""

    series_instance_uid: str
    change: str
    """added, removed or changed."""
    explanation: str


@dataclass(frozen=True)
class CohortDiff:
    """What differs between a first and a second cohort."""

    circumstances: tuple[str, ...]
    """What differs in the locks: query, parameters, catalog version, engine."""
    changes: tuple[SeriesChange, ...]
    same: int
    """Series that are alike in both."""


def diff_cohorts(first: Path, second: Path) -> CohortDiff:
    """Compare two cohort files and explain each added, removed and changed series.

    Parameters
    ----------
    first, second : Path
        Cohort files; the reasons come from the ``.excluded.parquet`` beside them.

    Returns
    -------
    CohortDiff
        Changes from the first to the second.
    """
    before, after = _Side.of(first), _Side.of(second)
    changes = []
    for uid in sorted(before.series.keys() | after.series.keys()):
        change = _change(uid, before, after)
        if change:
            changes.append(change)
    common = before.series.keys() & after.series.keys()
    same = len(common) - sum(change.change == "changed" for change in changes)
    return CohortDiff(compare_locks(before.lock, after.lock), tuple(changes), same)


@dataclass(frozen=True)
class _Side:
    series: dict[str, SeriesEntry]
    excluded: dict[str, list[str]]
    lock: dict[str, Any]

    @classmethod
    def of(cls, path: Path) -> _Side:
        rows = read_excluded(path).to_pylist() if excluded_path(path).is_file() else []
        return cls(
            {s.series_instance_uid: s for s in read_cohort(path).series},
            {row["series_instance_uid"]: row["reasons"] for row in rows},
            read_lock(lock_path(path)) if lock_path(path).is_file() else {},
        )


def _change(uid: str, before: _Side, after: _Side) -> SeriesChange | None:
    if uid not in before.series:
        return SeriesChange(uid, "added", f"was {_why_not(uid, before)}")
    if uid not in after.series:
        return SeriesChange(uid, "removed", f"is now {_why_not(uid, after)}")
    a, b = before.series[uid], after.series[uid]
    notes = []
    if a.crdc_series_uuid != b.crdc_series_uuid:
        notes.append("another version of the series (crdc_series_uuid)")
    instances = [{i.sop_instance_uid for i in entry.instances} for entry in (a, b)]
    if instances[0] != instances[1] or a.instance_count != b.instance_count:
        notes.append(f"{a.instance_count} instances became {b.instance_count}")
    if a.license_short_name != b.license_short_name:
        notes.append(f"licence {a.license_short_name or 'unknown'} became {b.license_short_name or 'unknown'}")
    return SeriesChange(uid, "changed", "; ".join(notes)) if notes else None


def _why_not(uid: str, side: _Side) -> str:
    if uid in side.excluded:
        return "excluded: " + ", ".join(side.excluded[uid])
    return "not in the start set (not in the catalog, or not asked for)"


def compare_locks(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what differs in query, parameters, catalog and engine of two locks, as sentences.

    Parameters
    ----------
    a, b : mapping
        Locks; empty where there is none.
    """
    if not a or not b:
        return ("no lock beside one of the cohorts",)
    notes = [
        f"{label}: {a.get(name)} became {b.get(name)}"
        for name, label in (("catalog", "catalog"), ("catalog_version", "catalog version"), ("engine", "engine"))
        if a.get(name) != b.get(name)
    ]
    if a["query"]["sha256"] != b["query"]["sha256"]:
        notes.append(f"query: {a['query']['name']} became {b['query']['name']} (the text differs)")
    for name in sorted(a["parameters"].keys() | b["parameters"].keys()):
        old, new = a["parameters"].get(name), b["parameters"].get(name)
        if old != new:
            notes.append(f"parameter {name}: {old} became {new}")
    return tuple(notes)


def read_lock(path: Path) -> dict[str, Any]:
    """Read a lock.

    Raises
    ------
    UsageError
        NOT_FOUND or BAD_COHORT.
    """
    require_file(path)
    try:
        lock = json.loads(path.read_text("utf-8"))
        whole = lock["format"] == LOCK_FORMAT and isinstance(lock["query"]["text"], str)
        whole = whole and isinstance(lock["parameters"], dict) and isinstance(lock["series"], list)
        whole = whole and isinstance(lock["cohort"]["sha256"], str) and isinstance(lock["excluded"], dict)
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise UsageError(Reason.BAD_COHORT, f"{path.name} is not a lock of this version")
    found: dict[str, Any] = lock
    return found


def relock(
    lock_file: Path, catalog: Catalog, *, name: str = "cohort", progress: Progress = SILENT
) -> tuple[Selection, CohortDiff]:
    """Run the query and parameters of a lock again, and compare the cohorts.

    Series that the lock has and the catalog no longer has are reported as removed, with NOT_IN_CATALOG: superseded data
    are never missing without a reason.

    Parameters
    ----------
    lock_file : Path
        A ``.lock.json``.
    catalog : Catalog
        Where to ask; need not be the one of the lock.
    name : str
        Name of the new cohort.
    progress : Progress
        Gets the price of the query as a note.

    Returns
    -------
    (selection, difference)
        The new selection, and the changes since the lock was written.
    """
    lock = read_lock(lock_file)
    query = parse_query(str(lock["query"]["name"]), lock["query"]["text"])
    selection = with_missing(select_cohort(query, catalog, lock["parameters"], name=name, progress=progress))
    now = {s.series_instance_uid: s for s in selection.cohort.series}
    reasons = {row["series_instance_uid"]: row["reasons"] for row in selection.excluded.to_pylist()}
    changes, before = [], {entry["SeriesInstanceUID"]: entry for entry in lock["series"]}
    for uid in sorted(before.keys() | now.keys()):
        if uid not in now:
            why = reasons.get(uid, [Reason.NOT_IN_CATALOG.value])
            changes.append(SeriesChange(uid, "removed", "is now excluded: " + ", ".join(why)))
        elif uid not in before:
            changes.append(SeriesChange(uid, "added", "was not selected when the lock was made"))
        elif (before[uid]["crdc_series_uuid"], before[uid]["instances"]) != (
            now[uid].crdc_series_uuid,
            now[uid].instance_count,
        ):
            text = (
                f"another version of the series, {before[uid]['instances']} instances became {now[uid].instance_count}"
            )
            changes.append(SeriesChange(uid, "changed", text))
    same = len(before.keys() & now.keys()) - sum(c.change == "changed" for c in changes)
    return selection, CohortDiff(compare_locks(lock, lock_of(selection)), tuple(changes), same)
