"""The folder of a station: its layout, and the lock by which only one listener works on it."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.workspace import sync_folders

__all__ = ["Station", "StationLock"]

_WAIT = 5.0
"""Seconds that a new listener waits for the processes of a killed one to end."""


class Station:
    """Paths of a station. Its folders can be read by their owner only: images are of identified patients.

    Layout: ``station.toml``, ``station.sqlite``, ``deliveries.sqlite``, ``audit.jsonl``, ``token``, ``lock``,
    ``catalog.duckdb``, ``received/000012/000012345.dcm`` (objects in the order of their arrival), and
    ``cases/000007/r1/{images/, run/}`` (a revision of a case: its images and its run).

    Parameters
    ----------
    root : Path
        The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root).resolve()
        self.config = self.root / "station.toml"
        self.database = self.root / "station.sqlite"
        self.deliveries = self.root / "deliveries.sqlite"
        self.audit = self.root / "audit.jsonl"
        self.token = self.root / "token"
        self.catalog = self.root / "catalog.duckdb"
        self.received = self.root / "received"
        self.cases = self.root / "cases"
        self.log = self.root / "listener.log"

    @classmethod
    def create(cls, root: Path) -> Station:
        """Make the folder, or check that it is a station.

        Raises
        ------
        UsageError
            BAD_STATION for a folder that is something else.
        """
        station = cls(root)
        if station.root.exists() and not station.root.is_dir():
            raise UsageError(Reason.BAD_STATION, f"{root} is a file", "name a folder")
        if station.root.is_dir() and not station.database.exists():
            others = [path.name for path in station.root.iterdir() if path.name not in ("station.toml", "lock")]
            if others:
                message = f"{root} is not empty and not a station"
                raise UsageError(Reason.BAD_STATION, message, "choose a new folder")
        for folder in (station.root, station.received, station.cases):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        sync_folders([station.root, station.root.parent])
        return station

    @classmethod
    def open(cls, root: Path) -> Station:
        """Open a station that exists.

        Raises
        ------
        UsageError
            BAD_STATION.
        """
        station = cls(root)
        if not station.database.is_file():
            raise UsageError(Reason.BAD_STATION, f"{root} is not a station", "give the folder of ctenrich listen")
        return station

    def revision(self, case: int, revision: int) -> Path:
        """Folder of one revision of a case."""
        return self.cases / f"{case:06d}" / f"r{revision}"


class StationLock:
    """Lock of a station, held until the listener and all its processes have ended.

    The processes inherit the open file, so that after a kill of the listener the lock lasts as long as one of them.

    Parameters
    ----------
    station : Station
        The station.

    Raises
    ------
    UsageError
        STATION_BUSY if another listener is at work on the station.
    """

    def __init__(self, station: Station) -> None:
        self.handle = os.open(station.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        end = time.monotonic() + _WAIT
        while True:
            try:
                fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
            if self._owner_lives() or time.monotonic() > end:
                os.close(self.handle)
                message = f"another listener is at work on {station.root}"
                raise UsageError(Reason.STATION_BUSY, message, "stop it first, or name another folder")
            time.sleep(0.1)
        os.ftruncate(self.handle, 0)
        os.pwrite(self.handle, f"{os.getpid()}\n".encode(), 0)

    def _owner_lives(self) -> bool:
        with suppress(ValueError, OSError):
            owner = int(os.pread(self.handle, 20, 0) or b"0")
            return owner > 0 and Path(f"/proc/{owner}").exists()
        return False

    def close(self) -> None:
        """Give the lock up."""
        os.close(self.handle)

    def __enter__(self) -> StationLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
