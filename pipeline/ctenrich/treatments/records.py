"""The records of radiotherapy treatments: the links between objects, plans with their fractions, doses, treatments."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction

from ctenrich.reasons import Reason
from ctenrich.records import Instance, SeriesEntry

__all__ = [
    "BeamDose",
    "Dose",
    "ExcludedTreatment",
    "FractionGroup",
    "LinkMethod",
    "LinkState",
    "ObjectLink",
    "Plan",
    "PlanRole",
    "Prescription",
    "PrescriptionSource",
    "RoiName",
    "StructureSet",
    "Treatment",
]


class LinkMethod(StrEnum):
    """What ties one object to another, from the strongest to the weakest."""

    UID = "uid"
    """The SOP or Series Instance UID that the object refers to."""
    FRAME_AND_STUDY = "frame_of_reference_and_study"
    """No reference resolves; Frame of Reference UID and Study Instance UID are equal."""
    FRAME = "frame_of_reference"
    """No reference resolves; Frame of Reference UID and patient are equal, the study is another one."""


class LinkState(StrEnum):
    """Whether a link leads to one object."""

    RESOLVED = "resolved"
    INCONCLUSIVE = "inconclusive"
    """Several objects are equally likely; all are listed."""
    BROKEN = "broken"
    """A UID is stated, and neither it nor the frame of reference leads to an object."""
    ABSENT = "absent"
    """No UID is stated, and the frame of reference leads to no object."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectLink:
    """A link from one object to another, or to the images on which it was made."""

    patient_id: str
    source: str
    """SOP Instance UID."""
    source_modality: str
    target_modality: str
    """RTPLAN, RTSTRUCT, or the modality of images (CT where no image was found)."""
    referenced: str
    """UID that the source states; empty if it states none."""
    targets: tuple[str, ...]
    """SOP Instance UIDs (of images: Series Instance UIDs) to which the link leads; several only if inconclusive."""
    method: LinkMethod | None
    """None if it leads nowhere."""
    state: LinkState
    other_patient: bool = False
    """Whether a target has another Patient ID than the source."""


class PlanRole(StrEnum):
    """What a plan is in its treatment."""

    DOMINANT = "dominant"
    BOOST = "boost"
    """Delivered after the dominant plan; its dose is part of the treatment's."""
    REPLAN = "replan"
    """A plan on other images, or one that the dominant plan replaces or that replaces it; its dose is not used."""
    NOT_CHOSEN = "not_chosen"


class PrescriptionSource(StrEnum):
    """Where a prescribed dose comes from."""

    DOSE_REFERENCE = "dose_reference"
    """Largest Target Prescription Dose of the plan's dose references of type TARGET."""
    BEAM_DOSES = "beam_doses"
    """Sum over the fraction groups of fractions times Beam Dose: the dose at a point."""
    TABLE = "table"
    """The user's registry."""


@dataclass(frozen=True, kw_only=True)
class BeamDose:
    """Beam of a fraction group."""

    number: int
    dose: float | None
    """Beam Dose, Gy per fraction."""
    delivery_type: str = ""
    """Treatment Delivery Type of the beam."""


@dataclass(frozen=True, kw_only=True)
class FractionGroup:
    """Beams that are delivered together, and how often."""

    number: int
    fractions: int | None
    """Number of Fractions Planned."""
    beams: tuple[BeamDose, ...] = ()
    is_treatment: bool = True
    """False for portal images and set-up fields: their fractions are not counted (their dose is)."""

    @property
    def fraction_dose(self) -> float | None:
        """Sum of the beams' doses in one fraction, Gy; None if no beam states one."""
        doses = [beam.dose for beam in self.beams if beam.dose is not None]
        return sum(doses) if doses else None

    @property
    def dose(self) -> float | None:
        """Dose of all its fractions, Gy; None if it is not known."""
        each = self.fraction_dose
        return None if each is None or self.fractions is None else each * self.fractions


@dataclass(frozen=True, kw_only=True)
class Prescription:
    """A prescribed dose with its source."""

    dose: float
    """Gy."""
    source: PrescriptionSource
    stated: tuple[float, ...] = ()
    """All doses among which it was chosen, Gy."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An RT Plan."""

    instance: Instance
    study_instance_uid: str
    series_instance_uid: str
    label: str = ""
    name: str = ""
    stamp: str = ""
    """RT Plan Date and Time as 2004-04-13T09:40:27; empty if not stated."""
    intent: str = ""
    approval: str = ""
    frame_of_reference_uid: str = ""
    groups: tuple[FractionGroup, ...] = ()
    fractions_planned: int | None = None
    """Sum over the fraction groups that treat; None if a number is missing."""
    fractions_delivered: int | None = None
    delivered_source: str = ""
    """``table``, ``records`` (RT Beams Treatment Records) or empty."""
    prescription: Prescription | None = None
    relations: tuple[tuple[str, str], ...] = ()
    """(SOP Instance UID, RT Plan Relationship) of other plans that it refers to."""
    structure_set: str = ""
    """SOP Instance UID of its structure set; empty if there is none."""
    structure_set_link: LinkMethod | None = None
    role: PlanRole = PlanRole.NOT_CHOSEN
    why: str = ""
    """Why it has this role."""

    @property
    def uid(self) -> str:
        """SOP Instance UID."""
        return self.instance.sop_instance_uid


