"""Source files are sent as they are: one refusal each is logged with its reason, and a resume sends what lacks."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RTDoseStorage,
    RTPlanStorage,
    RTStructureSetStorage,
)
from tests.conftest import need_program
from tests.publish.test_objects import orthanc
from tests.support.small_series import Small, folder_entry, write_small
from tests.support.treatment_cases import Patient, make
from typer.testing import CliRunner

from ctenrich import steps
from ctenrich.cli.main import app
from ctenrich.dicom.reader import find_data_set
from ctenrich.errors import GeometryError, InputError, TransientError, UsageError
from ctenrich.publish.content import gather
from ctenrich.publish.log import read_log
from ctenrich.publish.objects import publish_to
from ctenrich.publish.options import Content, PublishOptions, TlsFiles, node_of, parse_content
from ctenrich.publish.verify import verify_published
from ctenrich.reasons import Reason
from ctenrich.series_store import SeriesStore
from ctenrich.settings import Settings
from ctenrich.stages.fetch import fetch_series
from ctenrich.stages.sort import sort_series
from ctenrich.treatments.files import write_treatments
from ctenrich.workspace import Workspace

__all__ = ["orthanc"]
pytest.importorskip("pynetdicom")

SOURCES = PublishOptions(what=(Content.SOURCES,))
PLAIN = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
EVERYTHING = dict.fromkeys((CTImageStorage, RTStructureSetStorage, RTPlanStorage, RTDoseStorage), PLAIN)


def data_set_of(path: Path) -> bytes:
    with path.open("rb") as handle:
        find_data_set(handle)
        return handle.read()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A treatment (4 slices, structure set, plan, dose) that was fetched; a slice is without file meta information."""
    folder = tmp_path_factory.mktemp("sources")
    Patient(folder / "in").whole()
    slices = sorted(p for p in (folder / "in").iterdir() if "RT" not in p.name)
    slices[1].write_bytes(data_set_of(slices[1]))
    write_treatments(make(folder / "in"), folder / "treatments.parquet")
    run = steps.start(folder / "treatments.parquet", folder / "run", segmenters=["expert"])
    steps.fetch(run)
    return folder


@pytest.fixture
def run(original: Path) -> Iterator[Workspace]:
    kept = {path: path.read_bytes() for path in (original / "in").iterdir()}
    yield Workspace(original / "run")
    shutil.rmtree(original / "run" / "publish", ignore_errors=True)
    for path, content in kept.items():
        path.write_bytes(content)


@dataclass
class Receiver:
    """What a node got: SOP Instance UID -> bytes of the data set, and the statuses that it answers."""

    port: int = 0
    got: dict[str, bytes] = field(default_factory=dict)
    syntaxes: dict[str, str] = field(default_factory=dict)
    answer: Callable[[str], int] = lambda _: 0
    no_answer: list[str] = field(default_factory=list)
    """Objects at which it aborts the association instead of answering, once each time that they are listed."""

    @property
    def url(self) -> str:
        return f"dicom://127.0.0.1:{self.port}/NODE"


@contextmanager
def node(supported: Mapping[Any, list[Any]], tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    from pynetdicom import AE, evt

    found = Receiver()

    def store(event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        if uid in found.no_answer:
            found.no_answer.remove(uid)
            event.assoc.abort()
            return 0xC000
        status = found.answer(uid)
        if status in (0, 0xB000):
            found.got[uid] = event.request.DataSet.getvalue()
            found.syntaxes[uid] = str(event.context.transfer_syntax)
        return status

    entity = AE(ae_title="NODE")
    for name, syntaxes in supported.items():
        entity.add_supported_context(name, syntaxes)
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)], ssl_context=tls
    )
    found.port = server.socket.getsockname()[1]
    try:
        yield found
    finally:
        server.shutdown()


