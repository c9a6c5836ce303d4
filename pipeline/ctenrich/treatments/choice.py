"""Choose the plans, doses, structure sets and images of one treatment; whatever is ambiguous is left inconclusive."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ctenrich.reasons import Reason
from ctenrich.treatments.dose_choice import NotChosenError, choose_doses
from ctenrich.treatments.records import (
    Dose,
    LinkMethod,
    LinkState,
    ObjectLink,
    Plan,
    PlanRole,
    StructureSet,
)
from ctenrich.treatments.rules import TreatmentRules

__all__ = ["ChosenObjects", "ImagePlace", "PatientObjects", "Wanted", "choose_objects"]


class ImagePlace(NamedTuple):
    """Series of images with its modality and frame of reference."""

    series_instance_uid: str
    modality: str
    frame: str


@dataclass(frozen=True, kw_only=True)
class PatientObjects:
    """The radiotherapy objects of one patient, and the links between them."""

    structure_sets: tuple[StructureSet, ...] = ()
    plans: tuple[Plan, ...] = ()
    doses: tuple[Dose, ...] = ()
    links: tuple[ObjectLink, ...] = ()
    images: Mapping[str, ImagePlace]
    """Series Instance UID -> place."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the registry and the decisions of people ask for."""

    plans: tuple[str, ...] = ()
    """Labels of plans; empty: all."""
    dominant: str = ""
    """SOP Instance UID of the plan that a person chose."""
    structure_set: str = ""
    """SOP Instance UID of the structure set that a person chose."""
    left_out: frozenset[str] = frozenset()
    """SOP Instance UIDs of plans and doses that a person left out."""


@dataclass(frozen=True, kw_only=True)
class ChosenObjects:
    """All objects of a patient with what they are in the treatment."""

    structure_sets: tuple[StructureSet, ...]
    plans: tuple[Plan, ...]
    doses: tuple[Dose, ...]
    images: ImagePlace
    """The planning CT."""


def choose_objects(objects: PatientObjects, rules: TreatmentRules, wanted: Wanted) -> ChosenObjects:
    """Choose what makes up the treatment of a patient.

    Parameters
    ----------
    objects : PatientObjects
        All objects of the patient.
    rules : TreatmentRules
        How to choose.
    wanted : Wanted
        What the registry and people ask for.

    Returns
    -------
    ChosenObjects
        The dominant plan and its structure set come first.

    Raises
    ------
    NotChosenError
        NO_PLAN, NO_DOSE, NO_STRUCTURE_SET, NO_PLANNING_CT, AMBIGUOUS_PATIENT, or INCONCLUSIVE with all candidates.
    """
    _check_patient(objects.links)
    choice = _Choice(objects, rules, wanted)
    plans = choice.plans()
    dominant = next((plan for plan in plans if plan.role is PlanRole.DOMINANT), None)
    sets = choice.structure_sets(plans)
    first = next((one for one in sets if one.used), None)
    if first is None:  # only a dose is required
        raise NotChosenError(Reason.NO_STRUCTURE_SET, "no structure set leads to the planning CT")
    images = choice.planning_images(first)
    plans = choice.other_images(plans, sets, images)
    sets = choice.of_plans(sets, plans)
    doses = choice.doses(plans, dominant, first)
    return ChosenObjects(
        structure_sets=tuple(sorted(sets, key=lambda one: (one is not first, not one.used, one.uid))),
        plans=tuple(sorted(plans, key=lambda p: (list(PlanRole).index(p.role), p.stamp, p.uid))),
        doses=tuple(sorted(doses, key=lambda d: (not d.used, d.uid))),
        images=images,
    )


def _check_patient(links: Iterable[ObjectLink]) -> None:
    for link in links:
        if link.other_patient and link.method is LinkMethod.UID:
            text = f"the {link.source_modality} {link.source} refers to a {link.target_modality} of another Patient ID"
            raise NotChosenError(Reason.AMBIGUOUS_PATIENT, text)


