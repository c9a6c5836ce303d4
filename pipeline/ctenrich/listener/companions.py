"""Companions of other studies: structure sets and segmentations that go to the case of the series they refer to."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from ctenrich.catalog.headers import read_header
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.station import Station

__all__ = ["Companions", "referenced_series"]

_COMPANIONS = ("RTSTRUCT", "SEG")
_WITHOUT_IMAGES = json.dumps([*_COMPANIONS, "RTPLAN", "RTDOSE", "RTRECORD", "REG", "SR", "PR", "KO"])
"""Modalities of objects that are no images; a case that has only these cannot run."""


def referenced_series(values: Mapping[str, Any]) -> frozenset[str]:
    """Return the series that a structure set or segmentation refers to, from a row of the catalog; else nothing."""
    if values.get("Modality") not in _COMPANIONS:
        return frozenset()
    found = [item["SeriesInstanceUID"] for item in values.get("ReferencedSeriesSequence") or ()]
    for frame in values.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame["RTReferencedStudySequence"] or ():
            found += [item["SeriesInstanceUID"] for item in study["RTReferencedSeriesSequence"] or ()]
    return frozenset(filter(None, found))


class Companions:
    """Finds the cases of companions whose images are in another study.

    A companion of a series that has arrived goes to the case of that series. One that comes first goes to the case of
    its own study, and moves when its series arrives, unless its case has images of its own.

    Parameters
    ----------
    station : Station
        The station.
    database : StationDatabase
        Of the intake.
    """

    def __init__(self, station: Station, database: StationDatabase) -> None:
        self._waiting: defaultdict[str, set[int]] = defaultdict(set)
        for row in database.rows(
            "SELECT i.id, i.path FROM instances i WHERE i.modality IN ('RTSTRUCT', 'SEG') AND NOT EXISTS (SELECT 1 "
            "FROM instances o WHERE o.case_id = i.case_id AND o.modality NOT IN (SELECT value FROM json_each(?)))",
            (_WITHOUT_IMAGES,),
        ):
            values = read_header(station.received / row["path"]).row or {}
            for series in referenced_series(values):
                self._waiting[series].add(row["id"])

    def study_of(self, db: sqlite3.Connection, number: int, study: str, series: frozenset[str]) -> str:
        """Return the study to whose case a companion goes, inside a transaction.

        Parameters
        ----------
        db : sqlite3.Connection
            From :meth:`StationDatabase.transaction`.
        number : int
            Number of the object.
        study : str
            Its own study.
        series : frozenset of str
            Series that it refers to.

        Returns
        -------
        str
            The study of the case that has one of these series, its own one before others; its own if there is none.
        """
        found = db.execute(
            "SELECT DISTINCT c.study_instance_uid FROM instances i JOIN cases c ON c.id = i.case_id "
            "WHERE i.series_instance_uid IN (SELECT value FROM json_each(?)) "
            "ORDER BY c.study_instance_uid <> ?, c.id LIMIT 1",
            (json.dumps(sorted(series)), study),
        ).fetchone()
        if found is not None:
            return str(found[0])
        for one in series:
            self._waiting[one].add(number)
        return study

    def arrived(self, db: sqlite3.Connection, series: str, case: int, revision: int) -> list[int]:
        """Move the companions that waited for a series to its case, inside a transaction.

        Parameters
        ----------
        db : sqlite3.Connection
            From :meth:`StationDatabase.transaction`.
        series : str
            Series of an object that was assigned.
        case, revision : int
            Where it is.

        Returns
        -------
        list of int
            Cases from which companions moved. One without any object left is skipped with the reason MOVED.
        """
        left = []
        for number in sorted(self._waiting.pop(series, ())):
            before = db.execute(
                "SELECT i.case_id FROM instances i JOIN cases c ON c.id = i.case_id WHERE i.id = ? AND i.case_id <> ? "
                "AND c.held = '' AND NOT EXISTS (SELECT 1 FROM instances o WHERE o.case_id = i.case_id "
                "AND o.modality NOT IN (SELECT value FROM json_each(?)))",
                (number, case, _WITHOUT_IMAGES),
            ).fetchone()
            if before is None:
                continue
            db.execute("UPDATE instances SET case_id = ?, revision = ? WHERE id = ?", (case, revision, number))
            db.execute(
                "UPDATE revisions SET state = 'skipped', reason = 'MOVED', ended = ? WHERE case_id = ? "
                "AND state IN ('open', 'waiting', 'closed') "
                "AND NOT EXISTS (SELECT 1 FROM instances i WHERE i.case_id = revisions.case_id)",
                (time.time(), before[0]),
            )
            left.append(int(before[0]))
        return left
