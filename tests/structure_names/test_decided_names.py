"""Decisions of people on names: applied when treatments are made, taken over into the table of names."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pydicom
import pytest
from tests.support.cohorts import TINY, write_series
from tests.support.treatment_cases import Patient, make
from typer.testing import CliRunner

from ctenrich import steps
from ctenrich.cli.main import app
from ctenrich.runner.executors import ExecutorName
from ctenrich.structure_names.table import name_rows
from ctenrich.treatments.consort import count_decisions
from ctenrich.treatments.decisions import DecisionKind, add_decision, read_decisions
from ctenrich.treatments.files import read_treatments, write_treatments
from ctenrich.treatments.rules import TreatmentRules


def decide(path: Path, value: str, *more: str) -> tuple[int, str]:
    arguments = ["treatments", "decide", str(path), "name", value, "--why", "looked at the contours", *more]
    found = CliRunner().invoke(app, arguments)
    return found.exit_code, found.output


def test_a_name_that_a_person_decided_on(tmp_path: Path) -> None:
    for number, names in enumerate((("Long L", "Hart"), ("Long L", "roi 7")), start=1):
        patient = Patient(tmp_path / "in", f"P{number}", str(number))
        patient.ct()
        patient.dose(patient.plan(structures=patient.structures(names)))
    path = tmp_path / "t.parquet"
    table = tmp_path / "t.decisions.csv"
    code, text = decide(path, "Long L=Lung_Left")
    assert (code, "'Lung_Left' is no name of TG-263" in text, table.exists()) == (2, True, False)
    assert decide(path, "Long L=Lung_L", "--user", "anna")[0] == 0
    assert decide(path, "roi 7=Heart", "--patient", "P2", "--user", "ben")[0] == 0
    assert decide(path, "not there=Heart", "--user", "ben")[0] == 0
    assert decide(path, "Hart=SpinalCord", "--patient", "P2", "--user", "ben")[0] == 0

    write_treatments(make(tmp_path / "in", decisions=read_decisions(table)), path)
    treatments = read_treatments(path)
    names = {(one.patient_id, roi.name): roi.standard_name for one in treatments
             for structure_set in one.structure_sets for roi in structure_set.rois}  # fmt: skip
    assert names == {
        ("P1", "Long L"): "Lung_L",
        ("P1", "Hart"): "",
        ("P2", "Long L"): "Lung_L",
        ("P2", "roi 7"): "Heart",
    }
    notes = {one.patient_id: [note for note in one.notes if note.startswith("decision")] for one in treatments}
    everyone = "decision 1 of anna, name 'Long L' is Lung_L: looked at the contours"
    assert notes == {
        "P1": [everyone],
        "P2": [everyone, "decision 2 of ben, name 'roi 7' is Heart: looked at the contours"],
    }
    assert {issue.message for issue in treatments[0].series.notes} >= {everyone}, "the report of a run shows it"
    assert {row.name: row.accept for row in name_rows(treatments)} == {"Long L": "Lung_L", "Hart": "", "roi 7": "Heart"}
    assert count_decisions(path) == {"name": 2}, "two of the four concern no ROI that is there"
    flow = CliRunner().invoke(app, ["treatments", "consort", str(path)])
    assert (flow.exit_code, "Decisions of people: 2 name" in flow.output) == (0, True)


def test_decisions_for_one_patient_only_are_not_taken_for_all(tmp_path: Path) -> None:
    for number in (1, 2):
        patient = Patient(tmp_path / "in", f"P{number}", str(number))
        patient.ct()
        patient.dose(patient.plan(structures=patient.structures(("Lung tumour side",))))
    table = tmp_path / "d.csv"
    add_decision(table, DecisionKind.NAME, "Lung tumour side=Lung_R", "on the right", patient_id="P1")
    (row,) = name_rows(make(tmp_path / "in", decisions=read_decisions(table)).treatments)
    assert row.accept == ""
    assert "decisions differ between the ROIs of this name (undecided: 1, Lung_R: 1)" in row.warning
    add_decision(table, DecisionKind.NAME, "Lung tumour side=Lung_L", "for all others")
    treatments = make(tmp_path / "in", decisions=read_decisions(table)).treatments
    assert [one.structure_sets[0].rois[0].standard_name for one in treatments] == ["Lung_R", "Lung_L"]
    add_decision(table, DecisionKind.UNDO, "1", "wrong side")
    (row,) = name_rows(make(tmp_path / "in", decisions=read_decisions(table)).treatments)
    assert (row.accept, row.warning) == ("Lung_L", "")


def rois_of_run(run: Path) -> dict[tuple[str, str], tuple[str | None, str | None]]:
    """(Patient ID, ROI name) -> segment and standard name."""
    rows = pq.read_table(run / "tables" / "rois.parquet").to_pylist()
    return {(row["PatientID"], row["roi_name"]): (row["segment"], row["standard_name"]) for row in rows}


@pytest.mark.long
def test_a_decision_for_one_patient_reaches_the_objects_and_tables_of_a_run(tmp_path: Path) -> None:
    write_series(tmp_path / "in", 2, options=TINY.changed(rtstruct=True))
    for file in (tmp_path / "in").rglob("RS*.dcm"):
        dataset = pydicom.dcmread(file)
        for roi in dataset.StructureSetROISequence:
            roi.ROIName = {"Trachea": "roi 7", "Aorta": "roi 8"}.get(roi.ROIName, roi.ROIName)
        dataset.save_as(file)
    path, table = tmp_path / "t.parquet", tmp_path / "t.decisions.csv"
    first, second = "PHANTOM-100", "PHANTOM-101"
    add_decision(table, DecisionKind.NAME, "roi 7=Trachea", "seen on the CT", patient_id=first)
    add_decision(table, DecisionKind.NAME, "roi 8=V_Azygos", "seen on the CT", patient_id=first)
    rules = TreatmentRules(require=("structures",))

    def run(out: str) -> Path:
        write_treatments(make(tmp_path / "in", rules=rules, decisions=read_decisions(table)), path)
        made = steps.start(path, tmp_path / out, segmenters=["expert"])
        assert steps.run_all(made, executor=ExecutorName.SERIAL).exit_code == 0
        return tmp_path / out

    found = rois_of_run(run("run"))
    assert found[first, "roi 7"] == ("trachea", "Trachea")
    assert found[first, "roi 8"] == ("V_Azygos", "V_Azygos")
    assert (found[second, "roi 7"], found[second, "roi 8"]) == ((None, None), (None, None))
    segs = {str(one.PatientID): one for one in map(pydicom.dcmread, (tmp_path / "run").rglob("seg.dcm"))}
    items = {one.SegmentDescription: one.SegmentedPropertyTypeCodeSequence[0].CodeMeaning
             for one in segs[first].SegmentSequence}  # fmt: skip
    assert (items["roi 7"], items["roi 8"]) == ("Trachea", "Azygos vein"), "objects keep the original name"
    assert not {"roi 7", "roi 8"} & {one.SegmentDescription for one in segs[second].SegmentSequence}

    add_decision(table, DecisionKind.UNDO, "1", "it is the oesophagus")
    again = rois_of_run(run("run"))
    assert again[first, "roi 7"] == (None, None)
    assert again[first, "roi 8"] == ("V_Azygos", "V_Azygos")
