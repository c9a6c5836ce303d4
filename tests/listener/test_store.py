"""The store keeps what it acknowledged: through power failures at any moment, full disks and unreadable objects."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from pydicom import dcmread
from tests.support.listeners import LIMITS, study_files, uid_of

from ctenrich.errors import UsageError
from ctenrich.listener import store as store_module
from ctenrich.listener.config import CloseRule, Limits
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.disk import Disk
from ctenrich.listener.incoming import FileMeta, StoreStatus
from ctenrich.listener.intake import Intake
from ctenrich.listener.station import Station, StationLock
from ctenrich.listener.store import ObjectStore, Receipt, Result
from ctenrich.listener.trailer import Trailer, encode_trailer, read_trailer
from ctenrich.reasons import Reason

Opened = tuple[ObjectStore, StationDatabase]


class ForgetfulDisk(Disk):
    """Remembers what a power failure would leave: names and bytes that were synchronised, and nothing else."""

    def __init__(self) -> None:
        self.names: dict[Path, set[str]] = {}
        self.contents: dict[int, bytes] = {}
        self.wal = 0
        """Bytes of the database's log that were synchronised."""

    def sync_file(self, descriptor: int) -> None:
        super().sync_file(descriptor)
        status = os.fstat(descriptor)
        self.contents[status.st_ino] = os.pread(descriptor, status.st_size, 0)

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        self.names[path] = {entry.name for entry in path.iterdir()}

    def after_power_failure(self, station: Station, target: Path, rng: random.Random) -> Station:
        """Copy the station as it would be found: unsynchronised names are gone, unsynchronised bytes are noise."""
        target.mkdir()
        shutil.copyfile(station.database, target / station.database.name)
        wal = station.database.with_name("station.sqlite-wal").read_bytes()
        kept = wal[: rng.randrange(self.wal, len(wal) + 1)]  # commits that were not synchronised, or parts of them
        (target / "station.sqlite-wal").write_bytes(kept + rng.randbytes(rng.randrange(6000)))
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
                    content = self.contents.get(source.stat().st_ino, rng.randbytes(rng.randrange(50)))
                    (copy / name).write_bytes(content)
        return left


class ForgetfulDatabase(StationDatabase):
    """Notes on the disk how much of its log is synchronised."""

    def __init__(self, path: Path, disk: ForgetfulDisk) -> None:
        super().__init__(path)
        self._wal, self._disk = path.with_name("station.sqlite-wal"), disk
        disk.wal = self._wal.stat().st_size

    @contextmanager
    def transaction(self, *, sync: bool = True) -> Iterator[sqlite3.Connection]:
        """A transaction; if it is synchronised, so is all of the log."""
        with super().transaction(sync=sync) as db:
            yield db
        if sync:
            self._disk.wal = self._wal.stat().st_size


def put(store: ObjectStore, path: Path, association: int = 1) -> Receipt:
    incoming = store.begin()
    incoming.write(path.read_bytes())
    return store.commit(
        incoming, FileMeta("1.2.840.10008.5.1.4.1.1.2", uid_of(path), "1.2.840.10008.1.2.1"), association
    )


def open_store(root: Path, limits: Limits = LIMITS, disk: ForgetfulDisk | None = None) -> Opened:
    station = Station.create(root)
    database = ForgetfulDatabase(station.database, disk) if disk else StationDatabase(station.database)
    return ObjectStore(station, database, limits, disk=disk, settle_seconds=3600 if disk else 0), database


@pytest.mark.parametrize("seed", range(8))
def test_a_power_failure_takes_nothing_that_was_acknowledged(tmp_path: Path, seed: int) -> None:
    rng, disk = random.Random(seed), ForgetfulDisk()
    store, database = open_store(tmp_path / "station", disk=disk)
    files = study_files()
    acknowledged = {}
    for number, path in enumerate(files[: rng.randrange(1, len(files))]):
        if number == 2:  # the rows of the first two are synchronised, and their trailers cut off, perhaps in vain
            store.close()
            store = ObjectStore(Station(tmp_path / "station"), database, LIMITS, disk=disk, settle_seconds=3600)
        assert put(store, path).status is StoreStatus.SUCCESS
        acknowledged[uid_of(path)] = path.read_bytes()
    arriving = store.begin()
    arriving.write(files[-1].read_bytes())
    if seed % 2:
        arriving.finish(lambda: b"cut off")  # its bytes are on disk, and its trailer is not whole
    left = disk.after_power_failure(Station(tmp_path / "station"), tmp_path / "left", rng)
    arriving.discard()
    store.close()
    database.close()
    with StationDatabase(left.database) as rows:
        again = ObjectStore(left, rows, LIMITS)
        assert again.missing() == []
        assert rows.value("SELECT count(*) FROM unsettled") == 0
        found = {r["sop_instance_uid"]: r["path"] for r in rows.rows("SELECT * FROM instances")}
        assert found.keys() == acknowledged.keys()
        for uid, data in acknowledged.items():
            assert (left.received / found[uid]).read_bytes() == data
        assert put(again, files[0]).result is Result.DUPLICATE
        assert put(again, files[-1]).result is Result.STORED
        again.close()
        assert len(list(left.received.rglob("*.dcm"))) == len(acknowledged) + 1


