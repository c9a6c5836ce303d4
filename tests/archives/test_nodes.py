"""DICOM nodes: C-FIND as a catalog, C-GET and C-MOVE as a storage, against Orthanc and a node that misbehaves."""

from __future__ import annotations

import gc
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from ctenrich import steps
from ctenrich.archives.node import node_address
from ctenrich.catalog import open_catalog
from ctenrich.errors import CtenrichError, IncompleteError, InputError, RetryExhaustedError, TransientError, UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Cohort, SeriesEntry, SortedSeries
from ctenrich.select.cohort_file import read_cohort
from ctenrich.select.selection import Selection, select_cohort
from ctenrich.settings import FetchSettings, Settings
from ctenrich.stages.fetch import fetch_series
from ctenrich.stages.sort import sort_series
from ctenrich.storage import open_storage
from ctenrich.storage.base import Transfer
from ctenrich.workspace import Workspace
from tests.archives.conftest import Held
from tests.conftest import need_program
from tests.support.archive_nodes import archive_node, series_of
from tests.support.small_series import SERIES, STUDY, Small
from tests.support.storage_servers import free_port

pytest.importorskip("pynetdicom")
QUICK = FetchSettings(tries=2, timeout=10, backoff=0.01)


def choose(address: str, settings: FetchSettings = QUICK, **parameters: Any) -> Selection:
    catalog = open_catalog(address, fetch=settings)
    try:
        return select_cohort("select_idc_series", catalog, parameters)
    finally:
        catalog.close()


def fetch(address: str, folder: Path, settings: FetchSettings = QUICK, uids: tuple[str, ...] = ()) -> list[Path]:
    """Retrieve the small series; returns its files by SOP Instance UID."""
    storage = open_storage(address, settings)
    place = f"{address}/studies/{STUDY}/series/{SERIES}/"
    objects = storage.list_objects(place)
    chosen = [one for one in objects if not uids or one.url.rpartition("/")[2] in uids]
    paths = [folder / f"{one.url.rpartition('/')[2]}.dcm" for one in chosen]
    storage.download([Transfer(one.url, path) for one, path in zip(chosen, paths, strict=True)])
    return paths


# ---------------------------------------------------------------- Orthanc


@pytest.mark.long
def test_a_cohort_of_a_node_is_selected_fetched_and_sorted_like_its_folder(held: Held, tmp_path: Path) -> None:
    patients = {"patients": ["PHANTOM-100", "PHANTOM-101"]}
    request = steps.SelectRequest("select_idc_series", held.orthanc.node, tmp_path / "c.parquet", patients)
    selection, _ = steps.select_request(request)
    assert [one.series_instance_uid for one in selection.cohort.series] == sorted(held.series)
    assert {one.expected_instances for one in selection.cohort.series} == {16}
    assert not any(one.geometry_known for one in selection.cohort.series)
    assert any("checked after the fetch" in note for note in selection.notes)
    index = tmp_path / "folder.duckdb"
    steps.index([held.folder], index)
    local = {s.series_instance_uid: s for s in choose_all(f"folder:{index}", patients).series}
    for entry in read_cohort(tmp_path / "c.parquet").series:
        ours = sorted_series(entry, tmp_path / "ours")
        theirs = sorted_series(local[entry.series_instance_uid], tmp_path / "theirs")
        assert [s.sop_instance_uid for s in ours.slices] == [s.sop_instance_uid for s in theirs.slices]
        assert ours.slice_spacing == theirs.slice_spacing
        assert ours.shape == theirs.shape == (16, 40, 40)


def choose_all(catalog: str, parameters: dict[str, Any]) -> Cohort:
    return select_cohort("select_ct_series", open_catalog(catalog), parameters).cohort


def sorted_series(entry: SeriesEntry, folder: Path) -> SortedSeries:
    workspace = Workspace(folder)
    fetched = fetch_series(entry, settings=Settings(fetch=QUICK), workspace=workspace)
    return sort_series(fetched, settings=Settings(), workspace=workspace)


