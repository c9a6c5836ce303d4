"""Flows tried on a catalog decide as they do on the files, and as a listener did."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from tests.listener.test_case_flows import CT, FlowDesk, other_series
from tests.support.flows import flow_of
from tests.support.listeners import study_files
from typer.testing import CliRunner

from ctenrich.catalog import open_catalog
from ctenrich.catalog.folder import index_folders
from ctenrich.cli.main import app
from ctenrich.dicom.quiet import quiet
from ctenrich.dicom.texts import read_texts
from ctenrich.errors import UsageError
from ctenrich.flows.catalog_files import studies_of
from ctenrich.flows.expected import ModalityFile
from ctenrich.flows.records import Flow
from ctenrich.flows.trial import FlowTrial, decide, try_flows
from ctenrich.flows.triggers import attributes_of
from ctenrich.listener.catalog import StationCatalog
from ctenrich.listener.flow_rows import FlowState, flow_rows

STUDIES: list[list[dict[str, object]]] = [
    [
        {"Modality": "CT", "SeriesDescription": "Chest  1.0", "StudyDate": "20260131", "SliceThickness": "3.0"},
        {"Modality": "CT", "SeriesDescription": "Chest  1.0", "StudyDate": "20260131", "SliceThickness": "3"},
        {"Modality": "PT", "ImageType": ["ORIGINAL", "PRIMARY"], "StudyDate": "20260131", "StudyTime": "101500.5"},
    ],
    [{"Modality": "CT", "SeriesDescription": "", "StudyDate": "20260201", "PatientName": "Doe^Jane", "Rows": 512}],
    [{"Modality": "CT", "StudyDate": None, "PatientID": "000123", "ImageType": ["DERIVED", "", "AXIAL"]}],
    [{"Modality": "MR", "SeriesDescription": "t2 FLAIR\u00e4", "SpecificCharacterSet": "ISO_IR 100", "KVP": "120 "}],
    [{"Modality": "MR", "StudyDate": "20260228", "SeriesDescription": "Topogram"}],
]
PATTERNS = [
    "Modality: [^CT$]",
    "Modality: [T]\n    SeriesDescription: ['(?i)chest', '~3']",
    "SeriesDescription: ['.*']",
    "SeriesDescription: ['~^$']",
    "SeriesDescription: ['~FLAIR']",
    "SeriesDescription: ['\u00e4$']",
    r"ImageType: ['^ORIGINAL\\PRIMARY$']",
    r"ImageType: ['^DERIVED\\\\AXIAL$']",
    r"SliceThickness: ['^3\.0$']",
    "StudyDate: ['^2026013']",
    r"StudyTime: ['^101500\.5$']",
    "PatientName: ['^Doe']",
    "PatientID: ['^000123$']",
    "Rows: ['^512$']",
    "KVP: ['^120$']",
    "TransferSyntaxUID: ['^1.2.840.10008.1.2.1$']",
    "'(0019,\"ACME\",23)': ['on']",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("headers")
    with quiet():
        for study, headers in enumerate(STUDIES):
            for number, header in enumerate(headers):
                data = Dataset()
                data.StudyInstanceUID, data.SeriesInstanceUID = (
                    f"1.2.{study}",
                    f"1.2.{study}.{header['Modality'] == 'PT'}",
                )
                data.SeriesInstanceUID = data.SeriesInstanceUID.replace("True", "2").replace("False", "1")
                data.SOPInstanceUID, data.SOPClassUID = f"1.2.{study}.9.{number}", CTImageStorage
                for keyword, value in header.items():
                    setattr(data, keyword, value)
                data.file_meta = FileMetaDataset()
                data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
                data.save_as(root / f"{study}-{number}.dcm", enforce_file_format=True)
    index_folders([root], root / "catalog.duckdb", collection_id="local", processes=1)
    return root


def on_files(folder: Path, flows: list[Flow]) -> dict[str, set[str]]:
    """Study -> flows that fire on it, by the texts of its files."""
    found = {}
    attributes = attributes_of(flows)
    for study in range(len(STUDIES)):
        files = []
        for path in sorted(folder.glob(f"{study}-*.dcm")):
            texts = read_texts(path, [one.tag for one in attributes])
            known = {one: texts[one.tag] for one in attributes if one.tag in texts}
            header = STUDIES[study][int(path.stem[-1])]
            files.append(ModalityFile(series=header["Modality"], modality=str(header["Modality"]), texts=known))
        found[f"1.2.{study}"] = {one.flow for one in decide(flows, files) if one.fires}
    return found


def on_catalog(folder: Path, flows: list[Flow]) -> dict[str, set[str]]:
    catalog = open_catalog(f"folder:{folder / 'catalog.duckdb'}")
    try:
        return {
            study.study_instance_uid: {one.flow for one in decide(flows, study.files) if one.fires}
            for study in studies_of(catalog, flows)
        }
    finally:
        catalog.close()


def trial_of(folder: Path, flows: list[Flow]) -> FlowTrial:
    catalog = open_catalog(f"folder:{folder / 'catalog.duckdb'}")
    try:
        return try_flows(flows, studies_of(catalog, flows))
    finally:
        catalog.close()


def test_a_catalog_gives_the_decisions_of_the_files(folder: Path) -> None:
    flows = [flow_of(f"triggers:\n  - {text}", name=f"f{number}.yaml") for number, text in enumerate(PATTERNS)]
    flows += [
        flow_of("close: {expect: [CT, PT]}\ntriggers: [{Modality: [^CT$]}]", name="expecting.yaml"),
        flow_of(
            "close: {expect: [CT, PT], at_most: 1h, then: run}\ntriggers: [{Modality: [^CT$]}]", name="anyway.yaml"
        ),
        flow_of("never: [{SeriesDescription: [Chest]}]\ntriggers: [{}]", name="vetoed.yaml"),
        flow_of("fallback: true\ntriggers: [{}]", name="rest.yaml"),
    ]
    found = on_catalog(folder, flows)
    assert found == on_files(folder, flows)
    fired = set().union(*found.values())
    assert {flow.name for flow in flows} - fired == {"f16", "rest"}


def test_counts_near_misses_and_examples(folder: Path) -> None:
    flows = [
        flow_of("triggers:\n  - Modality: [^CT$]\n    SeriesDescription: [chest]", name="chest.yaml"),
        flow_of("triggers: [{Modality: [^CT$]}]\nclose: {expect: [CT, PT]}", name="petct.yaml"),
        flow_of("triggers: [{PatientID: [^A]}]", name="ids.yaml"),
    ]
    trial = trial_of(folder, flows)
    assert [(one.month, one.studies, one.fired, one.images) for one in trial.months if one.flow == "petct"] == [
        ("2026-01", 1, 1, 2), ("2026-02", 2, 0, 0), ("unknown", 2, 0, 0),
    ]  # fmt: skip
    assert trial.examples == {"chest": (), "petct": ("1.2.0",), "ids": ()}
    found = {
        (one.flow, one.failure.part, one.failure.pattern, one.failure.text, one.studies) for one in trial.near_misses
    }
    assert ("chest", "trigger 1", "chest", "Chest  1.0", 1) in found
    assert ("petct", "close", "", None, 2) in found
    assert ("ids", "trigger 1", "^A", "(withheld)", 1) in found


def test_the_command(folder: Path) -> None:
    flow = folder / "chest.yaml"
    flow.write_text("triggers:\n  - Modality: [^CT$]\n    SeriesDescription: [chest]\nmodels: [{use: expert}]\n")
    words = ["flow", "try", str(flow), "--catalog", f"folder:{folder / 'catalog.duckdb'}"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "flow chest: fires on no study" in result.output
    assert "nearly 1 study: trigger 1: SeriesDescription 'chest' not found in 'Chest  1.0', as 1.2.0" in result.output
    result = CliRunner().invoke(app, [*words, "--csv", "--since", "2026-02-01", "--until", "2026-02-27"])
    assert result.stdout.splitlines() == [
        "flow,month,studies,fired,images,near_misses,failed",
        "chest,2026-02,1,0,0,1,0",
    ]
    assert CliRunner().invoke(app, [*words, "--since", "soon"]).exit_code == 2
    flow.write_text("triggers: []\n")
    assert CliRunner().invoke(app, words).exit_code == 2


def test_a_catalog_without_the_files_cannot_answer_everything(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "catalog.duckdb").write_bytes((folder / "catalog.duckdb").read_bytes())
    moved = folder.rename(folder.with_name("moved"))
    try:
        assert on_catalog(tmp_path, [flow_of("triggers: [{Modality: [^CT$]}]")])["1.2.1"] == {"lungs"}
        with pytest.raises(UsageError, match="does not state PatientName as sent"):
            on_catalog(tmp_path, [flow_of("triggers: [{PatientName: [Doe]}]")])
    finally:
        moved.rename(folder)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[FlowDesk]:
    flows = {
        "lungs": CT,
        "mr": CT.replace("CT", "MR"),
        "vetoed": "never: [{SeriesDescription: [QA]}]\n" + CT,
        "petct": "roles: {CT: {Modality: [^CT$]}, PET: {Modality: [^PT$]}}\nmodels: [{use: expert}]\n",
        "expecting": "close: {expect: [CT, MR], at_most: 1h, then: discard}\n" + CT,
        "rest": "fallback: true\ntriggers: [{}]\nmodels: [{use: expert}]\n",
        "named": "triggers: [{PatientName: ['.']}]\nmodels: [{use: expert}]\n",
    }
    made = FlowDesk(tmp_path / "station", flows)
    yield made
    made.close()


@pytest.mark.parametrize("others", [(), (("PT", "WB"),), (("PT", "QA"), ("MR", "T1"))], ids=["CT", "PET", "QA"])
def test_a_trial_on_the_stations_catalog_equals_what_the_listener_did(
    desk: FlowDesk, others: tuple[tuple[str, str], ...]
) -> None:
    desk.put(*study_files(), *(other_series(*one) for one in others))
    desk.pass_time(1)
    desk.pass_time(3600)
    assert StationCatalog(desk.station, desk.database).update() > 0
    flows = [one.flow for one in desk.flows._folder.loaded if one.flow is not None]
    trial = trial_of(desk.station.root, flows)
    rows = flow_rows(desk.database, 1, 1)
    assert len(rows) == 7
    assert {one.flow: one.fired for one in trial.months} == {
        row.flow: int(row.state is FlowState.PLANNED) for row in rows
    }
    assert {one.flow: one.images for one in trial.months if one.fired} == {
        row.flow: len(row.files) for row in rows if row.state is FlowState.PLANNED
    }
