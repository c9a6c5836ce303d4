"""Which doses may be added: one dose per plan, the same frame of reference and images, physical doses in Gy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from ctenrich.dose.plan import PlanFacts
from ctenrich.dose.reader import Dose
from ctenrich.errors import InputError, UsageError
from ctenrich.reasons import Reason

__all__ = ["ChosenDoses", "ScaledDose", "choose_doses", "parse_factor"]

_WHOLE = frozenset({"PLAN", "MULTI_PLAN"})
_PARTS = frozenset({"BEAM", "FRACTION"})
_LEAST = 1.0
"""Gy of the maximum below which a dose is left out: portal images, and doses of empty plans."""


@dataclass(frozen=True, kw_only=True)
class ScaledDose:
    """A dose with the factor by which it is multiplied."""

    dose: Dose
    factor: Fraction = Fraction(1)

    @property
    def uid(self) -> str:
        """SOP Instance UID."""
        return self.dose.sop_instance_uid


@dataclass(frozen=True, kw_only=True)
class ChosenDoses:
    """The doses that are added."""

    doses: tuple[ScaledDose, ...]
    """In the order of their SOP Instance UIDs."""
    notes: tuple[str, ...]
    """What was left out or multiplied, and what is doubtful."""


def parse_factor(text: str) -> Fraction:
    """Parse a factor: ``25/23``, ``2`` or ``1.08``.

    Raises
    ------
    UsageError
        BAD_PARAMETER for anything but a positive number or ratio.
    """
    try:
        factor = Fraction(text.strip())
    except (ValueError, ZeroDivisionError):
        factor = Fraction(0)
    if factor <= 0 or factor > 1000:
        raise UsageError(Reason.BAD_PARAMETER, f"{text[:20]!r} is no factor", "factors are like 25/23, 2 or 1.08")
    return factor


def choose_doses(doses: Sequence[ScaledDose], plans: Sequence[PlanFacts] = ()) -> ChosenDoses:
    """Choose the doses that are added, and refuse what must not be.

    The dose of a whole plan (PLAN) is used and the doses of its beams and fractions are left out. Without one, the
    doses of its beams are used where there is one for every beam with a dose, and a dose of a fraction is multiplied by
    the planned fractions of its group.

    Parameters
    ----------
    doses : sequence of ScaledDose
    plans : sequence of PlanFacts
        The plans of the doses, where they are known.

    Returns
    -------
    ChosenDoses

    Raises
    ------
    InputError
        DOSE_UNITS, DOSE_TYPE, DOSE_OTHER_FRAME; DOSE_SUMMATION for two doses of one plan, beams that are not all
        there, and other types of summation; DOSE_VALUES where no dose is left.
    """
    notes: list[str] = []
    uids = [one.uid for one in doses]
    if len(set(uids)) < len(uids):
        raise InputError(Reason.DOSE_SUMMATION, "the same dose was given twice")
    kept = []
    for one in doses:
        one.dose.check_physical()
        if one.dose.summation not in _WHOLE | _PARTS:
            text = f"a dose of summation type {one.dose.summation[:16] or '(none)'} is not added"
            raise InputError(Reason.DOSE_SUMMATION, text, "PLAN, MULTI_PLAN, FRACTION and BEAM are")
        # a beam, or one fraction of many, may have less and is still needed
        if one.dose.summation in _WHOLE and one.dose.grid.maximum < _LEAST:
            notes.append(f"dose {one.uid} has a maximum of {one.dose.grid.maximum:.3f} Gy, below 1 Gy: left out")
        else:
            kept.append(one)
    if not any(one.dose.grid.maximum for one in kept):
        raise InputError(Reason.DOSE_VALUES, "no dose has a maximum of 1 Gy or more")
    known = {plan.sop_instance_uid: plan for plan in plans}
    _check_images(kept, known, notes)
    by_plan: dict[tuple[str, ...], list[ScaledDose]] = {}
    for one in kept:
        key = tuple(sorted(plan.sop_instance_uid for plan in one.dose.plans))
        by_plan.setdefault(key or (f"no plan: {one.uid}",), []).append(one)
    chosen = []
    for key, own in by_plan.items():
        chosen += _of_plan(own, known.get(key[0]) if len(key) == 1 else None, notes)
    _check_overlap(chosen)
    _warn_of_fraction_sizes(chosen, known, notes)
    _warn_of_heterogeneity(chosen, notes)
    if len(kept) > 1 and any(not one.dose.plans for one in kept):
        notes.append("a dose refers to no plan: whether it is part of another one is not known")
    return ChosenDoses(doses=tuple(sorted(chosen, key=lambda one: one.uid)), notes=tuple(notes))


def _check_images(doses: Sequence[ScaledDose], plans: Mapping[str, PlanFacts], notes: list[str]) -> None:
    """Same frame of reference, and the same structure sets where they are known."""
    frames = {one.dose.frame_of_reference_uid for one in doses}
    if len(frames) > 1 or (len(doses) > 1 and frames == {""}):
        text = "the doses do not share one frame of reference" if len(frames) > 1 else "no frame of reference is stated"
        raise InputError(Reason.DOSE_OTHER_FRAME, text, "doses on other images are not added")
    structures = []
    for one in doses:
        own = set(one.dose.structure_set_uids)
        own |= {uid for plan in one.dose.plans if plan.sop_instance_uid in plans
                for uid in plans[plan.sop_instance_uid].structure_set_uids}  # fmt: skip
        structures.append(own)
    stated = [own for own in structures if own]
    if len(stated) > 1 and not set.intersection(*stated):
        text = "the doses have one frame of reference and were calculated for different structure sets"
        raise InputError(Reason.DOSE_OTHER_FRAME, text, "a new planning CT may have a copied frame of reference")
    if len(doses) > 1 and len(stated) < len(doses):
        notes.append("the structure sets of the doses are not known: that they belong to one image set is assumed")


def _of_plan(doses: list[ScaledDose], plan: PlanFacts | None, notes: list[str]) -> list[ScaledDose]:
    whole = [one for one in doses if one.dose.summation in _WHOLE]
    if len(whole) > 1:
        raise InputError(Reason.DOSE_SUMMATION, f"{len(whole)} doses are of one plan: adding them would count it twice")
    if whole:
        left = [one for one in doses if one is not whole[0]]
        notes += [
            f"dose {one.uid} is part ({one.dose.summation}) of a plan whose dose is there: left out" for one in left
        ]
        return whole
    kinds = {one.dose.summation for one in doses}
    if len(kinds) > 1:
        raise InputError(Reason.DOSE_SUMMATION, "doses of beams and of fractions of one plan are not added")
    if plan is None:
        text = f"the dose is that of a part of a plan ({kinds.pop()}), and the plan is not known"
        raise InputError(Reason.DOSE_SUMMATION, text, "give the RT Plan too")
    return _fractions(doses, plan, notes) if kinds == {"FRACTION"} else _beams(doses, plan)


def _beams(doses: list[ScaledDose], plan: PlanFacts) -> list[ScaledDose]:
    numbers = [beam for one in doses for reference in one.dose.plans for beam in reference.beams]
    if len(numbers) != len(set(numbers)) or len(numbers) != len(doses):
        raise InputError(Reason.DOSE_SUMMATION, "the doses of beams do not state one beam each, or one of them twice")
    if not plan.beams <= set(numbers):
        missing = ", ".join(map(str, sorted(plan.beams - set(numbers))))
        raise InputError(Reason.DOSE_SUMMATION, f"the doses of beams {missing} are missing")
    if len({one.factor for one in doses}) > 1:
        raise InputError(Reason.DOSE_SUMMATION, "the beams of one plan have different factors")
    return doses


def _fractions(doses: list[ScaledDose], plan: PlanFacts, notes: list[str]) -> list[ScaledDose]:
    out = []
    seen: set[int] = set()
    for one in doses:
        groups = {group for reference in one.dose.plans for group in reference.fraction_groups}
        groups = groups or ({plan.groups[0].number} if len(plan.groups) == 1 else set())
        number = groups.pop() if len(groups) == 1 else None
        fractions = plan.fractions_of(number) if number is not None else None
        if number is None or not fractions or number in seen:
            text = "the dose of a fraction has no fraction group of its own with a planned number of fractions"
            raise InputError(Reason.DOSE_SUMMATION, text)
        seen.add(number)
        notes.append(f"dose {one.uid} is that of one fraction: multiplied by {fractions} planned fractions")
        out.append(ScaledDose(dose=one.dose, factor=one.factor * fractions))
    if {group.number for group in plan.groups if group.is_treatment} - seen:
        raise InputError(Reason.DOSE_SUMMATION, "the doses of fractions of other groups are missing")
    return out


def _check_overlap(doses: Sequence[ScaledDose]) -> None:
    """A sum of plans (MULTI_PLAN) beside the dose of one of them, or of its beams, counts that plan twice."""
    seen: dict[str, str] = {}
    for one in doses:
        for plan in {reference.sop_instance_uid for reference in one.dose.plans}:
            # the parts of one plan are there together, and were chosen before
            owner = plan if one.dose.summation in _PARTS else one.uid
            if seen.setdefault(plan, owner) != owner:
                raise InputError(Reason.DOSE_SUMMATION, "two of the doses contain the same plan")


def _warn_of_fraction_sizes(doses: Sequence[ScaledDose], plans: Mapping[str, PlanFacts], notes: list[str]) -> None:
    used = {reference.sop_instance_uid for one in doses for reference in one.dose.plans}
    sizes = sorted({round(size, 2) for uid in used if uid in plans and (size := plans[uid].fraction_dose)})
    if len(sizes) > 1:
        listed = " and ".join(f"{size:.2f}" for size in sizes)
        notes.append(f"fraction sizes {listed} Gy differ: the sum of physical doses is not one of equal effect")


def _warn_of_heterogeneity(doses: Sequence[ScaledDose], notes: list[str]) -> None:
    """Doses calculated in the patient's tissues and doses calculated in water are not of one kind."""
    kinds = sorted({"/".join(one.dose.heterogeneity) for one in doses if one.dose.heterogeneity})
    if len(kinds) > 1:
        notes.append(f"the doses differ in Tissue Heterogeneity Correction: {' and '.join(kinds)}")