class _Choice:
    """The choices for one treatment, in their order."""

    def __init__(self, objects: PatientObjects, rules: TreatmentRules, wanted: Wanted) -> None:
        self._objects = objects
        self._rules = rules
        self._wanted = wanted
        self._links: dict[tuple[str, str], list[ObjectLink]] = defaultdict(list)
        for link in objects.links:
            kind = link.target_modality if link.target_modality in {"RTPLAN", "RTSTRUCT"} else "images"
            self._links[link.source, kind].append(link)

    # ------------------------------------------------------------ plans

    def plans(self) -> list[Plan]:
        """All plans with their roles."""
        left_out: list[Plan] = []
        considered: list[Plan] = []
        for plan in self._objects.plans:
            why = self._why_not(plan)
            if why:
                left_out.append(replace(plan, role=PlanRole.NOT_CHOSEN, why=why))
            else:
                considered.append(plan)
        if not considered:
            if "plan" not in self._rules.requires and not self._objects.plans:
                return []
            text = "; ".join(f"plan {plan.uid}: {plan.why}" for plan in left_out) or "the patient has no RT Plan"
            raise NotChosenError(Reason.NO_PLAN, text)
        main = [plan for plan in considered if not self._rules.is_boost(plan)] or considered
        dominant, why = self._dominant(main)
        out = [replace(dominant, role=PlanRole.DOMINANT, why=why)]
        for plan in considered:
            if plan.uid != dominant.uid:
                role, why = self._role(plan, dominant)
                out.append(replace(plan, role=role, why=why))
        return [self._with_structure_set(plan) for plan in (*out, *left_out)]

    def _why_not(self, plan: Plan) -> str:
        if plan.uid in self._wanted.left_out:
            return "a person left it out"
        labels = {label.casefold() for label in self._wanted.plans}
        if labels and not labels & {plan.label.casefold(), plan.name.casefold()}:
            return f"its label {plan.label!r} is not in the registry"
        return self._rules.considers(plan)

    def _dominant(self, plans: list[Plan]) -> tuple[Plan, str]:
        if self._wanted.dominant:
            chosen = next((plan for plan in plans if plan.uid == self._wanted.dominant), None)
            if chosen is None:
                text = f"the plan {self._wanted.dominant} that a person chose is not among the plans considered"
                raise NotChosenError(Reason.NO_PLAN, text)
            return chosen, "chosen by a person"
        if len(plans) == 1:
            return plans[0], "the only plan"
        approved = [plan for plan in plans if plan.approval == "APPROVED"]
        if len(approved) == 1:
            return approved[0], "the only plan that is approved"
        plans = approved or plans
        if self._rules.plans == "dominant":
            for title, numbers in (
                ("delivered", [plan.fractions_delivered for plan in plans]),
                ("planned", [plan.fractions_planned for plan in plans]),
            ):
                known = [number for number in numbers if number is not None]
                if len(known) == len(plans):
                    return self._largest(plans, known, title)
        return self._by_date(plans)

    def _largest(self, plans: list[Plan], numbers: list[int], title: str) -> tuple[Plan, str]:
        largest = max(numbers)
        best = [plan for plan, number in zip(plans, numbers, strict=True) if number == largest]
        if len(best) > 1:
            raise NotChosenError(
                Reason.INCONCLUSIVE, f"{len(best)} plans have {largest} {title} fractions: {_listed_plans(best)}"
            )
        return best[0], f"most {title} fractions ({largest})"

    def _by_date(self, plans: list[Plan]) -> tuple[Plan, str]:
        last = self._rules.plans == "last"
        stamps = sorted({plan.stamp for plan in plans}, reverse=last)
        best = [plan for plan in plans if plan.stamp == stamps[0]]
        if len(best) > 1 or "" in stamps:
            text = f"{len(plans)} plans that neither fractions nor dates tell apart: {_listed_plans(plans)}"
            raise NotChosenError(Reason.INCONCLUSIVE, text)
        return best[0], "the last plan" if last else "the first plan"

    def _role(self, plan: Plan, dominant: Plan) -> tuple[PlanRole, str]:
        if self._rules.is_boost(plan):
            return PlanRole.BOOST, "its label is that of a boost"
        relations = dict(plan.relations).get(dominant.uid, "") or dict(dominant.relations).get(plan.uid, "")
        if relations in {"PRIOR", "PREDECESSOR"}:
            return PlanRole.REPLAN, f"RT Plan Relationship {relations}"
        return PlanRole.NOT_CHOSEN, "another plan is dominant"

    # ------------------------------------------------------------ structure sets and images

    def _with_structure_set(self, plan: Plan) -> Plan:
        """The plan with its structure set, if there is one and only one."""
        links = self._links[plan.uid, "RTSTRUCT"]
        targets = {uid for link in links for uid in link.targets}
        if self._wanted.structure_set and plan.role is PlanRole.DOMINANT:
            return replace(plan, structure_set=self._wanted.structure_set, structure_set_link=_weakest(links))
        if len(targets) == 1:
            return replace(plan, structure_set=min(targets), structure_set_link=_weakest(links))
        return plan

    def structure_sets(self, plans: Sequence[Plan]) -> list[StructureSet]:
        """All structure sets; those of dominant and boost plans are used."""
        known = {one.uid: one for one in self._objects.structure_sets}
        used: dict[str, str] = {}
        for plan in plans:
            if plan.role in {PlanRole.DOMINANT, PlanRole.BOOST}:
                uid = plan.structure_set or self._structure_set_of(plan, known)
                if uid:
                    used.setdefault(uid, f"of plan {plan.label or plan.uid}")
        if not plans:
            uid = self._single_structure_set(list(known.values()))
            used[uid] = "the only structure set"
        out = []
        for one in known.values():
            link = self._images_link(one.uid)
            images = link.targets[0] if link is not None and link.state is LinkState.RESOLVED else ""
            why = "" if one.uid in used else "it is not the structure set of a plan that is used"
            out.append(
                replace(one, used=one.uid in used, why=why, images=images, images_link=link.method if link else None)
            )
        return sorted(out, key=lambda one: (list(used).index(one.uid) if one.uid in used else len(used), one.uid))

    def _structure_set_of(self, plan: Plan, known: Mapping[str, StructureSet]) -> str:
        """Structure set of a plan whose own link leads to none or to several."""
        candidates = sorted({uid for link in self._links[plan.uid, "RTSTRUCT"] for uid in link.targets})
        by_dose = {
            uid
            for dose in self._objects.doses
            if plan.uid in {uid for link in self._links[dose.uid, "RTPLAN"] for uid in link.targets}
            for link in self._links[dose.uid, "RTSTRUCT"]
            if link.method is LinkMethod.UID
            for uid in link.targets
        }
        if len(by_dose) == 1:
            return min(by_dose)
        if len(candidates) > 1 and self._rules.structures == "newest":
            return self._newest([known[uid] for uid in candidates if uid in known])
        if len(candidates) > 1:
            text = f"{len(candidates)} structure sets for plan {plan.uid}: {', '.join(candidates)}"
            raise NotChosenError(Reason.INCONCLUSIVE, text)
        if plan.role is PlanRole.DOMINANT:
            raise NotChosenError(Reason.NO_STRUCTURE_SET, f"no structure set for plan {plan.uid}")
        return ""

    def _single_structure_set(self, sets: list[StructureSet]) -> str:
        if self._wanted.structure_set:
            return self._wanted.structure_set
        if not sets:
            raise NotChosenError(Reason.NO_STRUCTURE_SET, "the patient has no RT Structure Set")
        if len(sets) > 1 and self._rules.structures == "newest":
            return self._newest(sets)
        if len(sets) > 1:
            text = f"{len(sets)} structure sets and no plan: {', '.join(sorted(one.uid for one in sets))}"
            raise NotChosenError(Reason.INCONCLUSIVE, text)
        return sets[0].uid

    def _newest(self, sets: Sequence[StructureSet]) -> str:
        newest = max(one.stamp for one in sets)
        best = sorted(one.uid for one in sets if one.stamp == newest)
        if len(best) > 1 or not newest:
            raise NotChosenError(Reason.INCONCLUSIVE, f"structure sets of one date: {', '.join(best)}")
        return best[0]

    def _images_link(self, uid: str) -> ObjectLink | None:
        links = self._links[uid, "images"]
        return links[0] if links else None

    def planning_images(self, structure_set: StructureSet) -> ImagePlace:
        """The images on which the structure set is drawn."""
        links = self._links[structure_set.uid, "images"]
        series = sorted({uid for link in links for uid in link.targets})
        if not series:
            text = f"the images of structure set {structure_set.uid} are not in the catalog"
            raise NotChosenError(Reason.NO_PLANNING_CT, text)
        places = [self._objects.images[uid] for uid in series]
        ct = [place for place in places if place.modality == "CT"]
        if not ct:
            text = f"structure set {structure_set.uid} is drawn on {places[0].modality} images"
            raise NotChosenError(Reason.NO_PLANNING_CT, text)
        if len(ct) > 1:
            uids = ", ".join(place.series_instance_uid for place in ct)
            text = f"{len(ct)} CT series for structure set {structure_set.uid}: {uids}"
            raise NotChosenError(Reason.INCONCLUSIVE, text)
        return ct[0]

    def other_images(self, plans: Sequence[Plan], sets: Sequence[StructureSet], images: ImagePlace) -> list[Plan]:
        """Plans whose structure set is drawn on other images than the dominant one's become replans.

        Also in the same frame of reference, which a second planning CT may have been given as a copy.
        """
        places = {one.uid: one.images for one in sets}
        out = []
        for plan in plans:
            own = places.get(plan.structure_set, "")
            if plan.role is not PlanRole.DOMINANT and own and own != images.series_instance_uid:
                plan = replace(plan, role=PlanRole.REPLAN, why="it was made on other images")  # noqa: PLW2901
            out.append(plan)
        return out

    def of_plans(self, sets: Sequence[StructureSet], plans: Sequence[Plan]) -> list[StructureSet]:
        """Structure sets without those of plans that became replans."""
        left = {plan.structure_set for plan in plans if plan.role is PlanRole.REPLAN}
        left -= {plan.structure_set for plan in plans if plan.role in {PlanRole.DOMINANT, PlanRole.BOOST}}
        why = "it is that of a plan that was made on other images"
        return [replace(one, used=False, why=why) if one.used and one.uid in left else one for one in sets]

    # ------------------------------------------------------------ doses

    def doses(self, plans: Sequence[Plan], dominant: Plan | None, structure_set: StructureSet) -> list[Dose]:
        """All doses; those of dominant and boost plans are used as far as they can be."""
        considered = {plan.uid for plan in plans if plan.role is not PlanRole.NOT_CHOSEN} or {p.uid for p in plans}
        linked: list[Dose] = []
        for dose in self._objects.doses:
            links = self._links[dose.uid, "RTPLAN"]
            targets = sorted({uid for link in links for uid in link.targets})
            own = [uid for uid in targets if uid in considered] or targets
            if len(own) > 1:
                text = f"{len(own)} plans for dose {dose.uid}: {', '.join(own)}"
                raise NotChosenError(Reason.INCONCLUSIVE, text)
            if dose.uid in self._wanted.left_out:
                dose = replace(dose, why="a person left it out")  # noqa: PLW2901
            elif not own and dominant is None and dose.frame_of_reference_uid in structure_set.frames_of_reference:
                dose = replace(dose, used=True)  # noqa: PLW2901
            elif not own:
                dose = replace(dose, why="its plan is not in the catalog")  # noqa: PLW2901
            linked.append(replace(dose, plan=own[0] if own else "", plan_link=_weakest(links) if own else None))
        found = choose_doses(linked, plans)
        if "dose" in self._rules.requires and not any(dose.used for dose in found):
            text = "; ".join(f"dose {dose.uid}: {dose.why}" for dose in found) or "the patient has no RT Dose"
            raise NotChosenError(Reason.NO_DOSE, text)
        return found


def _weakest(links: Sequence[ObjectLink]) -> LinkMethod | None:
    order = list(LinkMethod)
    return max((link.method for link in links if link.method is not None), key=order.index, default=None)


def _listed_plans(plans: Sequence[Plan]) -> str:
    return ", ".join(f"{plan.uid} ({plan.label or 'no label'})" for plan in sorted(plans, key=lambda p: p.uid))
