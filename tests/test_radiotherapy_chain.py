"""Three real patients from files of hospitals to a node: each command of the how-to page, in its order."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.uid import CTImageStorage, SegmentationStorage
from typer.testing import CliRunner

from ctenrich.cli.main import app
from ctenrich.codes.mappings import use_mappings
from ctenrich.dicom.quiet import quiet
from tests.publish.test_sources import EVERYTHING, PLAIN, node

pytest.importorskip("pynetdicom")
NAMES = {
    "LUNG1-002": {"GTV1", "CTV1", "PTV1", "Esophagus", "Heart", "Lung_L", "Lung_R", "SpinalCord"},
    "LUNG1-005": {"GTV1", "Esophagus", "Heart", "Lung_L", "Lung_R", "SpinalCord"},
}


def call(*arguments: object, code: int = 0) -> str:
    found = CliRunner().invoke(app, [str(one) for one in arguments])
    assert found.exit_code == code, found.output
    return found.output


def headers(folder: Path) -> list[pydicom.Dataset]:
    with quiet():
        return [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.rglob("*.dcm"))]


@pytest.fixture(autouse=True)
def package_mappings() -> Iterator[None]:
    """The run uses mappings of its own; they hold for the process."""
    yield
    use_mappings("")


@pytest.mark.long
@pytest.mark.data
def test_from_files_of_hospitals_to_a_node(
    real_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LUNG1-002-RT", "LUNG1-005"):
        shutil.copytree(real_data(name), tmp_path / "rt" / name)
    shutil.copytree(next(real_data("ref_objects").rglob("dicompyler_rt")), tmp_path / "rt" / "dicompyler")

    call("index", "rt", "--catalog", "catalog.duckdb")
    Path("ids.csv").write_text(
        "PatientID,site\nLUNG1-002,Maastricht\n LUNG1-005 ,Maastricht\n123456,Elsewhere\n0042,\n"
    )
    Path("rt.toml").write_text('require = ["structures"]\n')
    options = ("--registry", "ids.csv", "--rules", "rt.toml", "--out", "treatments.parquet")
    made = call("treatments", "make", "catalog.duckdb", *options)
    assert "2 treatments, 2 excluded" in made
    excluded = {row["patient_id"]: row["reason"] for row in pq.read_table("treatments.excluded.parquet").to_pylist()}
    assert excluded == {"123456": "ONE_SLICE", "0042": "PATIENT_NOT_FOUND"}
    assert "frame_of_reference_and_study" in call("treatments", "links", "catalog.duckdb")
    assert "Maastricht" in call("treatments", "consort", "treatments.parquet", "--by", "site")

    call("names", "propose", "treatments.parquet", "--out", "names.csv")
    with Path("names.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    for row in rows:  # a person would look at each of them
        row["accept"] = "=" if row["proposal_1"] and row["name"] != "Patient" else "-"
    with Path("names.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert "11 accepted, 8 refused, 0 not decided; 0 errors" in call("names", "check", "names.csv")
    call("names", "apply", "names.csv", "--out", "mappings")

    call("run", "treatments.parquet", "--out", "run", "--segmenter", "expert", "--mappings", "mappings")
    organs = pq.read_table("run/tables/organs.parquet").to_pylist()
    assert {
        patient: {row["standard_name"] for row in organs if row["PatientID"] == patient} for patient in NAMES
    } == NAMES
    sides = {(row["PatientID"], row["organ"]): row["relative_side"] for row in organs if row["relative_side"]}
    assert sides == {
        (patient, organ): side
        for patient in NAMES
        for organ, side in (("lung_left", "contralateral"), ("lung_right", "ipsilateral"))
    }

    call("export", "run", "rtstruct", "--out", "structure-sets")
    written = {str(one.PatientID): {item.ROIName for item in one.StructureSetROISequence}
               for one in headers(tmp_path / "structure-sets")}  # fmt: skip
    assert written == NAMES

    shutil.copytree("structure-sets", "rt/structure-sets")
    call("pseudonymise", "rt", "shared", "--key-file", "key", "--create-key")
    copies = headers(tmp_path / "shared")
    assert not {str(one.PatientID) for one in copies} & {"LUNG1-002", "LUNG1-005", "123456"}
    images = {str(one.SOPInstanceUID) for one in copies if one.Modality == "CT"}
    ours = [one for one in copies if one.Modality == "RTSTRUCT" and str(one.Manufacturer) == "ctenrich"]
    assert len(ours) == 2
    for one in ours:
        contours = [contour for roi in one.ROIContourSequence for contour in roi.get("ContourSequence", ())]
        referenced = {str(c.ContourImageSequence[0].ReferencedSOPInstanceUID) for c in contours}
        assert referenced
        assert referenced <= images

    unlucky = next(str(one.SOPInstanceUID) for one in copies if one.Modality == "RTPLAN")
    with node({**EVERYTHING, SegmentationStorage: PLAIN, CTImageStorage: PLAIN}) as receiver:
        receiver.answer = lambda uid: 0xA700 if uid == unlucky else 0
        assert "OBJECT_REFUSED" in call("publish", "shared", receiver.url, code=1)
        assert set(receiver.got) == {str(one.SOPInstanceUID) for one in copies} - {unlucky}
        receiver.answer = lambda _: 0
        receiver.got.clear()
        assert "1 of them sent now" in call("publish", "shared", receiver.url)
        assert list(receiver.got) == [unlucky]
