"""Make treatments of a catalog: link, choose, apply registry, rules and decisions, and keep a reason for all others."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from ctenrich.catalog.base import Catalog
from ctenrich.errors import UsageError
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import Companion, CompanionLink, Issue, SeriesEntry, Severity
from ctenrich.select.selection import Selection, select_cohort
from ctenrich.treatments.choice import ChosenObjects, ImagePlace, PatientObjects, Wanted, choose_objects
from ctenrich.treatments.decisions import Decision, DecisionKind, decided_names, effective_decisions
from ctenrich.treatments.dose_choice import NotChosenError
from ctenrich.treatments.links import link_objects
from ctenrich.treatments.objects import CatalogObject, RadiotherapyObjects, TreatmentRecord, read_objects
from ctenrich.treatments.records import (
    Dose,
    ExcludedTreatment,
    LinkMethod,
    ObjectLink,
    Plan,
    PlanRole,
    Prescription,
    PrescriptionSource,
    StructureSet,
    Treatment,
)
from ctenrich.treatments.registry import DeliveredFractions, RegistryRow, not_found_detail
from ctenrich.treatments.rules import TreatmentRules

__all__ = ["TreatmentRequest", "TreatmentSelection", "make_treatments"]

_TASK = "Make treatments"


@dataclass(frozen=True, kw_only=True)
class TreatmentRequest:
    """What treatments are made from, besides the catalog."""

    rules: TreatmentRules = field(default_factory=TreatmentRules)
    registry: tuple[RegistryRow, ...] | None = None
    """None: all patients of the catalog that have an RTSTRUCT, RTPLAN or RTDOSE."""
    delivered: DeliveredFractions | None = None
    decisions: tuple[Decision, ...] = ()
    """All rows of the table, those that were undone included."""
    collections: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TreatmentSelection:
    """The treatments of a catalog, and everything that was left out."""

    treatments: tuple[Treatment, ...]
    excluded: tuple[ExcludedTreatment, ...]
    links: tuple[ObjectLink, ...]
    decisions: tuple[Decision, ...]
    """Those that were applied."""
    selection: Selection
    """The selection of the planning CTs, with the treatments' series as its cohort."""
    objects: Mapping[str, int]
    """Modality -> objects that were looked at."""
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """A treatment whose planning CT has not been checked yet."""

    patient: tuple[str, str]
    row: RegistryRow | None
    chosen: ChosenObjects
    treatment_id: str


def make_treatments(
    catalog: Catalog, request: TreatmentRequest, *, name: str = "treatments", progress: Progress = SILENT
) -> TreatmentSelection:
    """Make the treatments of a catalog.

    Parameters
    ----------
    catalog : Catalog
        One with instances.
    request : TreatmentRequest
        Registry, rules, delivered fractions, decisions.
    name : str
        Name of the cohort.
    progress : Progress
        Receives the steps.

    Returns
    -------
    TreatmentSelection
        Every patient of the registry (or of the catalog) is in `treatments` or in `excluded`.

    Raises
    ------
    UsageError
        MISSING_COLUMN: the catalog has no columns of radiotherapy. EMPTY_INPUT: it has no object of radiotherapy.
    """
    progress.start(_TASK, 3)
    objects = read_objects(catalog, collections=request.collections, progress=progress)
    if not objects.all:
        hint = "index the folders that have RTSTRUCT, RTPLAN and RTDOSE files"
        raise UsageError(Reason.EMPTY_INPUT, "the catalog has no object of radiotherapy", hint)
    progress.advance(_TASK)
    links = link_objects(objects)
    maker = _Maker(objects, links, request)
    drafts = maker.drafts()
    progress.advance(_TASK)
    series = sorted({draft.chosen.images.series_instance_uid for draft in drafts})
    found = select_cohort("select_ct_series", catalog, {"series": series or ["none"]}, name=name, companions=False)
    treatments = maker.finish(drafts, found)
    applied = maker.applied_decisions()
    progress.advance(_TASK)
    progress.finish(_TASK)
    return TreatmentSelection(
        treatments=tuple(sorted(treatments, key=lambda one: (one.patient_id, one.treatment_id))),
        excluded=tuple(sorted(maker.excluded, key=lambda one: (one.collection_id, one.patient_id, one.treatment_id))),
        links=links,
        decisions=applied,
        selection=found,
        objects=dict(sorted(Counter(one.modality for one in objects.all).items())),
        notes=(*objects.notes, *maker.notes),
    )


