"""Dose metrics of the structures of every product of a run, and checks of the doses, as tables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from ctenrich import __version__
from ctenrich.contours.raster import Grid, grid_of
from ctenrich.dicom.objects import header
from ctenrich.dicom.sop_classes import RT_DOSE, RT_PLAN
from ctenrich.dose.checks import DoseCheck, StructureValues, check_cohort, check_treatment
from ctenrich.dose.choice import ScaledDose, choose_doses
from ctenrich.dose.combine import combine_doses
from ctenrich.dose.plan import PlanFacts, read_plan
from ctenrich.dose.reader import Dose, read_dose
from ctenrich.dose.sampling import region_of_mask
from ctenrich.dose.second_path import second_values
from ctenrich.dose.structures import DoseOptions, StructureDose, region_dose
from ctenrich.dose.table import DoseSource, curve_rows, metric_rows
from ctenrich.errors import CtenrichError, InputError
from ctenrich.masks import full_mask
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import FetchedSeries, SegmentMasks, SortedSeries
from ctenrich.results.schema import arrow_schema
from ctenrich.series_store import SeriesStore
from ctenrich.treatments.files import is_treatments_file, read_treatments
from ctenrich.treatments.records import Treatment
from ctenrich.workspace import Workspace, atomic_path, write_bytes

__all__ = ["DOSE_TABLES", "SeriesDoses", "doses_of_run", "write_dose_tables"]

DOSE_TABLES = ("dose_metrics", "dvh_curves", "dose_checks")
_VERSION = 1
"""Raised when a change of the code changes a row."""

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class SeriesDoses:
    """Rows of one series."""

    series_instance_uid: str
    metrics: list[Row] = field(default_factory=list)
    curves: list[Row] = field(default_factory=list)
    checks: list[Row] = field(default_factory=list)
    reason: str = ""
    """Why the series has no doses, as ``CODE: message``; empty if it has."""


@dataclass(frozen=True, kw_only=True)
class _SeriesDose:
    """Dose and plans of one series."""

    dose: Dose
    plans: tuple[PlanFacts, ...]
    text: str
    """The doses with their factors."""
    notes: tuple[str, ...]
    prescription: float | None
    prescription_source: str | None


def doses_of_run(
    workspace: Workspace, cohort_file: Path, options: DoseOptions | None = None, *, progress: Progress = SILENT
) -> Iterator[SeriesDoses]:
    """Dose metrics of all products with masks of every series of a run.

    The doses and plans are the companions of the series, which the stage fetch brought; with a treatments file, the
    dominant plan's dose is multiplied by its factor. A series whose dose, masks and options did not change is not
    calculated again: its rows are kept in the run's folder ``doses``.

    Parameters
    ----------
    workspace : Workspace
        The run's folder.
    cohort_file : Path
        The run's cohort or treatments file.
    options : DoseOptions, optional
    progress : Progress
        Advanced by every series.

    Yields
    ------
    SeriesDoses
        One per series that was sorted; those without a usable dose with the reason.
    """
    chosen = options or DoseOptions()
    treatments = read_treatments(cohort_file) if is_treatments_file(cohort_file) else ()
    facts = {one.series.series_instance_uid: one for one in treatments}
    uids = SeriesStore(workspace).series()
    progress.start("dose", len(uids))
    for uid in uids:
        found = _doses_of_series(workspace, uid, facts.get(uid), chosen)
        if found is not None:
            yield found
        progress.advance("dose")
    progress.finish("dose")


def _doses_of_series(
    workspace: Workspace, uid: str, treatment: Treatment | None, options: DoseOptions
) -> SeriesDoses | None:
    store = SeriesStore(workspace)
    series, fetched = store.find_valid(SortedSeries, uid), store.find_valid(FetchedSeries, uid)
    if series is None or fetched is None:
        return None
    products = [m for p in store.products(uid) if (m := store.find_valid(SegmentMasks, uid, p)) is not None]
    scale = treatment.scale if treatment is not None else None
    key = _key(fetched, products, scale, options)
    path = workspace.root / "doses" / f"{uid}.json"
    kept = _kept(path, key)
    if kept is not None:
        return kept
    try:
        known = _dose_of_series(workspace, uid, fetched, treatment)
        found = _rows(workspace, series, products, known, options)
    except CtenrichError as error:
        found = SeriesDoses(series_instance_uid=uid, reason=f"{error.reason.value}: {error.message}")
    content = {"key": key, "metrics": found.metrics, "curves": found.curves, "checks": found.checks}
    path.parent.mkdir(exist_ok=True)
    write_bytes(path, json.dumps(content | {"reason": found.reason}).encode())
    return found


def _key(fetched: FetchedSeries, products: Sequence[SegmentMasks], scale: Fraction | None, options: DoseOptions) -> str:
    parts = [str(_VERSION), __version__, repr(options), str(scale)]
    parts += sorted(file.sha256 for file in fetched.companions)
    parts += [f"{masks.product} {masks.sha256}" for masks in products]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _kept(path: Path, key: str) -> SeriesDoses | None:
    try:
        content = json.loads(path.read_bytes())
        if content.pop("key") != key:
            return None
        return SeriesDoses(series_instance_uid=path.stem, **content)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _dose_of_series(workspace: Workspace, uid: str, fetched: FetchedSeries, treatment: Treatment | None) -> _SeriesDose:
    doses, plans = [], []
    for file in fetched.companions:
        path = workspace.resolve(uid, file.path)
        sop_class = str(header(path, ["SOPClassUID"]).get("SOPClassUID", ""))
        if sop_class == RT_DOSE:
            doses.append(read_dose(path))
        elif sop_class == RT_PLAN:
            plans.append(read_plan(path))
    if not doses:
        hint = "make the cohort with ctenrich treatments, or give the folder of the doses to it"
        raise InputError(Reason.NOT_RT_DOSE, "the series has no RT Dose among its companions", hint)
    factors = _factors(treatment)
    given = [ScaledDose(dose=dose, factor=factors.get(dose.sop_instance_uid, Fraction(1))) for dose in doses]
    chosen = choose_doses(given, plans)
    text = " + ".join(f"{one.factor} x {one.uid}" for one in chosen.doses)
    first = chosen.doses[0]
    notes = list(chosen.notes)
    if len(chosen.doses) == 1 and first.factor == 1:
        dose = first.dose
    else:
        combined = combine_doses(chosen)
        notes = list(combined.notes)
        dose = replace(first.dose, grid=combined.grid, summation="MULTI_PLAN" if len(chosen.doses) > 1 else "PLAN")
    prescription, source = _prescription(plans, treatment)
    return _SeriesDose(
        dose=dose,
        plans=tuple(plans),
        text=text,
        notes=tuple(notes),
        prescription=prescription,
        prescription_source=source,
    )


def _factors(treatment: Treatment | None) -> dict[str, Fraction]:
    """Intended over delivered fractions, for the doses of the dominant plan (also where only the link ties them)."""
    plan = treatment.dominant_plan if treatment is not None else None
    if treatment is None or plan is None or treatment.scale is None:
        return {}
    return {dose.uid: treatment.scale for dose in treatment.doses if dose.plan == plan.uid}


def _prescription(plans: Sequence[PlanFacts], treatment: Treatment | None) -> tuple[float | None, str | None]:
    """Prescribed dose with its source: of the dominant plan, or of the only plan."""
    plan = treatment.dominant_plan if treatment is not None else None
    known = plan.prescription if plan is not None else plans[0].prescription if len(plans) == 1 else None
    return (known.dose, known.source.value) if known is not None else (None, None)


def _rows(
    workspace: Workspace,
    series: SortedSeries,
    products: Sequence[SegmentMasks],
    known: _SeriesDose,
    options: DoseOptions,
) -> SeriesDoses:
    known.dose.check_physical()
    frame = known.dose.frame_of_reference_uid
    if frame != series.frame_of_reference_uid:
        raise InputError(Reason.DOSE_OTHER_FRAME, "the dose has another frame of reference than the series")
    if min(known.dose.grid.shape) < 2:
        raise InputError(Reason.DOSE_OFFSETS, "the dose has a single plane, row or column")
    uid, grid = series.series_instance_uid, grid_of(series)
    metrics, curves, values = [], [], []
    for masks in products:
        found = _of_product(masks, grid, workspace, known, options)
        place = {"SeriesInstanceUID": uid, "product": str(masks.product)}
        source = DoseSource(structure_set=masks.source_sop_instance_uid, dose=known.text)
        for row in metric_rows(found, source):
            relative = known.prescription and row["unit"] == "Gy" and row["value"] is not None
            metrics.append(
                place
                | row
                | {
                    "relative_percent": 100 * row["value"] / known.prescription if relative else None,
                    "prescription_gy": known.prescription,
                    "prescription_source": known.prescription_source,
                }
            )
        curves += [place | row for row in curve_rows(found, source)]
        values += [StructureValues.of(one, str(masks.product)) for one in found]
    checks = check_treatment(known.dose.grid.maximum, known.prescription, values, known.plans)
    rows = [_check_row(uid, check) for check in checks]
    rows += [_check_row(uid, DoseCheck(rule="dose.choice", severity="note", sentence=note)) for note in known.notes]
    return SeriesDoses(series_instance_uid=uid, metrics=metrics, curves=curves, checks=rows)


def _of_product(
    masks: SegmentMasks, grid: Grid, workspace: Workspace, known: _SeriesDose, options: DoseOptions
) -> list[StructureDose]:
    out = []
    for segment in masks.segments:
        if segment.absent:
            continue
        region = region_of_mask(full_mask(masks, segment.number, workspace), grid)
        found = region_dose(region, known.dose, options)
        second = second_values(region, known.dose.grid, options.metrics) if options.second else list(found.second)
        out.append(replace(found, number=segment.number, name=segment.name, second=tuple(second)))
    return out


def _check_row(uid: str, check: DoseCheck) -> Row:
    return {
        "SeriesInstanceUID": uid,
        "product": check.product or None,
        "organ": check.organ or None,
        "rule": check.rule,
        "severity": check.severity,
        "value": check.value,
        "limit": check.limit,
        "sentence": check.sentence,
    }


_NAMES: Mapping[str, str] = {"number": "segment_number", "structure": "organ", "dose": "doses"}


def write_dose_tables(workspace: Workspace, found: Sequence[SeriesDoses]) -> dict[str, Path]:
    """Write the tables of doses.

    Parameters
    ----------
    workspace : Workspace
        The run's folder.
    found : sequence of SeriesDoses
        Of all series.

    Returns
    -------
    dict
        Table name -> file.
    """
    import pyarrow as pa  # only here: reading records needs no Arrow
    import pyarrow.parquet as pq

    refused = [
        _check_row(one.series_instance_uid, DoseCheck(rule="dose.none", severity="error", sentence=one.reason))
        for one in found
        if one.reason
    ]
    metrics = [row for one in found for row in one.metrics]
    outliers = [_check_row(uid, check) for uid, check in check_cohort(metrics)]
    rows = {
        "dose_metrics": metrics,
        "dvh_curves": [row for one in found for row in one.curves],
        "dose_checks": refused + [row for one in found for row in one.checks] + outliers,
    }
    out = {}
    for name, own in rows.items():
        schema = arrow_schema(name)
        wanted = [{_NAMES.get(key, key): value for key, value in row.items()} for row in own]
        out[name] = workspace.tables / f"{name}.parquet"
        out[name].parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(out[name]) as temporary:
            pq.write_table(pa.Table.from_pylist(wanted, schema=schema), temporary, compression="zstd")
    return out
