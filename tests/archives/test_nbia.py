"""TCIA's public interface as catalog and storage, against a stand-in that answers as NBIA's code does."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from ctenrich.archives.nbia import TCIA
from ctenrich.catalog import open_catalog
from ctenrich.errors import CtenrichError, UsageError
from ctenrich.reasons import Reason
from ctenrich.records import FetchedSeries
from ctenrich.select.selection import Selection, select_cohort
from ctenrich.settings import FetchSettings, Settings
from ctenrich.stages.fetch import fetch_series
from ctenrich.stages.sort import sort_series
from ctenrich.storage import open_storage
from ctenrich.storage.base import Transfer
from ctenrich.workspace import Workspace
from tests.support.nbia_server import Nbia, nbia_server
from tests.support.small_series import SERIES, STUDY, write_small

QUICK = FetchSettings(tries=2, timeout=5, backoff=0.01)
ROW = {
    "SeriesInstanceUID": SERIES,
    "StudyInstanceUID": STUDY,
    "Modality": "CT",
    "Collection": "Lung-1",
    "PatientID": "LUNG1-900",
    "Manufacturer": "ACME",
    "SeriesDescription": "Thorax",
    "ImageCount": 6,
    "FileSize": 3000,
    "StudyDate": "2020-03-04 00:00:00.0",
    "LicenseName": "Creative Commons Attribution-NonCommercial 3.0 Unported License",
    "LicenseURI": "https://creativecommons.org/licenses/by-nc/3.0/",
    "DataDescriptionURI": "https://doi.org/10.7937/K9/TCIA.2015.PF0M9REI",
}


@pytest.fixture
def nbia(tmp_path: Path) -> Iterator[Nbia]:
    """A collection with one CT series, and an MR series."""
    paths = write_small(tmp_path / "held")
    files = {str(pydicom.dcmread(path).SOPInstanceUID): path.read_bytes() for path in paths}
    with nbia_server() as server:
        server.rows = [ROW, {**ROW, "SeriesInstanceUID": "1.2.9", "Modality": "MR"}]
        server.files = {SERIES: files}
        yield server


def choose(nbia: Nbia, **parameters: Any) -> Selection:
    catalog = open_catalog(nbia.address, fetch=QUICK)
    try:
        return select_cohort("select_idc_series", catalog, parameters)
    finally:
        catalog.close()


def fetched(nbia: Nbia, folder: Path) -> FetchedSeries:
    (entry,) = choose(nbia).cohort.series
    return fetch_series(entry, settings=Settings(fetch=QUICK), workspace=Workspace(folder))


def test_a_series_is_selected_with_its_licence_fetched_and_sorted(nbia: Nbia, tmp_path: Path) -> None:
    selection = choose(nbia, patients=["LUNG1-900"], study_date_min="2020-03-01", manufacturers=["acme"])
    (entry,) = selection.cohort.series
    assert (entry.collection_id, entry.patient_id) == ("Lung-1", "LUNG1-900")
    assert (entry.license_short_name, entry.source_doi) == ("CC BY-NC 3.0", "10.7937/k9/tcia.2015.pf0m9rei")
    assert (entry.series_instance_uid, entry.expected_instances) == (SERIES, 6)
    workspace = Workspace(tmp_path / "run")
    record = fetch_series(entry, settings=Settings(fetch=QUICK), workspace=workspace)
    series = sort_series(record, settings=Settings(), workspace=workspace)
    assert series.sop_instance_uids == tuple(f"1.2.3.4.{k}" for k in range(1, 7))
    assert nbia.requests.count("getImageWithMD5Hash") == 1
    held = {path.read_bytes() for path in (tmp_path / "held").rglob("*.dcm")}
    assert {path.read_bytes() for path in (tmp_path / "run").rglob("*.dcm")} == held
    assert not list((tmp_path / "run").rglob(".nbia-*"))


@pytest.mark.long
def test_other_patients_dates_and_uids(nbia: Nbia) -> None:
    assert not choose(nbia, patients=["other"]).cohort.series
    assert not choose(nbia, study_date_max="2020-03-03").cohort.series
    assert len(choose(nbia, series=[SERIES]).cohort.series) == 1
    nbia.rows = [{**ROW, "SeriesInstanceUID": "../secret"}]
    selection = choose(nbia)
    assert not selection.cohort.series
    assert any("1 series left out" in note for note in selection.notes)


@pytest.mark.long
def test_a_fetch_that_goes_on_keeps_what_is_there(nbia: Nbia, tmp_path: Path) -> None:
    record = fetched(nbia, tmp_path / "run")
    place = tmp_path / "run" / "series" / SERIES
    (place / record.files[0].path).unlink()
    kept = (place / record.files[1].path).stat().st_mtime_ns
    assert fetched(nbia, tmp_path / "run") == record
    assert (place / record.files[1].path).stat().st_mtime_ns == kept


def test_an_answer_that_was_cut_is_asked_for_again(nbia: Nbia, tmp_path: Path) -> None:
    """The server ends an answer without an error where it misses a file: the list of checksums is then missing."""
    nbia.zips = [nbia.packed(SERIES, manifest=False)]
    nbia.busy = 1
    assert len(retrieve(nbia, tmp_path / "run")) == 6
    nbia.zips = [nbia.packed(SERIES)[:-40]]
    assert len(retrieve(nbia, tmp_path / "again")) == 6


def other_object(nbia: Nbia) -> bytes:
    """The ZIP file of a series whose last file was replaced in the archive."""
    files = nbia.files[SERIES]
    wrong = dict(files)
    dataset = pydicom.dcmread(io.BytesIO(wrong["1.2.3.4.6"]))
    dataset.SeriesInstanceUID = "1.2.99"
    out = io.BytesIO()
    dataset.save_as(out)
    wrong["1.2.3.4.6"] = out.getvalue()
    nbia.files = {SERIES: wrong}
    packed = nbia.packed(SERIES)
    nbia.files = {SERIES: files}
    return packed


def with_member(nbia: Nbia, name: str, content: bytes = b"x") -> bytes:
    return grown(nbia.packed(SERIES), name, content)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("bytes", Reason.CHECKSUM),
        ("another series", Reason.WRONG_OBJECT),
        ("path", Reason.UNSAFE_PATH),
        ("bomb", Reason.DECOMPRESSION_BOMB),
        ("many", Reason.DECOMPRESSION_BOMB),
        ("missing", Reason.INCOMPLETE),
        ("no zip", Reason.CHECKSUM),
    ],
)
def test_what_is_wrong_with_a_zip_file_is_no_object(nbia: Nbia, tmp_path: Path, fault: str, reason: Reason) -> None:
    if fault == "bytes":
        packed = nbia.packed(SERIES, m3=b"damaged")
    elif fault == "another series":
        packed = other_object(nbia)
    elif fault == "path":
        packed = with_member(nbia, "../../evil.dcm")
    elif fault == "bomb":
        packed = with_member(nbia, "00000009.dcm", bytes(65 * 1024**2))
    elif fault == "many":
        packed = nbia.packed(SERIES)
        for number in range(9):
            packed = grown(packed, f"{number}.txt")
    elif fault == "missing":
        all_files = nbia.files[SERIES]
        nbia.files = {SERIES: {uid: content for uid, content in all_files.items() if uid != "1.2.3.4.2"}}
        packed = nbia.packed(SERIES)
        nbia.files = {SERIES: all_files}
    else:
        packed = b"<html>"
    nbia.zips = [packed, packed]
    with pytest.raises(CtenrichError) as caught:
        retrieve(nbia, tmp_path / "run")
    assert caught.value.reason is reason
    assert not list(tmp_path.rglob("evil*"))
    assert not list((tmp_path / "run").rglob("*.zip"))


def retrieve(nbia: Nbia, folder: Path) -> list[Path]:
    """Download the series by its storage alone."""
    url = f"{nbia.address}/studies/{STUDY}/series/{SERIES}/"
    storage = open_storage(url, QUICK)
    moves = [Transfer(one.url, folder / f"{n}.dcm") for n, one in enumerate(storage.list_objects(url))]
    storage.download(moves)
    return sorted(folder.glob("*.dcm"))


def grown(packed: bytes, name: str, content: bytes = b"x") -> bytes:
    """A ZIP file with one more member."""
    out = io.BytesIO(packed)
    with zipfile.ZipFile(out, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return out.getvalue()


@pytest.mark.long
def test_faults_of_the_server_have_their_reasons(nbia: Nbia) -> None:
    nbia.busy = 1
    assert choose(nbia).cohort.series
    nbia.busy = 2
    with pytest.raises(CtenrichError) as caught:
        choose(nbia)
    assert caught.value.reason is Reason.RETRY_EXHAUSTED
    nbia.rows = []
    assert not choose(nbia).cohort.series
    with pytest.raises(UsageError) as refused:
        open_storage(nbia.address, QUICK).upload(Path("x"), nbia.address)
    assert refused.value.reason is Reason.BAD_PARAMETER


@pytest.mark.parametrize("address", ["tcia:", "nbia+https:", "nbia+https://h", "nbia+https:///c"])
def test_wrong_addresses(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_catalog(address)
    assert caught.value.reason is Reason.BAD_PARAMETER


def test_the_short_form_is_tcias_address() -> None:
    catalog = open_catalog("tcia:NSCLC-Radiomics")
    catalog.close()
    assert catalog.name == "nbia"
    assert TCIA == "nbia+https://services.cancerimagingarchive.net/nbia-api/services/v4"