class _Maker:
    """Makes treatments patient by patient."""

    def __init__(self, objects: RadiotherapyObjects, links: Sequence[ObjectLink], request: TreatmentRequest) -> None:
        self._request = request
        self._images = {
            s.series_instance_uid: ImagePlace(s.series_instance_uid, s.modality, s.frame) for s in objects.images
        }
        self._links: dict[str, list[ObjectLink]] = defaultdict(list)
        for link in links:
            self._links[link.source].append(link)
        self._patients: dict[tuple[str, str], list[CatalogObject]] = defaultdict(list)
        self._delivered: dict[str, set[tuple[str, int]]] = defaultdict(set)
        for one in objects.all:
            if isinstance(one.content, TreatmentRecord):
                self._count_fractions(one.content)
            else:
                self._patients[one.collection_id, one.patient_id].append(one)
        self._decisions = effective_decisions(request.decisions)
        self._doubts = {(one.collection_id, one.patient_id): one for one in objects.doubts}
        self.excluded: list[ExcludedTreatment] = []
        self.notes: list[str] = []

    def _count_fractions(self, record: TreatmentRecord) -> None:
        for link in self._links[record.uid]:
            for plan in link.targets if len(link.targets) == 1 else ():
                numbers = record.fractions or (0,)
                self._delivered[plan].update((record.date if not number else "", number) for number in numbers)

    def drafts(self) -> list[_Draft]:
        """Treatments of all patients, and the patients without one in `excluded`."""
        out: list[_Draft] = []
        for patient, row in self._wanted_patients():
            found = self._patients[patient]
            for group in self._groups(found):
                try:
                    out.append(self._draft(patient, row, group))
                except NotChosenError as error:
                    self._exclude(patient, row, error.reason, error.detail)
        return self._one_per_series(out)

    def _wanted_patients(self) -> Iterable[tuple[tuple[str, str], RegistryRow | None]]:
        """Patients with their rows of the registry; those that are not found are excluded."""
        if self._request.registry is None:
            yield from ((patient, None) for patient in sorted(self._patients))
            return
        self._note_unlisted({row.patient_id for row in self._request.registry})
        known: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for patient in sorted(self._patients):
            known[patient[1]].append(patient)
        for row in self._request.registry:
            if row.patient_id not in known:
                detail = not_found_detail(row.patient_id, known)
                self._exclude(("", row.patient_id), row, Reason.PATIENT_NOT_FOUND, detail)
            elif len(known[row.patient_id]) > 1:
                names = ", ".join(collection for collection, _ in known[row.patient_id])
                detail = f"the Patient ID is in several collections: {names}"
                self._exclude(("", row.patient_id), row, Reason.AMBIGUOUS_PATIENT, detail)
            else:
                yield known[row.patient_id][0], row

    def _note_unlisted(self, listed: Collection[str]) -> None:
        """Count the patients that the registry does not list, and their objects: none is dropped without a line."""
        others = [patient for patient in self._patients if patient[1] not in listed]
        if others:
            kinds = Counter(one.modality for patient in others for one in self._patients[patient])
            objects = ", ".join(f"{number} {modality}" for modality, number in sorted(kinds.items()))
            patients = "1 patient is" if len(others) == 1 else f"{len(others)} patients are"
            self.notes.append(f"{patients} not in the registry and not considered: {objects}")

    def applied_decisions(self) -> tuple[Decision, ...]:
        """Decisions that concern a patient, an object or an ROI that is considered; a note for each other one."""
        listed = None if self._request.registry is None else {row.patient_id for row in self._request.registry}
        objects: dict[str, list[CatalogObject]] = defaultdict(list)
        for (_, patient_id), found in self._patients.items():
            if listed is None or patient_id in listed:
                objects[patient_id] += found
        out = []
        for one in self._decisions:
            own = objects.get(one.patient_id, []) if one.patient_id else [o for each in objects.values() for o in each]
            why = "" if own else "its Patient ID is not in the catalog, or not in the registry"
            if own and one.kind is DecisionKind.NAME:
                sets = [o.content for o in own if isinstance(o.content, StructureSet)]
                known = any(roi.name == one.roi_name for found in sets for roi in found.rois)
                why = "" if known else f"no ROI has the name {one.roi_name!r}"
            elif own and one.value:
                why = "" if any(o.uid == one.value for o in own) else f"the patient has no object {one.value}"
            if why:
                self.notes.append(f"decision {one.number} of {one.user} ({one.kind.value}) was not applied: {why}")
            else:
                out.append(one)
        return tuple(out)

    def _groups(self, objects: list[CatalogObject]) -> list[list[CatalogObject]]:
        """The objects of each treatment of a patient: all, or those of each frame of reference."""
        if self._request.rules.treatments == "patient":
            return [objects]
        frames = sorted({frame for one in objects for frame in one.frames[:1]})
        return [[one for one in objects if frame in one.frames] for frame in frames] or [objects]

    def _draft(self, patient: tuple[str, str], row: RegistryRow | None, objects: list[CatalogObject]) -> _Draft:
        own = [one for one in self._decisions if one.patient_id == patient[1]]
        self._check_patient(patient, objects, one_patient=any(one.kind is DecisionKind.ONE_PATIENT for one in own))
        for one in own:
            if one.kind is DecisionKind.EXCLUDE and not one.value:
                raise NotChosenError(Reason.EXCLUDED_BY_DECISION, f"decision {one.number} of {one.user}: {one.why}")
        values = {one.kind: one.value for one in own}
        left_out = {one.value for one in own if one.kind in {DecisionKind.EXCLUDE, DecisionKind.DOSE}}
        wanted = Wanted(
            plans=row.plans if row else (),
            dominant=values.get(DecisionKind.PLAN, ""),
            structure_set=values.get(DecisionKind.STRUCTURE_SET, ""),
            left_out=frozenset(left_out),
        )
        own_objects = PatientObjects(
            structure_sets=tuple(o.content for o in objects if isinstance(o.content, StructureSet)),
            plans=tuple(self._delivered_plan(o.content, patient[1]) for o in objects if isinstance(o.content, Plan)),
            doses=tuple(o.content for o in objects if isinstance(o.content, Dose)),
            links=tuple(link for o in objects for link in self._links[o.uid]),
            images=self._images,
        )
        chosen = choose_objects(own_objects, self._request.rules, wanted)
        anchor = chosen.plans[0].uid if chosen.plans else chosen.structure_sets[0].uid
        text = "\n".join((*patient, anchor))
        return _Draft(
            patient=patient, row=row, chosen=chosen, treatment_id=hashlib.sha256(text.encode()).hexdigest()[:16]
        )

    def _check_patient(self, patient: tuple[str, str], objects: Sequence[CatalogObject], *, one_patient: bool) -> None:
        """Raise AMBIGUOUS_PATIENT if the Patient ID may stand for two patients, and no person decided otherwise."""
        doubt = self._doubts.get(patient)
        texts = [doubt.shared] if doubt else []
        if not one_patient:
            sexes = {one.sex for one in objects} & {"M", "F"}
            other = "objects of this Patient ID state different sexes" if len(sexes) > 1 else ""
            texts.insert(0, doubt.differing if doubt and doubt.differing else other)
        if text := "; ".join(filter(None, texts)):
            raise NotChosenError(Reason.AMBIGUOUS_PATIENT, text)

    def _delivered_plan(self, plan: Plan, patient_id: str) -> Plan:
        """The plan with its delivered fractions, by the user's table, else by treatment records."""
        table = self._request.delivered
        number, source = None, "table"
        if table is not None:
            number = table.by_uid.get(plan.uid)
            if number is None:
                labels = (plan.label.casefold(), plan.name.casefold())
                number = next((n for label in labels if (n := table.by_label.get((patient_id, label)))), None)
        if number is None and plan.uid in self._delivered:
            number, source = len(self._delivered[plan.uid]), "records"
        if number is None:
            return plan
        return replace(plan, fractions_delivered=number, delivered_source=source)

    def _one_per_series(self, drafts: list[_Draft]) -> list[_Draft]:
        """Leave out every treatment that shares its planning CT with another one: a run has one row per series."""
        by_series: dict[str, list[_Draft]] = defaultdict(list)
        for draft in drafts:
            by_series[draft.chosen.images.series_instance_uid].append(draft)
        out = []
        for same in by_series.values():
            if len(same) == 1:
                out += same
                continue
            ids = ", ".join(draft.treatment_id for draft in same)
            for draft in same:
                detail = f"{len(same)} treatments have one planning CT: {ids}"
                self._exclude(draft.patient, draft.row, Reason.INCONCLUSIVE, detail, draft=draft)
        return out

    def finish(self, drafts: Sequence[_Draft], found: Selection) -> list[Treatment]:
        """Treatments whose planning CT can be used and that fail no rule."""
        entries = {entry.series_instance_uid: entry for entry in found.cohort.series}
        reasons = {row["series_instance_uid"]: row for row in found.excluded.to_pylist()}
        out = []
        for draft in drafts:
            uid = draft.chosen.images.series_instance_uid
            if uid not in entries:
                row = reasons.get(uid)
                reason = Reason(row["reason"]) if row else Reason.NOT_IN_CATALOG
                detail = "the planning CT: " + (", ".join(row["reasons"]) if row else "not in the catalog")
                self._exclude(draft.patient, draft.row, reason, detail, draft=draft)
                continue
            treatment = _treatment(draft, entries[uid], self._decisions)
            failed = next(((r, why) for r in self._request.rules.rules if (why := r.failure(treatment))), None)
            if failed is not None:
                rule, why = failed
                detail = f"{rule.reason}: {why}" if rule.reason else why
                self._exclude(draft.patient, draft.row, Reason.EXCLUDED_BY_RULE, detail, draft=draft, rule=rule.name)
                continue
            out.append(treatment)
        return out

    def _exclude(
        self,
        patient: tuple[str, str],
        row: RegistryRow | None,
        reason: Reason,
        detail: str,
        *,
        draft: _Draft | None = None,
        rule: str = "",
    ) -> None:
        self.excluded.append(
            ExcludedTreatment(
                collection_id=patient[0],
                patient_id=patient[1],
                site=row.site if row else "",
                reason=reason,
                detail=detail,
                study_instance_uid=draft.chosen.structure_sets[0].study_instance_uid if draft else "",
                series_instance_uid=draft.chosen.images.series_instance_uid if draft else "",
                treatment_id=draft.treatment_id if draft else "",
                rule=rule,
            )
        )


