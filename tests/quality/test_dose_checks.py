"""Findings about doses in the ranked list."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support import encode_cases as cases
from tests.support.dose_cases import DoseCase

from ctenrich.quality.dose_checks import checks_of_products, dose_outliers
from ctenrich.quality.ranking import RankedCase
from ctenrich.quality.run import check_run
from ctenrich.reasons import Reason
from ctenrich.records import Cohort, DoseCheck, DoseMeasurements

NETWORK = str(cases.NNUNET)
HOT = DoseCheck(rule="dose.maximum", severity="warning", sentence="the maximum is 150 %", value=150.0, limit=120.0)


def dose_findings(ranked: tuple[RankedCase, ...]) -> dict[str, list[str]]:
    return {
        case.product: [finding.check for finding in case.findings if finding.check.startswith("dose_")]
        for case in ranked
    }


def test_findings_are_ranked_and_follow_the_doses(tmp_path: Path) -> None:
    """The dose ends within the expert's heart and lung; what concerns the treatment is listed with one product."""
    case = DoseCase(tmp_path)
    nobody = Cohort("none", ())
    assert dose_findings(check_run(case.workspace, nobody)) == {"expert": [], NETWORK: []}
    case.give_dose(ImagePositionPatient=[-110, -101, -313])
    doses = case.measure_all()
    case.store.save(replace(doses[0], checks=(HOT, *doses[0].checks)), case.uid, cases.EXPERT)
    ranked = check_run(case.workspace, nobody)
    found = dose_findings(ranked)
    assert set(found["expert"]) >= {"dose_maximum", "dose_coverage"}
    assert "dose_maximum" not in found[NETWORK]
    (hot,) = [f for one in ranked for f in one.findings if f.check == "dose_maximum"]
    assert (hot.value, hot.low, hot.high, hot.weight) == (150.0, None, 120.0, pytest.approx(3 * 1.25))
    assert dose_findings(check_run(case.workspace, nobody)) == found, "kept with the series"


def test_a_series_without_a_dose_is_no_mistake_but_a_bad_dose_is_looked_at() -> None:
    none = DoseCheck(rule="dose.none", severity="error", sentence="there is none")
    for reason, severity in ((Reason.NO_DOSE, "note"), (Reason.DOSE_UNITS, "warning")):
        doses = DoseMeasurements(product=cases.EXPERT, series_instance_uid="1.2", reason=reason, checks=(none,))
        (check,) = checks_of_products([doses])["expert"]
        assert check.severity == severity


def test_outliers_of_the_cohort() -> None:
    means = [5.0, 5.2, 4.9, 5.1, 5.0, 4.8, 5.3, 5.1, 4.9, 5.2, 40.0]
    found = dose_outliers({(str(n), "expert"): {"heart": mean} for n, mean in enumerate(means)})
    assert list(found) == [("10", "expert")]
    assert [(f.check, f.organ, f.value) for f in found["10", "expert"]] == [("dose_outlier", "heart", 40.0)]
