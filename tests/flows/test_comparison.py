"""Comparison of the results of two versions of a flow: doses and objects without values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from tests.support.doses import write_dose
from tests.support.listeners import study_files

from ctenrich.dicom.sop_classes import CT_IMAGE
from ctenrich.flows.comparison import compare_results, read_comparison, write_comparison

STORED = np.arange(2 * 3 * 4, dtype=np.uint16).reshape(2, 3, 4) * 100
NAMES = ("lungs2", "lungs")


def test_doses_on_one_grid_have_the_largest_difference_of_a_voxel(tmp_path: Path) -> None:
    """Stored values are in mGy: voxel 23 has 2.3 Gy, and voxel 7 has 0.7 Gy in one version and 1.2 Gy in the other."""
    changed = STORED.copy()
    changed[0, 1, 3] = 1200
    old, new = write_dose(tmp_path / "a.dcm", STORED), write_dose(tmp_path / "b.dcm", changed)
    (row,) = compare_results([old], [new], NAMES)
    assert (row.flow, row.other, row.structure, row.quantity, row.unit) == (*NAMES, "PLAN", "dose", "GY")
    assert (row.old, row.new, row.difference, row.note) == pytest.approx((2.3, 2.3, 0.5, ""))
    write_comparison(tmp_path / "comparison.csv", [row])
    assert read_comparison(tmp_path / "comparison.csv") == (row,)


def test_the_scaling_of_a_dose_is_no_difference(tmp_path: Path) -> None:
    old = write_dose(tmp_path / "a.dcm", STORED)
    new = write_dose(tmp_path / "b.dcm", STORED.astype(np.uint32) * 10, DoseGridScaling=0.0001)
    (row,) = compare_results([old], [new], NAMES)
    assert row.difference == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    "changes",
    [
        {"ImagePositionPatient": [-20, -30, -97]},
        {"PixelSpacing": [2.5, 3.0]},
        {"GridFrameOffsetVector": [0.0, 2.0]},
    ],
)
def test_doses_on_other_grids_have_no_difference(tmp_path: Path, changes: dict[str, list[float]]) -> None:
    old, new = write_dose(tmp_path / "a.dcm", STORED), write_dose(tmp_path / "b.dcm", STORED, **changes)
    (row,) = compare_results([old], [new], NAMES)
    assert (row.difference, row.note) == (None, "on another grid")
    assert (row.old, row.new) == pytest.approx((2.3, 2.3))


def test_what_one_version_has_alone_is_marked_and_other_objects_are_counted(tmp_path: Path) -> None:
    plan = write_dose(tmp_path / "a.dcm", STORED)
    beam = write_dose(tmp_path / "b.dcm", STORED, DoseSummationType="BEAM")
    rows = compare_results([plan, *study_files()[:2]], [beam, study_files()[0]], NAMES)
    assert [(row.structure, row.old, row.new, row.difference, row.note) for row in rows] == [
        (CT_IMAGE, 2.0, 1.0, -1.0, ""),
        ("BEAM", None, pytest.approx(2.3), None, "only in one version"),
        ("PLAN", pytest.approx(2.3), None, None, "only in one version"),
    ]
    assert dcmread(study_files()[0]).SOPClassUID == CT_IMAGE