@dataclass(frozen=True, kw_only=True)
class Dose:
    """An RT Dose."""

    instance: Instance
    study_instance_uid: str
    series_instance_uid: str
    units: str = ""
    type: str = ""
    summation: str = ""
    scaling: str = ""
    """Dose Grid Scaling as the file states it."""
    frames: int | None = None
    offsets: int = 0
    """Number of values in Grid Frame Offset Vector."""
    frame_of_reference_uid: str = ""
    fraction_groups: tuple[int, ...] = ()
    """Fraction groups of its plan to which it refers."""
    plan: str = ""
    """SOP Instance UID of its plan; empty if there is none."""
    plan_link: LinkMethod | None = None
    used: bool = False
    why: str = ""
    """Why it is not used."""

    @property
    def uid(self) -> str:
        """SOP Instance UID."""
        return self.instance.sop_instance_uid


@dataclass(frozen=True, kw_only=True, slots=True)
class RoiName:
    """Name of one ROI."""

    number: int
    name: str
    interpreted_type: str = ""
    """RT ROI Interpreted Type: a hint, often wrong."""
    standard_name: str = ""
    """Standard name that a person decided on; empty without a decision."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StructureSet:
    """An RT Structure Set."""

    instance: Instance
    study_instance_uid: str
    series_instance_uid: str
    label: str = ""
    stamp: str = ""
    approval: str = ""
    frames_of_reference: tuple[str, ...] = ()
    rois: tuple[RoiName, ...] = ()
    images: str = ""
    """Series Instance UID of the images on which it is drawn; empty if they are not there."""
    images_link: LinkMethod | None = None
    used: bool = False
    why: str = ""
    """Why it is not used."""

    @property
    def uid(self) -> str:
        """SOP Instance UID."""
        return self.instance.sop_instance_uid


@dataclass(frozen=True, kw_only=True)
class Treatment:
    """One treatment of one patient: planning CT, structure sets, plans and doses, used or not."""

    treatment_id: str
    """Stable for the same objects: from collection, patient and dominant plan (or structure set)."""
    patient_id: str
    site: str = ""
    """From the registry; empty if it has no such column."""
    series: SeriesEntry
    """The planning CT; its companions are the objects that are used."""
    frame_of_reference_uid: str = ""
    structure_sets: tuple[StructureSet, ...] = ()
    """The dominant plan's first."""
    plans: tuple[Plan, ...] = ()
    """The dominant plan first."""
    doses: tuple[Dose, ...] = ()
    scale: Fraction | None = None
    """Intended over delivered (or planned) fractions of the dominant plan; None if no number was intended."""
    fractions_intended: int | None = None
    notes: tuple[str, ...] = field(default=(), repr=False)
    """What the user should know: weak links, plans and doses that are not used, decisions of people."""

    @property
    def dominant_plan(self) -> Plan | None:
        """The plan that decides; None for a treatment without a plan."""
        return next((plan for plan in self.plans if plan.role is PlanRole.DOMINANT), None)

    @property
    def used_doses(self) -> tuple[Dose, ...]:
        """Doses that make up the treatment's dose."""
        return tuple(dose for dose in self.doses if dose.used)

    @property
    def used_structure_sets(self) -> tuple[StructureSet, ...]:
        """Structure sets that are used."""
        return tuple(one for one in self.structure_sets if one.used)

    @property
    def link(self) -> LinkMethod | None:
        """The weakest link between the objects that are used; None if there is none."""
        methods = [dose.plan_link for dose in self.used_doses]
        methods += [plan.structure_set_link for plan in self.plans if plan.role in {PlanRole.DOMINANT, PlanRole.BOOST}]
        methods += [one.images_link for one in self.used_structure_sets]
        order = list(LinkMethod)
        return max((m for m in methods if m is not None), key=order.index, default=None)


@dataclass(frozen=True, kw_only=True)
class ExcludedTreatment:
    """A patient or treatment that was left out."""

    collection_id: str
    patient_id: str
    site: str = ""
    reason: Reason
    detail: str
    """What exactly: the objects concerned, the rule."""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    """The planning CT; empty if there is none."""
    treatment_id: str = ""
    rule: str = ""
    """Name of the rule or decision; empty if the reason is another one."""
