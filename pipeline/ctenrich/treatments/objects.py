"""Read the radiotherapy objects of a catalog: structure sets, plans, doses, treatment records and images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ctenrich.catalog.base import Catalog, ask
from ctenrich.catalog.queries import load_query
from ctenrich.errors import UsageError
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import Instance
from ctenrich.treatments.fractions import fraction_groups, plan_prescription, planned_fractions
from ctenrich.treatments.records import Dose, Plan, RoiName, StructureSet

__all__ = ["CatalogObject", "ImageSeries", "PatientDoubt", "RadiotherapyObjects", "read_objects"]

_AT_ONCE = 1000
"""Rows of the catalog that are Python objects at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogObject:
    """An object with its place in the catalog and what it refers to."""

    collection_id: str
    patient_id: str
    study_instance_uid: str
    uid: str
    modality: str
    frames: tuple[str, ...]
    plans: tuple[str, ...] = ()
    """SOP Instance UIDs of the plans that it refers to."""
    structure_sets: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    """Series Instance UIDs of the images that it refers to."""
    sex: str = ""
    content: Plan | Dose | StructureSet | TreatmentRecord


@dataclass(frozen=True, kw_only=True)
class TreatmentRecord:
    """An RT Beams Treatment Record."""

    uid: str
    date: str
    fractions: tuple[int, ...]
    """Current Fraction Number of its beams."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSeries:
    """A series of images on which structure sets may be drawn."""

    series_instance_uid: str
    study_instance_uid: str
    patient_id: str
    frame: str
    modality: str
    is_volume: bool
    """Whether it has two or more images and no localizer."""


@dataclass(frozen=True, kw_only=True)
class PatientDoubt:
    """A Patient ID that may not stand for one patient."""

    collection_id: str
    patient_id: str
    differing: str
    """What of the person differs between instances; empty: nothing."""
    shared: str
    """Whether instances of a study have another Patient ID too; empty: none."""


@dataclass(frozen=True, kw_only=True)
class RadiotherapyObjects:
    """All objects of radiotherapy of a catalog."""

    structure_sets: tuple[CatalogObject, ...]
    plans: tuple[CatalogObject, ...]
    doses: tuple[CatalogObject, ...]
    records: tuple[CatalogObject, ...]
    images: tuple[ImageSeries, ...]
    doubts: tuple[PatientDoubt, ...] = ()
    notes: tuple[str, ...] = field(default=())
    """What the catalog does not know."""

    @property
    def all(self) -> tuple[CatalogObject, ...]:
        """Structure sets, plans, doses and records."""
        return self.structure_sets + self.plans + self.doses + self.records


def read_objects(
    catalog: Catalog,
    *,
    collections: Sequence[str] = (),
    patients: Sequence[str] = (),
    progress: Progress = SILENT,
) -> RadiotherapyObjects:
    """Ask a catalog for the radiotherapy objects of some patients.

    Parameters
    ----------
    catalog : Catalog
        One with instances (folder, parquet, bigquery).
    collections, patients : sequence of str
        collection_id and PatientID to search; none: all.
    progress : Progress
        Receives the price of billed queries as notes.

    Returns
    -------
    RadiotherapyObjects

    Raises
    ------
    UsageError
        MISSING_COLUMN: the catalog has no columns of radiotherapy (it was indexed by an earlier version), or no
        instances.
    """
    if not catalog.instance_level:
        hint = (
            "catalogs with instances are folder, parquet and bigquery; patients of an archive are copied into a folder "
            "with ctenrich retrieve, and indexed there"
        )
        raise UsageError(Reason.MISSING_COLUMN, "the series index has no references between objects", hint)
    parameters: dict[str, object] = {"collections": list(collections), "patients": list(patients)}

    def rows(name: str, own: Mapping[str, object] | None = None) -> Iterator[dict[str, Any]]:
        given = parameters if own is None else own
        try:
            table = ask(catalog, load_query(name), given, progress).table
        except UsageError as error:
            if error.reason is Reason.MISSING_COLUMN:
                hint = "a folder catalog of an earlier version lacks these columns: run ctenrich index again"
                raise UsageError(error.reason, error.message, hint) from error
            raise
        return (row for part in table.to_batches(_AT_ONCE) for row in part.to_pylist())

    notes: list[str] = []
    structure_sets = _once(rows("select_rt_structure_sets"), _structure_set, notes)
    plans = _once(rows("select_rt_plans"), _plan, notes)
    doses = _once(rows("select_rt_doses"), _dose, notes)
    records: tuple[CatalogObject, ...] = ()
    try:
        records = _once(rows("select_rt_records"), _record, notes)
    except UsageError as error:
        if error.reason is not Reason.MISSING_COLUMN:
            raise
        notes.append("the catalog has no columns of treatment records: delivered fractions are not known from them")
    found = (*structure_sets, *plans, *doses)
    parameters = {
        "collections": list(collections),
        "patients": sorted({one.patient_id for one in found}),
        "series": sorted({uid for one in structure_sets for uid in one.images}),
    }
    images = tuple(map(_image, rows("select_companion_candidates"))) if found else ()
    doubts: tuple[PatientDoubt, ...] = ()
    try:
        asked = {"collections": list(collections), "patients": list(patients)}
        doubts = tuple(map(_doubt, rows("select_rt_patients", asked)))
    except UsageError as error:
        if error.reason is not Reason.MISSING_COLUMN:
            raise
        notes.append("the catalog has no birth dates: two patients under one Patient ID are found by sex only")
    return RadiotherapyObjects(
        structure_sets=structure_sets,
        plans=plans,
        doses=doses,
        records=records,
        images=images,
        doubts=doubts,
        notes=tuple(notes),
    )


def _doubt(row: Mapping[str, Any]) -> PatientDoubt:
    differing = {
        "instances of this Patient ID state different birth dates": row["birth_dates"] > 1,
        "instances of this Patient ID state different sexes": row["sexes"] > 1,
    }
    return PatientDoubt(
        collection_id=row["collection_id"],
        patient_id=row["PatientID"],
        differing="; ".join(text for text, holds in differing.items() if holds),
        shared="instances of one study have this Patient ID and another one" if row["shared_studies"] > 0 else "",
    )


def _once(
    rows: Iterable[dict[str, Any]], make: Callable[[Mapping[str, Any]], CatalogObject], notes: list[str]
) -> tuple[CatalogObject, ...]:
    """Objects of rows; of those that share a SOP Instance UID, the first."""
    found: dict[str, CatalogObject] = {}
    for row in rows:
        key = row["SOPInstanceUID"] or row["url"]
        if key in found:
            notes.append(f"two different files have the SOP Instance UID {row['SOPInstanceUID']}: the first is used")
        else:
            found[key] = make(row)
    return tuple(found.values())


def _place(row: Mapping[str, Any], modality: str) -> dict[str, Any]:
    return {
        "collection_id": row["collection_id"] or "",
        "patient_id": row["PatientID"],
        "study_instance_uid": row["StudyInstanceUID"],
        "uid": row["SOPInstanceUID"],
        "modality": modality,
        "frames": tuple(row["frames_of_reference"] or ()),
        "sex": row.get("sex") or "",
    }


def _instance(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "instance": Instance(row["SOPInstanceUID"], row["url"] or "", row["size"], row["md5"]),
        "study_instance_uid": row["StudyInstanceUID"],
        "series_instance_uid": row["SeriesInstanceUID"],
    }


def _stamp(row: Mapping[str, Any]) -> str:
    if row["date"] is None:
        return ""
    return str(row["date"]) + (f"T{row['time']}" if row.get("time") is not None else "")


def _structure_set(row: Mapping[str, Any]) -> CatalogObject:
    types = {item["ReferencedROINumber"]: item["RTROIInterpretedType"] or "" for item in row["observations"] or ()}
    rois = []
    for item in row["rois"] or ():
        number = _whole(item["ROINumber"])
        if number is not None:
            name = (item["ROIName"] or "").strip()
            kind = sys.intern(types.get(item["ROINumber"], ""))
            rois.append(RoiName(number=number, name=sys.intern(name), interpreted_type=kind))
    content = StructureSet(
        **_instance(row),
        label=row["label"] or "",
        stamp=_stamp(row),
        approval=row["approval"] or "",
        frames_of_reference=tuple(row["frames_of_reference"] or ()),
        rois=tuple(rois),
    )
    return CatalogObject(**_place(row, "RTSTRUCT"), images=tuple(row["series"] or ()), content=content)


def _plan(row: Mapping[str, Any]) -> CatalogObject:
    groups = fraction_groups(row["fraction_groups"] or (), row["beams"] or ())
    related = zip(row["related_plans"] or (), row["relationships"] or (), strict=True)
    content = Plan(
        **_instance(row),
        label=row["label"] or "",
        name=row["name"] or "",
        stamp=_stamp(row),
        intent=row["intent"] or "",
        approval=row["approval"] or "",
        frame_of_reference_uid=next(iter(row["frames_of_reference"] or ()), ""),
        groups=groups,
        fractions_planned=planned_fractions(groups),
        prescription=plan_prescription(groups, row["dose_references"] or ()),
        relations=tuple(related),
    )
    sets = tuple(row["structure_sets"] or ())
    return CatalogObject(**_place(row, "RTPLAN"), structure_sets=sets, content=content)


def _dose(row: Mapping[str, Any]) -> CatalogObject:
    groups = (_whole(number) for number in row["fraction_groups"] or ())
    content = Dose(
        **_instance(row),
        units=row["units"] or "",
        type=row["type"] or "",
        summation=row["summation"] or "",
        scaling=row["scaling"] or "",
        frames=_whole(row["frames"]),
        offsets=row["num_offsets"] or 0,
        frame_of_reference_uid=next(iter(row["frames_of_reference"] or ()), ""),
        fraction_groups=tuple(number for number in groups if number is not None),
    )
    plans, sets = tuple(row["plans"] or ()), tuple(row["structure_sets"] or ())
    return CatalogObject(**_place(row, "RTDOSE"), plans=plans, structure_sets=sets, content=content)


def _record(row: Mapping[str, Any]) -> CatalogObject:
    numbers = (_whole(beam["CurrentFractionNumber"]) for beam in row["beams"] or ())
    content = TreatmentRecord(
        uid=row["SOPInstanceUID"],
        date=str(row["date"] or ""),
        fractions=tuple(sorted({number for number in numbers if number is not None})),
    )
    return CatalogObject(**_place(row, "RTRECORD"), plans=tuple(row["plans"] or ()), content=content)


def _image(row: Mapping[str, Any]) -> ImageSeries:
    return ImageSeries(
        series_instance_uid=row["SeriesInstanceUID"] or "",
        study_instance_uid=row["StudyInstanceUID"],
        patient_id=row["PatientID"],
        frame=row["FrameOfReferenceUID"],
        modality=row["Modality"] or "",
        is_volume=row["num_instances"] > 1 and not row["localizer"],
    )


def _whole(text: str | None) -> int | None:
    """An integer string; None where it is absent or something else."""
    with suppress(TypeError, ValueError):
        return int(text)  # type: ignore[arg-type]
    return None