def test_refusals_have_reasons_and_a_resume_sends_only_what_lacks(run: Workspace) -> None:
    less = {CTImageStorage: PLAIN, RTStructureSetStorage: PLAIN, RTPlanStorage: [JPEG2000Lossless]}
    files = {file.sop_instance_uid: file for file in gather(run, SOURCES).files}
    assert sorted(file.modality for file in files.values()) == ["CT"] * 4 + ["RTDOSE", "RTPLAN", "RTSTRUCT"]
    unlucky = next(uid for uid, file in files.items() if file.modality == "CT")
    syntax = (
        "the node does not take RT Plan Storage in the transfer syntax Explicit VR Little Endian, "
        "and nothing is compressed again"
    )
    with node(less) as receiver:
        receiver.answer = lambda uid: 0xA700 if uid == unlucky else 0xB000
        with pytest.raises(TransientError) as caught:
            publish_to(run, receiver.url, options=SOURCES)
        assert caught.value.reason is Reason.RETRY_EXHAUSTED
        assert "3 of 7 objects" in caught.value.message
        log = {row.name: row for row in read_log(run, receiver.url)}
        failed = {row.modality: (row.reason, row.detail) for row in log.values() if row.status == "failed"}
        assert failed == {
            "CT": ("OBJECT_REFUSED", "status A700"),
            "RTDOSE": ("TRANSFER_SYNTAX_REFUSED", "the node takes no RT Dose Storage"),
            "RTPLAN": ("TRANSFER_SYNTAX_REFUSED", syntax),
        }
        stored = [row for row in log.values() if row.status == "sent"]
        assert {row.detail for row in stored} == {"status B000: the node changed data elements (coercion)"}
        assert all(row.time.endswith("+00:00") and row.series for row in stored)
        receiver.answer = lambda _: 0
        with pytest.raises(InputError) as same:
            publish_to(run, receiver.url, options=SOURCES)
        assert same.value.reason is Reason.TRANSFER_SYNTAX_REFUSED
        assert len(receiver.got) == 5
        first = dict(receiver.got)
    with node(EVERYTHING) as receiver:
        (log_of_first,) = (run.root / "publish").glob("*.jsonl")
        log_of_first.rename(log_of_first.with_name(f"dicom_127_0_0_1_{receiver.port}_NODE.jsonl"))
        sent = publish_to(run, receiver.url, options=SOURCES)
        assert sorted(row.status for row in sent) == ["already there"] * 5 + ["sent"] * 2
        assert {files[uid].modality for uid in receiver.got} == {"RTPLAN", "RTDOSE"}
        for uid, content in (first | receiver.got).items():
            assert content == data_set_of(files[uid].path), "sent byte for byte, with or without file meta information"


def test_the_resume_sends_one(run: Workspace) -> None:
    with node(EVERYTHING) as receiver:
        unlucky = gather(run, SOURCES).files[2].sop_instance_uid
        receiver.answer = lambda uid: 0xA700 if uid == unlucky else 0
        first = CliRunner().invoke(app, ["publish", str(run.root), receiver.url, "--what", "sources"])
        assert first.exit_code == 1
        assert "OBJECT_REFUSED" in first.output
        receiver.answer = lambda _: 0
        receiver.got.clear()
        again = CliRunner().invoke(app, ["publish", str(run.root), receiver.url, "--what", "sources"])
        assert again.exit_code == 0, again.output
        assert "7 objects (4 CT, 1 RTDOSE, 1 RTPLAN, 1 RTSTRUCT), 1 of them sent now" in again.output
        assert list(receiver.got) == [unlucky]


def test_an_object_without_an_answer_is_sent_again_once(run: Workspace) -> None:
    with node(EVERYTHING) as receiver:
        unlucky = gather(run, SOURCES).files[2].sop_instance_uid
        receiver.no_answer = [unlucky]
        sent = publish_to(run, receiver.url, options=SOURCES)
        assert [row.status for row in sent] == ["sent"] * 7
        assert len(receiver.got) == 7
    with node(EVERYTHING) as receiver:
        receiver.no_answer = [unlucky] * 2
        with pytest.raises(TransientError, match="1 of 7 objects"):
            publish_to(run, receiver.url, options=SOURCES)
        assert set(receiver.got) == {file.sop_instance_uid for file in gather(run, SOURCES).files} - {unlucky}
        (failed,) = [row for row in read_log(run, receiver.url) if row.status == "failed"]
        assert (failed.reason, failed.detail) == ("RETRY_EXHAUSTED", "no answer")


def test_a_changed_file_is_not_sent_and_a_missing_one_holds_back_its_series(run: Workspace) -> None:
    dose = next(file for file in gather(run, SOURCES).files if file.modality == "RTDOSE")
    data = pydicom.dcmread(dose.path)
    data.DoseGridScaling = "0.002"
    data.save_as(dose.path)
    with node(EVERYTHING) as receiver:
        with pytest.raises(InputError) as caught:
            publish_to(run, receiver.url, options=SOURCES)
        assert caught.value.reason is Reason.CHECKSUM
        assert dose.sop_instance_uid not in receiver.got
        assert len(receiver.got) == 6
    next(file for file in gather(run, SOURCES).files if file.modality == "CT").path.unlink()
    found = gather(run, SOURCES)
    assert [file.modality for file in found.files] == ["RTSTRUCT", "RTPLAN", "RTDOSE"]
    assert [(one.reason, "1 of its 4 files" in one.detail) for one in found.unavailable] == [(Reason.IO_ERROR, True)]


def test_a_transfer_syntax_that_the_file_misstates(run: Workspace) -> None:
    plan = next(file for file in gather(run, SOURCES).files if file.modality == "RTPLAN")
    content = plan.path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0", 1)
    plan.path.write_bytes(content)
    again = next(file for file in gather(run, SOURCES).files if file.modality == "RTPLAN")
    assert (again.restated, again.transfer_syntax) == (True, ExplicitVRLittleEndian)


def test_a_series_that_a_later_stage_excludes_is_sent_too(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "run")
    write_small(tmp_path / "in", Small(count=1))
    fetched = fetch_series(folder_entry(tmp_path / "in"), settings=Settings(), workspace=workspace)
    with pytest.raises(GeometryError) as caught:
        sort_series(fetched, settings=Settings(), workspace=workspace)
    assert caught.value.reason is Reason.ONE_SLICE
    SeriesStore(workspace).save(fetched, fetched.series_instance_uid)
    assert [file.sop_instance_uid for file in gather(workspace, SOURCES).files] == ["1.2.3.4.1"]


