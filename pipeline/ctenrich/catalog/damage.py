"""Find which CT series of a crawl the files concern that could not be read, and the copies that were left out."""

from __future__ import annotations

from collections import defaultdict
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from ctenrich.reasons import Reason

__all__ = ["Damage", "DamageKind", "find_damage"]

_COMPANIONS = ("RTSTRUCT", "SEG")


class DamageKind(StrEnum):
    """How a file that could not be read concerns a CT series."""

    SLICE = "slice"
    """It is one of its slices: its header names the series, or no other series has a file in the folder. With the
    reason MIXED_SERIES: it can be read, but states another Modality than the other instances."""
    BESIDE = "beside"
    """It is in the same folder, and may be a slice of the series or of another one."""
    COMPANION = "companion"
    """It is a damaged RTSTRUCT or SEG of the same study or, where it names none, from the folders around it."""
    SERIES = "series"
    """It names a CT series of which no file could be read."""
    COPY = "copy"
    """It is a copy of a slice, and was left out."""


class Damage(NamedTuple):
    """One file and one CT series that it concerns."""

    series: str
    """Series Instance UID of the CT series."""
    kind: DamageKind
    path: str
    reason: str
    """Code of the fault; empty for a copy."""
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
        places = [
            _Place(*row)
            for row in connection.execute(
                "SELECT DISTINCT parse_dirpath(local_path), coalesce(SeriesInstanceUID, ''), "
                "coalesce(StudyInstanceUID, ''), coalesce(Modality = 'CT', FALSE) FROM instances"
            ).fetchall()
        ]
        by_folder: dict[str, list[_Place]] = defaultdict(list)
        for place in places:
            by_folder[place.folder].append(place)
        for fault in (_Fault(*row) for row in rows):
            found.update(_damage_of(fault, places, by_folder))
    # the queries look at instances of Modality CT only: one of another modality would be missing in silence
    mixed = connection.execute(
        "SELECT SeriesInstanceUID, min(local_path) FILTER (Modality IS DISTINCT FROM 'CT') FROM instances "
        "WHERE SeriesInstanceUID <> '' GROUP BY SeriesInstanceUID HAVING bool_or(coalesce(Modality = 'CT', FALSE)) "
        "AND bool_or(Modality IS DISTINCT FROM 'CT')"
    ).fetchall()
    found.update(Damage(series, DamageKind.SLICE, path, Reason.MIXED_SERIES.value) for series, path in mixed)
    copies = connection.execute(
        "SELECT DISTINCT SeriesInstanceUID, local_path FROM instances WHERE is_copy AND Modality = 'CT'"
    ).fetchall()
    found.update(Damage(series or "", DamageKind.COPY, path, "", "CT") for series, path in copies)
    return tuple(sorted(found))


def _damage_of(fault: _Fault, places: list[_Place], by_folder: dict[str, list[_Place]]) -> list[Damage]:
    folder = str(Path(fault.path).parent)
    here = by_folder.get(folder, [])
    if fault.modality in _COMPANIONS:
        of_study = {p.series for p in places if p.is_ct and p.study == fault.study} if fault.study else set()
        around = str(Path(folder).parent)
        near = (
            of_study
            or {p.series for p in here if p.is_ct}
            or {p.series for p in places if p.is_ct and Path(p.folder).is_relative_to(around)}
        )
        return [_damage(uid, DamageKind.COMPANION, fault) for uid in near]
    if fault.modality not in {"", "CT", "(folder)"}:
        return []
    if _is_uid(fault.series):
        if any(p.is_ct and p.series == fault.series for p in places):
            return [_damage(fault.series, DamageKind.SLICE, fault)]
        unknown = fault.modality == "CT" and all(p.series != fault.series for p in places)
        return [_damage(fault.series, DamageKind.SERIES, fault)] if unknown else []
    # a UID that is damaged names no series, although its file may have rows of instances under it
    named = [p for p in here if _is_uid(p.series)]
    beside = {p.series for p in named if p.is_ct and (p.study == fault.study or not _is_uid(fault.study))}
    rivals = {p.series for p in named if p.is_ct or fault.modality != "CT"}
    alone = len(rivals) == 1 and fault.modality != "(folder)"
    return [_damage(uid, DamageKind.SLICE if alone else DamageKind.BESIDE, fault) for uid in beside]


def _damage(series: str, kind: DamageKind, fault: _Fault) -> Damage:
    return Damage(series, kind, fault.path, fault.reason, fault.modality)


def _is_uid(text: str) -> bool:
    return 0 < len(text) <= 64 and all(c in "0123456789." for c in text)
