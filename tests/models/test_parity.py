"""The parity gate: how label maps are compared, and what passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from tests.support.small_models import smooth_volume, write_v2

from ctenrich.errors import UsageError
from ctenrich.models.parity import (
    Case,
    OrganParity,
    ParityLimits,
    ParityOptions,
    ParityReport,
    cases_of,
    check_model,
    compare_labels,
)
from ctenrich.reasons import Reason
from ctenrich.settings import SegmentSettings, Settings


def test_comparison_of_label_maps() -> None:
    a = np.zeros((20, 20, 20), np.uint8)
    a[5:15, 5:15, 5:15] = 1
    b = a.copy()
    b[14, 5:15, 5:15] = 0
    b[0, 0, 0] = 2
    one, two, none = compare_labels(b, a, (2.0, 1.0, 1.0), {1: "heart", 2: "aorta", 3: "trachea"})
    assert one.different == 100
    assert one.dice == pytest.approx(2 * 900 / 1900)
    assert one.volume == pytest.approx(-0.1)
    assert one.shapes >= 0.1
    assert 0.5 < one.nsd < 1
    assert not two.same_presence
    assert none.dice == 1.0


def row(**change: Any) -> OrganParity:
    values: dict[str, Any] = {
        "case": "a", "organ": "heart", "voxels": 10, "different": 0, "dice": 1.0, "nsd": 1.0, "volume": 0.0,
        "shapes": 0.0, "same_presence": True,
    }  # fmt: skip
    return OrganParity(**(values | change))


@pytest.mark.parametrize(
    ("rows", "disagreement", "passed"),
    [
        ((row(), row(dice=0.9999)), 1e-6, True),
        ((row(), row(dice=0.99989)), 0.0, False),
        ((row(), row(same_presence=False)), 0.0, False),
        ((row(),), 1.1e-6, False),
        ((), 0.0, False),
    ],
)
def test_the_worst_row_decides(rows: tuple[OrganParity, ...], disagreement: float, passed: bool) -> None:
    assert ParityReport("m", rows, (), {"a": 0.0, "b": disagreement}, ParityLimits()).passed is passed


def test_a_table_has_one_row_per_organ_with_its_worst_case() -> None:
    rows = (row(case="a", dice=0.9, volume=-0.2), row(case="b", nsd=0.5, volume=0.1), row(organ="aorta"))
    heart, aorta = ParityReport("m", rows, ()).table()
    assert (heart["organ"], heart["volumes"], heart["Dice min"]) == ("heart", "2", "0.900000")
    assert (heart["NSD 1 mm min"], heart["volume max"]) == ("0.500000", "2.0e-01")
    assert aorta["Dice min"] == "1.000000"


def test_volumes_of_nifti_files_keep_their_geometry(tmp_path: Path) -> None:
    """SimpleITK reads NIfTI in LPS; voxel (i, j, k) must be where ITK says it is."""
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-10.0, 20.0, 30.0))
    image.SetDirection((0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    SimpleITK.WriteImage(image, str(tmp_path / "scan.nii.gz"))
    (case,) = cases_of([tmp_path / "scan.nii.gz"])
    assert case.name == "scan"
    np.testing.assert_array_equal(case.array, array)
    assert case.spacing == pytest.approx((2.5, 0.8, 0.7))
    point = np.array(case.affine_lps) @ (4, 3, 2, 1)
    np.testing.assert_allclose(point[:3], image.TransformIndexToPhysicalPoint((4, 3, 2)), atol=1e-4)


def test_a_model_is_compared_with_the_reference(tmp_path: Path) -> None:
    from benchmarks.float32_predictor import Float32Predictor

    write_v2(tmp_path / "net")
    affine = ((1.2, 0.0, 0.0, 0.0), (0.0, 1.2, 0.0, 0.0), (0.0, 0.0, 3.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    case = Case("one", smooth_volume((8, 24, 24)), affine, (3.0, 1.2, 1.2))
    settings = Settings(segment=SegmentSettings(threads=1))
    options = ParityOptions(predictor=Float32Predictor, mirror=False, repeat=True)
    report = check_model(str(tmp_path / "net"), [case], settings=settings, options=options)
    assert report.passed
    assert {r.organ for r in report.rows} == {"heart", "aorta", "trachea"}
    assert len(report.noise) == 3
    with pytest.raises(UsageError) as caught:
        check_model(str(tmp_path / "net"), [], settings=settings, options=options)
    assert caught.value.reason is Reason.EMPTY_INPUT