def test_a_folder_is_sent_whole_and_once(original: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(original / "in", folder)
    (folder / "notes.txt").write_text("nothing")
    first, second = sorted(folder.glob("*.dcm"))[:2]
    shutil.copy(first, folder / "copy.dcm")
    conflict = pydicom.dcmread(second, force=True)
    other = pydicom.dcmread(folder / "RTPLAN-P1-1-40-1.dcm")
    other.RTPlanLabel = "another"
    other.save_as(folder / "other.dcm")
    assert conflict.SOPInstanceUID
    found = gather(folder)
    assert len(found.files) == 6
    assert [(one.reason, one.modality) for one in found.unavailable] == [(Reason.CONFLICTING_DUPLICATE, "RTPLAN")]
    assert found.notes == ("not sent: 1 file without a DICOM object",)
    with node(EVERYTHING) as receiver:
        done = CliRunner().invoke(app, ["publish", str(folder), receiver.url])
        assert done.exit_code == 1
        assert "CONFLICTING_DUPLICATE" in done.output
        (folder / "other.dcm").unlink()
        done = CliRunner().invoke(app, ["publish", str(folder), receiver.url])
        assert "7 objects (4 CT, 1 RTDOSE, 1 RTPLAN, 1 RTSTRUCT), 1 of them sent now" in done.output
    (log,) = tmp_path.glob("folder.publish/*.jsonl")
    assert "P1" not in log.read_text(), "neither the Patient ID nor names of files"


def test_wrong_requests(run: Workspace, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds a run"):
        gather(run.root.parent)
    with pytest.raises(UsageError) as caught:
        gather(run, PublishOptions(what=(Content.STRUCTURE_SETS,)))
    assert "export RUN rtstruct" in caught.value.hint
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no DICOM file"):
        gather(tmp_path / "empty")
    assert parse_content("objects, sources") == (Content.OBJECTS, Content.SOURCES)
    for wrong in ("source", ",", "objects,masks"):
        with pytest.raises(UsageError):
            parse_content(wrong)
    for target in ("dicom://host:104/A-TITLE-OF-TOO-MANY", "dicom://host:104/"):
        with pytest.raises(UsageError):
            node_of(target)
    with pytest.raises(UsageError, match="certificates are for"):
        publish_to(run, "http://127.0.0.1:1/x", options=PublishOptions(tls=TlsFiles()))


def test_a_bucket_gets_the_layout_of_the_run_and_no_identified_patient(
    run: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Store:
        places: list[str] = []  # noqa: RUF012

        def upload(self, source: Path, url: str, *, replace: bool = False) -> None:
            assert source.is_file()
            assert replace
            self.places.append(url)

    monkeypatch.setattr("ctenrich.publish.objects.open_storage", lambda *_: Store())
    with pytest.raises(UsageError) as caught:
        publish_to(run, "gs://b/x", options=SOURCES)
    assert caught.value.reason is Reason.IDENTITY_NOT_REMOVED
    publish_to(run, "gs://b/x", options=PublishOptions(what=(Content.SOURCES,), identified=True))
    (uid,) = run.series_uids()
    folders = sorted(place.rpartition("/")[0] for place in Store.places)
    source = f"gs://b/x/series/{uid}/source"
    assert folders == [source] * 4 + [f"{source}/companions"] * 3


def test_tls(run: Workspace, tmp_path: Path) -> None:
    need_program("openssl", "openssl")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout k.pem -out c.pem "
        "-subj /CN=node -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
    certificate = tmp_path / "c.pem"
    with node(EVERYTHING, server) as receiver:
        trusting = PublishOptions(what=SOURCES.what, tls=TlsFiles(ca=certificate))
        assert {row.status for row in publish_to(run, receiver.url, options=trusting)} == {"sent"}
        for other in (SOURCES, PublishOptions(what=SOURCES.what, tls=TlsFiles())):  # no TLS; unknown authority
            with pytest.raises(TransientError) as caught:
                publish_to(run, receiver.url, options=other)
            assert "did not accept the association" in caught.value.message
    with pytest.raises(UsageError, match="needs its key"):
        TlsFiles(certificate=certificate).context()
    with pytest.raises(UsageError, match="cannot be used"):
        TlsFiles(ca=tmp_path / "k.pem", certificate=certificate, key=certificate).context()


@pytest.mark.long
def test_sources_in_orthanc(run: Workspace, orthanc: tuple[str, int]) -> None:
    root, port = orthanc
    sent = publish_to(run, f"dicom://127.0.0.1:{port}/ORTHANC", options=SOURCES)
    assert [row.status for row in sent] == ["sent"] * 7
    url = f"{root}/dicom-web"
    assert {row.status for row in publish_to(run, url, options=SOURCES)} == {"sent"}
    assert {one.status for one in verify_published(run, url, options=SOURCES)} == {"equal"}
