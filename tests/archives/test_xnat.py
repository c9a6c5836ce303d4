"""XNAT's REST interface as catalog and storage, against a stand-in that answers as XNAT documents."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ctenrich.archives.web import basic_authorization
from ctenrich.catalog import open_catalog
from ctenrich.errors import IncompleteError, InputError, RetryExhaustedError, UnsafeInputError, UsageError
from ctenrich.reasons import Reason
from ctenrich.records import FetchedSeries
from ctenrich.select.selection import Selection, select_cohort
from ctenrich.settings import FetchSettings, Settings
from ctenrich.stages.fetch import fetch_series
from ctenrich.stages.sort import sort_series
from ctenrich.storage import open_storage
from ctenrich.workspace import Workspace
from tests.support.small_series import SERIES, STUDY, write_small
from tests.support.xnat_server import PASSWORD, USER, Xnat, xnat_server

QUICK = FetchSettings(tries=2, timeout=5, backoff=0.01)
SESSION = {"UID": STUDY, "date": "2020-03-04", "dcmPatientId": "CANARY-ID"}
SCAN = {"UID": SERIES, "modality": "CT", "series_description": "Thorax", "scanner/manufacturer": "ACME"}


@pytest.fixture
def xnat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Xnat]:
    """A project with one session: a CT scan, an MR scan and a CT scan without DICOM files."""
    monkeypatch.setenv("CTENRICH_XNAT_USER", USER)
    monkeypatch.setenv("CTENRICH_XNAT_PASSWORD", PASSWORD)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    paths = write_small(tmp_path / "held")
    scans = {
        "2": (SCAN, paths),
        "3": ({"UID": "1.2.9", "modality": "MR"}, []),
        "4": ({"UID": "1.2.10", "modality": "CT", "label": "NIFTI"}, []),
    }
    with xnat_server() as server:
        server.add("XNAT_E1", "S 01", SESSION, scans)
        yield server


def choose(xnat: Xnat, **parameters: Any) -> Selection:
    catalog = open_catalog(xnat.address, fetch=QUICK)
    try:
        return select_cohort("select_idc_series", catalog, parameters)
    finally:
        catalog.close()


def fetched(xnat: Xnat, folder: Path) -> FetchedSeries:
    (entry,) = choose(xnat).cohort.series
    return fetch_series(entry, settings=Settings(fetch=QUICK), workspace=Workspace(folder))


def test_a_scan_is_selected_fetched_and_sorted(xnat: Xnat, tmp_path: Path) -> None:
    selection = choose(xnat, patients=["CANARY-ID"], study_date_min="2020-03-01", manufacturers=["acme"])
    (entry,) = selection.cohort.series
    assert (entry.collection_id, entry.patient_id) == ("PROJECT", "CANARY-ID")
    assert (entry.series_instance_uid, entry.expected_instances) == (SERIES, 6)
    assert entry.facts.series_description == "Thorax"
    assert any("1 CT scan left out: the scan has no DICOM files" in note for note in selection.notes)
    workspace = Workspace(tmp_path / "run")
    record = fetch_series(entry, settings=Settings(fetch=QUICK), workspace=workspace)
    series = sort_series(record, settings=Settings(), workspace=workspace)
    assert series.sop_instance_uids == tuple(f"1.2.3.4.{k}" for k in range(1, 7))
    assert xnat.logins == 2  # of the catalog and of the storage


@pytest.mark.long
def test_other_patients_dates_and_attributes_from_headers(xnat: Xnat) -> None:
    assert not choose(xnat, patients=["other"]).cohort.series
    assert not choose(xnat, study_date_max="2020-03-03").cohort.series
    xnat.sessions["XNAT_E1"]["fields"].pop("dcmPatientId")
    assert choose(xnat).cohort.series[0].patient_id == "S 01"
    xnat.requests.clear()
    assert not choose(xnat, sexes=["F"]).cohort.series  # the header states no sex: NOT_STATED
    assert sum(path.endswith(".dcm") for path in xnat.requests) == 1
    xnat.sessions["XNAT_E1"]["fields"].pop("date")
    xnat.requests.clear()
    (row,) = choose(xnat, study_date_min="2020-03-01").excluded.to_pylist()
    assert row["reasons"] == ["NOT_STATED"]
    assert sum(path.endswith(".dcm") for path in xnat.requests) == 1  # its header has none either


def test_a_fetch_that_goes_on_keeps_what_its_checksum_confirms(xnat: Xnat, tmp_path: Path) -> None:
    record = fetched(xnat, tmp_path / "run")
    place = tmp_path / "run" / "series" / SERIES
    (place / record.files[0].path).unlink()
    (place / record.files[1].path).write_bytes(b"damaged")
    xnat.requests.clear()
    assert fetched(xnat, tmp_path / "run") == record
    assert sum(path.endswith(".dcm") for path in xnat.requests) == 2


@pytest.mark.long
def test_an_answer_that_is_cut_is_asked_for_again(xnat: Xnat, tmp_path: Path) -> None:
    xnat.digests = False
    xnat.fault = lambda path, times: "cut" if path.endswith("3.dcm") and not times else ""
    assert len(fetched(xnat, tmp_path / "once").files) == 6
    xnat.fault = lambda path, times: "cut" if path.endswith("3.dcm") else ""
    with pytest.raises((RetryExhaustedError, InputError)) as caught:
        fetched(xnat, tmp_path / "always")
    assert caught.value.reason in (Reason.RETRY_EXHAUSTED, Reason.CHECKSUM)
    files = [path for path in (tmp_path / "always").rglob("*") if path.is_file()]
    assert len(files) <= 5
    assert not [path for path in files if path.name.endswith(".tmp")]


def test_bytes_other_than_the_listing_states_are_no_object(xnat: Xnat, tmp_path: Path) -> None:
    files = xnat.sessions["XNAT_E1"]["scans"]["2"][1]
    listed = {name: xnat.file_row("x", name, content) for name, content in files.items()}
    monkey = xnat.file_row
    xnat.file_row = lambda path, name, content: {**monkey(path, name, content), "digest": listed[name]["digest"]}  # type: ignore[method-assign]
    files["2.dcm"] = files["2.dcm"][:-2] + b"xx"
    with pytest.raises(InputError) as caught:
        fetched(xnat, tmp_path / "run")
    assert caught.value.reason is Reason.CHECKSUM


def test_faults_of_the_server_have_their_reasons(xnat: Xnat, monkeypatch: pytest.MonkeyPatch) -> None:
    xnat.fault = lambda path, times: "" if times else "busy"
    assert choose(xnat).cohort.series
    for fault in ("busy", "html", "elsewhere"):
        xnat.fault = lambda path, times, fault=fault: fault
        with pytest.raises((RetryExhaustedError, InputError)) as caught:
            choose(xnat)
        assert caught.value.reason is (Reason.RETRIEVE_REFUSED if fault == "elsewhere" else Reason.RETRY_EXHAUSTED)
    xnat.fault = lambda path, times: ""
    with pytest.raises(IncompleteError):
        select_cohort("select_idc_series", open_catalog(xnat.address + "X", fetch=QUICK), {})
    monkeypatch.setenv("CTENRICH_XNAT_PASSWORD", "wrong")
    with pytest.raises(UsageError) as refused:
        choose(xnat)
    assert refused.value.reason is Reason.NO_CREDENTIALS
    assert "wrong" not in str(refused.value)


def test_a_file_outside_the_experiments_is_refused(xnat: Xnat) -> None:
    storage = open_storage(xnat.address, QUICK)
    original = xnat.file_row
    for uri in ("/data/experiments/../../secret", "/data/config/x", "http://other/x"):
        xnat.file_row = lambda path, name, content, uri=uri: {**original(path, name, content), "URI": uri}  # type: ignore[method-assign]
        with pytest.raises(UnsafeInputError) as caught:
            storage.list_objects(f"{xnat.address[:-8]}/data/experiments/XNAT_E1/scans/2/resources/DICOM/files/")
        assert caught.value.reason is Reason.UNSAFE_PATH


@pytest.mark.long
def test_two_scans_with_one_uid_and_scans_without(xnat: Xnat) -> None:
    scans = xnat.sessions["XNAT_E1"]["scans"]
    scans["5"] = scans["2"]
    with pytest.raises(UsageError, match="two scans"):
        choose(xnat)
    scans["5"] = ({"modality": "CT"}, {})
    assert any("no UID" in note for note in choose(xnat).notes)


def test_credentials_come_from_netrc_too_and_are_nowhere_written(
    xnat: Xnat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("CTENRICH_XNAT_USER")
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    caplog.set_level(logging.DEBUG)
    fetched(xnat, tmp_path / "run")
    assert PASSWORD not in caplog.text
    assert not [p for p in (tmp_path / "run").rglob("*") if p.is_file() and PASSWORD.encode() in p.read_bytes()]
    (tmp_path / "netrc").write_text("machine 127.0.0.1 password\nsecret secret")
    with pytest.raises(UsageError) as caught:
        basic_authorization("127.0.0.1", "CTENRICH_XNAT")
    assert caught.value.reason is Reason.NO_CREDENTIALS
    assert "secret" not in str(caught.value)


def test_credentials_are_not_sent_without_tls(xnat: Xnat) -> None:
    with pytest.raises(UsageError, match="without TLS"):
        select_cohort("select_idc_series", open_catalog("xnat+http://xnat.example/P", fetch=QUICK), {})


@pytest.mark.parametrize("address", ["xnat+https:", "xnat+https://h", "xnat+https:///p"])
def test_wrong_addresses(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_catalog(address)
    assert caught.value.reason is Reason.BAD_PARAMETER