def _treatment(draft: _Draft, entry: SeriesEntry, decisions: Sequence[Decision]) -> Treatment:
    chosen, row = draft.chosen, draft.row
    plans = tuple(_with_table(plan, row) for plan in chosen.plans)
    dominant = plans[0] if plans and plans[0].role is PlanRole.DOMINANT else None
    intended = row.intended_fractions if row else None
    over = (dominant.fractions_delivered or dominant.fractions_planned) if dominant else None
    names = decided_names(decisions, draft.patient[1])
    structure_sets = tuple(_with_names(one, names) for one in chosen.structure_sets)
    present = {roi.name for one in structure_sets if one.used for roi in one.rois}
    own = [one for one in decisions if one.patient_id == draft.patient[1] and one.kind is not DecisionKind.NAME]
    own += [one for name, one in names.items() if name in present]
    notes = (
        *_weak_links(chosen),
        *_other_delivered(dominant, row),
        *(f"plan {p.uid} ({p.label}) is not used: {p.why}" for p in plans if p.role in _UNUSED),
        *(f"dose {d.uid} is not used: {d.why}" for d in chosen.doses if not d.used),
        *(_decision_note(one) for one in sorted(own, key=lambda one: one.number)),
    )
    treatment = Treatment(
        treatment_id=draft.treatment_id,
        patient_id=draft.patient[1],
        site=row.site if row else "",
        series=entry,
        frame_of_reference_uid=chosen.images.frame,
        structure_sets=structure_sets,
        plans=plans,
        doses=chosen.doses,
        scale=Fraction(intended, over) if intended and over else None,
        fractions_intended=intended,
        notes=notes,
    )
    issues = tuple(Issue("treatment.note", Severity.NOTE, entry.series_instance_uid, text) for text in notes)
    return replace(treatment, series=replace(entry, companions=_companions(treatment), notes=(*entry.notes, *issues)))


