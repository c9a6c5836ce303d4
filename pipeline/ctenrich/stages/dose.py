"""Stage dose: dose metrics of the segments of a product, from the RT Doses of its series."""

from __future__ import annotations

from ctenrich.dose.measure import DoseInput, dose_options, measure_doses
from ctenrich.records import DoseMeasurements
from ctenrich.stages.stage import StageContext
from ctenrich.stages.treatment import treatment_of
from ctenrich.treatments.records import PlanRole

__all__ = ["measure_series_doses", "treatment_identity"]


def measure_series_doses(context: StageContext) -> DoseMeasurements:
    """Calculate the doses of a product; without a dose that can be used, the record has the reason."""
    records = context.records
    given = DoseInput(
        series=records.series, fetched=context.store.fetched(context.uid), treatment=treatment_of(context)
    )
    options = dose_options(context.settings.doses)
    return measure_doses(records.masks, given, options, workspace=context.workspace, progress=context.progress)


def treatment_identity(context: StageContext) -> str:
    """What the treatment of a series states about its dose, as text; empty for a cohort without treatments."""
    found = treatment_of(context)
    if found is None:
        return ""
    boosts = [plan for plan in found.plans if plan.role is PlanRole.BOOST]
    return f"{found.scale} {found.dominant_plan} {found.doses}" + (f" {boosts}" if boosts else "")
