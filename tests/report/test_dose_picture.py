"""Dose on the samples of a series' picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ctenrich.dose.reader import read_dose
from ctenrich.report.dose_picture import dose_levels, dose_picture, isodose_lines
from ctenrich.report.reduction import reduction_of
from ctenrich.report.working_picture import Pictures
from tests.support import encode_cases as cases
from tests.support.dose_cases import DoseCase


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> DoseCase:
    made = DoseCase(tmp_path_factory.mktemp("dose"))
    made.give_dose()
    made.measure(cases.EXPERT)
    return made


def test_levels_are_the_dose_at_every_sample(case: DoseCase) -> None:
    """1 Gy per mm along x, as columns run; the maximum is 46 Gy at x = -94 mm, where the dose grid ends."""
    grid = read_dose(case.give_dose(ImagePositionPatient=[-140, -101, -313])).grid
    case.give_dose()
    reduction = reduction_of(case.volume)
    levels = dose_levels(grid, case.volume, reduction)
    assert levels.shape == reduction.shape
    x = -120.25 + 0.7 * np.arange(48)
    expected = np.rint(1 + 254 * (x + 140) / 46).astype(int)
    assert (x > -94).any()
    assert (levels[5, 20] == np.where(x <= -94, expected, 0)).all(), "outside the grid there is no dose, not even 0 Gy"


def test_a_dose_that_changed_or_is_gone_is_not_drawn(case: DoseCase, tmp_path: Path) -> None:
    pictures = Pictures(tmp_path, "pictures/", case.workspace)
    doses = {"expert": case.measure(cases.EXPERT)}
    found = dose_picture(case.uid, case.volume, doses, pictures)
    assert found is not None
    assert found["maximum"] == 46.0
    assert (tmp_path / found["file"].removeprefix("pictures/")).read_text().startswith("ctenrichPicture(")
    case.give_dose(DoseGridScaling=0.002)
    other = Pictures(tmp_path / "other", "", case.workspace)
    assert dose_picture(case.uid, case.volume, doses, other) is None
    (case.folder / "rd.dcm").unlink()
    assert dose_picture(case.uid, case.volume, doses, other) is None
    assert dose_picture(case.uid, case.volume, doses, pictures) == found, "what was drawn is kept"
    assert dose_picture(case.uid, case.volume, {}, pictures) is None
    case.give_dose()


def test_lines_are_shares_of_the_prescribed_dose_else_of_the_maximum(case: DoseCase) -> None:
    doses = case.measure(cases.EXPERT)
    assert isodose_lines(doses) == [43.7, 36.8, 23.0, 9.2]
    assert isodose_lines(replace(doses, prescription=40.0)) == [42.8, 38.0, 32.0, 20.0, 8.0]