def _other_delivered(plan: Plan | None, row: RegistryRow | None) -> list[str]:
    """A number of delivered fractions in the registry that another source contradicts."""
    stated = row.delivered_fractions if row is not None else None
    if plan is None or stated is None or plan.fractions_delivered == stated:
        return []
    source = {"records": "RT Beams Treatment Records state", "table": "the table of delivered fractions states"}
    text = f"the registry states {stated} delivered fractions, {source[plan.delivered_source]}"
    return [f"{text} {plan.fractions_delivered}: these are used"]


def _with_names(structure_set: StructureSet, names: Mapping[str, Decision]) -> StructureSet:
    """The structure set with the standard names that people decided on."""
    rois = tuple(
        replace(roi, standard_name=names[roi.name].standard_name) if roi.name in names else roi
        for roi in structure_set.rois
    )
    return replace(structure_set, rois=rois)


def _decision_note(one: Decision) -> str:
    what = f" {one.roi_name!r} is {one.standard_name}" if one.kind is DecisionKind.NAME else ""
    return f"decision {one.number} of {one.user}, {one.kind.value}{what}: {one.why}"


def _weak_links(chosen: ChosenObjects) -> list[str]:
    """Sentences on objects that are used and are not tied by UID."""
    ties = [
        *(("structure set", one.uid, "images", one.images_link) for one in chosen.structure_sets if one.used),
        *(("plan", p.uid, "structure set", p.structure_set_link) for p in chosen.plans if p.role not in _UNUSED),
        *(("dose", dose.uid, "plan", dose.plan_link) for dose in chosen.doses if dose.used),
    ]
    return [
        f"{kind} {uid} is tied to its {target} by {method.value.replace('_', ' ')}: no UID resolves"
        for kind, uid, target, method in ties
        if method is not None and method is not LinkMethod.UID
    ]


