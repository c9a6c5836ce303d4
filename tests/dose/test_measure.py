"""Doses of the segments of a product: values, factors, checks and refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ctenrich.dose.checks import StructureValues, check_cohort, check_treatment
from ctenrich.dose.plan import PlanFacts
from ctenrich.records import DoseMeasurements, DoseValue
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
