"""Doses of the segments of a product: the dose of its treatment, the metrics of every segment, and checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from ctenrich.contours.raster import Grid, grid_of
from ctenrich.dicom.objects import header
from ctenrich.dicom.sop_classes import RT_DOSE, RT_PLAN
from ctenrich.dose.checks import StructureValues, check_contours, check_course, check_treatment
from ctenrich.dose.choice import ChosenDoses, ScaledDose, choose_doses
from ctenrich.dose.combine import combine_doses
from ctenrich.dose.metrics import parse_metric
from ctenrich.dose.plan import PlanFacts, read_plan
from ctenrich.dose.reader import Dose, read_dose
from ctenrich.dose.sampling import region_of_mask
from ctenrich.dose.second_path import second_values
from ctenrich.dose.structures import DoseOptions, StructureDose, region_dose
from ctenrich.errors import CtenrichError, InputError
from ctenrich.masks import full_mask
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import (
    DoseCheck,
    DoseMeasurements,
    DoseOrigin,
    DoseValue,
    FetchedSeries,
    SegmentDoses,
    SegmentMasks,
    SortedSeries,
)
from ctenrich.settings import DosesSettings
from ctenrich.treatments.records import Plan, PlanRole, PrescriptionSource, Treatment
from ctenrich.workspace import Workspace

__all__ = ["DoseInput", "TreatmentDose", "dose_options", "measure_doses", "treatment_dose"]


@dataclass(frozen=True, kw_only=True)
class DoseInput:
    """What the dose of a series is made of."""

    series: SortedSeries
    fetched: FetchedSeries
    """With the RT Doses and RT Plans among its companions."""
    treatment: Treatment | None = None
    """States dominant plan, factor and prescription; None for a cohort without treatments."""


@dataclass(frozen=True, kw_only=True)
class TreatmentDose:
    """Dose and plans of one series."""

    dose: Dose
    plans: tuple[PlanFacts, ...]
    origins: tuple[DoseOrigin, ...]
    notes: tuple[str, ...]
    prescription: float | None
    prescription_source: str | None


def dose_options(settings: DosesSettings) -> DoseOptions:
    """Return the options of the calculation.

    Raises
    ------
    UsageError
        BAD_PARAMETER for a name that is no metric.
    """
    options = DoseOptions(bounds=settings.bounds, second=settings.bounds)
    if not settings.metrics:
        return options
    return replace(options, metrics=tuple(parse_metric(name) for name in settings.metrics))


def measure_doses(
    masks: SegmentMasks, given: DoseInput, options: DoseOptions, *, workspace: Workspace, progress: Progress = SILENT
) -> DoseMeasurements:
    """Calculate the dose metrics of every segment of a product on the voxels of its CT.

    Parameters
    ----------
    masks : SegmentMasks
        On the grid of the series.
    given : DoseInput
    options : DoseOptions
    workspace : Workspace
        Folder of the run.
    progress : Progress
        Advanced by every segment.

    Returns
    -------
    DoseMeasurements
        Without segments, but with a reason, where the series has no dose that can be used.
    """
    empty = DoseMeasurements(product=masks.product, series_instance_uid=masks.series_instance_uid)
    try:
        known = treatment_dose(given, workspace)
    except CtenrichError as error:
        check = DoseCheck(rule="dose.none", severity="error", sentence=f"{error.reason.value}: {error.message}")
        return replace(empty, reason=error.reason, message=error.message, checks=(check,))
    grid = grid_of(given.series)
    found = []
    progress.start("dose", len(masks.segments))
    for segment in masks.segments:
        if not segment.absent:
            one = _segment_dose(masks, segment.number, grid, workspace, known.dose, options)
            found.append(replace(one, name=segment.name))
        progress.advance("dose")
    progress.finish("dose")
    values = [StructureValues.of(one, str(masks.product)) for one in found]
    checks = check_treatment(known.dose.grid.maximum, known.prescription, values, known.plans)
    checks += check_contours(masks)
    checks += check_course(given.treatment) if given.treatment is not None else []
    checks += [DoseCheck(rule="dose.choice", severity="note", sentence=note) for note in known.notes]
    return replace(
        empty,
        origins=known.origins,
        maximum=known.dose.grid.maximum,
        prescription=known.prescription,
        prescription_source=known.prescription_source,
        segments=tuple(_record_of(one) for one in found),
        checks=tuple(checks),
    )


def treatment_dose(given: DoseInput, workspace: Workspace) -> TreatmentDose:
    """Read the doses and plans of a series, choose those that count, and add or scale them.

    The dose of the dominant plan is multiplied by intended over delivered fractions, where the treatment states them.

    Parameters
    ----------
    given : DoseInput
    workspace : Workspace
        Folder of the run.

    Returns
    -------
    TreatmentDose
        In Gy and PHYSICAL, in the frame of reference of the series.

    Raises
    ------
    InputError
        NO_DOSE where the series has none; DOSE_OTHER_FRAME, DOSE_OFFSETS, DOSE_UNITS, DOSE_TYPE, DOSE_SUMMATION
        and those of the readers.
    """
    doses, plans = _read_companions(given, workspace)
    if not doses:
        hint = "make the cohort with ctenrich treatments, or give the folder of the doses to it"
        raise InputError(Reason.NO_DOSE, "the series has no RT Dose among its companions", hint)
    factors = _factors(given.treatment)
    scaled = [ScaledDose(dose=dose, factor=factors.get(dose.sop_instance_uid, Fraction(1))) for dose in doses]
    chosen = choose_doses(scaled, plans)
    dose, notes = _whole_dose(chosen)
    dose.check_physical()
    if not dose.frame_of_reference_uid or dose.frame_of_reference_uid != given.series.frame_of_reference_uid:
        raise InputError(Reason.DOSE_OTHER_FRAME, "the dose has another frame of reference than the series")
    if min(dose.grid.shape) < 2:
        raise InputError(Reason.DOSE_OFFSETS, "the dose has a single plane, row or column")
    prescription, source = _prescription(plans, given.treatment)
    return TreatmentDose(
        dose=dose,
        plans=tuple(plans),
        origins=tuple(_origin(one) for one in chosen.doses),
        notes=notes,
        prescription=prescription,
        prescription_source=source,
    )


def _read_companions(given: DoseInput, workspace: Workspace) -> tuple[list[Dose], list[PlanFacts]]:
    doses, plans = [], []
    for file in given.fetched.companions:
        path = workspace.resolve(given.series.series_instance_uid, file.path)
        sop_class = str(header(path, ["SOPClassUID"]).get("SOPClassUID", ""))
        if sop_class == RT_DOSE:
            doses.append(read_dose(path))
        elif sop_class == RT_PLAN:
            plans.append(read_plan(path))
    return doses, plans


def _whole_dose(chosen: ChosenDoses) -> tuple[Dose, tuple[str, ...]]:
    """The chosen doses as one, and the notes on it."""
    first = chosen.doses[0]
    if len(chosen.doses) == 1 and first.factor == 1:
        return first.dose, chosen.notes
    combined = combine_doses(chosen)
    summation = "MULTI_PLAN" if len(chosen.doses) > 1 else "PLAN"
    return replace(first.dose, grid=combined.grid, summation=summation), combined.notes


def _origin(one: ScaledDose) -> DoseOrigin:
    return DoseOrigin(
        sop_instance_uid=one.uid,
        series_instance_uid=one.dose.series_instance_uid,
        study_instance_uid=one.dose.study_instance_uid,
        factor=str(one.factor),
    )


def _factors(treatment: Treatment | None) -> dict[str, Fraction]:
    """Intended over delivered fractions, for the doses of the dominant plan (also where only the link ties them)."""
    plan = treatment.dominant_plan if treatment is not None else None
    if treatment is None or plan is None or treatment.scale is None:
        return {}
    boosts = [boost.fractions_planned for boost in _boosts(treatment)]
    further = (treatment.fractions_intended or 0) * (1 - 1 / treatment.scale)
    if boosts and further and (None in boosts or further >= sum(number or 0 for number in boosts)):
        text = "the intended fractions may include those of the boost, whose dose is added: they would count twice"
        raise InputError(Reason.DOSE_SUMMATION, text, "state the intended fractions of the main plan alone")
    return {dose.uid: treatment.scale for dose in treatment.doses if dose.plan == plan.uid}


def _boosts(treatment: Treatment) -> list[Plan]:
    """Boost plans whose doses are added."""
    added = {dose.plan for dose in treatment.used_doses}
    return [plan for plan in treatment.plans if plan.role is PlanRole.BOOST and plan.uid in added]


def _prescription(plans: Sequence[PlanFacts], treatment: Treatment | None) -> tuple[float | None, str | None]:
    """Prescribed dose of the treatment with its source.

    That of the dominant plan and of the boosts whose doses are added, or that of the only plan. A sum of Beam Doses is
    that of the fractions of the plan, and multiplied like its dose; a dose reference and the user's table state the
    dose of the intended fractions, the table that of the whole treatment.
    """
    plan = treatment.dominant_plan if treatment is not None else None
    if treatment is None or plan is None:
        only = plans[0].prescription if len(plans) == 1 else None
        return (only.dose, only.source.value) if only is not None else (None, None)
    first = plan.prescription
    if first is None or first.source is PrescriptionSource.TABLE:
        return (first.dose, first.source.value) if first is not None else (None, None)
    scale = treatment.scale if first.source is PrescriptionSource.BEAM_DOSES else None
    further = [boost.prescription for boost in _boosts(treatment)]
    known = [one for one in further if one is not None]
    if len(known) < len(further):
        return None, None
    dose = first.dose * float(scale or 1) + sum(one.dose for one in known)
    return dose, " + ".join(sorted({one.source.value for one in (first, *known)}))


def _segment_dose(
    masks: SegmentMasks, number: int, grid: Grid, workspace: Workspace, dose: Dose, options: DoseOptions
) -> StructureDose:
    region = region_of_mask(full_mask(masks, number, workspace), grid)
    found = region_dose(region, dose, options)
    second = second_values(region, dose.grid, options.metrics) if options.second else list(found.second)
    return replace(found, number=number, second=tuple(second))


def _record_of(found: StructureDose) -> SegmentDoses:
    values = tuple(
        DoseValue(
            metric=one.metric.name,
            unit=one.metric.unit,
            value=one.value,
            lower=one.lower,
            upper=one.upper,
            second=second,
            reason=one.reason,
        )
        for one, second in zip(found.values, found.second, strict=True)
    )
    volumes = found.curve[1].tolist() if found.coverage == 1 else ()
    return SegmentDoses(
        number=found.number,
        name=found.name,
        coverage=found.coverage,
        samples=found.samples,
        step=found.step,
        values=values,
        curve=tuple(volumes),
    )
