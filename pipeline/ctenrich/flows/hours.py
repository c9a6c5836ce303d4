"""Hours of the day in which flows that wait for quiet hours may start."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import time

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason

__all__ = ["Hours", "parse_hours"]

_HOURS = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Hours:
    """A part of each day, in the local time of the machine; it may go over midnight."""

    start: time
    end: time
    """The first moment that does not belong to it."""

    def contain(self, now: time) -> bool:
        """Whether a time of the day belongs to it."""
        if self.start < self.end:
            return self.start <= now < self.end
        return now >= self.start or now < self.end


def parse_hours(text: str) -> Hours:
    """Parse hours as settings have them.

    Parameters
    ----------
    text : str
        ``22:00-06:00``.

    Returns
    -------
    Hours

    Raises
    ------
    UsageError
        BAD_SETTINGS if it is not two different times of 24 hours.
    """
    hours = None
    if _HOURS.fullmatch(text):
        start, end = text.split("-")
        hours = Hours(start=time.fromisoformat(start), end=time.fromisoformat(end))
    if hours is None or hours.start == hours.end:
        raise UsageError(Reason.BAD_SETTINGS, f"run.off_peak: {text!r} is not two times", "write 22:00-06:00")
    return hours
