"""One treatment per patient: which plan decides, which doses are used, and a reason for everyone else."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import duckdb
import pytest
from pydicom.sequence import Sequence as DicomSequence
from tests.support.catalog_cases import ROOT
from tests.support.treatment_cases import PLAN, Patient, item, make, reference, uid
from typer.testing import CliRunner

from ctenrich import steps
from ctenrich.catalog.folder import FolderCatalog, index_folders
from ctenrich.cli.main import app
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.select.cohort_file import read_cohort
from ctenrich.select.consort import consort_text
from ctenrich.select.files import lock_path, read_excluded
from ctenrich.select.selection import select_cohort
from ctenrich.treatments.consort import treatment_consorts
from ctenrich.treatments.decisions import DecisionKind, add_decision, decisions_path, read_decisions
from ctenrich.treatments.exports import diff_treatments, load_links, write_protocol_series
from ctenrich.treatments.files import read_excluded_treatments, read_treatments, write_treatments
from ctenrich.treatments.make import TreatmentRequest, TreatmentSelection, make_treatments
from ctenrich.treatments.records import PlanRole, PrescriptionSource
from ctenrich.treatments.registry import read_delivered, read_registry
from ctenrich.treatments.rules import InclusionRule, TreatmentRules, load_rules


def reasons(found: TreatmentSelection) -> dict[str, Reason]:
    return {one.patient_id: one.reason for one in found.excluded}


def roles(found: TreatmentSelection) -> dict[str, PlanRole]:
    (treatment,) = found.treatments
    return {plan.label: plan.role for plan in treatment.plans}


def test_a_whole_set_is_a_treatment(tmp_path: Path) -> None:
    structures, plan, dose = Patient(tmp_path / "in").whole()
    (one,) = make(tmp_path / "in").treatments
    assert (one.patient_id, one.series.series_instance_uid) == ("P1", f"{ROOT}.1.1")
    assert [c.instance.sop_instance_uid for c in one.series.companions] == [structures, plan, dose]
    assert one.dominant_plan is not None
    assert one.dominant_plan.fractions_planned == 25
    assert one.dominant_plan.prescription is not None
    assert one.dominant_plan.prescription.dose == 50.0
    assert one.dominant_plan.prescription.source is PrescriptionSource.BEAM_DOSES
    assert one.notes == ()


# ---------------------------------------------------------------- incomplete patients


def test_what_is_missing_is_the_reason(tmp_path: Path) -> None:
    for study, missing in enumerate(("structures", "plan", "dose", "ct"), start=1):
        patient = Patient(tmp_path / "in", missing, str(study))
        if missing != "ct":
            patient.ct()
        structures = None if missing == "structures" else patient.structures()
        plan = None if missing == "plan" else patient.plan(structures=structures)
        if missing != "dose":
            patient.dose(plan)
    assert reasons(make(tmp_path / "in")) == {
        "structures": Reason.NO_STRUCTURE_SET, "plan": Reason.NO_PLAN, "dose": Reason.NO_DOSE,
        "ct": Reason.NO_PLANNING_CT,
    }  # fmt: skip


@pytest.mark.long
def test_images_of_another_modality_are_no_planning_ct(tmp_path: Path) -> None:
    Patient(tmp_path / "in", "P9", "9").ct()
    patient = Patient(tmp_path / "in")
    patient.ct(Modality="MR")
    patient.dose(patient.plan(structures=patient.structures()))
    found = make(tmp_path / "in")
    (one,) = found.excluded
    assert one.reason is Reason.NO_PLANNING_CT
    assert "MR images" in one.detail


@pytest.mark.long
def test_a_planning_ct_that_is_no_volume_keeps_its_own_reason(tmp_path: Path) -> None:
    patient = Patient(tmp_path / "in")
    patient.whole()
    for path in sorted((tmp_path / "in").glob("*_[234].dcm")):
        path.unlink()
    (one,) = make(tmp_path / "in").excluded
    assert one.reason is Reason.ONE_SLICE


@pytest.mark.long
def test_without_plan_and_dose_where_the_rules_ask_for_neither(tmp_path: Path) -> None:
    patient = Patient(tmp_path / "in")
    patient.ct()
    structures = patient.structures()
    (one,) = make(tmp_path / "in", rules=TreatmentRules(require=("structures",))).treatments
    assert [c.instance.sop_instance_uid for c in one.series.companions] == [structures]
    assert one.dominant_plan is None


@pytest.mark.long
def test_a_dose_without_a_plan_belongs_to_the_structure_set_of_its_frame(tmp_path: Path) -> None:
    patient = Patient(tmp_path / "in")
    patient.ct()
    patient.structures()
    dose = patient.dose(None)
    (one,) = make(tmp_path / "in", rules=TreatmentRules(require=("structures", "dose"))).treatments
    assert [d.uid for d in one.used_doses] == [dose]


def test_a_cohort_states_the_plans_and_doses_that_it_leaves_out(tmp_path: Path) -> None:
    Patient(tmp_path / "in").whole()
    make(tmp_path / "in")
    catalog = FolderCatalog(tmp_path / "in.duckdb")
    with_companions = select_cohort("select_ct_series", catalog, {})
    alone = select_cohort("select_ct_series", catalog, {}, companions=False)
    catalog.close()
    text = "1 RTDOSE, 1 RTPLAN in the catalog are not part of a cohort: ctenrich treatments uses them"
    assert (with_companions.notes, alone.notes) == ((text,), ())


# ---------------------------------------------------------------- several plans


def two_plans(folder: Path, first: dict[str, object], second: dict[str, object]) -> tuple[str, str]:
    patient = Patient(folder)
    patient.ct()
    structures = patient.structures()
    plans = [patient.plan(**{"structures": structures, "number": n, **p}) for n, p in ((1, first), (2, second))]  # type: ignore[arg-type]
    for number, plan in enumerate(plans, start=1):
        patient.dose(plan, number)
    return plans[0], plans[1]


def test_most_planned_fractions_decide(tmp_path: Path) -> None:
    two_plans(tmp_path / "in", {"label": "A"}, {"label": "B", "groups": ((5, (2.0,)),)})
    found = make(tmp_path / "in")
    assert roles(found) == {"A": PlanRole.DOMINANT, "B": PlanRole.NOT_CHOSEN}
    (one,) = found.treatments
    assert [dose.used for dose in one.doses] == [True, False]
    assert any("plan" in note and "(B) is not used" in note for note in one.notes)
    assert sum("dose" in note and "is not used" in note for note in one.notes) == 1


def test_delivered_fractions_of_records_beat_planned_ones(tmp_path: Path) -> None:
    _, second = two_plans(tmp_path / "in", {"label": "A"}, {"label": "B", "groups": ((5, (2.0,)),)})
    patient = Patient(tmp_path / "in")
    for number in range(1, 5):
        patient.record(second, number, number)
    patient.record(second, 4, 9)  # the same fraction in two records
    first = make(tmp_path / "in").treatments[0].plans[0]
    assert first.label == "A", "delivered fractions of plan A are not known, so planned ones are compared"
    patient.record(f"{ROOT}.1.40.1", 1, 20)
    (one,) = make(tmp_path / "in").treatments
    assert [(p.label, p.fractions_delivered, p.delivered_source) for p in one.plans] == [
        ("B", 4, "records"), ("A", 1, "records"),
    ]  # fmt: skip


@pytest.mark.long
def test_delivered_fractions_of_a_table(tmp_path: Path) -> None:
    two_plans(tmp_path / "in", {"label": "A"}, {"label": "B", "groups": ((5, (2.0,)),)})
    table = tmp_path / "fractions.csv"
    table.write_text("PatientID,plan,fractions\n P1 ,a,2\nP1,B,5\n")
    found = make(tmp_path / "in", delivered=read_delivered(table))
    assert roles(found) == {"B": PlanRole.DOMINANT, "A": PlanRole.NOT_CHOSEN}


def test_plans_with_equal_fractions_are_inconclusive_and_both_are_listed(tmp_path: Path) -> None:
    plans = two_plans(tmp_path / "in", {"label": "A"}, {"label": "B"})
    (one,) = make(tmp_path / "in").excluded
    assert one.reason is Reason.INCONCLUSIVE
    assert all(plan in one.detail for plan in plans)


@pytest.mark.long
def test_of_equal_plans_the_approved_one_is_dominant(tmp_path: Path) -> None:
    two_plans(tmp_path / "in", {"label": "A"}, {"label": "B", "ApprovalStatus": "APPROVED"})
    assert roles(make(tmp_path / "in"))["B"] is PlanRole.DOMINANT


@pytest.mark.long
def test_plans_without_fractions_are_ordered_by_date(tmp_path: Path) -> None:
    two_plans(tmp_path / "in", {"label": "A", "groups": ()}, {"label": "B", "groups": (), "RTPlanDate": "20200101"})
    assert roles(make(tmp_path / "in"))["B"] is PlanRole.DOMINANT
    assert roles(make(tmp_path / "in", rules=TreatmentRules(plans="last")))["A"] is PlanRole.DOMINANT


def test_a_sequential_boost_keeps_both_plans_and_both_structure_sets(tmp_path: Path) -> None:
    patient = Patient(tmp_path / "in")
    patient.ct()
    sets = [patient.structures(("Heart",), 1), patient.structures(("Heart", "GTV"), 2)]
    main = patient.plan("main", 1, structures=sets[0])
    boost = patient.plan("Boost 1", 2, structures=sets[1], groups=((30, (2.0,)),))
    doses = {patient.dose(main, 1), patient.dose(boost, 2)}
    (one,) = make(tmp_path / "in").treatments
    assert [(p.uid, p.role) for p in one.plans] == [(main, PlanRole.DOMINANT), (boost, PlanRole.BOOST)], (
        "a boost is never dominant, whatever its number of fractions"
    )
    assert {d.uid for d in one.used_doses} == doses
    assert [s.uid for s in one.used_structure_sets] == sets


@pytest.mark.long
def test_a_boost_on_other_images_is_not_summed(tmp_path: Path) -> None:
    patient = Patient(tmp_path / "in")
    _, main, dose = patient.whole(label="main")
    later = Patient(tmp_path / "in", study="2")
    later.ct()
    boost = later.plan("boost", structures=later.structures())
    later.dose(boost)
    (one,) = make(tmp_path / "in").treatments
    assert [(p.uid, p.role) for p in one.plans] == [(main, PlanRole.DOMINANT), (boost, PlanRole.REPLAN)]
    assert [d.uid for d in one.used_doses] == [dose]
    assert any("other images" in note for note in one.notes)


@pytest.mark.long
def test_a_boost_on_other_images_with_a_copied_frame_of_reference_is_not_summed(tmp_path: Path) -> None:
    patient = Patient(tmp_path / "in")
    structures, main, dose = patient.whole(label="main")
    patient.ct("2")
    later = patient.structures(("Heart", "GTV"), 2, images="2")
    boost = patient.plan("boost", 2, structures=later)
    patient.dose(boost, 2)
    (one,) = make(tmp_path / "in").treatments
    assert [(p.uid, p.role) for p in one.plans] == [(main, PlanRole.DOMINANT), (boost, PlanRole.REPLAN)]
    assert [d.uid for d in one.used_doses] == [dose]
    assert [s.uid for s in one.used_structure_sets] == [structures]


@pytest.mark.long
def test_a_plan_that_replaces_another_is_a_replan(tmp_path: Path) -> None:
    relation = DicomSequence([reference(f"{ROOT}.1.40.1", PLAN, RTPlanRelationship="PREDECESSOR")])
    two_plans(
        tmp_path / "in", {"label": "A"}, {"label": "B", "groups": ((5, (2.0,)),), "ReferencedRTPlanSequence": relation}
    )
    assert roles(make(tmp_path / "in"))["B"] is PlanRole.REPLAN


@pytest.mark.long
def test_plans_of_quality_assurance_and_rejected_ones_are_left_out(tmp_path: Path) -> None:
    two_plans(tmp_path / "in", {"label": "A"}, {"label": "A QA", "groups": ((99, (2.0,)),)})
    assert roles(make(tmp_path / "in"))["A"] is PlanRole.DOMINANT
    other = tmp_path / "other"
    two_plans(other, {"label": "A"}, {"label": "B", "ApprovalStatus": "REJECTED"})
    assert roles(make(other))["A"] is PlanRole.DOMINANT


@pytest.mark.long
def test_several_structure_sets_without_a_reference_are_inconclusive(tmp_path: Path) -> None:
    patient = Patient(tmp_path / "in")
    patient.ct()
    sets = [patient.structures(number=1), patient.structures(number=2, StructureSetDate="20200107")]
    patient.dose(patient.plan(structures=None))
    (one,) = make(tmp_path / "in").excluded
    assert one.reason is Reason.INCONCLUSIVE
    assert all(uid in one.detail for uid in sets)
    (treatment,) = make(tmp_path / "in", rules=TreatmentRules(structures="newest")).treatments
    assert [s.uid for s in treatment.used_structure_sets] == [sets[1]]


# ---------------------------------------------------------------- doses


def test_a_plan_dose_beats_the_doses_of_its_beams(tmp_path: Path) -> None:
    patient = Patient(tmp_path / "in")
    _, plan, dose = patient.whole()
    for number in (2, 3):
        patient.dose(plan, number, DoseSummationType="BEAM")
    (one,) = make(tmp_path / "in").treatments
    assert [d.uid for d in one.used_doses] == [dose]
    assert [d.why for d in one.doses if not d.used] == ["the plan has a dose of summation type PLAN"] * 2


def test_beam_doses_are_used_only_if_all_are_there(tmp_path: Path) -> None:
    for study, beams in enumerate((2, 1), start=1):
        patient = Patient(tmp_path / "in", f"P{beams}", str(study))
        patient.ct()
        plan = patient.plan(structures=patient.structures())
        for number in range(1, beams + 1):
            patient.dose(plan, number, DoseSummationType="BEAM")
    found = make(tmp_path / "in")
    assert [(one.patient_id, len(one.used_doses)) for one in found.treatments] == [("P2", 2)]
    assert "1 BEAM doses for 2 beams" in found.excluded[0].detail


UNUSABLE: dict[str, tuple[dict[str, object], str]] = {
    "relative": ({"DoseUnits": "RELATIVE"}, "Dose Units are RELATIVE"),
    "effective": ({"DoseType": "EFFECTIVE"}, "Dose Type is EFFECTIVE"),
    "record": ({"DoseSummationType": "RECORD"}, "Summation Type is RECORD"),
    "frames": ({"NumberOfFrames": "1"}, "1 frames and 3 frame offsets"),
    "plane": ({"NumberOfFrames": "1", "GridFrameOffsetVector": []}, "single plane"),
}


def test_doses_that_cannot_be_summed_are_not_used(tmp_path: Path) -> None:
    for study, (name, (attributes, _)) in enumerate(UNUSABLE.items(), start=1):
        patient = Patient(tmp_path / "in", name, str(study))
        patient.ct()
        patient.dose(patient.plan(structures=patient.structures()), **attributes)
    found = make(tmp_path / "in")
    assert set(reasons(found).values()) == {Reason.NO_DOSE}
    for one in found.excluded:
        assert UNUSABLE[one.patient_id][1] in one.detail


def test_two_plan_doses_of_one_plan_are_inconclusive(tmp_path: Path) -> None:
    patient = Patient(tmp_path / "in")
    _, plan, dose = patient.whole()
    other = patient.dose(plan, 2)
    (one,) = make(tmp_path / "in").excluded
    assert one.reason is Reason.INCONCLUSIVE
    assert dose in one.detail
    assert other in one.detail


@pytest.mark.long
def test_a_dose_that_may_belong_to_two_plans_is_inconclusive(tmp_path: Path) -> None:
    patient = Patient(tmp_path / "in")
    patient.ct()
    structures = patient.structures()
    plans = {patient.plan("boost", 1, structures=structures), patient.plan("B", 2, structures=structures)}
    patient.dose(None)
    (one,) = make(tmp_path / "in").excluded
    assert one.reason is Reason.INCONCLUSIVE
    assert all(plan in one.detail for plan in plans)


# ---------------------------------------------------------------- patients


def test_objects_that_state_two_sexes_are_of_two_patients(tmp_path: Path) -> None:
    patient = Patient(tmp_path / "in")
    patient.ct()
    plan = patient.plan(structures=patient.structures(PatientSex="M"), PatientSex="F")
    patient.dose(plan)
    assert reasons(make(tmp_path / "in")) == {"P1": Reason.AMBIGUOUS_PATIENT}


@pytest.mark.filterwarnings("ignore:Invalid value for VR DA")
def test_objects_that_state_two_birth_dates_are_of_two_patients(tmp_path: Path) -> None:
    for number, dates in enumerate((("19400203", "19400204"), ("19400203", "00000000"), ("1940", "19000101")), 1):
        patient = Patient(tmp_path / "in", f"P{number}", str(number), PatientBirthDate=dates[0])
        patient.ct(PatientBirthDate=dates[1])
        patient.dose(patient.plan(structures=patient.structures()))
    found = make(tmp_path / "in")
    assert reasons(found) == {"P1": Reason.AMBIGUOUS_PATIENT}, "what is no date states none"
    assert [one.detail for one in found.excluded] == ["instances of this Patient ID state different birth dates"]
    write_treatments(found, tmp_path / "t.parquet")
    assert not [one.name for one in tmp_path.glob("t.*") if b"1940" in one.read_bytes()], "no file has a birth date"


@pytest.mark.parametrize("attribute", [{"PatientBirthDate": "19400204"}, {"PatientSex": "F"}])
def test_a_person_decides_that_objects_with_two_birth_dates_are_of_one_patient(
    tmp_path: Path, attribute: dict[str, str]
) -> None:
    patient = Patient(tmp_path / "in", PatientBirthDate="19400203", PatientSex="M")
    patient.whole()
    Patient(tmp_path / "in", study="2", **{**patient.attributes, **attribute}).ct()  # an old study, mistyped
    assert reasons(make(tmp_path / "in")) == {"P1": Reason.AMBIGUOUS_PATIENT}
    table = decisions_path(tmp_path / "t.parquet")
    add_decision(table, DecisionKind.ONE_PATIENT, "", "mistyped in the old study", patient_id="P1", user="anna")
    found = make(tmp_path / "in", decisions=read_decisions(table))
    assert reasons(found) == {}
    assert "decision 1 of anna, one_patient: mistyped in the old study" in found.treatments[0].notes
    add_decision(table, DecisionKind.UNDO, "1", "it is another person", user="ben")
    assert reasons(make(tmp_path / "in", decisions=read_decisions(table))) == {"P1": Reason.AMBIGUOUS_PATIENT}
    with pytest.raises(UsageError, match="no value"):
        add_decision(table, DecisionKind.ONE_PATIENT, "1.2.3", "why", patient_id="P1")


def test_a_study_of_two_patient_ids_is_not_decided_by_one_patient(tmp_path: Path) -> None:
    Patient(tmp_path / "in").whole()
    Patient(tmp_path / "in", "P2").ct(series="2")
    table = decisions_path(tmp_path / "t.parquet")
    add_decision(table, DecisionKind.ONE_PATIENT, "", "sure", patient_id="P1")
    assert reasons(make(tmp_path / "in", decisions=read_decisions(table))) == {"P1": Reason.AMBIGUOUS_PATIENT}


def test_a_catalog_without_birth_dates_says_so(tmp_path: Path) -> None:
    Patient(tmp_path / "in").whole()
    index_folders([tmp_path / "in"], tmp_path / "c.duckdb", processes=1)
    with duckdb.connect(str(tmp_path / "c.duckdb")) as connection:
        names = [name for name, *_ in connection.execute("DESCRIBE dicom_all").fetchall() if name != "PatientBirthDate"]
        columns = ", ".join(f'"{name}"' for name in names)
        connection.execute(f"CREATE OR REPLACE VIEW dicom_all AS SELECT {columns} FROM instances")
    catalog = FolderCatalog(tmp_path / "c.duckdb")
    found = make_treatments(catalog, TreatmentRequest())
    catalog.close()
    assert len(found.treatments) == 1
    assert any("no birth dates" in note for note in found.notes)


def test_one_patient_under_two_ids_is_not_joined_silently(tmp_path: Path) -> None:
    patient = Patient(tmp_path / "in")
    patient.ct()
    plan = patient.plan(structures=patient.structures())
    Patient(tmp_path / "in", "P1-old", StudyInstanceUID=uid("7", "7")).dose(plan)
    found = make(tmp_path / "in")
    assert reasons(found) == {"P1": Reason.NO_DOSE, "P1-old": Reason.AMBIGUOUS_PATIENT}
    assert any(link.other_patient for link in found.links)


def test_a_study_under_two_patient_ids_is_of_no_certain_patient(tmp_path: Path) -> None:
    Patient(tmp_path / "in").whole()
    Patient(tmp_path / "in", "P1-old").ct("9")
    found = make(tmp_path / "in")
    assert reasons(found) == {"P1": Reason.AMBIGUOUS_PATIENT}
    assert "one study" in found.excluded[0].detail


def test_a_registry_lists_who_was_not_found(tmp_path: Path) -> None:
    Patient(tmp_path / "in", "0012").whole()
    registry = tmp_path / "ids.csv"
    registry.write_text("﻿patientid ; site\n".replace(" ;", ",") + " 0012 ,North\n12,South\nP9,North\n 0012,North\n")
    rows = read_registry(registry)
    assert [row.patient_id for row in rows] == ["0012", "12", "P9"]
    found = make(tmp_path / "in", registry=rows)
    assert [(one.patient_id, one.site) for one in found.treatments] == [("0012", "North")]
    assert {one.patient_id: (one.reason, "'0012'" in one.detail) for one in found.excluded} == {
        "12": (Reason.PATIENT_NOT_FOUND, True), "P9": (Reason.PATIENT_NOT_FOUND, False),
    }  # fmt: skip


@pytest.mark.long
def test_a_registry_with_two_treatments_of_one_patient_names_their_plans(tmp_path: Path) -> None:
    Patient(tmp_path / "in").whole(label="left")
    later = Patient(tmp_path / "in", study="2")
    later.whole(label="right")
    registry = tmp_path / "ids.csv"
    registry.write_text("PatientID,plans,intended_fractions\nP1,left,30\nP1,right,20\n")
    found = make(tmp_path / "in", registry=read_registry(registry))
    assert {one.plans[0].label: one.scale for one in found.treatments} == {
        "left": Fraction(6, 5),
        "right": Fraction(4, 5),
    }


@pytest.mark.parametrize(
    ("plan", "prescription"),
    [
        ({"groups": ((25, (None,)),)}, (66.0, PrescriptionSource.TABLE)),
        ({}, (50.0, PrescriptionSource.BEAM_DOSES)),
        (
            {"DoseReferenceSequence": DicomSequence([item(DoseReferenceType="TARGET", TargetPrescriptionDose="48")])},
            (48.0, PrescriptionSource.DOSE_REFERENCE),
        ),
    ],
)
def test_the_prescription_of_the_registry_is_the_last_resort(
    tmp_path: Path, plan: dict[str, object], prescription: tuple[float, PrescriptionSource]
) -> None:
    Patient(tmp_path / "in").whole(**plan)
    registry = tmp_path / "ids.csv"
    registry.write_text("PatientID,prescription_gy\nP1,66\n")
    (one,) = make(tmp_path / "in", registry=read_registry(registry)).treatments
    assert one.dominant_plan is not None
    found = one.dominant_plan.prescription
    assert found is not None
    assert (found.dose, found.source) == prescription


@pytest.mark.parametrize("rows", ["site\nP1,a\nP1,b\n", "prescription_gy\nP1,50\nP1,66\n"])
def test_rows_of_one_patient_that_differ_are_refused(tmp_path: Path, rows: str) -> None:
    registry = tmp_path / "ids.csv"
    registry.write_text(f"PatientID,{rows}")
    with pytest.raises(UsageError, match="lines 2 and 3"):
        read_registry(registry)


@pytest.mark.long
def test_one_treatment_per_planning_ct_if_the_rules_say_so(tmp_path: Path) -> None:
    for study in ("1", "2"):
        Patient(tmp_path / "in", study=study).whole()
    assert make(tmp_path / "in").excluded[0].reason is Reason.INCONCLUSIVE
    found = make(tmp_path / "in", rules=TreatmentRules(treatments="images"))
    assert [one.series.series_instance_uid for one in found.treatments] != []
    assert {one.series.study_instance_uid for one in found.treatments} == {f"{ROOT}.1", f"{ROOT}.2"}


# ---------------------------------------------------------------- rules, decisions, files


def test_a_rule_excludes_under_its_name(tmp_path: Path) -> None:
    Patient(tmp_path / "in", "P1").whole()
    Patient(tmp_path / "in", "P2", "2").whole(PlanIntent="PALLIATIVE")
    rules = tmp_path / "rt.toml"
    rules.write_text(
        'require = ["structures", "plan", "dose"]\n[[rule]]\nname = "curative"\nreason = "the intent is not curative"\n'
        'plan_intent = "CURATIVE"\n[[rule]]\nname = "heart"\nstructures = ["heart.*"]\n'
    )
    found = make(tmp_path / "in", rules=load_rules(rules))
    assert [one.patient_id for one in found.treatments] == ["P1"]
    (one,) = found.excluded
    assert (one.reason, one.rule) == (Reason.EXCLUDED_BY_RULE, "curative")
    assert one.detail == "the intent is not curative: the plan intent is PALLIATIVE"
    write_treatments(found, tmp_path / "t.parquet")
    (flow,) = treatment_consorts(tmp_path / "t.parquet").values()
    assert "EXCLUDED_BY_RULE: curative: 1 patients, 1 treatments" in consort_text(flow)


@pytest.mark.parametrize(
    ("rule", "failure"),
    [
        ({"fractions_min": 26}, "planned fractions: 25"),
        ({"fractions_max": 25, "prescription_max": 49.9}, "prescribed dose in Gy: 50"),
        ({"delivered_min": 1}, "delivered fractions: not stated"),
        ({"plan_label": "B.*"}, "the plan's label 'A1' does not match 'B.*'"),
        ({"plan_approval": ("APPROVED",)}, "the approval status is not stated"),
        ({"structures": ("Lung.*",)}, "no ROI matches 'Lung.*'"),
        ({"date_min": "2020-02-01"}, "the date is 2020-01-10"),
        ({"site": ("North",)}, "the site is not stated"),
        ({"date_max": "2020-01-10", "fractions_min": 25, "plan_label": "a1", "structures": ("heart",)}, ""),
    ],
)
def test_each_condition_of_a_rule(whole: TreatmentSelection, rule: dict[str, object], failure: str) -> None:
    assert InclusionRule(name="r", **rule).failure(whole.treatments[0]) == failure  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TreatmentSelection:
    folder = tmp_path_factory.mktemp("whole") / "in"
    Patient(folder).whole()
    return make(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("plans = 'best'", "plans is one of"), ("require = ['ct']", "require knows"), ("boosts = 'x'", "no 'boosts'"),
        ("boost = '('", "regular expression"), ("[[rule]]\nfractions_min = 'x'\nname = 'a'", "wrong type"),
        ("[[rule]]\nreason = 'x'", "needs a name"), ("= 3", "not a TOML"),
        ("[[rule]]\nname='a'\n[[rule]]\nname='a'", "two rules"),
    ],
)  # fmt: skip
def test_rules_that_make_no_sense_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rt.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        load_rules(path)
    assert caught.value.reason is Reason.BAD_SETTINGS


def test_decisions_are_applied_kept_and_undone_by_rows(tmp_path: Path) -> None:
    first, second = two_plans(tmp_path / "in", {"label": "A"}, {"label": "B"})
    table = decisions_path(tmp_path / "t.parquet")
    add_decision(table, DecisionKind.PLAN, second, "this one was treated", patient_id="P1", user="anna")
    found = make(tmp_path / "in", decisions=read_decisions(table))
    assert roles(found)["B"] is PlanRole.DOMINANT
    assert "decision 1 of anna, plan: this one was treated" in found.treatments[0].notes
    add_decision(table, DecisionKind.UNDO, "1", "wrong patient", user="ben")
    add_decision(table, DecisionKind.EXCLUDE, first, "a trial plan", patient_id="P1", user="ben")
    rows = read_decisions(table)
    assert [(row.number, row.kind.value, row.user) for row in rows] == [
        (1, "plan", "anna"), (2, "undo", "ben"), (3, "exclude", "ben"),
    ]  # fmt: skip
    assert make(tmp_path / "in", decisions=rows).treatments[0].plans[0].uid == second
    add_decision(table, DecisionKind.EXCLUDE, "", "consent withdrawn", patient_id="P1", user="anna")
    (one,) = make(tmp_path / "in", decisions=read_decisions(table)).excluded
    assert (one.reason, "consent withdrawn" in one.detail) == (Reason.EXCLUDED_BY_DECISION, True)


def test_a_decision_that_concerns_nothing_is_named_and_not_counted(tmp_path: Path) -> None:
    """A mistyped Patient ID must not leave a patient in who withdrew consent."""
    _, plan, _ = Patient(tmp_path / "in").whole()
    table = decisions_path(tmp_path / "t.parquet")
    add_decision(table, DecisionKind.EXCLUDE, "", "withdrew consent", patient_id="P01", user="anna")
    add_decision(table, DecisionKind.DOSE, "1.2.3", "an old one", patient_id="P1", user="anna")
    add_decision(table, DecisionKind.NAME, "hart=Heart", "misspelt", patient_id="P1", user="anna")
    add_decision(table, DecisionKind.NAME, "Heart=Heart", "seen", user="anna")
    add_decision(table, DecisionKind.PLAN, plan, "the only one", patient_id="P1", user="anna")
    found = make(tmp_path / "in", decisions=read_decisions(table))
    assert [one.number for one in found.decisions] == [4, 5]
    causes = {1: "not in the catalog", 2: "has no object 1.2.3", 3: "no ROI has the name 'hart'"}
    notes = [note for note in found.notes if "was not applied" in note]
    assert len(notes) == 3
    assert all(f"decision {n} of anna" in note and cause in note
               for (n, cause), note in zip(causes.items(), notes, strict=True))  # fmt: skip


def test_a_decision_on_a_patient_who_is_not_there_is_kept_with_a_note(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"

    def decide(patient: str) -> str:
        request = ["treatments", "decide", str(path), "exclude", "--patient", patient, "--why", "withdrew consent"]
        found = CliRunner().invoke(app, request)
        assert found.exit_code == 0, found.output
        return found.stderr.replace("\n", " ")

    assert "does not exist" in decide("P1")
    Patient(tmp_path / "in").whole()
    write_treatments(make(tmp_path / "in"), path)
    assert decide("P1") == ""
    assert "no patient of this ID" in decide("P01")
    assert len(read_decisions(decisions_path(path))) == 3


def test_patients_that_the_registry_does_not_list_are_counted_with_their_objects(tmp_path: Path) -> None:
    Patient(tmp_path / "in", "P1").whole()
    Patient(tmp_path / "in", "P2", study="2").whole()
    registry = tmp_path / "ids.csv"
    registry.write_text("PatientID,delivered_fractions\nP1,23\n")
    found = make(tmp_path / "in", registry=read_registry(registry))
    text = "1 patient is not in the registry and not considered: 1 RTDOSE, 1 RTPLAN, 1 RTSTRUCT"
    assert found.notes == (text,)
    assert found.treatments[0].notes == ()


def test_delivered_fractions_that_contradict_the_registry_are_noted(tmp_path: Path) -> None:
    patient = Patient(tmp_path / "in")
    _, plan, _ = patient.whole()
    for number in (1, 2):
        patient.record(plan, number, number)
    registry = tmp_path / "ids.csv"
    registry.write_text("PatientID,delivered_fractions\nP1,23\n")
    (one,) = make(tmp_path / "in", registry=read_registry(registry)).treatments
    assert any("23 delivered fractions, RT Beams Treatment Records state 2: these" in note for note in one.notes)


def test_a_table_of_decisions_with_a_missing_row_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "d.csv"
    for number in range(3):
        add_decision(table, DecisionKind.EXCLUDE, "", f"reason {number}", patient_id="P1")
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join([lines[0], *lines[2:]]))
    with pytest.raises(UsageError, match="only ever added"):
        read_decisions(table)


def test_the_files_of_treatments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1600000000")
    Patient(tmp_path / "in", "P1").whole()
    Patient(tmp_path / "in", "P2", "2").plan()
    found = make(tmp_path / "in")
    path = tmp_path / "t.parquet"
    write_treatments(found, path)
    assert read_treatments(path) == found.treatments
    assert read_excluded_treatments(path) == found.excluded
    assert [s.series_instance_uid for s in read_cohort(path).series] == [f"{ROOT}.1.1"]
    assert read_excluded(path)["reason"].to_pylist() == ["NO_STRUCTURE_SET"], "a run reads it like that of a cohort"
    assert load_links(path).num_rows == len(found.links)
    lock = json.loads(lock_path(path).read_text())
    assert lock["treatments"]["objects"] == {"RTDOSE": 1, "RTPLAN": 2, "RTSTRUCT": 1}
    run = steps.start(path, tmp_path / "run", segmenters=["expert"])
    assert run.cohort.sha256 == read_cohort(path).sha256
    assert read_treatments(tmp_path / "run" / "cohort.parquet") == found.treatments, "a run takes it as a cohort"
    path.with_name("t.checked.json").unlink(missing_ok=True)
    first = {p.name: p.read_bytes() for p in tmp_path.glob("t.*")}
    write_treatments(make(tmp_path / "in"), path)
    assert {p.name: p.read_bytes() for p in tmp_path.glob("t.*")} == first
    assert write_protocol_series(found.treatments, tmp_path / "series.csv") == 4
    assert (tmp_path / "series.csv").read_text().splitlines()[1].startswith(f"{ROOT}.1.1,CT,P1,")


@pytest.mark.long
def test_treatments_that_were_changed_by_hand_are_refused(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    Patient(tmp_path / "in").whole()
    path = tmp_path / "t.parquet"
    write_treatments(make(tmp_path / "in"), path)
    table = pq.read_table(path)
    changed = table.set_column(table.column_names.index("fractions_planned"), "fractions_planned", [[26]])
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)
    with pytest.raises(UsageError) as caught:
        read_treatments(path)
    assert caught.value.reason is Reason.BAD_COHORT


@pytest.mark.long
def test_the_difference_of_two_files(tmp_path: Path) -> None:
    Patient(tmp_path / "in", "P1").whole()
    Patient(tmp_path / "in", "P2", "2").whole()
    write_treatments(make(tmp_path / "in"), tmp_path / "a.parquet")
    later = Patient(tmp_path / "in", "P1")
    later.dose(f"{ROOT}.1.40.1", 2, DoseSummationType="BEAM")
    table = decisions_path(tmp_path / "b.parquet")
    add_decision(table, DecisionKind.EXCLUDE, "", "consent withdrawn", patient_id="P2", user="anna")
    write_treatments(make(tmp_path / "in", decisions=read_decisions(table)), tmp_path / "b.parquet")
    found = diff_treatments(tmp_path / "a.parquet", tmp_path / "b.parquet")
    assert [(c.patient_id, c.change) for c in found.changes] == [("P2", "removed")]
    assert "EXCLUDED_BY_DECISION" in found.changes[0].explanation
    assert found.same == 1


# ---------------------------------------------------------------- CONSORT


def cordial() -> dict[str, object]:
    """The flow of a published breast cohort: 9,100 registered, 1,045 and 580 left out, 7,448 analysed."""
    return {
        "levels": ["treatments"],
        "stages": [
            {"label": "Registered", "counts": {"treatments": 9100},
             "exclusions": [{"label": "No data", "counts": {"treatments": 1072}}]},
            {"label": "Collected", "counts": {"treatments": 8028},
             "exclusions": [{"label": "Incomplete", "counts": {"treatments": 553}}]},
            {"label": "Analysed", "counts": {"treatments": 7448}},
        ],
    }  # fmt: skip


def test_numbers_that_do_not_add_up_are_stated(tmp_path: Path) -> None:
    path = tmp_path / "counts.json"
    path.write_text(json.dumps(cordial()))
    (flow,) = treatment_consorts(path).values()
    assert "27 treatments unaccounted for after 'Collected'" in consort_text(flow)
    path.write_text(json.dumps({"sites": {"North": cordial()}}))
    assert [name for name, one in treatment_consorts(path, by_site=True).items() if not one.balanced] == ["North"]


def test_a_flow_by_site(tmp_path: Path) -> None:
    Patient(tmp_path / "in", "P1").whole()
    Patient(tmp_path / "in", "P2", "2").plan()
    registry = tmp_path / "ids.csv"
    registry.write_text("PatientID,site\nP1,North\nP2,South\nP3,South\n")
    write_treatments(make(tmp_path / "in", registry=read_registry(registry)), tmp_path / "t.parquet")
    flows = treatment_consorts(tmp_path / "t.parquet", by_site=True)
    assert {name: [stage.counts["patients"] for stage in one.stages] for name, one in flows.items()} == {
        "North": [1, 1], "South": [2, 0],
    }  # fmt: skip
    assert all(one.balanced for one in flows.values())
    whole_flow = treatment_consorts(tmp_path / "t.parquet")[""]
    assert [stage.counts for stage in whole_flow.stages] == [
        {"patients": 3, "treatments": 3}, {"patients": 1, "treatments": 1},
    ]  # fmt: skip
