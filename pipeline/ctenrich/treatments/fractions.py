"""Fractions and prescriptions of RT Plans (PS3.3 C.8.8.10, C.8.8.13): which fractions treat, what was prescribed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ctenrich.treatments.records import BeamDose, FractionGroup, Prescription, PrescriptionSource

__all__ = ["fraction_groups", "plan_prescription", "planned_fractions"]

_LITTLE = 0.05
"""Share of the plan's dose below which a fraction group does not treat: beams of portal images."""
_TREATING = frozenset({"", "TREATMENT", "CONTINUATION"})
"""Treatment Delivery Types (300A,00CE) of beams that treat."""


def fraction_groups(
    groups: Iterable[Mapping[str, Any]], beams: Iterable[Mapping[str, Any]] = ()
) -> tuple[FractionGroup, ...]:
    """Read the fraction groups of a plan.

    A group does not treat if none of its beams has a Treatment Delivery Type that treats, if all its Beam Doses are 0,
    or if it has less than 5 % of the plan's dose.

    Parameters
    ----------
    groups : iterable of mapping
        Items of the Fraction Group Sequence, by keyword.
    beams : iterable of mapping
        Items of the Beam Sequence.

    Returns
    -------
    tuple of FractionGroup
        In the order of the plan.
    """
    types = {item.get("BeamNumber"): item.get("TreatmentDeliveryType") or "" for item in beams}
    found = tuple(_group(item, types) for item in groups)
    total = sum(group.dose or 0.0 for group in found)
    return tuple(replace(group, is_treatment=_treats(group, total)) for group in found)


def _group(item: Mapping[str, Any], types: Mapping[Any, str]) -> FractionGroup:
    beams = tuple(
        BeamDose(
            number=_whole(beam.get("ReferencedBeamNumber")) or 0,
            dose=_number(beam.get("BeamDose")),
            delivery_type=types.get(beam.get("ReferencedBeamNumber"), ""),
        )
        for beam in item.get("ReferencedBeamSequence") or ()
    )
    return FractionGroup(
        number=_whole(item.get("FractionGroupNumber")) or 0,
        fractions=_whole(item.get("NumberOfFractionsPlanned")),
        beams=beams,
    )


def _treats(group: FractionGroup, total: float) -> bool:
    if group.beams and not any(beam.delivery_type in _TREATING for beam in group.beams):
        return False
    if group.fraction_dose == 0:
        return False
    return group.dose is None or not total or group.dose >= _LITTLE * total


def planned_fractions(groups: Sequence[FractionGroup]) -> int | None:
    """Return the number of planned fractions that treat; None if it is not known."""
    numbers = [group.fractions for group in groups if group.is_treatment]
    return sum(n for n in numbers if n is not None) if numbers and None not in numbers else None


def plan_prescription(
    groups: Sequence[FractionGroup], dose_references: Iterable[Mapping[str, Any]]
) -> Prescription | None:
    """Return the prescribed dose that a plan states.

    Parameters
    ----------
    groups : sequence of FractionGroup
        Its fraction groups; also those that do not treat add to the dose.
    dose_references : iterable of mapping
        Items of the Dose Reference Sequence, by keyword.

    Returns
    -------
    Prescription or None
        The largest Target Prescription Dose; else the sum of fractions times Beam Dose; else None.
    """
    stated = tuple(
        dose
        for item in dose_references
        if item.get("DoseReferenceType") == "TARGET" and (dose := _number(item.get("TargetPrescriptionDose")))
    )
    if stated:
        return Prescription(dose=max(stated), source=PrescriptionSource.DOSE_REFERENCE, stated=stated)
    doses = [group.dose for group in groups]
    if not doses or any(dose is None for dose in doses):
        return None
    known = tuple(dose for dose in doses if dose)
    total = round(math.fsum(known), 6)
    return Prescription(dose=total, source=PrescriptionSource.BEAM_DOSES, stated=known) if total > 0 else None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number == int(number) else None