@pytest.mark.long
@pytest.mark.parametrize("retrieval", ["get", "move"])
def test_compressed_objects_arrive_as_they_are_stored(held: Held, tmp_path: Path, retrieval: Any) -> None:
    settings = FetchSettings(tries=2, timeout=10, dicom_retrieval=retrieval, dicom_port=held.receive_port)
    paths = fetch(held.orthanc.node, tmp_path, settings)
    assert len(paths) == 6
    for path in paths:
        got, stored = dcmread(path), dcmread(held.files[path.stem])
        assert got.file_meta.TransferSyntaxUID == stored.file_meta.TransferSyntaxUID
        assert got == stored
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.long
def test_a_title_that_the_node_does_not_know_has_its_reason(held: Held, tmp_path: Path) -> None:
    settings = FetchSettings(tries=1, timeout=10, dicom_retrieval="move", dicom_port=0, dicom_title="STRANGER")
    with pytest.raises((InputError, RetryExhaustedError)) as caught:
        fetch(held.orthanc.node, tmp_path, settings)
    assert caught.value.reason in (Reason.RETRIEVE_REFUSED, Reason.RETRY_EXHAUSTED)


# ---------------------------------------------------------------- addresses


def test_both_forms_of_an_address() -> None:
    one, two = (node_address(url, QUICK) for url in ("dicom://h:104/PACS", "dicom://PACS@h:104"))
    assert one == two
    assert one[0] == "dicom://h:104/PACS"


@pytest.mark.parametrize(
    "url", ["dicom://h/PACS", "dicom://h:104", "dicom://A@h:104/B", "dicom://h:x/P", "dicom://h:1/" + "A" * 17]
)
def test_wrong_addresses(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_catalog(url)
    assert caught.value.reason is Reason.BAD_PARAMETER


# ---------------------------------------------------------------- the catalog


def test_a_node_is_not_searched_as_a_whole() -> None:
    with archive_node(series_of()) as node:
        for parameters in ({}, {"series": [SERIES]}, {"patients": ["CANARY*"]}):
            with pytest.raises(UsageError) as caught:
                choose(node.address, **parameters)
            assert caught.value.reason is Reason.BAD_PARAMETER


def test_a_patient_whose_id_only_resembles_is_not_taken() -> None:
    with archive_node(series_of()) as node:
        node.changes["PatientID"] = "canary-id"  # a node that compares without case
        assert not choose(node.address, patients=["CANARY-ID"]).cohort.series


@pytest.mark.long
def test_the_larger_of_two_counts_is_expected(tmp_path: Path) -> None:
    with archive_node(series_of(StudyDate="20200101")) as node:
        assert [one.expected_instances for one in choose(node.address, patients=["CANARY-ID"]).cohort.series] == [6]
        node.counts["NumberOfSeriesRelatedInstances"] = 9
        selection = choose(node.address, patients=["CANARY-ID"])
        assert [one.expected_instances for one in selection.cohort.series] == [9]
        with pytest.raises(IncompleteError) as caught:
            sorted_series(selection.cohort.series[0], tmp_path)
        assert caught.value.reason is Reason.INCOMPLETE


def steps_cohort(address: str, folder: Path) -> Path:
    request = steps.SelectRequest("select_idc_series", address, folder / "c.parquet", {"patients": ["CANARY-ID"]})
    steps.select_request(request)
    return folder / "c.parquet"


@pytest.mark.long
def test_what_the_node_does_not_return_is_read_from_headers(tmp_path: Path) -> None:
    images = series_of(PatientAge="061Y", Manufacturer="ACME", StudyDate="20200101")
    with archive_node(images) as node:
        node.hidden = {"PatientAge", "Manufacturer", "ImageType", "SliceThickness", "SOPClassUID"}
        plain = choose(node.address, patients=["CANARY-ID"])
        assert plain.cohort.series[0].facts.patient_age is None
        assert not node.requests
        asked = choose(node.address, patients=["CANARY-ID"], age_min=60, manufacturers=["acme"])
        assert [one.facts.patient_age for one in asked.cohort.series] == ["061Y"]
        assert node.requests == [("IMAGE", 1)]
        assert any("headers were read" in note for note in asked.notes)
        refused = choose(node.address, patients=["CANARY-ID"], age_min=62)
        assert [row["reasons"] for row in refused.excluded.to_pylist()] == [["PATIENT_AGE"]]
        node.requests.clear()
        thin = choose(node.address, patients=["CANARY-ID"], slice_thickness_max=2.0)
        assert [row["reasons"] for row in thin.excluded.to_pylist()] == [["SLICE_THICKNESS"]]
        assert node.requests == [("SERIES", 0)]


@pytest.mark.long
def test_answers_that_the_node_cuts_are_found_by_shorter_ranges_of_dates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctenrich.archives.query._SPLIT", 3)
    one = Small(count=1)
    held = [
        data
        for number in range(8)
        for data in series_of(
            one,
            StudyDate=f"20200{number + 1}11",
            StudyInstanceUID=f"1.2.{number}",
            SeriesInstanceUID=f"1.3.{number}",
            SOPInstanceUID=f"1.4.{number}",
        )
    ]
    with archive_node(held) as node:
        node.most = 3
        found = choose(node.address, study_date_min="2020-01-01", study_date_max="2020-12-31")
        assert len(found.excluded) == 8  # ONE_SLICE
        node.most_status = 0xA700
        again = choose(node.address, study_date_min="2020-01-01", study_date_max="2020-12-31")
        assert again.excluded.equals(found.excluded)
        assert max(len(dates) for level, dates in node.queries if level == "STUDY") == 17


def test_a_patient_id_that_is_not_ascii() -> None:
    with archive_node(series_of(PatientID="Müller-1", SpecificCharacterSet="ISO_IR 192")) as node:
        (one,) = choose(node.address, patients=["Müller-1"]).cohort.series
        assert one.patient_id == "Müller-1"


def test_a_query_that_fails_is_no_empty_answer() -> None:
    with archive_node(series_of()) as node:
        node.find_status = 0xA700
        with pytest.raises(TransientError) as caught:
            choose(node.address, patients=["CANARY-ID"])
        assert caught.value.reason is Reason.CATALOG_UNREACHABLE
        node.find_status = 0
        node.counts["NumberOfStudyRelatedSeries"] = 3
        assert any("fewer series" in note for note in choose(node.address, patients=["CANARY-ID"]).notes)
    with pytest.raises(TransientError) as caught:
        choose(node.address, patients=["CANARY-ID"])
    assert caught.value.reason is Reason.CATALOG_UNREACHABLE


# ---------------------------------------------------------------- the storage


@pytest.mark.long
def test_an_association_that_breaks_leaves_whole_objects_and_asks_for_the_rest(tmp_path: Path) -> None:
    with archive_node(series_of()) as node:
        node.aborts_after = 2
        paths = fetch(node.address, tmp_path)
        assert [path.is_file() for path in paths] == [True] * 6
        assert node.requests == [("SERIES", 0), ("IMAGE", 4)]
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths)


