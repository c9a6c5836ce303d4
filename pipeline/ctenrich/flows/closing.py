"""The rule by which a case has all its images, and durations as people write them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason

__all__ = ["AfterAtMost", "CloseRule", "CloseWhen", "parse_duration"]

CloseWhen = Literal["association", "quiet", "expect"]
AfterAtMost = Literal["run", "discard", "wait"]
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}


@dataclass(frozen=True, kw_only=True)
class CloseRule:
    """When a case has all its images (PS3.4 has no such notion: a rule must decide)."""

    when: CloseWhen = "quiet"
    """``quiet``: no image for `seconds`. ``association``: all associations with images of the study were released.
    ``expect``: each of `roles` is there, and no image came for `seconds`."""
    seconds: float = 60.0
    """Time without an image."""
    roles: tuple[str, ...] = ()
    """Modalities; one may be named several times, for as many series. In a flow: its roles, or modalities."""
    at_most: float = 0.0
    """Seconds that a case may stay open; 0: without a limit."""
    then: AfterAtMost = "run"
    """What happens to a case that is still open after `at_most`."""


def parse_duration(text: str) -> float:
    """Parse a duration such as ``90``, ``90s``, ``15m``, ``6h`` or ``7d``; returns seconds.

    Raises
    ------
    UsageError
        BAD_PARAMETER.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text.strip())
    if found is None:
        raise UsageError(Reason.BAD_PARAMETER, f"{text!r} is no duration", "write e.g. 90s, 15m, 6h or 7d")
    return float(found[1]) * _UNITS[found[2]]
