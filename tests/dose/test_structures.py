"""Dose metrics of an RT Structure Set: holes, contours that are not drawn, and doses of parts of a plan."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from ctenrich.cli.main import app
from ctenrich.contours.raster import grid_of
from ctenrich.contours.rtstruct import load_contours
from ctenrich.dose.metrics import parse_metric
from ctenrich.dose.reader import read_dose
from ctenrich.dose.structures import DoseOptions, StructureDose, structure_doses
from ctenrich.reasons import Reason
from tests.support.contours import make_series, to_mm, write_rtstruct
from tests.support.doses import write_dose

SERIES = make_series()
SQUARE = [(8, 8), (24, 8), (24, 24), (8, 24)]
OPTIONS = DoseOptions(metrics=tuple(parse_metric(name) for name in ("volume", "mean")))
Contours = list[tuple[str, np.ndarray]]


def planes(*ks: int) -> Contours:
    return [("CLOSED_PLANAR", to_mm(SERIES, k, SQUARE)) for k in ks]


def measured(
    folder: Path, contours: Contours, dose: Path, *, images: bool = True, options: DoseOptions = OPTIONS
) -> StructureDose:
    structures = load_contours(write_rtstruct(folder / "rs.dcm", SERIES, [("ROI", contours)]))
    (found,) = structure_doses(structures, read_dose(dose), options, grid=grid_of(SERIES) if images else None)
    return found


def flat_dose(folder: Path, **attributes: object) -> Path:
    """12 Gy everywhere on the images and around them."""
    place: dict[str, object] = {"ImagePositionPatient": [-25, -35, -106]}
    return write_dose(folder / "rd.dcm", np.full((9, 40, 40), 12000, np.uint16), **place | attributes)


# ---------------------------------------------------------------- holes


def radial_dose(folder: Path) -> Path:
    """2 Gy per mm from the z axis."""
    places = np.arange(-15.0, 16.0)
    radius = np.hypot(places[None, :], places[:, None])
    stored = np.broadcast_to(np.round(2000 * radius).astype(np.uint16), (9, 31, 31)).copy()
    return write_dose(folder / "rd.dcm", stored, ImagePositionPatient=[-15, -15, -106], PixelSpacing=[1, 1])


def ring(kind: str, z: float) -> Contours:
    """Between the radii 5 and 10 mm."""
    angle = np.linspace(0, 2 * np.pi, 181)
    outer, inner = (
        np.stack([r * np.cos(angle), r * np.sin(angle), np.full(angle.size, z)], axis=1) for r in (10.0, 5.0)
    )
    if kind == "keyhole":
        return [("CLOSED_PLANAR", np.concatenate([outer, inner[::-1]]))]
    if kind == "CLOSEDPLANAR_XOR":
        return [(kind, outer[:-1]), (kind, inner[:-1])]
    return [("CLOSED_PLANAR", outer[:-1]), ("CLOSED_PLANAR", inner[-1:0:-1])]


@pytest.mark.filterwarnings("ignore:The value length:UserWarning")
@pytest.mark.parametrize("images", [True, False])
@pytest.mark.parametrize("kind", ["nested", "keyhole", "CLOSEDPLANAR_XOR"])
def test_the_dose_in_a_hole_is_not_that_of_the_structure(tmp_path: Path, kind: str, images: bool) -> None:
    """The mean of 2 r over the ring is 140/9 Gy; over the whole disc it would be 120/9 Gy."""
    contours = [one for k in (1, 2, 3) for one in ring(kind, -100 + 3.0 * k)]
    found = measured(tmp_path, contours, radial_dose(tmp_path), images=images)
    volume, mean = found.values
    assert volume.value == pytest.approx(np.pi * 75 * 9 / 1000, rel=0.01)
    assert mean.value == pytest.approx(140 / 9, abs=0.1)
    assert found.second == (pytest.approx(volume.value, rel=0.02), pytest.approx(140 / 9, abs=0.2))


# ---------------------------------------------------------------- contours that are not drawn


def off_the_slices() -> Contours:
    return [("CLOSED_PLANAR", to_mm(SERIES, 2, SQUARE) + np.array([0, 0, 30]))]


def tilted() -> Contours:
    points = to_mm(SERIES, 2, SQUARE)
    return [("CLOSED_PLANAR", points + np.outer([0, 0, 1, 1], [0, 0, 9]))]


def beyond_the_image() -> Contours:
    return [("CLOSED_PLANAR", to_mm(SERIES, 2, [(8, 8), (70, 8), (70, 24), (8, 24)]))]


@pytest.mark.parametrize("further", [off_the_slices, tilted, beyond_the_image])
def test_the_rest_of_a_structure_is_not_measured_as_the_whole(tmp_path: Path, further: object) -> None:
    assert callable(further)
    found = measured(tmp_path, [*planes(1, 3), *further()], flat_dose(tmp_path))
    assert found.reason is Reason.CONTOURS_OFF_SLICES
    assert {one.reason for one in found.values} == {Reason.CONTOURS_OFF_SLICES}
    assert {one.value for one in found.values} == {None}


@pytest.mark.parametrize("damage", ["count", "type"])
def test_an_unreadable_contour_is_not_left_out(tmp_path: Path, damage: str) -> None:
    path = write_rtstruct(tmp_path / "rs.dcm", SERIES, [("ROI", planes(1, 2, 3))])
    data = pydicom.dcmread(path)
    contour = data.ROIContourSequence[0].ContourSequence[1]
    if damage == "count":
        contour.ContourData = contour.ContourData[:-1]
    else:
        del contour.ContourGeometricType
    data.save_as(path)
    (found,) = structure_doses(load_contours(path), read_dose(flat_dose(tmp_path)), OPTIONS, grid=grid_of(SERIES))
    assert found.reason is Reason.DECODE_ERROR
    assert {one.value for one in found.values} == {None}


def test_the_reason_is_printed_with_its_cause(tmp_path: Path) -> None:
    structures = write_rtstruct(tmp_path / "rs.dcm", SERIES, [("Box", planes(1, 2, 3)), ("Empty", [])])
    found = dvh("--structures", structures, "--dose", flat_dose(tmp_path))
    assert "no metrics: Empty: EMPTY_STRUCTURE: the ROI has no closed contours" in found.stderr
    assert "no metrics: Box" not in found.stderr


# ---------------------------------------------------------------- where the dose is


@pytest.mark.parametrize(
    ("origin", "coverage"),
    [
        ((-25, -35, -106), 1.0),
        ((-25, -35, -97), 5.5 / 6),  # it begins at the middle of the first of three slices
        ((0, -35, -106), 0.5),  # and in the middle of the box from -10 to 10 mm
        ((300, -35, -106), 0.0),
    ],
)
def test_a_dose_over_a_part_of_the_images(tmp_path: Path, origin: Sequence[float], coverage: float) -> None:
    found = measured(tmp_path, planes(1, 2, 3), flat_dose(tmp_path, ImagePositionPatient=list(origin)))
    volume, mean = found.values
    assert volume.value == pytest.approx(20 * 24 * 9 / 1000, rel=0.01)
    if coverage == 1:
        assert (found.coverage, mean.value) == (1.0, pytest.approx(12.0))
    else:
        assert found.coverage == pytest.approx(coverage, abs=0.09)
        assert found.coverage < 1
        assert (mean.value, mean.reason) == (None, Reason.DOSE_INCOMPLETE)


def test_a_dose_in_another_frame_of_reference_of_one_study(tmp_path: Path) -> None:
    structures = write_rtstruct(tmp_path / "rs.dcm", SERIES, [("Box", planes(1, 2, 3))])
    other = flat_dose(tmp_path, FrameOfReferenceUID="2.25.99", StudyInstanceUID=SERIES.study_instance_uid)
    found = dvh("--structures", structures, "--dose", other)
    assert found.exit_code == 1
    assert "DOSE_OTHER_FRAME" in found.stderr


# ---------------------------------------------------------------- what the dose is


def dvh(*arguments: object):  # type: ignore[no-untyped-def]
    return CliRunner().invoke(app, ["dose", "dvh", *map(str, arguments)])


@pytest.mark.parametrize("kind", ["BRACHY", "BRACHY_SESSION", "CONTROL_POINT"])
def test_doses_out_of_scope(tmp_path: Path, kind: str) -> None:
    structures = write_rtstruct(tmp_path / "rs.dcm", SERIES, [("Box", planes(1, 2, 3))])
    found = dvh("--structures", structures, "--dose", flat_dose(tmp_path, DoseSummationType=kind))
    assert found.exit_code == 1
    assert "DOSE_SUMMATION" in found.stderr


@pytest.mark.parametrize("kind", ["BEAM", "FRACTION", "RECORD", "PLAN", "MULTI_PLAN"])
def test_the_dose_of_a_part_is_stated_as_such(tmp_path: Path, kind: str) -> None:
    """2 Gy of one fraction must not be taken for the 60 Gy of a plan."""
    structures = write_rtstruct(tmp_path / "rs.dcm", SERIES, [("Box", planes(1, 2, 3))])
    dose = flat_dose(tmp_path, DoseSummationType=kind)
    found = dvh("--structures", structures, "--dose", dose, "--format", "csv", "--no-bounds")
    rows = list(csv.DictReader(io.StringIO(found.stdout)))
    assert {row["dose_summation"] for row in rows} == {kind}
    assert ("not of the plan" in found.stderr.replace("\n", " ")) == (kind not in {"PLAN", "MULTI_PLAN"})
