"""Doses of the segments of a product: values, factors, checks and refusals."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from ctenrich.dose.checks import StructureValues, check_cohort, check_treatment
from ctenrich.dose.plan import PlanFacts
from ctenrich.records import (
    DoseMeasurements,
    DoseValue,
    Instance,
    Issue,
    SegmentMasks,
    SeriesEntry,
    Severity,
)
from ctenrich.treatments.records import Dose as TreatedDose
from ctenrich.treatments.records import Plan, PlanRole, Prescription, PrescriptionSource, Treatment
from tests.support import encode_cases as cases
from tests.support.dose_cases import DoseCase


@pytest.fixture
def case(tmp_path: Path) -> DoseCase:
    return DoseCase(tmp_path)


def value(doses: DoseMeasurements, organ: str, metric: str) -> DoseValue:
    (one,) = [one for one in doses.segments if one.name == organ]
    return next(value for value in one.values if value.metric == metric)


def test_every_product_has_its_metrics(case: DoseCase) -> None:
    """The dose is that of the x coordinate: the mean is that at the middle of the heart."""
    case.give_dose()
    # columns 6 to 21 of the expert's heart, 12 to 23 of the network's but for one voxel; 0.7 mm each from -120.25
    for doses, middle in zip(case.measure_all(), (13.5, 17.5), strict=True):
        assert doses.reason is None
        mean = value(doses, "heart", "Mean[Gy]")
        assert mean.value == pytest.approx(-120.25 + 0.7 * middle + 122, abs=0.01)
        assert mean.second is not None
        assert mean.lower <= mean.second <= mean.upper  # type: ignore[operator]
        assert doses.doses == "1 x 2.25.4000.20"
        assert not {one.name for one in doses.segments} & {"trachea", "spinal_cord"}


def test_a_structure_that_was_drawn_in_part_is_named(case: DoseCase) -> None:
    case.give_dose()
    masks = case.store.load(SegmentMasks, case.uid, cases.EXPERT)
    found = [
        Issue(rule, Severity.WARNING, name, f"3 contours: {rule}")
        for rule, name in (("contours.off_slice", "heart"), ("contours.nested", "heart"), ("contours.tilted", "none"))
    ]
    assert not [check for check in case.measure(cases.EXPERT).checks if check.rule == "dose.contours"]
    case.store.save(replace(masks, issues=tuple(found)), case.uid, cases.EXPERT)
    (check,) = [check for check in case.measure(cases.EXPERT).checks if check.rule == "dose.contours"]
    assert (check.organ, check.severity, check.product) == ("heart", "warning", str(cases.EXPERT))
    assert check.sentence == "heart: 3 contours: contours.off_slice: its doses are those of what was drawn"


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"FrameOfReferenceUID": "2.25.7"}, "DOSE_OTHER_FRAME"),
        ({"DoseUnits": "RELATIVE"}, "DOSE_UNITS"),
        ({"DoseType": "EFFECTIVE"}, "DOSE_TYPE"),
        ({"GridFrameOffsetVector": [1.0 + k for k in range(16)]}, "DOSE_OFFSETS"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.3"}, "NO_DOSE"),
    ],
)
def test_a_series_without_a_usable_dose_has_a_reason(case: DoseCase, attributes: dict[str, Any], reason: str) -> None:
    case.give_dose(**attributes)
    doses = case.measure(cases.EXPERT)
    assert doses.reason == reason
    assert doses.segments == ()
    (check,) = doses.checks
    assert (check.rule, check.severity) == ("dose.none", "error")
    assert check.sentence.startswith(f"{reason}: ")


def test_two_empty_frames_of_reference_are_not_one(case: DoseCase) -> None:
    case.give_dose(FrameOfReferenceUID="")
    case.series = replace(case.series, frame_of_reference_uid="")
    assert case.measure(cases.EXPERT).reason == "DOSE_OTHER_FRAME"


DOSE = "2.25.4000.20"
"""The dose of the case, which refers to no plan: only the link of the treatment ties them."""


def plan_of(number: int, fractions: int, source: PrescriptionSource | None = None, **further: Any) -> Plan:
    total = 2.0 * fractions
    return Plan(
        instance=Instance(f"2.25.50.{number}", ""),
        study_instance_uid="2.25.1",
        series_instance_uid="2.25.2",
        fractions_planned=fractions,
        prescription=Prescription(dose=total, source=source, stated=(total,)) if source else None,
        **{"role": PlanRole.DOMINANT if number == 1 else PlanRole.BOOST} | further,
    )


def treatment_of(intended: int | None, *plans: Plan) -> Treatment:
    main = plans[0]
    over = main.fractions_delivered or main.fractions_planned
    doses = [
        TreatedDose(
            instance=Instance(DOSE if n == 0 else f"2.25.60.{n}", ""), study_instance_uid="2.25.1",
            series_instance_uid="2.25.3", plan=plan.uid, used=True,
        )
        for n, plan in enumerate(plans)
    ]  # fmt: skip
    return Treatment(
        treatment_id="t", patient_id="p", plans=plans, doses=tuple(doses), fractions_intended=intended,
        scale=Fraction(intended, over) if intended and over else None,
        series=SeriesEntry("", "p", "2.25.1", "2.25.2", ()),
    )  # fmt: skip


BEAMS, REFERENCE, TABLE = (
    PrescriptionSource.BEAM_DOSES, PrescriptionSource.DOSE_REFERENCE, PrescriptionSource.TABLE,
)  # fmt: skip


def test_intended_over_delivered_fractions_multiply_the_dose_and_are_kept_as_a_ratio(case: DoseCase) -> None:
    case.give_dose()
    plain = value(case.measure(cases.EXPERT), "heart", "Mean[Gy]").value
    case.treatment = treatment_of(25, plan_of(1, 23, BEAMS))
    scaled = case.measure(cases.EXPERT)
    assert scaled.doses == f"25/23 x {DOSE}"
    assert value(scaled, "heart", "Mean[Gy]").value == pytest.approx(plain * 25 / 23, rel=1e-6)  # type: ignore[operator]
    assert scaled.maximum == pytest.approx(46 * 25 / 23)


@pytest.mark.parametrize(
    ("intended", "plans", "prescription", "source"),
    [
        (None, (plan_of(1, 23, BEAMS),), 46.0, "beam_doses"),
        (25, (plan_of(1, 23, BEAMS),), 50.0, "beam_doses"),  # the sum is that of the 23 fractions of the plan
        (25, (plan_of(1, 23, REFERENCE),), 46.0, "dose_reference"),  # as the plan states it
        (25, (plan_of(1, 23, TABLE),), 46.0, "table"),
        (None, (plan_of(1, 25, BEAMS), plan_of(2, 8, BEAMS)), 66.0, "beam_doses"),
        (None, (plan_of(1, 25, REFERENCE), plan_of(2, 8, BEAMS)), 66.0, "beam_doses + dose_reference"),
        (None, (plan_of(1, 25, TABLE), plan_of(2, 8, BEAMS)), 50.0, "table"),  # of the whole treatment
        (None, (plan_of(1, 25, BEAMS), plan_of(2, 8)), None, None),
        (None, (plan_of(1, 25),), None, None),
    ],
)
def test_the_prescription_is_that_of_the_dose_that_is_measured(
    case: DoseCase, intended: int | None, plans: tuple[Plan, ...], prescription: float | None, source: str | None
) -> None:
    """Plan and boost are 50 and 16 Gy: 66 Gy, or the maximum of their sum would be 132 % of the prescribed dose."""
    case.give_dose()
    case.treatment = treatment_of(intended, *plans)
    found = case.measure(cases.EXPERT)
    assert found.prescription == (None if prescription is None else pytest.approx(prescription))
    assert found.prescription_source == source


@pytest.mark.parametrize(
    ("intended", "reason"), [(25, None), (26, None), (33, "DOSE_SUMMATION"), (40, "DOSE_SUMMATION")]
)
def test_fractions_of_a_boost_are_not_counted_twice(case: DoseCase, intended: int, reason: str | None) -> None:
    """25 fractions and a boost of 8: 33 intended ones times 33/25 would count the boost twice."""
    case.give_dose()
    case.treatment = treatment_of(intended, plan_of(1, 25, BEAMS), plan_of(2, 8, BEAMS))
    assert case.measure(cases.EXPERT).reason == reason


@pytest.mark.parametrize(
    ("delivered", "intended", "words"),
    [
        (10, None, "the dose is that of the planned ones"),
        (23, 25, "right only if the RT Dose is that of the delivered ones"),
        (25, 25, None),
        (None, 25, None),
    ],
)
def test_fractions_that_were_not_delivered(
    case: DoseCase, delivered: int | None, intended: int | None, words: str | None
) -> None:
    case.give_dose()
    case.treatment = treatment_of(intended, plan_of(1, 25, BEAMS, fractions_delivered=delivered))
    found = [check.sentence for check in case.measure(cases.EXPERT).checks if check.rule == "dose.course"]
    assert len(found) == (words is not None)
    assert all(words in sentence for sentence in found if words)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"DoseSummationType": "RECORD"}, "DOSE_SUMMATION"),
        ({"DoseSummationType": "CONTROL_POINT"}, "DOSE_SUMMATION"),
        ({"DoseSummationType": "BRACHY"}, "DOSE_SUMMATION"),
        ({"DoseSummationType": "BEAM"}, "DOSE_SUMMATION"),
        ({"DoseSummationType": "FRACTION"}, "DOSE_SUMMATION"),
        ({"DoseSummationType": "MULTI_PLAN"}, None),
        ({"DoseType": "ERROR"}, "DOSE_TYPE"),
        ({"TissueHeterogeneityCorrection": ["IMAGE", "ROI_OVERRIDE"]}, None),
    ],
)
def test_a_dose_that_is_not_that_of_the_treatment(
    case: DoseCase, attributes: dict[str, Any], reason: str | None
) -> None:
    case.give_dose(**attributes)
    assert case.measure(cases.EXPERT).reason == reason


def test_a_dose_that_ends_within_an_organ(case: DoseCase) -> None:
    case.give_dose(ImagePositionPatient=[-110, -101, -313])
    doses = case.measure(cases.EXPERT)
    mean = value(doses, "heart", "Mean[Gy]")
    assert (mean.value, mean.reason) == (None, "DOSE_INCOMPLETE")
    (heart,) = [one for one in doses.segments if one.name == "heart"]
    assert heart.coverage == pytest.approx(7 / 16)
    assert heart.curve == ()
    assert any(check.rule == "dose.coverage" and check.organ == "heart" for check in doses.checks)


def values(name: str, **given: float) -> StructureValues:
    fields: dict[str, Any] = {"product": "expert", "name": name, "coverage": 1.0, "mean": None, "median": None} | given
    return StructureValues(**fields)


PLAN = PlanFacts(
    sop_instance_uid="2.25.1", label="Breast left", intent="CURATIVE", groups=(), fractions=None, prescription=None
)


LUNGS = [values("lung_left", mean=3.0), values("lung_right", mean=20.0)]


@pytest.mark.parametrize(
    ("maximum", "prescription", "structures", "plans", "rules"),
    [
        (75.6, 70.0, [values("gtv_1", median=71.3)], [], []),
        (85.0, 70.0, [], [], ["dose.maximum"]),
        (69.0, 70.0, [], [], ["dose.maximum"]),
        (75.0, 70.0, [values("ptv_1", median=64.0)], [], ["dose.target_median"]),
        (75.0, 70.0, [values("ptv_1", median=75.5)], [], ["dose.target_median"]),
        (75.0, 70.0, [values("heart", median=20.0)], [], []),
        (32.9, 30.82, [], [replace(PLAN, label="")], ["dose.course"]),
        (75.0, 70.0, [values("heart", coverage=0.9)], [], ["dose.coverage"]),
        (75.0, 70.0, [values("lung_left", mean=3.0), values("lung_right", mean=20.0)], [PLAN], ["dose.side"]),
        (75.0, 70.0, [values("lung_left", mean=20.0), values("lung_right", mean=3.0)], [PLAN], []),
        (75.0, None, [values("ptv_1", median=10.0)], [], ["dose.prescription"]),
        (75.0, 70.0, [*LUNGS, values("roi:ptv_L", median=70.0)], [], ["dose.side"]),
        (75.0, 70.0, [*LUNGS, values("PTV rechts", median=70.0)], [], []),
        (75.0, 70.0, [*LUNGS, values("ptv_l", median=70.0), values("ptv_r", median=70.0)], [], []),
        (75.0, 70.0, [*LUNGS, values("CTV_LN", median=70.0)], [], []),  # lymph nodes
    ],
)
def test_checks_of_a_treatment(
    maximum: float,
    prescription: float | None,
    structures: list[StructureValues],
    plans: list[PlanFacts],
    rules: list[str],
) -> None:
    assert [check.rule for check in check_treatment(maximum, prescription, structures, plans)] == rules


def test_outliers_of_a_cohort() -> None:
    means = [5.0, 5.2, 4.9, 5.1, 5.0, 4.8, 5.3, 5.1, 4.9, 5.2, 40.0]
    rows = [
        {"SeriesInstanceUID": str(n), "product": "expert", "organ": "heart", "metric": "Mean[Gy]", "value": mean}
        for n, mean in enumerate(means)
    ]
    assert [(uid, check.organ) for uid, check in check_cohort(rows)] == [("10", "heart")]
    assert check_cohort(rows[5:]) == []
