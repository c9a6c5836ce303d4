"""Hours of the day, also over midnight."""

from __future__ import annotations

from datetime import time

import pytest

from ctenrich.errors import UsageError
from ctenrich.flows.hours import parse_hours
from ctenrich.reasons import Reason


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("22:00-06:00", ["22:00", "23:59", "00:00", "05:59"], ["06:00", "12:00", "21:59"]),
        ("09:30-17:00", ["09:30", "16:59"], ["09:29", "17:00", "00:00"]),
        ("00:00-23:59", ["00:00", "23:58"], ["23:59"]),
    ],
)
def test_hours_contain_their_start_and_not_their_end(text: str, inside: list[str], outside: list[str]) -> None:
    hours = parse_hours(text)
    assert all(hours.contain(time.fromisoformat(one)) for one in inside)
    assert not any(hours.contain(time.fromisoformat(one)) for one in outside)


@pytest.mark.parametrize("text", ["", "22-6", "22:00", "24:00-06:00", "06:00-06:00", "22:00-06:60", " 22:00-06:00"])
def test_what_is_no_hours(text: str) -> None:
    with pytest.raises(UsageError, match="not two times") as caught:
        parse_hours(text)
    assert caught.value.reason is Reason.BAD_SETTINGS
