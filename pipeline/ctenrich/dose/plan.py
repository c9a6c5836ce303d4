"""What an RT Plan says about its dose: fractions by group, beams with a dose, prescription."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ctenrich.dicom.quiet import quiet
from ctenrich.dicom.reader import open_dataset
from ctenrich.dicom.sop_classes import RT_PLAN
from ctenrich.dicom.values import text, whole
from ctenrich.errors import InputError
from ctenrich.reasons import Reason
from ctenrich.treatments.fractions import fraction_groups, plan_prescription, planned_fractions
from ctenrich.treatments.records import FractionGroup, Prescription

__all__ = ["PlanFacts", "read_plan"]


@dataclass(frozen=True, kw_only=True)
class PlanFacts:
    """An RT Plan, as far as its dose is concerned."""

    sop_instance_uid: str
    label: str
    intent: str
    """Plan Intent: CURATIVE, PALLIATIVE, ...; empty if it is not stated."""
    groups: tuple[FractionGroup, ...]
    fractions: int | None
    """Planned fractions that treat; None if they are not stated."""
    prescription: Prescription | None
    structure_set_uids: tuple[str, ...] = ()

    @property
    def beams(self) -> frozenset[int]:
        """Numbers of the beams with a dose."""
        return frozenset(beam.number for group in self.groups for beam in group.beams if beam.dose)

    @property
    def fraction_dose(self) -> float | None:
        """Dose of a fraction of the largest group that treats, Gy; None if it is not stated."""
        known = [group for group in self.groups if group.is_treatment and group.dose]
        return max(known, key=lambda group: group.dose or 0.0).fraction_dose if known else None

    def fractions_of(self, group_number: int) -> int | None:
        """Planned fractions of a group; None if the plan has no such group or does not state them."""
        return next((group.fractions for group in self.groups if group.number == group_number), None)


@quiet()
def read_plan(path: Path) -> PlanFacts:
    """Read an RT Plan.

    Raises
    ------
    InputError
        NOT_RT_PLAN for another object; TRUNCATED where the plan ends before its fraction groups or within a
        beam; otherwise as :func:`ctenrich.dicom.reader.open_dataset`.
    """
    data = open_dataset(path)
    if text(data, "SOPClassUID") != RT_PLAN:
        raise InputError(Reason.NOT_RT_PLAN, "the file is not an RT Plan object")
    if "FractionGroupSequence" not in data:
        raise InputError(Reason.TRUNCATED, "the RT Plan ends early or is malformed: it has no fraction groups")
    for beam in data.get("BeamSequence") or ():
        stated = whole(beam, "NumberOfControlPoints")
        if stated is not None and stated != len(beam.get("ControlPointSequence") or ()):
            raise InputError(Reason.TRUNCATED, "the RT Plan ends early or is malformed: a beam lacks control points")
    groups = fraction_groups(data.FractionGroupSequence or (), data.get("BeamSequence") or ())
    return PlanFacts(
        sop_instance_uid=text(data, "SOPInstanceUID"),
        label=text(data, "RTPlanLabel"),
        intent=text(data, "PlanIntent").upper(),
        groups=groups,
        fractions=planned_fractions(groups),
        prescription=plan_prescription(groups, data.get("DoseReferenceSequence") or ()),
        structure_set_uids=tuple(
            text(item, "ReferencedSOPInstanceUID") for item in data.get("ReferencedStructureSetSequence") or ()
        ),
    )
