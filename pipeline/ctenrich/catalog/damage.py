"""Find which CT series of a crawl the files concern that could not be read, and the copies that were left out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from ctenrich.reasons import Reason

__all__ = ["Damage", "DamageKind", "find_damage"]

_COMPANIONS = ("RTSTRUCT", "SEG")


class DamageKind(StrEnum):
    """How a file that could not be read concerns a CT series."""

    SLICE = "slice"
    """It is one of its slices: its header names the series, or no other series has a file in the folder."""
    CONTRADICTION = "contradiction"
    """It can be read and has the UID of the series, but another Modality (NOT_CT), or another collection
    (MIXED_SERIES), so that a query may not see it."""
    BESIDE = "beside"
    """It is in the same folder, and may be a slice of the series or of another one."""
    COMPANION = "companion"
    """It is a damaged RTSTRUCT or SEG of the same study or, where it names none, from the folders around it."""
    SERIES = "series"
    """It names a CT series of which no file could be read."""
    COPY = "copy"
    """It is a copy of a slice, and was left out."""
    STRAY = "stray"
    """It can be read, and has the folder, study and series number of the slices, but a Series Instance UID that no
    other file has."""


class Damage(NamedTuple):
    """One file and one CT series that it concerns."""

    series: str
    """Series Instance UID of the CT series."""
    kind: DamageKind
    path: str
    reason: str
    """Code of the fault; empty for a copy and for a stray slice."""
    modality: str = ""


class _Fault(NamedTuple):
    path: str
    series: str
    study: str
    modality: str
    lost: bool
    reason: str


class _Place(NamedTuple):
    """One series that has files in one folder."""

    folder: str
    series: str
    study: str
    is_ct: bool


def find_damage(connection: Any) -> tuple[Damage, ...]:
    """Relate the faults and copies of a crawl to its CT series.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        A folder catalog.

    Returns
    -------
    tuple of Damage
        By series, kind and path.
    """
    rows = connection.execute(
        "SELECT path, any_value(series), any_value(study), any_value(modality), bool_or(lost), min(reason) FROM faults "
        "WHERE lost OR modality IN ('RTSTRUCT', 'SEG') GROUP BY path ORDER BY path"
    ).fetchall()
    found: set[Damage] = set()
    if rows:
        faults = [_Fault(*row) for row in rows]
        places = [
            _Place(*row)
            for row in connection.execute(
                "SELECT DISTINCT parse_dirpath(local_path), coalesce(SeriesInstanceUID, ''), "
                "coalesce(StudyInstanceUID, ''), coalesce(Modality = 'CT', FALSE) FROM instances"
            ).fetchall()
        ]
        relation = _Relation(faults, places)
        found.update(damage for fault in faults for damage in relation.damage_of(fault))
    found.update(_contradictions(connection))
    copies = connection.execute(
        "SELECT DISTINCT SeriesInstanceUID, local_path FROM instances WHERE is_copy AND Modality = 'CT'"
    ).fetchall()
    found.update(Damage(series or "", DamageKind.COPY, path, "", "CT") for series, path in copies)
    for series, path, is_copy in connection.execute(_STRAY_SLICES).fetchall():
        found.add(Damage(series, DamageKind.COPY if is_copy else DamageKind.STRAY, path, "", "CT"))
    return tuple(sorted(found))


def _contradictions(connection: Any) -> set[Damage]:
    """Instances that a query for CT, or for one collection, would leave out of their series without a word."""
    rows = connection.execute(
        "SELECT SeriesInstanceUID, min(local_path) FILTER (Modality IS DISTINCT FROM 'CT'), min(local_path), "
        "min(collection_id) < max(collection_id) FROM instances WHERE SeriesInstanceUID <> '' AND NOT is_copy "
        "GROUP BY SeriesInstanceUID HAVING bool_or(coalesce(Modality = 'CT', FALSE))"
    ).fetchall()
    kind = DamageKind.CONTRADICTION
    found = {Damage(uid, kind, path, Reason.NOT_CT.value) for uid, path, _, _ in rows if path is not None}
    return found | {Damage(uid, kind, path, Reason.MIXED_SERIES.value) for uid, _, path, mixed in rows if mixed}


_STRAY_SLICES = """
WITH lone AS (
  SELECT SeriesInstanceUID, any_value(local_path) AS local_path FROM instances WHERE SeriesInstanceUID <> ''
  GROUP BY SeriesInstanceUID HAVING count(*) = 1
),
ct AS (SELECT *, parse_dirpath(local_path) AS folder FROM instances WHERE Modality = 'CT')
SELECT of_series.SeriesInstanceUID, stray.local_path, bool_or(stray.SOPInstanceUID = of_series.SOPInstanceUID)
FROM lone JOIN ct AS stray USING (local_path) JOIN ct AS of_series USING (folder)
WHERE of_series.SeriesInstanceUID NOT IN (SELECT SeriesInstanceUID FROM lone)
  AND (stray.SeriesNumber = of_series.SeriesNumber
    OR stray.SeriesNumber IS NULL AND stray.local_path IN (SELECT path FROM faults))
  AND (stray.StudyInstanceUID = of_series.StudyInstanceUID OR stray.FrameOfReferenceUID = of_series.FrameOfReferenceUID)
