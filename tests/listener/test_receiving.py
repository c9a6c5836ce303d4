"""Objects over the network: what is accepted is on disk, and what must be refused is refused."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pytest
from pydicom import dcmread
from tests.support.listeners import (
    CONFIG,
    LIMITS,
    Receiver,
    receiving,
    rejection_of,
    silent_connection,
    study_files,
    uid_of,
    wait_for,
    wait_until_settled,
)

from ctenrich.listener.admission import Rejection, reject
from ctenrich.listener.config import Peer
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.intake import Intake
from ctenrich.listener.station import Station

pytest.importorskip("pynetdicom")
SUCCESS, REFUSED, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with receiving(tmp_path / "station") as found:
        yield found


def test_the_process_that_receives_does_not_load_what_runs_cases() -> None:
    code = "import sys, ctenrich.listener.receiver, ctenrich.listener.scp; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"ctenrich.steps", "ctenrich.report", "duckdb", "pyarrow", "torch"} & set(loaded)


def test_a_study_is_stored_with_its_bytes(receiver: Receiver) -> None:
    files = study_files()
    assert set(receiver.send(*files)) == {SUCCESS}
    assert receiver.uids() == {uid_of(path) for path in files}
    sent = {uid_of(path): dcmread(path) for path in files}
    for row in receiver.rows():
        stored = receiver.station.received / row["path"]
        assert dcmread(stored) == sent[row["sop_instance_uid"]]
        head = 144 + int.from_bytes(stored.read_bytes()[140:144], "little")
        assert hashlib.sha256(stored.read_bytes()[head:]).hexdigest() == row["sha256"]
        assert stored.stat().st_mode & 0o777 == 0o600
    assert receiver.station.root.stat().st_mode & 0o777 == 0o700


def test_the_same_bytes_again_are_acknowledged_and_not_kept_twice(receiver: Receiver) -> None:
    files = study_files()[:2]
    assert receiver.send(*files) == receiver.send(*files) == [SUCCESS, SUCCESS]
    assert len(receiver.rows()) == 2
    stored = {path.name for path in receiver.station.received.rglob("*.dcm") if path.stat().st_size}
    assert len(stored) == 2


def test_other_bytes_under_one_uid_are_kept_as_a_conflict(receiver: Receiver) -> None:
    first = dcmread(study_files()[0])
    other = dcmread(study_files()[0])
    other.SeriesDescription = "changed"
    assert receiver.send(first, other) == [SUCCESS, SUCCESS]
    assert [row["conflict"] for row in receiver.rows()] == [0, 1]
    with StationDatabase(receiver.station.database) as database:
        wait_until_settled(database)
        Intake(receiver.station, database, CONFIG.close).run_once()
        assert database.rows("SELECT held FROM cases")[0]["held"] == "CONFLICT"


def test_an_abort_keeps_what_was_acknowledged_and_nothing_else(receiver: Receiver) -> None:
    files = study_files()
    with receiver.association() as association:
        assert [association.send_c_store(path).Status for path in files[:3]] == [SUCCESS] * 3
        association.abort()
    ended = wait_for(lambda: receiver.rows("SELECT ending FROM associations WHERE ended IS NOT NULL"))
    assert [row["ending"] for row in ended] == ["aborted"]
    assert receiver.uids() == {uid_of(path) for path in files[:3]}


@pytest.mark.parametrize(
    ("sender", "called", "reason"), [("OTHER", "CTENRICH", 3), ("SENDER", "ELSEWHERE", 7)], ids=["calling", "called"]
)
def test_an_unknown_ae_title_is_rejected(receiver: Receiver, sender: str, called: str, reason: int) -> None:
    assert rejection_of(receiver.ports["dicom"], sender, called) == (1, 1, reason)
    assert "rejected" in receiver.station.audit.read_text()
    assert receiver.rows() == []


def test_a_sender_of_another_address_is_rejected(tmp_path: Path) -> None:
    config = replace(CONFIG, peers=(Peer(aet="SENDER", host="10.0.0.0/8"),))
    with receiving(tmp_path / "station", config) as receiver:
        assert rejection_of(receiver.ports["dicom"]) == (1, 1, 3)


def test_the_requestor_closes_the_connection_of_a_rejection() -> None:
    requestor, station = socket.socketpair()
    with requestor, station:
        rejecting = threading.Thread(target=reject, args=(station, Rejection.CALLING_AE, 60))
        rejecting.start()
        assert requestor.recv(64) == bytes.fromhex("03000000000400010103")
        assert rejecting.is_alive()
        requestor.shutdown(socket.SHUT_WR)
        rejecting.join(30)
        assert not rejecting.is_alive()
    requestor, station = socket.socketpair()
    with requestor, station:
        reject(station, Rejection.TOO_MANY, 0.05)  # returns though the requestor does nothing


def test_silent_connections_do_not_keep_senders_out(tmp_path: Path) -> None:
    limits = replace(LIMITS, max_associations=3)
    with receiving(tmp_path / "station", replace(CONFIG, limits=limits)) as receiver:
        silent = [silent_connection(receiver.ports["dicom"]) for _ in range(5)]
        with receiver.association() as association:
            assert association.send_c_echo().Status == SUCCESS
        for connection in silent:
            connection.close()


@pytest.mark.parametrize("sent", [b"", b"\x01\x00\x00"], ids=["silent", "slow"])
def test_a_connection_without_a_request_is_closed_in_time(tmp_path: Path, sent: bytes) -> None:
    limits = replace(LIMITS, connect_seconds=0.3)
    with receiving(tmp_path / "station", replace(CONFIG, limits=limits)) as receiver:
        with silent_connection(receiver.ports["dicom"], sent) as connection:
            connection.settimeout(30)
            assert connection.recv(1) == b""
        wait_for(lambda: "no A-ASSOCIATE-RQ in time" in receiver.station.audit.read_text())


def test_a_pdu_that_stops_ends_its_association_only(tmp_path: Path) -> None:
    limits = replace(LIMITS, pdu_seconds=0.5)
    with receiving(tmp_path / "station", replace(CONFIG, limits=limits)) as receiver:
        with receiver.association() as association:
            association.dul.socket.socket.sendall(b"\x04\x00\x00\x00\x40\x00half")
            wait_for(lambda: not association.is_established)
        assert receiver.send(study_files()[0]) == [SUCCESS]


def test_the_associations_of_one_address_are_limited(tmp_path: Path) -> None:
    limits = replace(LIMITS, max_per_host=1)
    with receiving(tmp_path / "station", replace(CONFIG, limits=limits)) as receiver:
        with receiver.association() as first:
            assert first.is_established
            assert rejection_of(receiver.ports["dicom"]) == (2, 3, 2)
        assert receiver.send(study_files()[0]) == [SUCCESS]


def test_a_full_disk_refuses_objects_and_recovers(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [0]
    monkeypatch.setattr("ctenrich.listener.disk.Disk.free", lambda *_: free[0])
    first, second = study_files()[:2]
    with receiver.association() as association:
        assert association.send_c_store(first).Status == REFUSED
        assert association.send_c_echo().Status == SUCCESS
        free[0] = 10**12
        assert association.send_c_store(second).Status == SUCCESS
    assert receiver.uids() == {uid_of(second)}


def test_an_object_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    limits = replace(LIMITS, max_object=1000)
    with receiving(tmp_path / "station", replace(CONFIG, limits=limits)) as receiver:
        assert receiver.send(study_files()[0]) == [CANNOT_UNDERSTAND]
        assert receiver.rows() == []


def test_one_association_per_image_and_several_senders_make_one_case(receiver: Receiver) -> None:
    files = study_files()
    threads = [threading.Thread(target=receiver.send, args=(path,)) for path in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with StationDatabase(receiver.station.database) as database:
        wait_until_settled(database)
        assert Intake(receiver.station, database, CONFIG.close).run_once() == len(files)
        assert [row["id"] for row in database.rows("SELECT id FROM cases")] == [1]
        assert database.value("SELECT count(*) FROM instances WHERE case_id = 1 AND revision = 1") == len(files)


def test_an_association_after_an_abort_has_a_number_and_a_case_of_its_own(receiver: Receiver) -> None:
    with receiver.association() as association:
        assert association.send_c_store(study_files(1)[0]).Status == SUCCESS
        association.abort()
    wait_for(lambda: receiver.rows("SELECT 1 FROM associations WHERE ending = 'aborted'"))
    assert receiver.send(study_files(2)[0]) == [SUCCESS]
    assert len({row["association"] for row in receiver.rows()}) == 2
    with StationDatabase(receiver.station.database) as database:
        wait_until_settled(database)
        Intake(receiver.station, database, CONFIG.close).run_once()
        assert [row["case_id"] for row in database.rows("SELECT case_id FROM instances ORDER BY id")] == [1, 2]


def test_a_receiver_that_is_stopped_keeps_what_it_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctenrich.listener.receiver._RELEASE_SECONDS", 0.2)
    statuses: list[tuple[str, int]] = []

    def send() -> None:
        with receiver.association() as association:
            for path in cycle(study_files()):  # until the station ends the association
                try:
                    status = association.send_c_store(path)
                except RuntimeError:  # pynetdicom's answer where the association has ended before this request
                    assert not association.is_established
                    return
                if "Status" not in status:  # it ended during this request
                    return
                statuses.append((uid_of(path), status.Status))
                time.sleep(0.02)

    with receiving(tmp_path / "station") as receiver:
        sender = threading.Thread(target=send)
        sender.start()
        wait_for(lambda: statuses)
    sender.join(60)
    assert not sender.is_alive()
    assert {uid for uid, status in statuses if status == SUCCESS} <= receiver.uids()


def test_one_object_from_many_senders_at_once_is_stored_once(receiver: Receiver) -> None:
    statuses: list[int] = []
    file = study_files()[0]
    threads = [threading.Thread(target=lambda: statuses.extend(receiver.send(file, file, file))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(statuses) == {SUCCESS: 18}
    assert len(receiver.rows()) == 1


def test_many_connections_leave_threads_and_slots_as_they_were(receiver: Receiver) -> None:
    def echo() -> None:
        with receiver.association() as association:
            assert association.send_c_echo().Status == SUCCESS

    echo()
    before = threading.active_count()
    for _ in range(20):
        silent_connection(receiver.ports["dicom"]).close()
    for _ in range(5):
        echo()
    wait_for(lambda: threading.active_count() <= before)
    assert receiver.rows("SELECT * FROM associations") == []


def test_a_second_receiver_deletes_what_was_never_acknowledged(tmp_path: Path) -> None:
    with receiving(tmp_path / "station") as receiver:
        receiver.send(study_files()[0])
    torn = Station(tmp_path / "station").received / "000000" / "000000500.dcm"
    torn.write_bytes(b"half an object")
    with receiving(tmp_path / "station") as receiver:
        assert not torn.exists()
        assert receiver.send(study_files()[1]) == [SUCCESS]
        assert len(receiver.rows()) == 2
