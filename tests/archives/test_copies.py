"""Patients of an archive in a folder: whole series only, and treatments made of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from ctenrich.archives.archive import ArchiveSearch
from ctenrich.archives.copies import RADIOTHERAPY
from ctenrich.archives.xnat import XnatArchive
from ctenrich.cli.main import app
from ctenrich.progress import SILENT
from ctenrich.settings import FetchSettings
from tests.archives.conftest import Held
from tests.support.archive_nodes import archive_node
from tests.support.treatment_cases import Patient, make
from tests.support.xnat_server import PASSWORD, USER, xnat_server

pytest.importorskip("pynetdicom")


def call(*arguments: object) -> tuple[int, str]:
    found = CliRunner().invoke(app, [str(one) for one in arguments])
    return found.exit_code, found.output


@pytest.mark.long
def test_treatments_of_a_node_are_those_of_its_folder(tmp_path: Path) -> None:
    Patient(tmp_path / "held", "P1", "1", StudyDate="20200102").whole()
    Patient(tmp_path / "held", "P2", "2").ct()
    held = [dcmread(path) for path in sorted((tmp_path / "held").glob("*"))]
    quick = tmp_path / "quick.toml"
    quick.write_text("[fetch]\ntries = 1\ntimeout = 10\nbackoff = 0.01\n")
    out = tmp_path / "out"
    with archive_node(held) as node:
        code, text = call("treatments", "make", node.address, "--out", tmp_path / "t.parquet")
        assert (code, "ctenrich retrieve" in text) == (2, True)
        command = ("retrieve", node.address, out, "--patient", "P1", "--patient", "P9", "--settings", quick)
        cut = next(one.SOPInstanceUID for one in held if one.Modality == "CT" and one.PatientID == "P1")
        node.sends = lambda data: None if data.SOPInstanceUID == cut else data
        code, text = call(*command)
        assert (code, "RETRY_EXHAUSTED" in text, "P9" in text) == (1, True, True)
        assert {dcmread(path).Modality for path in out.rglob("*.dcm")} == {"RTSTRUCT", "RTPLAN", "RTDOSE"}
        node.sends = lambda data: data
        node.requests.clear()
        code, text = call(*command)
        assert (code, "7 files of 4 series (1 CT, 1 RTDOSE, 1 RTPLAN, 1 RTSTRUCT)" in text) == (1, True)
        assert node.requests == [("IMAGE", 1)], "what has arrived is kept"
    assert not (tmp_path / "out.part").exists()
    (ours,), (theirs,) = (make(folder).treatments for folder in (out, tmp_path / "held"))
    assert ours.treatment_id == theirs.treatment_id
    assert [one.uid for one in ours.used_doses] == [one.uid for one in theirs.used_doses]


@pytest.mark.long
def test_a_dicomweb_store_gives_the_modalities_that_are_wanted(held: Held, tmp_path: Path) -> None:
    code, text = call("retrieve", held.orthanc.web, tmp_path / "out", "--patient", "PHANTOM-100")
    assert (code, "1 CT" in text) == (0, True)
    stored = [dcmread(path) for path in held.files.values()]
    wanted = {one.SOPInstanceUID for one in stored if one.PatientID == "PHANTOM-100" and one.Modality in RADIOTHERAPY}
    assert {path.stem for path in (tmp_path / "out").rglob("*.dcm")} == wanted


def test_scans_of_xnat_by_modality(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTENRICH_XNAT_USER", USER)
    monkeypatch.setenv("CTENRICH_XNAT_PASSWORD", PASSWORD)
    (tmp_path / "rs.dcm").write_bytes(b"RTSTRUCT")
    files = [tmp_path / "rs.dcm"]
    scans = {str(n): ({"UID": f"1.2.{n}", "modality": one}, files) for n, one in enumerate(("CT", "RTSTRUCT", "MR"))}
    with xnat_server() as server:
        server.add("XNAT_E1", "S1", {"UID": "1.2.9"}, scans)
        archive = XnatArchive(server.address, FetchSettings(tries=1, timeout=5))
        found = archive.find_series(ArchiveSearch(modalities=RADIOTHERAPY), [], SILENT)
    assert [(one.modality, one.series_instance_uid) for one in found] == [("CT", "1.2.0"), ("RTSTRUCT", "1.2.1")]


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    code, text = call("retrieve", "idc", tmp_path / "out")
    assert code == 2
    assert "archive" in text or "idc" in text
    code, text = call("retrieve", "dicom://h:104/PACS", tmp_path / "out", "--from-date", "1.2.2020")
    assert (code, "not a date" in text) == (2, True)