@pytest.mark.long
def test_a_second_fetch_asks_only_for_what_is_missing(tmp_path: Path) -> None:
    with archive_node(series_of()) as node:
        first, second, *_ = fetch(node.address, tmp_path)
        first.unlink()
        second.write_bytes(second.read_bytes()[:40])  # damaged: it is retrieved again
        node.requests.clear()
        fetch(node.address, tmp_path)
        assert node.requests == [("IMAGE", 2)]
        assert dcmread(second).SOPInstanceUID == second.stem


@pytest.mark.long
def test_objects_that_do_not_come_are_missing(tmp_path: Path) -> None:
    with archive_node(series_of()) as node:
        node.sends = lambda data: None if data.SOPInstanceUID.endswith(".3") else data
        with pytest.raises(RetryExhaustedError, match="1 of 1 objects did not arrive") as caught:
            fetch(node.address, tmp_path)
        assert caught.value.reason is Reason.RETRY_EXHAUSTED
        assert len(list(tmp_path.iterdir())) == 5


def in_another_series(data: Dataset) -> Dataset:
    if data.SOPInstanceUID.endswith(".3"):
        data.SeriesInstanceUID = "1.2.3.99"
    return data


def test_an_object_of_another_series_is_refused(tmp_path: Path) -> None:
    with archive_node(series_of()) as node:
        node.sends = in_another_series
        with pytest.raises(InputError) as caught:
            fetch(node.address, tmp_path)
        assert caught.value.reason is Reason.WRONG_OBJECT
        assert not (tmp_path / "1.2.3.4.3.dcm").exists()


@pytest.mark.long
def test_objects_that_nobody_asked_for_are_not_written(tmp_path: Path) -> None:
    with archive_node(series_of()) as node:
        fetch(node.address, tmp_path, uids=("1.2.3.4.1", "1.2.3.4.2"))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["1.2.3.4.1.dcm", "1.2.3.4.2.dcm"]


@pytest.mark.long
def test_a_node_that_refuses_or_offers_no_retrieval(tmp_path: Path) -> None:
    with archive_node(series_of()) as node:
        node.get_status = 0xA900
        with pytest.raises(CtenrichError, match="A900") as caught:
            fetch(node.address, tmp_path)
        assert caught.value.reason is Reason.RETRIEVE_REFUSED
    with archive_node(series_of(), get=False) as node:
        with pytest.raises(InputError, match="offers no C-GET") as caught:
            fetch(node.address, tmp_path)
        assert caught.value.reason is Reason.RETRIEVE_REFUSED


