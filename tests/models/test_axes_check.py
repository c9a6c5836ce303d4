"""The axes that fit an expert's contours are found, and it is stated when none do or several are equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.support.small_models import smooth_volume, write_v2

from ctenrich.errors import UsageError
from ctenrich.models.axes_check import AxesReport, ExpertCase, OrganDice, check_axes
from ctenrich.models.parity import Case
from ctenrich.nnunet.conventions import AXES, Conventions
from ctenrich.nnunet.segmenter import open_nnunet
from ctenrich.reasons import Reason
from ctenrich.settings import SegmentSettings, Settings

SETTINGS = Settings(segment=SegmentSettings(threads=1))
AFFINE = ((1.3, 0.0, 0.0, 0.0), (0.0, 1.2, 0.0, 0.0), (0.0, 0.0, 3.0, 0.0), (0.0, 0.0, 0.0, 1.0))


def report(*dice: dict[str, float]) -> AxesReport:
    rows = tuple(OrganDice(case="series 1", organ=f"organ {n}", dice=d) for n, d in enumerate(dice))
    return AxesReport(model="m", rows=rows)


@pytest.mark.parametrize("axes", AXES)
def test_the_axes_of_the_expert_are_found(tmp_path: Path, axes: str) -> None:
    """The expert is the model itself in some axes: there every Dice is 1, elsewhere far less."""
    folder = write_v2(tmp_path / "m", axes=(), stated="")
    case = Case("series 1", smooth_volume((10, 28, 32), 5), AFFINE, (3.0, 1.2, 1.3))
    model = open_nnunet(str(folder), mirror=False, conventions=Conventions(axes=axes), settings=SETTINGS)
    turned = model.turned(AFFINE)
    labels = turned.back(model.label(case.array, turned, case.spacing).labels)
    masks = {name: labels == value for value, name, _ in model.names} | {"liver": labels == 0}
    cases = [
        ExpertCase(case=case, masks={"liver": labels == 0, "aorta": np.zeros(labels.shape, bool)}),
        ExpertCase(case=case, masks=masks),
    ]
    found = check_axes(str(folder), cases, settings=SETTINGS)
    assert [row.organ for row in found.rows] == ["heart", "aorta", "trachea"]
    assert found.fitting == (axes,)
    assert found.mean(axes) == 1
    assert max(found.mean(other) for other in AXES if other != axes) < 0.9
    assert found.verdict.startswith(f"{axes} fits best")


def test_equal_axes_and_no_axes_are_stated() -> None:
    """A model that mirrored front to back in training answers alike in LAS and LPS."""
    both = report({"RAS": 0.1, "LAS": 0.901, "LPS": 0.905}, {"RAS": 0.3, "LAS": 0.95, "LPS": 0.95})
    assert both.fitting == ("LPS", "LAS")
    assert both.verdict.startswith("LPS and LAS fit equally well")
    none = report({"RAS": 0.1, "LAS": 0.45, "LPS": 0.2})
    assert none.fitting == ()
    assert "no axes fit" in none.verdict
    assert both.table()[-1] == {"series": "mean", "organ": "", "RAS": "0.200", "LAS": "0.925", "LPS": "0.927"}


def test_without_an_organ_of_the_model_there_is_nothing_to_compare(tmp_path: Path) -> None:
    folder = write_v2(tmp_path / "m", axes=(), stated="")
    case = Case("series 1", smooth_volume((6, 20, 20), 5), AFFINE, (3.0, 1.2, 1.3))
    with pytest.raises(UsageError, match="aorta, heart, trachea") as caught:
        check_axes(str(folder), [ExpertCase(case=case, masks={"liver": case.array > 0})], settings=SETTINGS)
    assert caught.value.reason is Reason.EMPTY_INPUT
