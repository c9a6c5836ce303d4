"""Move dates and date-times by whole days; intervals and times of day stay as they are."""

from __future__ import annotations

import calendar
import datetime as dt
import re

from ctenrich.dicom.datetimes import parse_temporal

__all__ = ["is_time", "shift_date", "shift_datetime"]

_DATETIME = re.compile(r"(\d{4})(\d{2})?(\d{2})?(\d{0,6}(?:\.\d{1,6})?)?([+-]\d{4})?")


def shift_date(text: str, days: int) -> str | None:
    """Move a date (VR DA).

    Parameters
    ----------
    text : str
        YYYYMMDD, or YYYY.MM.DD of ACR-NEMA.
    days : int
        Days to add.

    Returns
    -------
    str or None
        YYYYMMDD; None if the text is no date, or the result is before the year 1.
    """
    day = parse_temporal("DA", text.strip())
    return _moved(day, days) if isinstance(day, dt.date) else None


def shift_datetime(text: str, days: int) -> str | None:
    """Move a date-time (VR DT); time of day, offset from UTC and precision stay.

    Parameters
    ----------
    text : str
        YYYYMMDDHHMMSS.FFFFFF&ZZXX, from the right as short as PS3.5 6.2 allows.
    days : int
        Days to add.

    Returns
    -------
    str or None
        None if the text is no date-time. A month or a year without a day is moved from its middle.
    """
    text = text.strip()
    match = _DATETIME.fullmatch(text)
    if match is None or parse_temporal("DT", text) is None:
        return None
    year, month, day = int(match[1]), int(match[2] or 7), int(match[3] or 0)
    day = day or (calendar.monthrange(year, month)[1] // 2 if match[2] else 1)
    moved = _moved(dt.date(year, month, day), days)
    if moved is None:
        return None
    return moved[: 8 if match[3] else 6 if match[2] else 4] + (match[4] or "") + (match[5] or "")


def is_time(text: str) -> bool:
    """Whether a text is a time of day (VR TM)."""
    return parse_temporal("TM", text.strip()) is not None


def _moved(day: dt.date, days: int) -> str | None:
    try:
        moved = day + dt.timedelta(days=days)
    except OverflowError:
        return None
    return f"{moved.year:04d}{moved.month:02d}{moved.day:02d}"
