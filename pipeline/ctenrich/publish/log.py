"""The log of a publication: one line of JSON for each attempt to send an object to one target."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ctenrich.workspace import Workspace

__all__ = ["Sent", "log_folder", "open_log", "read_log"]


@dataclass(frozen=True)
class Sent:
    """Outcome of one object."""

    name: str
    """SOP Instance UID; Series Instance UID of a series whose files cannot be sent."""
    sha256: str
    status: str
    """``sent``, ``already there`` or ``failed``."""
    detail: str = ""
    """What went wrong, or a warning of the receiver."""
    reason: str = ""
    """Reason code of a failure; empty in logs of 0.1.0."""
    modality: str = ""
    series: str = ""
    """Series Instance UID."""
    time: str = ""
    """When it was tried, UTC (ISO 8601)."""


def log_folder(source: Workspace | Path) -> Path:
    """Folder of the logs of a run, or beside a folder of DICOM files."""
    if isinstance(source, Workspace):
        return source.root / "publish"
    folder = Path(source).resolve()
    return folder.with_name(f"{folder.name}.publish")


def _log_path(folder: Path, target: str) -> Path:
    return folder / f"{re.sub(r'[^A-Za-z0-9]+', '_', target).strip('_')}.jsonl"


def open_log(folder: Path, target: str) -> IO[str]:
    """Open the log of one target for appending.

    Parameters
    ----------
    folder : Path
        See :func:`log_folder`.
    target : str
        Address, as it is published to.

    Returns
    -------
    text file
        At the start of a line.
    """
    path = _log_path(folder, target)
    path.parent.mkdir(parents=True, exist_ok=True)
    log = path.open("a", encoding="utf-8")
    if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
        log.write("\n")  # ends the line that a killed process was writing
    return log


def read_log(source: Workspace | Path, target: str) -> tuple[Sent, ...]:
    """Read the log of the publications to one target.

    Parameters
    ----------
    source : Workspace or Path
        The run, or the folder of DICOM files.
    target : str
        Address, as it was published to.

    Returns
    -------
    tuple of Sent
        The last outcome of each object.
    """
    path = _log_path(log_folder(source), target)
    last: dict[str, Sent] = {}
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        try:
            row = Sent(**json.loads(line))
        except (ValueError, TypeError):
            continue  # the line that a killed process was writing
        last[row.name] = row
    return tuple(last.values())
