"""Lists and comparisons of treatments files: links as CSV, the series of the protocol, differences of two files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctenrich.catalog.folder import FolderCatalog
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.select.compare import compare_locks, read_lock
from ctenrich.select.files import excluded_path, lock_path
from ctenrich.treatments.files import links_path, links_table, read_excluded_treatments, read_treatments
from ctenrich.treatments.links import link_objects
from ctenrich.treatments.objects import read_objects
from ctenrich.treatments.records import Treatment
from ctenrich.workspace import require_file, write_bytes

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "TreatmentChange",
    "TreatmentsDiff",
    "diff_treatments",
    "load_links",
    "write_links_csv",
    "write_protocol_series",
]


def load_links(source: Path) -> pa.Table:
    """Return the links of a treatments file, or of all objects of a folder catalog.

    Raises
    ------
    UsageError
        NOT_FOUND, BAD_COHORT, or the errors of the catalog.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    require_file(source, "name a treatments file or a catalog")
    if source.suffix != ".parquet":
        catalog = FolderCatalog(source)
        try:
            return links_table(link_objects(read_objects(catalog)))
        finally:
            catalog.close()
    path = links_path(source)
    require_file(path, "the links are beside the treatments file")
    try:
        with pa.OSFile(str(path)) as handle:
            return pq.read_table(handle)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(Reason.BAD_COHORT, f"{path.name} is not a Parquet file") from error


def write_links_csv(table: pa.Table, path: Path) -> None:
    """Write links as CSV; several targets are separated by a bar.

    Parameters
    ----------
    table : pyarrow.Table
        As :func:`load_links` returns it.
    path : Path
        The CSV file.
    """
    rows = [{**row, "targets": "|".join(row["targets"])} for row in table.to_pylist()]
    _write_csv(path, table.column_names, rows)


def write_protocol_series(treatments: Sequence[Treatment], path: Path) -> int:
    """Write the series of all objects that treatments use, one row per series.

    Parameters
    ----------
    treatments : sequence of Treatment
        The treatments.
    path : Path
        The CSV file; `ctenrich select --series-list` reads it as well.

    Returns
    -------
    int
        Number of series.
    """
    rows: dict[str, dict[str, Any]] = {}
    for one in treatments:
        ct = one.series
        series = [("CT", ct.series_instance_uid), *((c.modality, c.series_instance_uid) for c in ct.companions)]
        for modality, uid in series:
            row = {"PatientID": one.patient_id, "site": one.site, "treatment_id": one.treatment_id}
            rows.setdefault(uid, {"SeriesInstanceUID": uid, "Modality": modality, **row})
    _write_csv(path, ("SeriesInstanceUID", "Modality", "PatientID", "site", "treatment_id"), list(rows.values()))
    return len(rows)


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


@dataclass(frozen=True, kw_only=True)
class TreatmentChange:
    """A treatment that two files do not have alike."""

    patient_id: str
    treatment_id: str
    change: str
    """added, removed or changed."""
    explanation: str


@dataclass(frozen=True, kw_only=True)
class TreatmentsDiff:
    """What differs between two treatments files."""

    circumstances: tuple[str, ...]
    """What differs in catalog, engine and decisions."""
    changes: tuple[TreatmentChange, ...]
    same: int


def diff_treatments(first: Path, second: Path) -> TreatmentsDiff:
    """Compare two treatments files.

    Parameters
    ----------
    first, second : Path
        Treatments files with what is beside them.

    Returns
    -------
    TreatmentsDiff
        Changes from the first to the second.
    """
    before = {one.treatment_id: one for one in read_treatments(first)}
    after = {one.treatment_id: one for one in read_treatments(second)}
    why_before, why_after = _reasons(first), _reasons(second)
    changes = []
    for uid in sorted(before.keys() | after.keys()):
        one = after.get(uid) or before[uid]
        if uid not in before:
            change, text = "added", f"was {why_before.get(one.patient_id, 'not there')}"
        elif uid not in after:
            change, text = "removed", f"is now {why_after.get(one.patient_id, 'not there')}"
        else:
            change, text = "changed", "; ".join(_differences(before[uid], after[uid]))
        if text:
            changes.append(
                TreatmentChange(patient_id=one.patient_id, treatment_id=uid, change=change, explanation=text)
            )
    locks = [read_lock(lock_path(path)) if lock_path(path).is_file() else {} for path in (first, second)]
    same = len(before.keys() & after.keys()) - sum(one.change == "changed" for one in changes)
    return TreatmentsDiff(circumstances=compare_locks(*locks), changes=tuple(changes), same=same)


def _reasons(path: Path) -> dict[str, str]:
    if not excluded_path(path).is_file():
        return {}
    return {
        one.patient_id: f"excluded: {one.reason.value} {one.rule or one.detail}"
        for one in read_excluded_treatments(path)
    }


def _differences(a: Treatment, b: Treatment) -> list[str]:
    notes = []
    if {i.sop_instance_uid for i in a.series.instances} != {i.sop_instance_uid for i in b.series.instances}:
        notes.append(f"{a.series.instance_count} CT instances became {b.series.instance_count}")
    for title, before, after in (
        ("doses used", {d.uid for d in a.used_doses}, {d.uid for d in b.used_doses}),
        ("structure sets used", {s.uid for s in a.used_structure_sets}, {s.uid for s in b.used_structure_sets}),
        ("plans", {(p.uid, p.role.value) for p in a.plans}, {(p.uid, p.role.value) for p in b.plans}),
    ):
        if before != after:
            notes.append(f"{title} differ ({len(before - after)} no more, {len(after - before)} new)")
    delivered = [t.dominant_plan.fractions_delivered if t.dominant_plan else None for t in (a, b)]
    for title, pair in (("scale", (a.scale, b.scale)), ("site", (a.site, b.site)), ("delivered fractions", delivered)):
        if pair[0] != pair[1]:
            notes.append(f"{title}: {pair[0]} became {pair[1]}")
    return notes
