"""Find the series whose pages must be built again: their rows, records or reviews changed, or the software did."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ctenrich.workspace import Workspace, write_bytes

if TYPE_CHECKING:
    import duckdb

__all__ = ["FolderState", "PageStates", "series_states", "software_state"]

FolderState = tuple[int, tuple[str, ...]]
"""Modification time of the folder of a series in nanoseconds, and the names of the folders in it."""

_TABLES = (
    "series",
    "outcomes",
    "issues",
    "timings",
    "objects",
    "segments",
    "landmarks",
    "rois",
    "quality",
    "evaluation",
    "dose_metrics",
    "dose_checks",
)
"""Tables whose rows are on the pages. Measured values are covered by ``objects``: another value is another SOP Instance
UID."""


def _rows_query() -> str:
    """Query for every series and the hash of its rows in all tables; rows of a table may repeat, and have no order."""
    of_table = (
        f"SELECT SeriesInstanceUID, hash('{name}', count(*), sum(hash(t))) AS value FROM {name} AS t GROUP BY 1"  # noqa: S608
        for name in _TABLES
    )
    made = f"SELECT SeriesInstanceUID, sum(value) AS value FROM ({' UNION ALL '.join(of_table)}) GROUP BY 1"  # noqa: S608
    return f"SELECT s.SeriesInstanceUID, r.value::VARCHAR FROM series AS s LEFT JOIN ({made}) AS r USING (SeriesInstanceUID)"  # noqa: S608, E501


def software_state(templates: Path, *parts: str) -> str:
    """Hash of the code and templates that make pages, and of everything else that all pages share.

    Parameters
    ----------
    templates : Path
        Folder of the templates.
    parts : str
        Texts that are the same on all pages.
    """
    digest = hashlib.sha256("|".join(parts).encode())
    for path in sorted((*templates.iterdir(), *templates.parent.glob("*.py"))):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def series_states(
    workspace: Workspace, db: duckdb.DuckDBPyConnection, more: Mapping[str, str], known: Mapping[str, FolderState]
) -> tuple[dict[str, str], dict[str, FolderState]]:
    """Hash of everything that the page of each series shows, without opening a record or a volume.

    Records and arrays are written to a temporary name and renamed, so that a change shows in the modification time of
    the folder of the series or of a product; a file that is edited in place is not noticed.

    Parameters
    ----------
    workspace : Workspace
        The run.
    db : DuckDBPyConnection
        Its tables; see :func:`ctenrich.report.data.open_tables`.
    more : mapping of str to str
        Series Instance UID -> text that belongs to its page, e.g. its reviews.
    known : mapping of str to FolderState
        Folders of the last report: one whose modification time is the same has the same folders in it.

    Returns
    -------
    states : dict
        Series Instance UID -> hash.
    folders : dict
        Series Instance UID -> its folder, if it has one.
    """
    root = str(workspace.root)
    states: dict[str, str] = {}
    folders: dict[str, FolderState] = {}
    for uid, rows in db.execute(_rows_query()).fetchall():
        times = ""
        found = _folder_state(f"{root}{os.sep}{workspace.series_path(uid)}", known.get(uid))
        if found is not None:
            folders[uid], times = found
        text = f"{rows}|{times}|{more.get(uid, '')}"
        states[uid] = hashlib.sha256(text.encode()).hexdigest()[:20]
    return states, folders


def _folder_state(folder: str, known: FolderState | None) -> tuple[FolderState, str] | None:
    """State of the folder of a series, and the modification times of it and the folders in it; None without one."""
    stat = os.stat  # text and the system's call: Paths take longer than the answers
    try:
        time = stat(folder).st_mtime_ns
        if known is None or known[0] != time:
            with os.scandir(folder) as entries:
                known = time, tuple(sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False)))
        times = [stat(f"{folder}{os.sep}{name}").st_mtime_ns for name in known[1]]
    except FileNotFoundError:
        return None
    return known, f"{time}{known[1]}{times}"


class PageStates:
    """States of the pages of the last report, in ``report/pages.json``.

    Parameters
    ----------
    path : Path
        The file.
    software : str
        See :func:`software_state`; pages of another one are not fresh.
    """

    def __init__(self, path: Path, software: str) -> None:
        self._path, self._software = path, software
        self._kept: dict[str, str] = {}
        self.folders: dict[str, FolderState] = {}
        """Series Instance UID -> its folder when the last report was built."""
        try:
            found = json.loads(path.read_bytes())
            if found["software"] == software:
                sets = [tuple(names) for names in found["sets"]]
                self.folders = {uid: (time, sets[place]) for uid, (time, place) in found["folders"].items()}
                self._kept = dict(found["pages"])
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            self._kept, self.folders = {}, {}

    def is_fresh(self, uid: str, state: str) -> bool:
        """Whether the page of a series was built in this state."""
        return self._kept.get(uid) == state

    def save(self, states: Mapping[str, str], folders: Mapping[str, FolderState]) -> None:
        """Save the states of all pages and folders; nothing is written if they are those of the last report."""
        if states == self._kept and folders == self.folders:
            return
        sets = {names: place for place, names in enumerate(dict.fromkeys(names for _, names in folders.values()))}
        content = {
            "software": self._software,
            "sets": list(sets),
            "folders": {uid: (time, sets[names]) for uid, (time, names) in folders.items()},
            "pages": states,
        }
        write_bytes(self._path, json.dumps(content, separators=(",", ":")).encode())
