"""Stations, senders and listeners of the tests."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset

from ctenrich.listener.config import Limits, Peer, StationConfig
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.receiver import receive
from ctenrich.listener.station import Station
from ctenrich.phantom import PhantomOptions, write_phantom_study

AET = "CTENRICH"
SENDER = "SENDER"
LIMITS = replace(Limits(), reserve=1, connect_seconds=20.0, pdu_seconds=20.0)
"""Times that a sender keeps however busy the machine is; a test of what comes too late sets its own."""
CONFIG = StationConfig(dicom="127.0.0.1:0", peers=(Peer(aet=SENDER, host="127.0.0.1"),), limits=LIMITS)
TINY = PhantomOptions(seed=77, rows=24, columns=24, pixel_spacing=(16.0, 16.0), slices=6, slice_spacing=40.0)


@cache
def study_files(seed: int = 77) -> tuple[Path, ...]:
    """Files of a generated study of six small slices."""
    folder = Path(mkdtemp(prefix="ctenrich-study-"))
    write_phantom_study(folder / "study", replace(TINY, seed=seed))
    return tuple(sorted((folder / "study").rglob("*.dcm")))


def uid_of(path: Path) -> str:
    """SOP Instance UID of a file."""
    return str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)


def wait_until_settled(database: StationDatabase) -> None:
    """Wait until cases can get all stored objects."""
    wait_for(lambda: not database.value("SELECT count(*) FROM unsettled"))


def wait_for(condition: Callable[[], object], seconds: float = 30) -> Any:
    """Wait until a condition holds, and return its value."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return found


class Receiver:
    """A receiver that runs in threads of the test."""

    def __init__(self, station: Station, config: StationConfig, ports: dict[str, int]) -> None:
        self.station, self.config, self.ports = station, config, ports

    def rows(self, sql: str = "SELECT * FROM instances ORDER BY id") -> list[Any]:
        """Rows of the station's database, once all stored files are as they stay."""
        with StationDatabase(self.station.database, read_only=True) as database:
            wait_until_settled(database)
            return database.rows(sql)

    def uids(self) -> set[str]:
        """SOP Instance UIDs of the stored objects."""
        return {row["sop_instance_uid"] for row in self.rows()}

    @contextmanager
    def association(self, sender: str = SENDER, called: str = AET) -> Iterator[Any]:
        """An association of a sender, released at the end unless it has ended."""
        from pynetdicom import AE
        from pynetdicom.sop_class import CTImageStorage, Verification

        entity = AE(ae_title=sender)
        entity.dimse_timeout = 15  # pynetdicom may miss an abort that comes while it sends, and waits that long
        entity.add_requested_context(Verification)
        entity.add_requested_context(CTImageStorage)
        association = entity.associate("127.0.0.1", self.ports["dicom"], ae_title=called)
        try:
            yield association
        finally:
            if association.is_established:
                association.release()

    def send(self, *objects: Path | Dataset) -> list[int]:
        """Send objects over one association; returns the statuses."""
        with self.association() as association:
            assert association.is_established
            return [association.send_c_store(one).Status for one in objects]


@contextmanager
def receiving(folder: Path, config: StationConfig = CONFIG) -> Iterator[Receiver]:
    """Run a receiver in threads of this process."""
    station, ports, stop = Station.create(folder), {}, threading.Event()
    ready, errors = threading.Event(), []

    def note(**values: int) -> None:
        ports.update(values)
        ready.set()

    def body() -> None:
        try:
            receive(station, config, stop, note)
        except Exception as error:  # noqa: BLE001  raised again by the test
            errors.append(error)
            ready.set()

    thread = threading.Thread(target=body)
    thread.start()
    try:
        assert ready.wait(30)
        if errors:
            raise errors[0]
        yield Receiver(station, config, ports)
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


def silent_connection(port: int, data: bytes = b"") -> socket.socket:
    """A connection that sends some bytes and then nothing."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.sendall(data)
    return connection


def rejection_of(port: int, calling: str = SENDER, called: str = AET) -> tuple[int, int, int]:
    """Result, source and reason of the A-ASSOCIATE-RJ that answers a request.

    The bytes are read here: pynetdicom reports some rejections that come at once as aborts.
    """
    titles = f"{called:<16}{calling:<16}".encode()
    with silent_connection(port, bytes.fromhex("01000000004400010000") + titles + bytes(32)) as connection:
        answer = connection.recv(64)
    assert answer[:7] == bytes.fromhex("03000000000400")
    result, source, reason = answer[7:]
    return result, source, reason