def test_a_node_is_not_uploaded_to(tmp_path: Path) -> None:
    storage = open_storage("dicom://h:1/A", QUICK)
    assert not storage.refuses_overwriting("dicom://h:1/A/x")
    with pytest.raises(UsageError):
        storage.upload(tmp_path, "dicom://h:1/A/x")


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate of this machine, and its key."""
    need_program("openssl", "openssl")
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    command = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout {paths[1].name} "
        f"-out {paths[0].name} -subj /CN={name} -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return paths


def server_context(own: tuple[Path, Path]) -> ssl.SSLContext:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*own)
    return server


@pytest.mark.long
def test_tls(tmp_path: Path) -> None:
    own = certificate(tmp_path, "node")
    trusting = FetchSettings(tries=1, timeout=5, dicom_tls=True, tls_ca=str(own[0]))
    with archive_node(series_of(), tls=server_context(own)) as node:
        assert len(choose(node.address, trusting, patients=["CANARY-ID"]).cohort.series) == 1
        assert len(fetch(node.address, tmp_path / "out", trusting)) == 6
        for other in (FetchSettings(tries=1, timeout=5), FetchSettings(tries=1, timeout=5, dicom_tls=True)):
            with pytest.raises(TransientError) as caught:
                choose(node.address, other, patients=["CANARY-ID"])
            assert caught.value.reason is Reason.CATALOG_UNREACHABLE


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_receiver_of_c_move_takes_objects_with_tls_only(tmp_path: Path) -> None:
    node_files, our_files, stranger = (certificate(tmp_path, name) for name in ("node", "ours", "stranger"))
    port = free_port()
    settings = FetchSettings(
        tries=1, timeout=5, dicom_retrieval="move", dicom_port=port, dicom_tls=True,
        tls_ca=str(node_files[0]), tls_certificate=str(our_files[0]), tls_key=str(our_files[1]),
    )  # fmt: skip
    knowing = ssl.create_default_context(cafile=our_files[0])
    knowing.load_cert_chain(*node_files)
    unknown = ssl.create_default_context(cafile=our_files[0])
    unknown.load_cert_chain(*stranger)
    with archive_node(series_of(), tls=server_context(node_files)) as node:
        node.destinations["CTENRICH"] = (port, knowing)
        paths = fetch(node.address, tmp_path / "out", settings)
        assert [dcmread(path).SOPInstanceUID for path in paths] == [path.stem for path in paths]
        senders = {
            "another certificate": unknown,
            "none": ssl.create_default_context(cafile=our_files[0]),
            "plain": None,
        }
        for name, tls in senders.items():
            node.destinations["CTENRICH"] = (port, tls)
            with pytest.raises((InputError, RetryExhaustedError)) as caught:
                fetch(node.address, tmp_path / name, settings)
            assert caught.value.reason in (Reason.RETRIEVE_REFUSED, Reason.RETRY_EXHAUSTED)
            assert not list((tmp_path / name).glob("*.dcm"))
        with pytest.raises(UsageError, match="needs a certificate"):
            fetch(node.address, tmp_path / "no", replace(settings, tls_certificate="", tls_key=""))
    gc.collect()  # sockets of refused handshakes, which pynetdicom leaves open


@pytest.mark.long
def test_half_a_series_of_a_c_move_is_no_series(tmp_path: Path) -> None:
    port = free_port()
    settings = FetchSettings(tries=2, timeout=5, backoff=0.01, dicom_retrieval="move", dicom_port=port)
    with archive_node(series_of()) as node:
        node.destinations["CTENRICH"] = (port, None)
        node.sends = lambda data: data if data.SOPInstanceUID < "1.2.3.4.4" else None
        with pytest.raises(RetryExhaustedError, match="3 of 3 objects did not arrive"):
            fetch(node.address, tmp_path, settings)


def test_cohorts_of_nodes_are_read_back(tmp_path: Path) -> None:
    with archive_node(series_of(StudyDate="20200101")) as node:
        (one,) = read_cohort(steps_cohort(node.address, tmp_path)).series
        assert one.instances[0].url == f"{node.address}/studies/{STUDY}/series/{SERIES}/"
