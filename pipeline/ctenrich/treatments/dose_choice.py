"""Choose the doses of the plans of a treatment: PLAN beats BEAM, and both are never added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ctenrich.reasons import Reason
from ctenrich.treatments.records import Dose, Plan, PlanRole

__all__ = ["NotChosenError", "choose_doses", "unusable"]


class NotChosenError(Exception):
    """No treatment can be made: reason and detail."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def unusable(dose: Dose) -> str:
    """Return why the dose of an object cannot be used in a sum of physical doses; empty if it can.

    Parameters
    ----------
    dose : Dose
        As the catalog describes it.
    """
    if dose.units != "GY":
        return f"its Dose Units are {dose.units or 'not stated'}, not GY"
    if dose.type != "PHYSICAL":
        return f"its Dose Type is {dose.type or 'not stated'}, not PHYSICAL"
    if dose.offsets and dose.offsets != (dose.frames or 1):
        return f"it has {dose.frames or 1} frames and {dose.offsets} frame offsets"
    if (dose.frames or 1) == 1 and dose.offsets <= 1:
        return "it is a single plane"
    return ""


def choose_doses(doses: Sequence[Dose], plans: Sequence[Plan]) -> list[Dose]:
    """Decide which doses are used.

    A PLAN dose of a plan is used and its other doses are not. Without one, its BEAM doses are used if there is one for
    every beam that has a dose. Doses of other summation types are not used.

    Parameters
    ----------
    doses : sequence of Dose
        Linked to their plans; one without a plan may be marked as used already.
    plans : sequence of Plan
        With their roles.

    Returns
    -------
    list of Dose
        All of them, with `used` and `why`.

    Raises
    ------
    NotChosenError
        INCONCLUSIVE: two PLAN doses of one plan that is used.
    """
    out: dict[str, Dose] = {}
    for dose in doses:
        why = dose.why or unusable(dose)
        out[dose.uid] = replace(dose, used=dose.used and not why, why=why)
    for plan in plans:
        own = [dose for dose in out.values() if dose.plan == plan.uid and not dose.why]
        if plan.role not in {PlanRole.DOMINANT, PlanRole.BOOST}:
            out |= {dose.uid: replace(dose, why=f"its plan is not used: {plan.why}") for dose in own}
        else:
            out |= {dose.uid: dose for dose in _of_plan(own, plan)}
    return list(out.values())


def _of_plan(doses: Sequence[Dose], plan: Plan) -> list[Dose]:
    whole = [dose for dose in doses if dose.summation == "PLAN"]
    if len(whole) > 1:
        text = f"{len(whole)} PLAN doses for plan {plan.uid}: {', '.join(d.uid for d in whole)}"
        raise NotChosenError(Reason.INCONCLUSIVE, text)
    if whole:
        why = "the plan has a dose of summation type PLAN"
        return [replace(d, used=True) if d is whole[0] else replace(d, why=why) for d in doses]
    beams = [dose for dose in doses if dose.summation == "BEAM"]
    expected = sum(1 for group in plan.groups for beam in group.beams if beam.dose)
    complete = bool(beams) and len(beams) == expected
    out = []
    for dose in doses:
        if dose.summation != "BEAM":
            out.append(replace(dose, why=f"its Dose Summation Type is {dose.summation or 'not stated'}"))
        elif complete:
            out.append(replace(dose, used=True))
        else:
            out.append(replace(dose, why=f"{len(beams)} BEAM doses for {expected} beams with a dose"))
    return out
