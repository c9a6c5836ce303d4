"""Find the RTSTRUCT and SEG instances that belong to selected CT series."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ctenrich.catalog.base import Catalog, QueryResult, ask
from ctenrich.catalog.queries import load_query
from ctenrich.progress import SILENT, Progress
from ctenrich.records import Companion, CompanionLink, Instance, SeriesEntry

__all__ = ["attach_companions", "link_companions"]


def attach_companions(
    series: Sequence[SeriesEntry],
    frames: Mapping[str, str],
    catalog: Catalog,
    parameters: Mapping[str, object],
    progress: Progress = SILENT,
) -> tuple[tuple[SeriesEntry, ...], QueryResult]:
    """Look up the companions of each series by patient, in the same catalog.

    Parameters
    ----------
    series : sequence of SeriesEntry
        The selected series.
    frames : mapping
        Frame of Reference UID by Series Instance UID.
    catalog : Catalog
        One with instances.
    parameters : mapping
        Of the selection; ``collections`` is passed on.
    progress : Progress
        Told what the look-up costs.

    Returns
    -------
    (series, result)
        The series with their companions, and the answer to the query that looked them up.
    """
    asked: dict[str, object] = {"patients": sorted({s.patient_id for s in series})}
    if parameters.get("collections"):
        asked["collections"] = parameters["collections"]
    result = ask(catalog, load_query("select_companions"), asked, progress)
    return link_companions(series, frames, result.table.to_pylist()), result


def link_companions(
    series: Sequence[SeriesEntry], frames: Mapping[str, str], rows: Sequence[Mapping[str, Any]]
) -> tuple[SeriesEntry, ...]:
    """Assign companions to series: by referenced series, else by frame of reference.

    A companion whose references name another selected series is never assigned by its frame of reference alone.

    Parameters
    ----------
    series : sequence of SeriesEntry
        The selected series.
    frames : mapping
        Frame of Reference UID by Series Instance UID.
    rows : sequence of mapping
        Rows of ``select_companions``.

    Returns
    -------
    tuple of SeriesEntry
        The series, in their order, with companions.
    """
    selected = {s.series_instance_uid for s in series}
    by_frame: dict[tuple[str, str], list[str]] = defaultdict(list)
    for entry in series:
        if frames.get(entry.series_instance_uid):
            by_frame[entry.patient_id, frames[entry.series_instance_uid]].append(entry.series_instance_uid)
    found: dict[str, list[Companion]] = defaultdict(list)
    for row in rows:
        link = CompanionLink.REFERENCE
        owners = selected.intersection(row["referenced_series"] or ())
        if not owners:
            link = CompanionLink.FRAME_OF_REFERENCE
            keys = {(row["PatientID"] or "", frame) for frame in row["frames_of_reference"] or ()}
            owners = {uid for key in keys for uid in by_frame.get(key, ())}
        instance = Instance(row["SOPInstanceUID"] or "", row["url"] or "", row["size"], row["md5"])
        for uid in owners:
            found[uid].append(Companion(row["Modality"], row["SeriesInstanceUID"] or "", instance, link))
    return tuple(replace(s, companions=_ordered(found[s.series_instance_uid])) for s in series)


def _ordered(companions: list[Companion]) -> tuple[Companion, ...]:
    """References first, then by UID: the order does not depend on the catalog."""
    key = {CompanionLink.REFERENCE: 0, CompanionLink.FRAME_OF_REFERENCE: 1}
    return tuple(sorted(companions, key=lambda c: (key[c.link], c.modality, c.instance.sop_instance_uid)))
