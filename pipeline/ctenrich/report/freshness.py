"""Find the series whose pages must be built again: their rows, records or reviews changed, or the software did."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ctenrich.workspace import Workspace, check_uid, write_bytes

if TYPE_CHECKING:
    import duckdb

__all__ = ["PageStates", "series_states", "software_state"]

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
    """Query for the hash of the rows of every series in all tables; rows of a table may repeat, and have no order."""
    of_table = (
        f"SELECT SeriesInstanceUID, hash('{name}', count(*), sum(hash(t))) AS value FROM {name} AS t GROUP BY 1"  # noqa: S608
        for name in _TABLES
    )
    return f"SELECT SeriesInstanceUID, sum(value)::VARCHAR FROM ({' UNION ALL '.join(of_table)}) GROUP BY 1"  # noqa: S608


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
    workspace: Workspace, db: duckdb.DuckDBPyConnection, uids: Iterable[str], more: Mapping[str, str]
) -> dict[str, str]:
    """Hash of everything that the page of each series shows, without opening a record or a volume.

    Records and arrays are written to a temporary name and renamed, so that a change shows in the modification time of
    the folder of the series or of a product; a file that is edited in place is not noticed.

    Parameters
    ----------
    workspace : Workspace
        The run.
    db : DuckDBPyConnection
        Its tables; see :func:`ctenrich.report.data.open_tables`.
    uids : iterable of str
        Series Instance UIDs.
    more : mapping of str to str
        Series Instance UID -> text that belongs to its page, e.g. its reviews.

    Returns
    -------
    dict
        Series Instance UID -> hash.
    """
    root = str(workspace.root / "series")
    rows = dict(db.execute(_rows_query()).fetchall())
    return {
        uid: hashlib.sha256(f"{rows.get(uid)}|{_folder_times(root, uid)}|{more.get(uid, '')}".encode()).hexdigest()[:20]
        for uid in uids
    }


def _folder_times(root: str, uid: str) -> str:
    """Modification times of the folder of a series and of the folders in it."""
    folder = f"{root}{os.sep}{check_uid(uid)}"  # text: a Path takes longer than the system's answer
    try:
        with os.scandir(folder) as entries:
            times = sorted((e.name, e.stat().st_mtime_ns) for e in entries if e.is_dir(follow_symlinks=False))
        return f"{os.stat(folder).st_mtime_ns}{times}"  # noqa: PTH116
    except FileNotFoundError:
        return ""


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
        try:
            found = json.loads(path.read_bytes())
            self._kept = dict(found["pages"]) if found["software"] == software else {}
        except (OSError, ValueError, KeyError, TypeError):
            self._kept = {}

    def is_fresh(self, uid: str, state: str) -> bool:
        """Whether the page of a series was built in this state."""
        return bool(self._kept.get(uid) == state)

    def save(self, states: Mapping[str, str]) -> None:
        """Save the states of all pages; nothing is written if they are those of the last report."""
        if dict(states) == self._kept:
            return
        text = json.dumps({"software": self._software, "pages": dict(states)}, separators=(",", ":"))
        write_bytes(self._path, text.encode())
