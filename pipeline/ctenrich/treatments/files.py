"""The treatments file: a cohort file with further columns, with exclusions, links and lock beside it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from fractions import Fraction
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Cohort
from ctenrich.select.cohort_file import read_cohort, write_extended_cohort
from ctenrich.select.files import excluded_path, lock_path, without_local_paths
from ctenrich.select.lock import lock_of
from ctenrich.select.selection import EXCLUDED_COLUMNS, excluded_table
from ctenrich.treatments.make import TreatmentSelection
from ctenrich.treatments.records import Dose, ExcludedTreatment, ObjectLink, Plan, StructureSet, Treatment
from ctenrich.workspace import atomic_path, require_file, write_bytes

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "LINK_COLUMNS",
    "TREATMENT_COLUMNS",
    "TreatmentColumn",
    "find_treatment",
    "is_treatments_file",
    "links_path",
    "links_table",
    "read_excluded_treatments",
    "read_treatments",
    "write_treatments",
]


class TreatmentColumn(NamedTuple):
    """A column of a treatments file that a cohort file does not have."""

    name: str
    type: str
    meaning: str


TREATMENT_COLUMNS = (
    TreatmentColumn("treatment_id", "text", "Stable for the same collection, patient and dominant plan"),
    TreatmentColumn("site", "text", "Site of the registry; empty if it has no such column"),
    TreatmentColumn("frame_of_reference_uid", "text", "Frame of Reference UID of the planning CT"),
    TreatmentColumn("link", "text", "Weakest method by which the objects that are used are tied to one another"),
    TreatmentColumn("fractions_planned", "integer", "Planned fractions of the dominant plan that treat"),
    TreatmentColumn("fractions_delivered", "integer", "Delivered fractions of the dominant plan; NULL if not known"),
    TreatmentColumn("fractions_intended", "integer", "Intended fractions of the treatment, by the registry"),
    TreatmentColumn("prescription_gy", "number", "Prescribed dose of the dominant plan, Gy; NULL if not known"),
    TreatmentColumn("prescription_source", "text", "dose_reference, beam_doses or table"),
    TreatmentColumn(
        "scale_numerator", "integer", "Numerator of intended over delivered (else planned) fractions, in lowest terms"
    ),
    TreatmentColumn("scale_denominator", "integer", "Denominator of that factor"),
    TreatmentColumn("structure_sets", "list of records", "All RT Structure Sets of the patient, those used first"),
    TreatmentColumn("plans", "list of records", "All RT Plans with their fraction groups and roles, dominant first"),
    TreatmentColumn("doses", "list of records", "All RT Doses; used, or why not"),
    TreatmentColumn("remarks", "list of text", "Plans and doses that are not used, weak links, decisions of people"),
)
"""Columns beside those of a cohort file, in their order."""

_EXCLUDED_FURTHER = ("treatment_id", "site", "rule")
LINK_COLUMNS = (
    TreatmentColumn("patient_id", "text", "Patient ID of the object that refers"),
    TreatmentColumn("source", "text", "SOP Instance UID of the object that refers"),
    TreatmentColumn("source_modality", "text", "RTSTRUCT, RTPLAN, RTDOSE or RTRECORD"),
    TreatmentColumn("target_modality", "text", "RTPLAN, RTSTRUCT, or the modality of images"),
    TreatmentColumn("referenced", "text", "UID that the object states; empty if it states none"),
    TreatmentColumn("targets", "list of text", "SOP Instance UIDs (of images: Series Instance UIDs) to which it leads"),
    TreatmentColumn("method", "text", "uid, frame_of_reference_and_study or frame_of_reference; NULL: nowhere"),
    TreatmentColumn("state", "text", "resolved, inconclusive (several), broken (a UID leads nowhere) or absent"),
    TreatmentColumn("other_patient", "true or false", "Whether a target has another Patient ID"),
)
"""Columns of the links between objects, in their order."""


def links_path(path: Path) -> Path:
    """Where the links between the objects of a treatments file are."""
    return path.with_name(f"{path.stem}.links.parquet")


# ---------------------------------------------------------------- writing


def write_treatments(found: TreatmentSelection, path: Path, *, portable: bool = False) -> None:
    """Write NAME.parquet, NAME.excluded.parquet, NAME.links.parquet and NAME.lock.json; the treatments file last.

    Parameters
    ----------
    found : TreatmentSelection
        Treatments and what was left out.
    path : Path
        The treatments file, ``NAME.parquet``.
    portable : bool
        Leave the paths of this computer out.
    """
    import pyarrow.parquet as pq

    series = tuple(one.series for one in found.treatments)
    cohort = Cohort(path.stem, series, _treatments_sha256(found.treatments))
    if portable:
        cohort = without_local_paths(cohort)
    selection = found.selection
    lock = lock_of(replace(selection, cohort=cohort, excluded=_excluded(found)))
    lock["treatments"] = {
        "treatments": len(found.treatments),
        "excluded": dict(sorted(Counter(one.reason.value for one in found.excluded).items())),
        "objects": dict(found.objects),
        "decisions": [asdict(one) for one in found.decisions],
        "notes": list(found.notes),
    }
    with atomic_path(excluded_path(path)) as temporary:
        pq.write_table(_excluded(found), temporary, compression="zstd")
    with atomic_path(links_path(path)) as temporary:
        pq.write_table(links_table(found.links), temporary, compression="zstd")
    write_bytes(lock_path(path), json.dumps(lock, indent=1, ensure_ascii=False, default=str).encode() + b"\n")
    with atomic_path(path) as temporary:
        write_extended_cohort(temporary, cohort, _columns(found.treatments, portable=portable))


def _treatments_sha256(treatments: tuple[Treatment, ...]) -> str:
    """Hash over treatments, their images and the objects that they use."""
    digest = hashlib.sha256()
    for one in treatments:
        digest.update(f"T {one.treatment_id} {one.series.series_instance_uid} {one.scale}\n".encode())
        for name in sorted(i.sop_instance_uid or i.url for i in one.series.instances):
            digest.update(f"I {name}\n".encode())
        for companion in one.series.companions:
            digest.update(f"C {companion.modality} {companion.instance.sop_instance_uid}\n".encode())
    return digest.hexdigest()


def _excluded(found: TreatmentSelection) -> pa.Table:
    import pyarrow as pa

    rows = [
        {
            "collection_id": one.collection_id,
            "patient_id": one.patient_id,
            "study_instance_uid": one.study_instance_uid,
            "series_instance_uid": one.series_instance_uid,
            "num_instances": None,
            "reason": one.reason.value,
            "reasons": [one.reason.value],
            "detail": one.detail,
        }
        for one in found.excluded
    ]
    table = excluded_table(rows)
    for name in _EXCLUDED_FURTHER:
        table = table.append_column(name, pa.array([getattr(one, name) for one in found.excluded], pa.string()))
    return table


def links_table(links: Sequence[ObjectLink]) -> pa.Table:
    """Return the links between all objects, one row per link."""
    import pyarrow as pa

    kinds = {"targets": pa.list_(pa.string()), "other_patient": pa.bool_()}
    schema = pa.schema([(one.name, kinds.get(one.name, pa.string())) for one in LINK_COLUMNS])
    return pa.Table.from_pylist([{**asdict(link), "targets": list(link.targets)} for link in links], schema)


def _columns(treatments: tuple[Treatment, ...], *, portable: bool) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist([_row(one, portable) for one in treatments], _schema())


def _row(one: Treatment, portable: bool) -> dict[str, Any]:
    plan = one.dominant_plan
    prescription = plan.prescription if plan else None
    return {
        "treatment_id": one.treatment_id,
        "site": one.site,
        "frame_of_reference_uid": one.frame_of_reference_uid,
        "link": one.link.value if one.link else None,
        "fractions_planned": plan.fractions_planned if plan else None,
        "fractions_delivered": plan.fractions_delivered if plan else None,
        "fractions_intended": one.fractions_intended,
        "prescription_gy": prescription.dose if prescription else None,
        "prescription_source": prescription.source.value if prescription else None,
        "scale_numerator": one.scale.numerator if one.scale else None,
        "scale_denominator": one.scale.denominator if one.scale else None,
        "structure_sets": _plain(tuple[StructureSet, ...], one.structure_sets, portable),
        "plans": _plain(tuple[Plan, ...], one.plans, portable),
        "doses": _plain(tuple[Dose, ...], one.doses, portable),
        "remarks": list(one.notes),
    }


def _plain(kind: Any, objects: tuple[Any, ...], portable: bool) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _adapter(kind).dump_python(objects, mode="json")
    for row in rows if portable else ():
        if row["instance"]["url"].startswith("file:"):
            row["instance"]["url"] = ""
    return rows


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _schema() -> pa.Schema:
    import pyarrow as pa

    text, whole, number, flag = pa.string(), pa.int64(), pa.float64(), pa.bool_()
    instance = pa.struct([("sop_instance_uid", text), ("url", text), ("size", whole), ("md5", text), ("crc32c", text)])
    place: list[Any] = [("instance", instance), ("study_instance_uid", text), ("series_instance_uid", text)]
    beam = pa.struct([("number", whole), ("dose", number), ("delivery_type", text)])
    group = pa.struct([("number", whole), ("fractions", whole), ("beams", pa.list_(beam)), ("is_treatment", flag)])
    prescription = pa.struct([("dose", number), ("source", text), ("stated", pa.list_(number))])
    roi = pa.struct([("number", whole), ("name", text), ("interpreted_type", text), ("standard_name", text)])
    nested = {
        "structure_sets": pa.struct(
            [
                *place,
                *((name, text) for name in ("label", "stamp", "approval")),
                ("frames_of_reference", pa.list_(text)),
                ("rois", pa.list_(roi)),
                *((name, text) for name in ("images", "images_link")),
                ("used", flag),
                ("why", text),
            ]
        ),
        "plans": pa.struct(
            [
                *place,
                *((n, text) for n in ("label", "name", "stamp", "intent", "approval", "frame_of_reference_uid")),
                ("groups", pa.list_(group)),
                ("fractions_planned", whole),
                ("fractions_delivered", whole),
                ("delivered_source", text),
                ("prescription", prescription),
                ("relations", pa.list_(pa.list_(text))),
                *((name, text) for name in ("structure_set", "structure_set_link", "role", "why")),
            ]
        ),
        "doses": pa.struct(
            [
                *place,
                *((name, text) for name in ("units", "type", "summation", "scaling")),
                ("frames", whole),
                ("offsets", whole),
                ("frame_of_reference_uid", text),
                ("fraction_groups", pa.list_(whole)),
                ("plan", text),
                ("plan_link", text),
                ("used", flag),
                ("why", text),
            ]
        ),
    }
    kinds = {"text": text, "integer": whole, "number": number, "list of text": pa.list_(text)}
    return pa.schema(
        [(c.name, pa.list_(nested[c.name]) if c.name in nested else kinds[c.type]) for c in TREATMENT_COLUMNS]
    )


# ---------------------------------------------------------------- reading


def is_treatments_file(path: Path) -> bool:
    """Whether a cohort file has the columns of treatments."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pa.OSFile(str(path)) as handle:
            return "treatment_id" in pq.read_schema(handle).names
    except (pa.ArrowException, OSError):
        return False


