"""Dates and times of DICOM as Python values."""

from __future__ import annotations

import datetime as dt
import re

__all__ = ["age_in_years", "parse_temporal"]

_PER_YEAR = {"Y": 1.0, "M": 12.0, "W": 52.1775, "D": 365.25}


def age_in_years(text: str) -> float | None:
    """Convert an age (VR AS, e.g. ``061Y`` or ``018M``) to years; None for another form.

    ``000Y`` is None too: it is written in place of an age that was removed, and infants' ages are in days to months.
    The selection queries have the same rule in SQL.
    """
    match = re.fullmatch(r"\s*(\d{1,3})([DWMY])\s*", text.upper())
    if match is None or (int(match[1]) == 0 and match[2] == "Y"):
        return None
    return int(match[1]) / _PER_YEAR[match[2]]


def parse_temporal(vr: str, text: str) -> dt.date | dt.time | dt.datetime | None:
    """Convert the text of a date or time (PS3.5 6.2).

    Parameters
    ----------
    vr : str
        ``DA``, ``TM`` or ``DT``.
    text : str
        One value, without padding; the retired separators of ACR-NEMA (``2001.02.03``, ``10:11:12``) are accepted.

    Returns
    -------
    date, time, datetime or None
        A `datetime` has its stated offset, else UTC. None if the text is not a value of the VR.
    """
    digits = text.replace(":", "") if vr == "TM" else text.replace(".", "") if vr == "DA" else text
    try:
        if vr == "DA":
            return _date(digits)
        if vr == "TM":
            return _time(digits)
        match = re.fullmatch(r"(\d{4})(\d{2})?(\d{2})?([\d.]*)([+-]\d{4})?", digits)
        if match is None:
            return None
        day = dt.date(int(match[1]), int(match[2] or 1), int(match[3] or 1))
        zone = dt.UTC
        if match[5]:
            minutes = int(match[5][1:3]) * 60 + int(match[5][3:])
            zone = dt.timezone(dt.timedelta(minutes=-minutes if match[5][0] == "-" else minutes))
        return dt.datetime.combine(day, _time(match[4] or "00"), tzinfo=zone)
    except ValueError:
        return None


def _date(digits: str) -> dt.date:
    if len(digits) != 8 or not (digits.isascii() and digits.isdigit()):
        raise ValueError("not a date")
    return dt.date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))


def _time(digits: str) -> dt.time:
    whole, _, fraction = digits.partition(".")
    if len(whole) not in {2, 4, 6} or not (whole + fraction).isdigit():
        raise ValueError("not a time")
    parts = [int(whole[at : at + 2]) for at in range(0, len(whole), 2)]
    seconds = min(parts[2], 59) if len(parts) > 2 else 0
    return dt.time(parts[0], parts[1] if len(parts) > 1 else 0, seconds, int(fraction[:6].ljust(6, "0") or 0))
