"""Isodoses as a structure set: levels, contours that are the region again, notes and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from ctenrich.cli.main import app
from ctenrich.contours.raster import grid_of, rasterise
from ctenrich.contours.rtstruct import load_contours
from ctenrich.dose import isodoses as module
from ctenrich.dose.isodoses import parse_levels, write_isodoses
from ctenrich.dose.reader import read_dose
from ctenrich.errors import InputError, UsageError
from ctenrich.reasons import Reason
from ctenrich.settings import Settings
from ctenrich.validate import validate_objects
from tests.support.dose_cases import DoseCase

PLACE = {"ImagePositionPatient": [-140, -101, -313]}
"""1 Gy per mm along x from -140 mm; the dose grid ends at -94 mm, within the images."""


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> DoseCase:
    made = DoseCase(tmp_path_factory.mktemp("isodoses"))
    made.give_dose(**PLACE)
    return made


def test_levels() -> None:
    assert parse_levels(["50Gy,20", "95%"], 60.0) == (20.0, 50.0, 57.0)
    assert parse_levels(["20", "20Gy"], None) == (20.0,)
    for wrong in ("", "-1", "much", "nan", "0"):
        with pytest.raises(UsageError, match="is no dose"):
            parse_levels([wrong], None)
    with pytest.raises(UsageError, match="not known"):
        parse_levels(["95%"], None)


def test_regions_are_those_of_the_dose(case: DoseCase, tmp_path: Path) -> None:
    path = tmp_path / "isodoses.dcm"
    written = write_isodoses(read_dose(case.folder / "rd.dcm"), case.series, (25.0, 40.0), path)
    assert [issue for issue in validate_objects([path], settings=Settings()) if issue.severity == "error"] == []
    x = -120.25 + 0.7 * np.arange(48)
    rois = load_contours(path).rois
    assert [roi.name for roi in rois] == ["Isodose 25 Gy", "Isodose 40 Gy"]
    for roi, level in zip(rois, (25.0, 40.0), strict=True):
        mask = rasterise(roi.contours, grid_of(case.series)).mask
        assert np.array_equal(mask[5, 20], (x >= level - 140) & (x <= -94))
    ds = pydicom.dcmread(path)
    assert [item.RTROIInterpretedType for item in ds.RTROIObservationsSequence] == ["DOSE_REGION"] * 2
    assert ds.FrameOfReferenceUID == case.series.frame_of_reference_uid
    assert "ends at the border of the dose grid" in written.notes[0]
    before = path.read_bytes()
    write_isodoses(read_dose(case.folder / "rd.dcm"), case.series, (25.0, 40.0), path)
    assert path.read_bytes() == before


def test_a_segmentation_has_the_same_regions(case: DoseCase, tmp_path: Path) -> None:
    path = tmp_path / "isodoses.dcm"
    dose = read_dose(case.give_dose(**PLACE))
    written = write_isodoses(dose, case.series, (25.0, 40.0), path, form="seg")
    contours = write_isodoses(dose, case.series, (25.0, 40.0), tmp_path / "contours.dcm")
    assert written.volumes == contours.volumes
    assert written.notes == contours.notes
    assert [issue for issue in validate_objects([path], settings=Settings()) if issue.severity == "error"] == []
    seg = highdicom.seg.segread(path)
    x = -120.25 + 0.7 * np.arange(48)
    uids = list(case.series.sop_instance_uids)
    for number, level in ((1, 25.0), (2, 40.0)):
        item = seg.get_segment_description(number)
        assert (item.segment_label, item.segmented_property_type.value) == (f"Isodose {level:g} Gy", "130747")
        mask = seg.get_pixels_by_source_instance(uids, [number], assert_missing_frames_are_empty=True)[..., 0]
        assert np.array_equal(mask[5, 20] > 0, (x >= level - 140) & (x <= -94)), "read by highdicom"
    assert seg.FrameOfReferenceUID == case.series.frame_of_reference_uid
    before = path.read_bytes()
    write_isodoses(dose, case.series, (25.0, 40.0), path, form="seg")
    assert path.read_bytes() == before


@pytest.mark.parametrize("turn", [np.flip, lambda masks: np.roll(masks, 1, axis=2), lambda masks: masks[..., ::-1]])
def test_a_segmentation_of_other_voxels_is_not_kept(
    case: DoseCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turn: Callable[[np.ndarray], np.ndarray]
) -> None:
    dose = read_dose(case.give_dose(**PLACE))
    build = module.isodose_segmentation
    monkeypatch.setattr(module, "isodose_segmentation", lambda masks, *given: build(turn(masks), *given))
    with pytest.raises(InputError) as caught:
        write_isodoses(dose, case.series, (25.0, 40.0), tmp_path / "isodoses.dcm", form="seg")
    assert caught.value.reason is Reason.PROOF_FAILED
    assert not (tmp_path / "isodoses.dcm").exists()


def test_what_is_refused_leaves_no_file(case: DoseCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "isodoses.dcm"
    with pytest.raises(UsageError, match=r"the maximum of the dose is 46\.00 Gy"):
        write_isodoses(read_dose(case.folder / "rd.dcm"), case.series, (50.0,), path)
    other = case.give_dose(FrameOfReferenceUID="2.25.7")
    with pytest.raises(InputError, match="another frame of reference"):
        write_isodoses(read_dose(other), case.series, (20.0,), path)
    relative = case.give_dose(DoseUnits="RELATIVE")
    with pytest.raises(InputError, match="not in Gy"):
        write_isodoses(read_dose(relative), case.series, (20.0,), path)
    dose = read_dose(case.give_dose(**PLACE))
    monkeypatch.setattr(module, "trace_mask", lambda mask: [])
    with pytest.raises(InputError, match="drawn again"):
        write_isodoses(dose, case.series, (20.0,), path)
    assert not path.exists()


def test_command(case: DoseCase, tmp_path: Path) -> None:
    out = tmp_path / "isodoses.dcm"
    arguments = ["dose", "isodoses", str(case.folder / "rd.dcm"), "--ct", str(case.folder / "ct"), "--out", str(out)]
    found = CliRunner().invoke(app, [*arguments, "--level", "50%", "--prescribed", "40"])
    assert found.exit_code == 0, found.output
    assert found.stdout.startswith("20 Gy: ")
    assert "border of the dose grid" in found.stderr
    assert pydicom.dcmread(out).Modality == "RTSTRUCT"
    found = CliRunner().invoke(app, [*arguments, "--level", "20", "--format", "seg"])
    assert found.exit_code == 0, found.output
    assert pydicom.dcmread(out).Modality == "SEG"
    assert CliRunner().invoke(app, [*arguments, "--level", "50%"]).exit_code == 2
