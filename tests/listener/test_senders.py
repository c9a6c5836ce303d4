"""Real senders: dcmtk's storescu, and objects of unusual kinds; bytes are stored as they were sent."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from benchmarks.listener import large_object, listening
from pydicom import dcmread
from tests.conftest import need_program
from tests.publish.test_objects import free_port
from tests.support.listeners import CONFIG, TINY, Receiver, receiving, study_files, uid_of, wait_for, wait_until_settled

from ctenrich.listener.database import StationDatabase
from ctenrich.listener.intake import Intake
from ctenrich.phantom import write_phantom_study
from ctenrich.phantom.options import PixelEncoding

pytest.importorskip("pynetdicom")


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with receiving(tmp_path / "station") as found:
        yield found


def data_set(path: Path) -> bytes:
    """The bytes of a file behind its file meta information."""
    data = path.read_bytes()
    return data[144 + int.from_bytes(data[140:144], "little") :]


def send_as_it_is(receiver: Receiver, path: Path) -> int:
    """Send the bytes of a file, without decoding them, under its own SOP class and transfer syntax."""
    from pynetdicom import AE, _config

    meta = dcmread(path, stop_before_pixels=True).file_meta
    entity = AE(ae_title="SENDER")
    entity.add_requested_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", receiver.ports["dicom"], ae_title="CTENRICH")
    assert association.is_established
    before, _config.STORE_SEND_CHUNKED_DATASET = _config.STORE_SEND_CHUNKED_DATASET, True
    try:
        return int(association.send_c_store(path).Status)
    finally:
        _config.STORE_SEND_CHUNKED_DATASET = before
        association.release()


@pytest.mark.parametrize("encoding", list(PixelEncoding), ids=lambda one: one.name)
def test_every_transfer_syntax_is_stored_as_sent(receiver: Receiver, tmp_path: Path, encoding: PixelEncoding) -> None:
    write_phantom_study(tmp_path / "dicom", replace(TINY, rows=64, columns=64, slices=2, encoding=encoding))
    path = next((tmp_path / "dicom").rglob("*.dcm"))
    assert send_as_it_is(receiver, path) == 0
    row = receiver.rows()[0]
    assert data_set(receiver.station.received / row["path"]) == data_set(path)
    assert row["transfer_syntax"] == encoding.value
    assert dcmread(receiver.station.received / row["path"]).file_meta.TransferSyntaxUID == encoding.value


def changed(path: Path, target: Path, sop_class: str, rest: bytes | None = None) -> Path:
    """A copy of a file with another SOP class, and perhaps other bytes in place of its data set."""
    dataset = dcmread(path)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.save_as(target)
    if rest is not None:
        target.write_bytes(target.read_bytes()[: -len(data_set(target))] + rest)
    return target


@pytest.mark.parametrize("sop_class", ["1.2.3.4.5.6.7", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.66.4"])
def test_any_sop_class_is_stored(receiver: Receiver, tmp_path: Path, sop_class: str) -> None:
    assert send_as_it_is(receiver, changed(study_files()[0], tmp_path / "x.dcm", sop_class)) == 0
    assert receiver.rows()[0]["sop_class_uid"] == sop_class


def test_a_data_set_that_cannot_be_parsed_is_stored_and_held(receiver: Receiver, tmp_path: Path) -> None:
    junk = random.Random(1).randbytes(5000)
    path = changed(study_files()[0], tmp_path / "x.dcm", "1.2.840.10008.5.1.4.1.1.2", junk)
    assert send_as_it_is(receiver, path) == 0
    with StationDatabase(receiver.station.database) as database:
        wait_until_settled(database)
        Intake(receiver.station, database, CONFIG.close).run_once()
        assert database.rows("SELECT held FROM cases")[0]["held"] == "NO_STUDY"


def test_an_object_under_another_uid_than_it_states_is_held(receiver: Receiver) -> None:
    dataset, request = dcmread(study_files()[0]), uid_of(study_files()[1])
    with receiver.association() as association:
        from pynetdicom import evt

        def rename(event: object) -> None:
            message = event.message  # type: ignore[attr-defined]
            if type(message).__name__ == "C_STORE_RQ":
                message.command_set.AffectedSOPInstanceUID = request

        association.bind(evt.EVT_DIMSE_SENT, rename)
        assert association.send_c_store(dataset).Status == 0
    with StationDatabase(receiver.station.database) as database:
        wait_until_settled(database)
        Intake(receiver.station, database, CONFIG.close).run_once()
        assert database.rows("SELECT held FROM cases")[0]["held"] == "OTHER_SOP_INSTANCE"


@pytest.mark.long
def test_a_large_object_takes_no_more_memory_than_small_ones(tmp_path: Path) -> None:
    need_program("dcmtk", "storescu")
    port = free_port()
    with listening(tmp_path / "station", port) as process:
        before = process.memory_info().rss
        path = large_object(tmp_path / "large.dcm", 100_000_000)
        command = ["storescu", "-R", "-aec", "CTENRICH", "127.0.0.1", str(port), str(path)]
        subprocess.run(command, check=True, env={**os.environ, "TCP_NODELAY": "1"})
        assert isinstance(process, psutil.Process)
        assert process.memory_info().rss - before < 30_000_000
        stored = max((tmp_path / "station" / "received").rglob("*.dcm"), key=lambda one: one.stat().st_size)
        wait_for(lambda: data_set(stored)[-1000:] == path.read_bytes()[-1000:])
