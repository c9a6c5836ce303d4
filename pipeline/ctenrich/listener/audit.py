"""The audit log of a station: one JSON line per event, each with the hash of the line before it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["AuditCheck", "append_event", "check_log"]

_FIRST = "0" * 64
_TAIL = 64 * 1024
"""Bytes at the end of the log in which its last line is; events are short."""


@dataclass(frozen=True, kw_only=True)
class AuditCheck:
    """Result of :func:`check_log`."""

    events: int
    broken: int
    """Number of the first line that does not follow from the one before it, from 1; 0: none."""


def append_event(path: Path, event: str, **values: object) -> None:
    """Append an event; several processes may do so at the same time.

    Parameters
    ----------
    path : Path
        The log; created if it does not exist.
    event : str
        Name of the event.
    **values
        What is recorded with it: no name or identifier of a patient.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        size = os.fstat(handle).st_size
        tail = os.pread(handle, _TAIL, max(0, size - _TAIL))
        if tail and not tail.endswith(b"\n"):  # a line that a power failure has cut
            os.ftruncate(handle, size - len(tail.rpartition(b"\n")[2]))
            tail = tail[: tail.rfind(b"\n") + 1]
        previous = json.loads(tail.splitlines()[-1])["hash"] if tail else _FIRST
        line = {"time": round(time.time(), 3), "event": event, **values, "previous": previous}
        line["hash"] = _hash_of(line)
        os.write(handle, json.dumps(line).encode() + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)


def check_log(path: Path) -> AuditCheck:
    """Compute the hashes of the log again: a line that was changed, added or removed breaks the chain.

    That lines at the end were removed cannot be seen in the log itself: keep the last hash elsewhere.
    """
    previous, number = _FIRST, 0
    if not path.is_file():
        return AuditCheck(events=0, broken=0)
    with path.open("rb") as lines:
        for number, text in enumerate(lines, 1):
            try:
                line = json.loads(text)
                stated = line.pop("hash")
                good = line["previous"] == previous and _hash_of(line) == stated
            except (ValueError, KeyError, TypeError, AttributeError):
                good = False
            if not good:
                return AuditCheck(events=number, broken=number)
            previous = stated
    return AuditCheck(events=number, broken=0)


def _hash_of(line: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(line, sort_keys=True).encode()).hexdigest()
