"""Find the RTSTRUCT and SEG instances that belong to selected CT series.

A companion that names a selected series belongs to that series, also where it states another patient or study (with a
warning). A companion that names another series of the catalog belongs to that one alone, whether it was selected or
not. Only a companion that names no series of the catalog is linked by its frame of reference, and only where a single
CT series has it: several phases of a 4D-CT share one frame of reference, and their anatomy differs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ctenrich.catalog.base import Catalog, QueryResult, ask
from ctenrich.catalog.queries import load_query
from ctenrich.progress import SILENT, Progress
from ctenrich.records import Companion, CompanionLink, Instance, Issue, SeriesEntry, Severity

__all__ = ["CandidateSeries", "attach_companions", "link_companions"]

_LISTED = 6
"""Series that a message lists at most."""


@dataclass(frozen=True, kw_only=True)
class CandidateSeries:
    """A series of the catalog to which a companion may belong."""

    series_instance_uid: str
    study_instance_uid: str
    patient_id: str
    frame_of_reference_uid: str
    is_volume: bool
    """Whether it is a CT series of two or more images, and no localizer."""


def attach_companions(
    series: Sequence[SeriesEntry],
    catalog: Catalog,
    parameters: Mapping[str, object],
    progress: Progress = SILENT,
) -> tuple[tuple[SeriesEntry, ...], QueryResult]:
    """Look up the companions of the selected series in the same catalog.

    Parameters
    ----------
    series : sequence of SeriesEntry
        The selected series.
    catalog : Catalog
        One with instances.
    parameters : mapping
        Of the selection; ``collections`` is passed on.
    progress : Progress
        Receives the price of the look-up as a note.

    Returns
    -------
    (series, result)
        The series with their companions, and the answer to the query that looked them up.
    """
    shared: dict[str, object] = {"patients": sorted({s.patient_id for s in series})}
    if parameters.get("collections"):
        shared["collections"] = parameters["collections"]
    selected = sorted(s.series_instance_uid for s in series)
    result = ask(catalog, load_query("select_companions"), {**shared, "series": selected}, progress)
    rows = result.table.to_pylist()
    unowned = [row for row in rows if not set(row["referenced_series"] or ()).intersection(selected)]
    candidates: list[CandidateSeries] = []
    if unowned:
        named = sorted({uid for row in unowned for uid in row["referenced_series"] or ()})
        found = ask(catalog, load_query("select_companion_candidates"), {**shared, "series": named}, progress)
        candidates = [_candidate(row) for row in found.table.to_pylist()]
        if result.bytes_read is not None:
            result = replace(result, bytes_read=result.bytes_read + (found.bytes_read or 0))
    return link_companions(series, rows, candidates), result


def _candidate(row: Mapping[str, Any]) -> CandidateSeries:
    return CandidateSeries(
        series_instance_uid=row["SeriesInstanceUID"] or "",
        study_instance_uid=row["StudyInstanceUID"] or "",
        patient_id=row["PatientID"] or "",
        frame_of_reference_uid=row["FrameOfReferenceUID"] or "",
        is_volume=row["Modality"] == "CT" and row["num_instances"] > 1 and not row["localizer"],
    )


def link_companions(
    series: Sequence[SeriesEntry], rows: Sequence[Mapping[str, Any]], candidates: Sequence[CandidateSeries]
) -> tuple[SeriesEntry, ...]:
    """Assign companions to series: by referenced series, else by a frame of reference that only one CT series has.

    Parameters
    ----------
    series : sequence of SeriesEntry
        The selected series.
    rows : sequence of mapping
        Rows of ``select_companions``.
    candidates : sequence of CandidateSeries
        Series of the catalog: the CT series of the same patients, and the series that companions name.

    Returns
    -------
    tuple of SeriesEntry
        The series, in their order, with companions, and with notes on companions that are used with a reserve, or not
        used although they share patient and frame of reference.
    """
    linker = _Linker(series, candidates)
    for row in rows:
        linker.add(row)
    return tuple(
        replace(
            s,
            companions=_ordered(linker.found[s.series_instance_uid]),
            notes=(*s.notes, *dict.fromkeys(linker.notes[s.series_instance_uid])),
        )
        for s in series
    )


class _Linker:
    """Collects companions and notes by series."""

    def __init__(self, series: Sequence[SeriesEntry], candidates: Sequence[CandidateSeries]) -> None:
        self._selected = {s.series_instance_uid: s for s in series}
        self._candidates = candidates
        self._known = {c.series_instance_uid for c in candidates}
        self.found: dict[str, list[Companion]] = defaultdict(list)
        self.notes: dict[str, list[Issue]] = defaultdict(list)
        self._rows: dict[tuple[str, str], str] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Assign one companion."""
        named = set(row["referenced_series"] or ())
        owners = sorted(named.intersection(self._selected))
        link = CompanionLink.REFERENCE
        if owners:
            self._note_other_place(row, owners)
        elif others := sorted(named & self._known):
            text = f"the {row['Modality']} refers to another series of the catalog ({_listed(others)}), not to this one"
            for candidate in self._of_same_frame(row):
                self._note(candidate.series_instance_uid, "companion.other_series", Severity.NOTE, row, text)
            return
        else:
            owners, link = self._by_frame(row), CompanionLink.FRAME_OF_REFERENCE
        instance = Instance(row["SOPInstanceUID"] or "", row["url"] or "", row["size"], row["md5"])
        for uid in owners:
            earlier = self._rows.setdefault((uid, instance.sop_instance_uid), instance.url)
            if earlier != instance.url:
                text = f"two files hold a {row['Modality']} with this SOP Instance UID"
                self._note(uid, "companion.duplicate", Severity.WARNING, row, text)
            self.found[uid].append(Companion(row["Modality"], row["SeriesInstanceUID"] or "", instance, link))

    def _note_other_place(self, row: Mapping[str, Any], owners: Sequence[str]) -> None:
        for uid in owners:
            entry = self._selected[uid]
            if (row["PatientID"] or "") != entry.patient_id:
                text = f"the {row['Modality']} refers to this series, but states another Patient ID; it is used"
                self._note(uid, "companion.patient", Severity.WARNING, row, text)
            if (row["StudyInstanceUID"] or "") != entry.study_instance_uid:
                text = f"the {row['Modality']} refers to this series, but is in another study; it is used"
                self._note(uid, "companion.study", Severity.WARNING, row, text)

    def _of_same_frame(self, row: Mapping[str, Any]) -> list[CandidateSeries]:
        """CT series of the companion's patient with one of its frames of reference, those of its study before all."""
        frames = set(row["frames_of_reference"] or ())
        found = [
            c
            for c in self._candidates
            if c.is_volume
            and c.patient_id == (row["PatientID"] or "")
            and c.frame_of_reference_uid
            and c.frame_of_reference_uid in frames
        ]
        return [c for c in found if c.study_instance_uid == row["StudyInstanceUID"]] or found

    def _by_frame(self, row: Mapping[str, Any]) -> list[str]:
        found = self._of_same_frame(row)
        uids = sorted(c.series_instance_uid for c in found)
        if len(uids) == 1:
            if found[0].study_instance_uid != row["StudyInstanceUID"] and uids[0] in self._selected:
                text = f"the {row['Modality']} is in another study; it is used for its frame of reference"
                self._note(uids[0], "companion.study", Severity.WARNING, row, text)
            return [uid for uid in uids if uid in self._selected]
        text = (
            f"the {row['Modality']} names no series of the catalog, and {len(uids)} CT series share its frame of "
            f"reference ({_listed(uids)}): it is used for none of them"
        )
        for uid in uids:
            self._note(uid, "companion.several", Severity.WARNING, row, text)
        return []

    def _note(self, uid: str, rule: str, severity: Severity, row: Mapping[str, Any], text: str) -> None:
        if uid in self._selected:
            self.notes[uid].append(Issue(rule, severity, row["SOPInstanceUID"] or "", text))


def _listed(uids: Sequence[str]) -> str:
    return ", ".join(uids[:_LISTED]) + (", ..." if len(uids) > _LISTED else "")


def _ordered(companions: list[Companion]) -> tuple[Companion, ...]:
    """References first, then by UID: the order does not depend on the catalog."""
    key = {link: position for position, link in enumerate(CompanionLink)}
    return tuple(
        sorted(companions, key=lambda c: (key[c.link], c.modality, c.instance.sop_instance_uid, c.instance.url))
    )