_UNUSED = frozenset({PlanRole.NOT_CHOSEN, PlanRole.REPLAN})


def _with_table(plan: Plan, row: RegistryRow | None) -> Plan:
    """The dominant plan with delivered fractions and prescription of the registry, where the plan has none."""
    if row is None or plan.role is not PlanRole.DOMINANT:
        return plan
    if row.delivered_fractions is not None and plan.fractions_delivered is None:
        plan = replace(plan, fractions_delivered=row.delivered_fractions, delivered_source="table")
    if row.prescription is not None and plan.prescription is None:
        stated = Prescription(dose=row.prescription, source=PrescriptionSource.TABLE, stated=(row.prescription,))
        plan = replace(plan, prescription=stated)
    return plan


def _companions(treatment: Treatment) -> tuple[Companion, ...]:
    """The objects that are used, as companions of the planning CT."""
    found: list[tuple[str, StructureSet | Plan | Dose, LinkMethod | None]] = [
        *(("RTSTRUCT", one, one.images_link) for one in treatment.used_structure_sets),
        *(
            ("RTPLAN", plan, plan.structure_set_link)
            for plan in treatment.plans
            if plan.role in {PlanRole.DOMINANT, PlanRole.BOOST}
        ),
        *(("RTDOSE", dose, dose.plan_link) for dose in treatment.used_doses),
    ]
    return tuple(
        Companion(
            modality,
            one.series_instance_uid,
            one.instance,
            CompanionLink.REFERENCE if method is LinkMethod.UID else CompanionLink.FRAME_OF_REFERENCE,
        )
        for modality, one, method in found
    )