GROUP BY ALL
"""
"""Single CT images that have folder, series number, and study or frame of reference in common with a series.

The series number may be missing in a file that was read in part.
"""


class _Relation:
    """Relates faults to the CT series of a crawl."""

    def __init__(self, faults: Sequence[_Fault], places: Sequence[_Place]) -> None:
        self._places = places
        self._studies = {place.study for place in places if _is_uid(place.series)}
        self._faults_of_series = Counter(fault.series for fault in faults)
        self._by_folder: dict[str, list[_Place]] = defaultdict(list)
        for place in places:
            self._by_folder[place.folder].append(place)

    def damage_of(self, fault: _Fault) -> list[Damage]:
        """Return the series that a file concerns."""
        if fault.modality in _COMPANIONS:
            return self._of_companion(fault)
        if fault.modality not in {"", "CT", "(folder)"}:
            return []
        if not _is_uid(fault.series):
            return self._of_folder(fault)
        if any(p.is_ct and p.series == fault.series for p in self._places):
            return [_damage(fault.series, DamageKind.SLICE, fault)]
        if fault.modality != "CT" or any(p.series == fault.series for p in self._places):
            return []
        # a UID that one file alone states may be damaged itself
        alone = self._faults_of_series[fault.series] == 1
        near = self._beside(fault) if alone else set()
        return [
            _damage(fault.series, DamageKind.SERIES, fault),
            *(_damage(uid, DamageKind.BESIDE, fault) for uid in near),
        ]

    def _of_companion(self, fault: _Fault) -> list[Damage]:
        folder = Path(fault.path).parent
        of_study = {p.series for p in self._places if p.is_ct and p.study == fault.study} if fault.study else set()
        near = (
            of_study
            or {p.series for p in self._by_folder.get(str(folder), ()) if p.is_ct}
            or {p.series for p in self._places if p.is_ct and Path(p.folder).is_relative_to(folder.parent)}
        )
        return [_damage(uid, DamageKind.COMPANION, fault) for uid in near]

    def _of_folder(self, fault: _Fault) -> list[Damage]:
        rivals = {p.series for p in self._named_beside(fault) if p.is_ct or fault.modality != "CT"}
        alone = len(rivals) == 1 and fault.modality != "(folder)"
        kind = DamageKind.SLICE if alone else DamageKind.BESIDE
        return [_damage(uid, kind, fault) for uid in self._beside(fault)]

    def _beside(self, fault: _Fault) -> set[str]:
        """CT series of the folder; of the file's study, unless that is damaged too: no other file states it."""
        any_study = fault.study not in self._studies
        return {p.series for p in self._named_beside(fault) if p.is_ct and (any_study or p.study == fault.study)}

    def _named_beside(self, fault: _Fault) -> list[_Place]:
        # a UID that is damaged names no series, although its file may have rows of instances under it
        return [p for p in self._by_folder.get(str(Path(fault.path).parent), ()) if _is_uid(p.series)]


def _damage(series: str, kind: DamageKind, fault: _Fault) -> Damage:
    return Damage(series, kind, fault.path, fault.reason, fault.modality)


def _is_uid(text: str) -> bool:
    return 0 < len(text) <= 64 and all(c in "0123456789." for c in text)
