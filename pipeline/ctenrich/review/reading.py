"""Read a review file with validation: its form, its run, and each review in it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ctenrich.errors import UnsafeInputError, UsageError
from ctenrich.reasons import Reason
from ctenrich.review.records import Decision, Review, ReviewFile
from ctenrich.workspace import check_uid, require_file

__all__ = ["FORMAT", "VERSION", "read_review_file", "review_of"]

FORMAT = "ctenrich-review"
VERSION = 1
_LONGEST_FILE = 256 * 2**20
_LONGEST = {"product": 300, "objects": 64, "reviewer": 200, "time": 32, "reason": 200, "comment": 10_000}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_HINT = "name a file that the report saved (review.json)"


def read_review_file(path: Path) -> ReviewFile:
    """Read a review file.

    Parameters
    ----------
    path : Path
        JSON that the report saved: ``{"format": "ctenrich-review", "version": 1, "run": ..., "reviews": [...]}``.

    Returns
    -------
    ReviewFile

    Raises
    ------
    UsageError
        NOT_FOUND; BAD_REVIEW if it is not JSON, has another format or version, or a review in it is not complete.
    """
    require_file(path, _HINT)
    if path.stat().st_size > _LONGEST_FILE:
        raise UsageError(Reason.BAD_REVIEW, f"{path.name} has more than {_LONGEST_FILE >> 20} MiB", _HINT)
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise UsageError(Reason.BAD_REVIEW, f"{path.name} is not JSON, or was cut short", _HINT) from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UsageError(Reason.BAD_REVIEW, f"{path.name} is not a review file", _HINT)
    if found.get("version") != VERSION:
        message = (
            f"{path.name} has version {str(found.get('version'))[:20]} of the format, this software reads {VERSION}"
        )
        raise UsageError(Reason.BAD_REVIEW, message, "update ctenrich, or build the report again and review there")
    rows = found.get("reviews")
    if not isinstance(found.get("run"), str) or not isinstance(rows, list):
        raise UsageError(Reason.BAD_REVIEW, f"{path.name} states no run, or has no list of reviews", _HINT)
    return ReviewFile(
        run=found["run"], reviews=tuple(review_of(row, f"review {n} of {path.name}") for n, row in enumerate(rows, 1))
    )


def review_of(row: Any, where: str) -> Review:
    """Check one review.

    Parameters
    ----------
    row : object
        Decoded JSON.
    where : str
        Its place, for messages.

    Returns
    -------
    Review

    Raises
    ------
    UsageError
        BAD_REVIEW if a value is missing, too long, or not of its kind.
    """
    if not isinstance(row, Mapping):
        raise UsageError(Reason.BAD_REVIEW, f"{where} is not an object with names and values")
    texts = {name: _text(row, name, longest, where) for name, longest in _LONGEST.items()}
    for name in ("product", "reviewer", "time"):
        if not texts[name].strip():
            raise UsageError(Reason.BAD_REVIEW, f"{where} states no {name}")
    if not _is_time(texts["time"]):
        message = f"{where}: {texts['time']!r} is not a time in UTC like 2026-01-31T12:00:00Z"
        raise UsageError(Reason.BAD_REVIEW, message)
    try:
        uid = check_uid(_text(row, "series", 64, where))
    except UnsafeInputError:
        raise UsageError(Reason.BAD_REVIEW, f"{where}: its series is not a DICOM UID") from None
    try:
        decision = Decision(_text(row, "decision", 32, where))
    except ValueError:
        known = ", ".join(Decision)
        raise UsageError(Reason.BAD_REVIEW, f"{where}: unknown decision", f"known: {known}") from None
    return Review(series_instance_uid=uid, decision=decision, **texts)


def _text(row: Mapping[str, Any], name: str, longest: int, where: str) -> str:
    value = row.get(name, "")
    if not isinstance(value, str) or len(value) > longest:
        raise UsageError(Reason.BAD_REVIEW, f"{where}: {name} is not a text of at most {longest} characters")
    return value


def _is_time(text: str) -> bool:
    if not _TIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
