"""``ctenrich dose dvh``: formats, choice of ROIs and metrics, and wrong requests."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.dataset import Dataset
from typer.testing import CliRunner, Result

from ctenrich.cli.main import app
from ctenrich.contours.raster import grid_of
from ctenrich.contours.rtstruct import load_contours
from ctenrich.dose.reader import read_dose
from ctenrich.dose.structures import DoseOptions, structure_doses
from ctenrich.dose.table import CURVE_COLUMNS, METRIC_COLUMNS
from ctenrich.reasons import Reason
from tests.support.contours import make_series, to_mm, write_rtstruct
from tests.support.doses import write_dose


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A box of 20 x 24 x 9 mm in a dose of 12 Gy."""
    folder = tmp_path_factory.mktemp("dose")
    series = make_series()
    box = [("CLOSED_PLANAR", to_mm(series, k, [(8, 8), (24, 8), (24, 24), (8, 24)])) for k in (1, 2, 3)]
    far = [("CLOSED_PLANAR", to_mm(series, k, [(8, 8), (60, 8), (60, 24), (8, 24)])) for k in (1, 2, 3)]
    structures = write_rtstruct(folder / "rs.dcm", series, [("Box", box), ("Wide", far), ("Empty", [])])
    stored = np.full((6, 30, 25), 12000, np.uint16)
    return structures, write_dose(folder / "rd.dcm", stored)


STEPS = ("step_slice_mm", "step_row_mm", "step_column_mm")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["dose", "dvh", *map(str, arguments)])


def test_csv(files: tuple[Path, Path]) -> None:
    found = run("--structures", files[0], "--dose", files[1], "--format", "csv")
    assert found.exit_code == 0, found.stderr
    rows = list(csv.DictReader(io.StringIO(found.stdout)))
    assert list(rows[0]) == list(METRIC_COLUMNS)
    values = {(row["structure"], row["metric"]): row for row in rows}
    assert float(values["Box", "Mean[Gy]"]["value"]) == pytest.approx(12.0)
    assert float(values["Box", "V5Gy[%]"]["value"]) == 100.0
    assert float(values["Box", "Volume[cc]"]["value"]) == pytest.approx(4.32, rel=0.01)
    assert float(values["Box", "Mean[Gy]"]["second_value"]) == pytest.approx(12.0)
    # the sampling is beside every value: 95 or 63 % of a V_x may be a matter of it
    assert all(0 < float(row[step]) <= 1 for row in rows if row["structure"] == "Box" for step in STEPS)
    assert {int(row["samples"]) >= 10_000 for row in rows if row["structure"] == "Box"} == {True}
    # outside the dose grid there is no dose: never a zero
    assert values["Wide", "Mean[Gy]"]["value"] == ""
    assert values["Wide", "Mean[Gy]"]["reason"] == "DOSE_INCOMPLETE"
    assert 0.5 < float(values["Wide", "Mean[Gy]"]["coverage"]) < 0.9
    assert float(values["Wide", "Max[Gy]"]["lower"]) == pytest.approx(12.0)
    assert values["Empty", "Mean[Gy]"]["reason"] == "EMPTY_STRUCTURE"
    assert "of the structure" in found.stderr


def test_json_of_chosen_metrics(files: tuple[Path, Path]) -> None:
    arguments = ("--structures", files[0], "--dose", files[1], "--format", "json", "--roi", "box")
    found = run(*arguments, "--metric", "D50%", "--metric", "V13Gy[cc]", "--no-bounds")
    rows = json.loads(found.stdout)
    assert [(row["metric"], row["value"]) for row in rows] == [("D50%[Gy]", 12.0), ("V13Gy[cc]", 0.0)]
    assert rows[0]["lower"] is None
    assert rows[0]["second_value"] is None


def test_parquet_and_curves(files: tuple[Path, Path], tmp_path: Path) -> None:
    out, curves = tmp_path / "m.parquet", tmp_path / "c.parquet"
    found = run("--structures", files[0], "--dose", files[1], "--format", "parquet", "--out", out, "--curves", curves)
    assert found.exit_code == 0, found.stderr
    table = pq.read_table(out)
    assert table.schema.names == list(METRIC_COLUMNS)
    assert b"NULL" in table.schema.field("value").metadata[b"description"]
    curve = pq.read_table(curves).to_pylist()
    assert list(curve[0]) == list(CURVE_COLUMNS)
    assert {row["structure"] for row in curve} == {"Box"}
    assert curve[0]["volume_share"] == 1.0
    assert curve[-1]["volume_share"] == 0.0


def test_table(files: tuple[Path, Path]) -> None:
    found = run("--structures", files[0], "--dose", files[1])
    assert found.exit_code == 0
    assert "research only" in found.stdout
    assert "DOSE_INCOMPLETE" in found.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "parquet"), "--out"),
        (("--roi", "Lung"), "no ROI has such a name"),
        (("--metric", "D95"), "no dose metric"),
    ],
)
def test_wrong_requests(files: tuple[Path, Path], arguments: tuple[str, ...], message: str) -> None:
    found = run("--structures", files[0], "--dose", files[1], *arguments)
    assert found.exit_code == 2
    assert message in found.stderr


def test_another_frame_of_reference_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    other = write_dose(tmp_path / "o.dcm", np.full((6, 30, 25), 9, np.uint16), FrameOfReferenceUID="2.25.99")
    found = run("--structures", files[0], "--dose", other)
    assert found.exit_code == 1
    assert "DOSE_OTHER_FRAME" in found.stderr


