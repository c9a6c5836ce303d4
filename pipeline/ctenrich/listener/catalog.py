"""The catalog of what came: headers of received objects in a folder catalog, to be asked in SQL."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from ctenrich.catalog.crawl import FoundFile
from ctenrich.catalog.folder import add_files
from ctenrich.errors import CtenrichError
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.station import Station

__all__ = ["StationCatalog"]

_AT_ONCE = 256
_SECONDS = 5.0
"""Time between two additions; the catalog can be read in between."""


class StationCatalog:
    """Adds the headers of new objects to ``catalog.duckdb``.

    Parameters
    ----------
    station : Station
        The station.
    database : StationDatabase
        Notes which objects are in the catalog.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self, station: Station, database: StationDatabase, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._station = station
        self._database = database
        self._clock = clock
        self._next = 0.0

    def update(self) -> int:
        """Add the next objects, a few hundred at most; returns how many.

        While somebody else has the catalog open nothing is added, and a later call goes on.
        """
        if self._clock() < self._next:
            return 0
        self._next = self._clock() + _SECONDS
        rows = self._database.rows(
            "SELECT id, path FROM instances WHERE cataloged = 0 AND case_id IS NOT NULL ORDER BY id LIMIT ?",
            (_AT_ONCE,),
        )
        files = []
        for row in rows:
            path = self._station.received / row["path"]
            with suppress(FileNotFoundError):
                status = path.stat()
                files.append(FoundFile(str(path), status.st_size, status.st_mtime_ns))
        if not files:
            return 0
        try:
            add_files(self._station.catalog, files, folder=self._station.received)
        except CtenrichError:
            return 0
        if len(rows) == _AT_ONCE:
            self._next = self._clock()
        with self._database.transaction() as db:
            db.executemany("UPDATE instances SET cataloged = 1 WHERE id = ?", [(row["id"],) for row in rows])
        return len(files)
