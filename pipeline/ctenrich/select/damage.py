"""Apply what a crawl could not read to a selection: incomplete series, warnings, damaged companions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ctenrich.catalog.damage import Damage, DamageKind
from ctenrich.reasons import Reason
from ctenrich.records import Companion, CompanionLink, Instance, Issue, SeriesEntry, Severity

__all__ = ["note_damage", "with_unreadable", "without_damaged"]


def without_damaged(
    chosen: Sequence[SeriesEntry], counts: Sequence[int], excluded: list[dict[str, Any]], damage: Sequence[Damage]
) -> list[int]:
    """Exclude the series that lack a slice because its file could not be read, or has another modality or collection.

    Parameters
    ----------
    chosen : sequence of SeriesEntry
        Series that fail no rule of the query; their instances are not looked at.
    counts : sequence of int
        The number of instances of each.
    excluded : list of dict
        Rows of excluded series; INCOMPLETE, NOT_CT or MIXED_SERIES is added to the reasons of those that lack a slice
        too, and rows for the series that are excluded now.
    damage : sequence of Damage
        What the catalog could not read.

    Returns
    -------
    list of int
        Positions of the series that are left.
    """
    damaged: dict[str, list[str]] = defaultdict(list)
    for item in damage:
        reason = item.reason if item.kind is DamageKind.CONTRADICTION else Reason.INCOMPLETE.value
        if item.kind in {DamageKind.SLICE, DamageKind.CONTRADICTION} and reason not in damaged[item.series]:
            damaged[item.series].append(reason)
    for row in excluded:
        more = damaged.get(row["series_instance_uid"], [])
        row["reasons"] = [*row["reasons"], *(reason for reason in more if reason not in row["reasons"])]
    excluded.extend(
        {
            "collection_id": entry.collection_id,
            "patient_id": entry.patient_id,
            "study_instance_uid": entry.study_instance_uid,
            "series_instance_uid": entry.series_instance_uid,
            "num_instances": count,
            "reason": damaged[entry.series_instance_uid][0],
            "reasons": damaged[entry.series_instance_uid],
        }
        for entry, count in zip(chosen, counts, strict=True)
        if entry.series_instance_uid in damaged
    )
    excluded.sort(key=lambda row: str(row["series_instance_uid"]))
    return [at for at, entry in enumerate(chosen) if entry.series_instance_uid not in damaged]


def with_unreadable(
    excluded: Sequence[dict[str, Any]], damage: Sequence[Damage], parameters: Mapping[str, object]
) -> list[dict[str, Any]]:
    """Add the CT series of which no file could be read: no query sees them.

    Parameters
    ----------
    excluded : sequence of dict
        Rows of excluded series.
    damage : sequence of Damage
        What the catalog could not read.
    parameters : mapping
        Of the selection. Where they name collections or patients nothing is added, because those of such a series are
        not known; where they name series, only these.

    Returns
    -------
    list of dict
        All rows, by series; the reason of the added ones is INCOMPLETE.
    """
    if parameters.get("collections") or parameters.get("patients"):
        return list(excluded)
    asked = parameters.get("series")
    codes: dict[str, set[str]] = defaultdict(set)
    for item in damage:
        if item.kind is DamageKind.SERIES and (not isinstance(asked, list) or not asked or item.series in asked):
            codes[item.series].add(item.reason)
    empty = dict.fromkeys(("collection_id", "patient_id", "study_instance_uid"), "")
    reason = Reason.INCOMPLETE.value
    added = [
        {
            **empty,
            "series_instance_uid": uid,
            "num_instances": 0,
            "reason": reason,
            "reasons": [reason],
            "detail": f"no file of the series could be read ({', '.join(sorted(found))})",
        }
        for uid, found in codes.items()
    ]
    return sorted([*excluded, *added], key=lambda row: str(row["series_instance_uid"]))


def note_damage(series: Sequence[SeriesEntry], damage: Sequence[Damage]) -> tuple[SeriesEntry, ...]:
    """Add notes on unreadable files and copies to series, and damaged companions as companions.

    A damaged companion is fetched like any other, so that the segmenter reports what is wrong with it instead of
    finding none.

    Parameters
    ----------
    series : sequence of SeriesEntry
        The selected series, with their companions.
    damage : sequence of Damage
        What the catalog could not read.

    Returns
    -------
    tuple of SeriesEntry
        In the same order.
    """
    by_series: dict[str, list[Damage]] = defaultdict(list)
    for item in damage:
        by_series[item.series].append(item)
    return tuple(_noted(entry, by_series.get(entry.series_instance_uid, [])) for entry in series)


def _noted(entry: SeriesEntry, damage: Sequence[Damage]) -> SeriesEntry:
    if not damage:
        return entry
    uid = entry.series_instance_uid
    notes = list(entry.notes)
    beside = [d for d in damage if d.kind is DamageKind.BESIDE]
    if beside:
        codes = ", ".join(sorted({d.reason for d in beside}))
        text = (
            f"{len(beside)} files in the folder of the series could not be read ({codes}); if one of them is a slice "
            "of this series, the volume lacks it"
        )
        notes.append(Issue("catalog.unreadable_file", Severity.WARNING, uid, text))
    stray = sum(d.kind is DamageKind.STRAY for d in damage)
    if stray:
        text = (
            f"{stray} images in the folder have the series number of this series and a Series Instance UID that no "
            "other file has; if their UID is damaged, the volume lacks them"
        )
        notes.append(Issue("catalog.stray_slice", Severity.WARNING, uid, text))
    copies = sum(d.kind is DamageKind.COPY for d in damage)
    if copies:
        notes.append(Issue("catalog.copies", Severity.NOTE, uid, f"{copies} copies of slices were left out"))
    companions = list(entry.companions)
    known = {c.instance.url for c in companions}
    for item in damage:
        if item.kind is not DamageKind.COMPANION:
            continue
        url = Path(item.path).as_uri()
        text = f"a damaged {item.modality} of the same study or folder could not be read ({item.reason})"
        if url not in known:
            notes.append(Issue("companion.unreadable", Severity.WARNING, uid, text))
            if Path(item.path).is_file():
                companions.append(Companion(item.modality, "", Instance("", url), CompanionLink.UNREADABLE))
    return replace(entry, notes=tuple(notes), companions=tuple(companions))