def test_a_conflict_outlives_a_power_failure(tmp_path: Path) -> None:
    disk = ForgetfulDisk()
    store, database = open_store(tmp_path / "station", disk=disk)
    other = dcmread(study_files()[0])
    other.SeriesDescription = "changed"
    other.save_as(tmp_path / "other.dcm")
    assert [put(store, path).result.value for path in (study_files()[0], tmp_path / "other.dcm")] == [
        "stored", "conflict",
    ]  # fmt: skip
    left = disk.after_power_failure(Station(tmp_path / "station"), tmp_path / "left", random.Random(0))
    store.close()
    database.close()
    with StationDatabase(left.database) as rows:
        ObjectStore(left, rows, LIMITS).close()
        assert [row["conflict"] for row in rows.rows("SELECT * FROM instances ORDER BY id")] == [0, 1]


def test_trailers_are_cut_off_once_rows_are_on_disk(tmp_path: Path) -> None:
    store, database = open_store(tmp_path / "station", disk=ForgetfulDisk())
    put(store, study_files()[0])
    path = next(one for one in (tmp_path / "station").rglob("*.dcm") if one.stat().st_size)
    trailer = read_trailer(path)
    assert trailer is not None
    assert (trailer.sop_instance_uid, trailer.size) == (uid_of(study_files()[0]), study_files()[0].stat().st_size)
    assert Intake(Station(tmp_path / "station"), database, CloseRule()).run_once() == 0
    store.close()
    assert path.read_bytes() == study_files()[0].read_bytes()
    assert Intake(Station(tmp_path / "station"), database, CloseRule()).run_once() == 1
    database.close()


@pytest.mark.parametrize("change", ["data", "cut", "trailer", "none"])
def test_a_trailer_counts_only_for_the_bytes_that_it_describes(tmp_path: Path, change: str) -> None:
    data = study_files()[0].read_bytes()
    head = 144 + int.from_bytes(data[140:144], "little")
    text = encode_trailer(
        Trailer.of(
            FileMeta("1.2", "1.3", "1.4"), sha256=sha256(data[head:]).hexdigest(), size=len(data), association=7,
            received=1.5,
        )
    )  # fmt: skip
    path = tmp_path / "x.dcm"
    changed = {
        "data": data[:-1] + bytes([data[-1] ^ 1]) + text, "cut": data[:-2] + text,
        "trailer": data + text.replace(b'"association": 7', b'"association": 8'), "none": data + text,
    }  # fmt: skip
    path.write_bytes(changed[change])
    found = read_trailer(path)
    assert (found is None) == (change != "none")
    assert found is None or found.association == 7


def test_a_station_of_the_version_before_is_opened(tmp_path: Path) -> None:
    store, database = open_store(tmp_path / "station")
    put(store, study_files()[0])
    store.close()
    with database.transaction(sync=False) as db:
        db.execute("DROP TABLE unsettled")
        db.execute("PRAGMA user_version = 1")
    database.close()
    store, database = open_store(tmp_path / "station")
    assert put(store, study_files()[0]).result is Result.DUPLICATE
    assert put(store, study_files()[1]).result is Result.STORED
    store.close()
    database.close()


def test_an_object_is_acknowledged_only_after_it_is_synchronised(tmp_path: Path) -> None:
    disk = ForgetfulDisk()
    store, database = open_store(tmp_path / "station", disk=disk)
    put(store, study_files()[0])
    row = database.rows("SELECT * FROM instances")[0]
    path = tmp_path / "station" / "received" / row["path"]
    assert disk.contents[path.stat().st_ino].startswith(study_files()[0].read_bytes())
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
    ("where", "error", "status"),
    [
        ("disk", OSError(5, "Input/output error"), StoreStatus.PROCESSING_FAILURE),
        ("row", sqlite3.OperationalError("disk I/O error"), StoreStatus.OUT_OF_RESOURCES),
    ],
)
def test_what_cannot_be_stored_is_not_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: Exception, status: StoreStatus
) -> None:
    def fail(*_: object) -> None:
        raise error

    store, database = open_store(tmp_path / "station")
    with monkeypatch.context() as patch:
        if where == "disk":
            patch.setattr(Disk, "sync_file", fail)
        else:
            patch.setattr(store_module, "_insert", fail)
        assert put(store, study_files()[0]) == Receipt(result=Result.REFUSED, status=status)
    assert database.value("SELECT count(*) FROM instances") == 0
    assert [path for path in (tmp_path / "station").rglob("*.dcm") if path.stat().st_size] == []
    assert put(store, study_files()[0]).result is Result.STORED
    store.close()
    database.close()


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