def test_a_relative_dose_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    other = write_dose(tmp_path / "o.dcm", np.full((6, 30, 25), 9, np.uint16), DoseUnits="RELATIVE")
    found = run("--structures", files[0], "--dose", other)
    assert found.exit_code == 1
    assert "DOSE_UNITS" in found.stderr


def vendor_dvh(number: int, dose: float, volume: float, mean: float | None = None) -> Dataset:
    """The DVH of a structure with one dose, cumulative in bins of 0.1 Gy; its stated mean is `dose` by default."""
    out, roi = Dataset(), Dataset()
    roi.ReferencedROINumber, roi.DVHROIContributionType = number, "INCLUDED"
    out.DVHReferencedROISequence = [roi]
    out.DVHType, out.DoseUnits, out.DoseType, out.DVHVolumeUnits = "CUMULATIVE", "GY", "PHYSICAL", "CM3"
    out.DVHDoseScaling, out.DVHNumberOfBins = 1, round(10 * dose)
    out.DVHData = [value for _ in range(round(10 * dose)) for value in (0.1, volume)]
    out.DVHMeanDose = dose if mean is None else mean
    return out


@pytest.mark.parametrize(
    ("dvh", "shown", "message"),
    [
        (vendor_dvh(1, 12.1, 4.3), (12.1, 4.3), ""),
        (vendor_dvh(1, 24.0, 4.3), None, "its mean is 24.00 Gy and that of the dose 12."),
        (vendor_dvh(1, 12.0, 9.0), None, "its volume is 9.00 cm3 and that of the contours 4.3"),
        (vendor_dvh(1, 12.0, 4.3, mean=85.7), None, "not those of their curves"),
        (vendor_dvh(2, 12.0, 4.3), None, ""),  # the dose does not cover this structure: nothing to compare with
    ],
)
def test_a_vendors_dvh_is_shown_only_if_it_is_that_of_the_dose(
    files: tuple[Path, Path], tmp_path: Path, dvh: Dataset, shown: tuple[float, float] | None, message: str
) -> None:
    dose = write_dose(tmp_path / "rd.dcm", np.full((6, 30, 25), 12000, np.uint16), DVHSequence=[dvh])
    found = run("--structures", files[0], "--dose", dose, "--format", "json", "--no-bounds")
    stated = {(row["structure"], row["metric"]): row["vendor_value"] for row in json.loads(found.stdout)}
    of_box = (stated["Box", "Mean[Gy]"], stated["Box", "Volume[cc]"])
    assert of_box == (shown or (None, None))
    assert [value for (name, _), value in stated.items() if name != "Box" and value is not None] == []
    assert message in found.stderr.replace("\n", " ")
    assert ("not used" in found.stderr) == bool(message)


@pytest.mark.filterwarnings("ignore:The value length:UserWarning")
@pytest.mark.parametrize(
    ("kind", "words"),
    [("POINT", "points"), ("OPEN_PLANAR", "open lines"), ("INTERPOLATED_PLANAR", "no closed contours")],
)
def test_contours_of_other_types_are_no_structure(tmp_path: Path, kind: str, words: str) -> None:
    series = make_series()
    square = [(kind, to_mm(series, k, [(8, 8), (24, 8), (24, 24), (8, 24)])) for k in (1, 2, 3)]
    structures = load_contours(write_rtstruct(tmp_path / "rs.dcm", series, [("Other", square)]))
    dose = read_dose(write_dose(tmp_path / "rd.dcm", np.full((6, 30, 25), 12000, np.uint16)))
    (found,) = structure_doses(structures, dose, DoseOptions(bounds=False, second=False))
    assert found.reason is Reason.EMPTY_STRUCTURE
    assert words in found.message
    assert all(one.value is None for one in found.values)


@pytest.mark.parametrize("planes", [(0, 1, 2), (2, 3, 4), (0, 1, 2, 3, 4)])
def test_contours_on_the_first_and_last_slice_have_whole_slices(tmp_path: Path, planes: tuple[int, ...]) -> None:
    series = make_series()
    box = [("CLOSED_PLANAR", to_mm(series, k, [(8, 8), (24, 8), (24, 24), (8, 24)])) for k in planes]
    structures = load_contours(write_rtstruct(tmp_path / "rs.dcm", series, [("Box", box)]))
    dose = read_dose(
        write_dose(tmp_path / "rd.dcm", np.full((9, 30, 25), 12000, np.uint16), ImagePositionPatient=[-20, -30, -106])
    )
    options = DoseOptions(bounds=False, second=False)
    for grid in (None, grid_of(series)):
        (found,) = structure_doses(structures, dose, options, grid=grid)
        assert found.coverage == 1.0
        assert found.values[0].value == pytest.approx(20 * 24 * 3 * len(planes) / 1000, rel=0.01)


def test_an_interpreted_type_changes_no_number(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Types are changed to steer optimisers: LUNG1-002 has its targets as ORGAN, and others a breast as GTV."""
    found = []
    for kind in ("ORGAN", "GTV", "EXTERNAL", "NONSENSE"):
        data = pydicom.dcmread(files[0])
        observation = Dataset()
        observation.ObservationNumber = observation.ReferencedROINumber = 1
        observation.RTROIInterpretedType, observation.ROIInterpreter = kind, ""
        data.RTROIObservationsSequence = [observation]
        data.save_as(tmp_path / "rs.dcm")
        found.append(
            run("--structures", tmp_path / "rs.dcm", "--dose", files[1], "--format", "csv", "--no-bounds").stdout
        )
    assert "Box" in found[0]
    assert len(set(found)) == 1