def read_treatments(path: Path) -> tuple[Treatment, ...]:
    """Read a treatments file, or the cohort file of a run that was started with one.

    Raises
    ------
    UsageError
        NOT_FOUND, or BAD_COHORT: it is no treatments file, or was changed since it was written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    require_file(path, "name a treatments file that ctenrich treatments wrote")
    cohort = read_cohort(path)
    if not is_treatments_file(path):
        hint = "make treatments with: ctenrich treatments make"
        raise UsageError(Reason.BAD_COHORT, f"{path.name} is a cohort file without treatments", hint)
    with pa.OSFile(str(path)) as handle:
        rows = pq.read_table(handle, columns=[column.name for column in TREATMENT_COLUMNS]).to_pylist()
    try:
        return tuple(_treatment(row, entry) for row, entry in zip(rows, cohort.series, strict=True))
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(Reason.BAD_COHORT, f"{path.name} has treatments of another form") from error


def find_treatment(path: Path, series_instance_uid: str) -> Treatment | None:
    """Find the treatment whose planning CT is a series; None in a cohort file without treatments, or without this one.

    The file is read once in a process, until it changes.

    Parameters
    ----------
    path : Path
        Treatments file, or any cohort file.
    series_instance_uid : str
        Of the CT.

    Raises
    ------
    UsageError
        As :func:`read_treatments`.
    """
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        return None
    return _treatments_by_series(path, changed).get(series_instance_uid)


@lru_cache(maxsize=2)
def _treatments_by_series(path: Path, _changed: int) -> dict[str, Treatment]:
    treatments = read_treatments(path) if is_treatments_file(path) else ()
    return {one.series.series_instance_uid: one for one in treatments}


def _treatment(row: dict[str, Any], entry: Any) -> Treatment:
    numerator, denominator = row["scale_numerator"], row["scale_denominator"]
    return Treatment(
        treatment_id=row["treatment_id"],
        patient_id=entry.patient_id,
        site=row["site"],
        series=entry,
        frame_of_reference_uid=row["frame_of_reference_uid"],
        structure_sets=_adapter(tuple[StructureSet, ...]).validate_python(row["structure_sets"]),
        plans=_adapter(tuple[Plan, ...]).validate_python(row["plans"]),
        doses=_adapter(tuple[Dose, ...]).validate_python(row["doses"]),
        scale=Fraction(numerator, denominator) if numerator and denominator else None,
        fractions_intended=row["fractions_intended"],
        notes=tuple(row["remarks"]),
    )


def read_excluded_treatments(path: Path) -> tuple[ExcludedTreatment, ...]:
    """Read the excluded treatments beside a treatments file.

    Raises
    ------
    UsageError
        NOT_FOUND, or BAD_COHORT if the file is something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    own = excluded_path(path)
    require_file(own, "name a treatments file that ctenrich treatments wrote")
    try:
        with pa.OSFile(str(own)) as handle:
            table = pq.read_table(handle)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(Reason.BAD_COHORT, f"{own.name} is not a Parquet file") from error
    if table.column_names != [*EXCLUDED_COLUMNS, *_EXCLUDED_FURTHER]:
        raise UsageError(Reason.BAD_COHORT, f"{own.name} is not a list of excluded treatments")
    names = ("collection_id", "patient_id", "study_instance_uid", "series_instance_uid", "detail", *_EXCLUDED_FURTHER)
    return tuple(
        ExcludedTreatment(**{name: row[name] or "" for name in names}, reason=Reason(row["reason"]))
        for row in table.to_pylist()
    )
