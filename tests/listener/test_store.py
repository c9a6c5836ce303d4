"""The store keeps what it acknowledged: through power failures at any moment, full disks and unreadable objects."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from tests.support.listeners import LIMITS, study_files, uid_of

from ctenrich.errors import UsageError
from ctenrich.listener.config import Limits
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.disk import Disk
from ctenrich.listener.incoming import FileMeta, StoreStatus
from ctenrich.listener.station import Station, StationLock
from ctenrich.listener.store import ObjectStore, Receipt, Result
from ctenrich.reasons import Reason


class ForgetfulDisk(Disk):
    """Remembers what a power failure would leave: names and bytes that were synchronised, and nothing else."""

    def __init__(self) -> None:
        self.names: dict[Path, set[str]] = {}
        self.contents: dict[int, bytes] = {}
        self.synced = 0

    def sync_file(self, descriptor: int) -> None:
        super().sync_file(descriptor)
        status = os.fstat(descriptor)
        self.contents[status.st_ino] = os.pread(descriptor, status.st_size, 0)
        self.synced += 1

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        self.names[path] = {entry.name for entry in path.iterdir()}

    def after_power_failure(self, station: Station, target: Path, rng: random.Random) -> Station:
        """Copy the station as it would be found: unsynchronised names are gone, unsynchronised bytes are noise."""
        target.mkdir()
        for name in ("station.sqlite", "station.sqlite-wal"):
            if (source := station.root / name).is_file():
                shutil.copyfile(source, target / name)
        with (target / "station.sqlite-wal").open("ab") as wal:  # a commit that had begun
            wal.write(rng.randbytes(rng.randrange(6000)))
        left = Station.create(target)
        for folder, names in self.names.items():
            if folder == station.received:
                continue
            if folder.name not in self.names.get(station.received, set()):
                continue
            copy = left.received / folder.name
            copy.mkdir()
            for name in names:
                if (source := folder / name).exists():
                    kept = self.contents.get(source.stat().st_ino, rng.randbytes(rng.randrange(50)))
                    (copy / name).write_bytes(kept)
        return left


def put(store: ObjectStore, path: Path, association: int = 1) -> Receipt:
    incoming = store.begin()
    incoming.write(path.read_bytes())
    return store.commit(
        incoming, FileMeta("1.2.840.10008.5.1.4.1.1.2", uid_of(path), "1.2.840.10008.1.2.1"), association
    )


def open_store(root: Path, limits: Limits = LIMITS, disk: Disk | None = None) -> tuple[ObjectStore, StationDatabase]:
    station = Station.create(root)
    database = StationDatabase(station.database)
    return ObjectStore(station, database, limits, disk=disk), database


@pytest.mark.parametrize("seed", range(4))
def test_a_power_failure_takes_nothing_that_was_acknowledged(tmp_path: Path, seed: int) -> None:
    rng, disk = random.Random(seed), ForgetfulDisk()
    store, database = open_store(tmp_path / "station", disk=disk)
    files = study_files()
    acknowledged = {}
    for path in files[: rng.randrange(1, len(files))]:
        assert put(store, path).status is StoreStatus.SUCCESS
        acknowledged[uid_of(path)] = path.read_bytes()
    arriving = store.begin()
    arriving.write(files[-1].read_bytes())
    if seed % 2:
        arriving.finish()  # its bytes are on disk, and its row is not
    left = disk.after_power_failure(Station(tmp_path / "station"), tmp_path / "left", rng)
    arriving.discard()
    store.close()
    database.close()
    with StationDatabase(left.database) as rows:
        again = ObjectStore(left, rows, LIMITS)
        assert again.missing() == []
        found = {r["sop_instance_uid"]: r["path"] for r in rows.rows("SELECT * FROM instances")}
        assert found.keys() == acknowledged.keys()
        for uid, data in acknowledged.items():
            assert (left.received / found[uid]).read_bytes() == data
        assert put(again, files[-1]).result is Result.STORED
        again.close()
        assert len(list(left.received.rglob("*.dcm"))) == len(acknowledged) + 1


def test_an_object_is_acknowledged_only_after_it_is_synchronised(tmp_path: Path) -> None:
    disk = ForgetfulDisk()
    store, database = open_store(tmp_path / "station", disk=disk)
    put(store, study_files()[0])
    row = database.rows("SELECT * FROM instances")[0]
    path = tmp_path / "station" / "received" / row["path"]
    assert disk.contents[path.stat().st_ino] == study_files()[0].read_bytes()
    assert path.name in disk.names[path.parent]
    store.close()
    database.close()


def test_a_full_disk_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, database = open_store(tmp_path / "station")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Disk, "write", full)
        receipt = put(store, study_files()[0])
    assert receipt == Receipt(result=Result.REFUSED, status=StoreStatus.OUT_OF_RESOURCES)
    assert database.rows("SELECT * FROM instances") == []
    assert put(store, study_files()[0]).status is StoreStatus.SUCCESS
    store.close()
    database.close()
    assert len(list((tmp_path / "station" / "received").rglob("*.dcm"))) == 1


@pytest.mark.parametrize(
    "data", [b"", b"x" * 50, b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + b"no meta information" * 9, b"\1" * 5000]
)
def test_what_is_no_dicom_file_is_refused(tmp_path: Path, data: bytes) -> None:
    store, database = open_store(tmp_path / "station")
    incoming = store.begin()
    for at in range(0, len(data), 7):
        incoming.write(data[at : at + 7])
    assert store.commit(incoming, FileMeta("1.2", "1.3", "1.4"), 1).status is StoreStatus.CANNOT_UNDERSTAND
    store.close()
    database.close()
    assert list((tmp_path / "station" / "received").rglob("*.dcm")) == []


def test_the_hash_does_not_depend_on_how_the_bytes_arrive(tmp_path: Path) -> None:
    store, database = open_store(tmp_path / "station")
    data = study_files()[0].read_bytes()
    hashes = set()
    for size in (1, 13, 1000, len(data)):
        incoming = store.begin()
        for at in range(0, len(data), size):
            incoming.write(data[at : at + size])
        hashes.add(incoming.sha256)
        incoming.discard()
    assert len(hashes) == 1
    store.close()
    database.close()


def test_only_one_listener_works_on_a_station(tmp_path: Path) -> None:
    station = Station.create(tmp_path / "station")
    with StationLock(station):
        with pytest.raises(UsageError) as caught:
            StationLock(station)
        assert caught.value.reason is Reason.STATION_BUSY
    StationLock(station).close()


def test_a_folder_with_other_files_is_no_station(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError) as caught:
        Station.create(tmp_path)
    assert caught.value.reason is Reason.BAD_STATION
    with pytest.raises(UsageError, match="BAD_STATION"):
        Station.open(tmp_path)


def test_a_database_of_a_later_version_is_refused(tmp_path: Path) -> None:
    store, database = open_store(tmp_path / "station")
    with database.transaction() as db:
        db.execute("PRAGMA user_version = 9")
    store.close()
    database.close()
    with pytest.raises(UsageError, match="version 9"):
        StationDatabase(tmp_path / "station" / "station.sqlite")
