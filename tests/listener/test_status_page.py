"""The status page of a station in a browser: accessible, and readable on a telephone."""

from __future__ import annotations

import pytest
from tests.support.accessibility import accessibility_faults
from tests.support.browser import chromium

from ctenrich.listener.cases import CaseRow, CaseState, Totals
from ctenrich.listener.pages import status_page

WHY = {CaseState.FAILED: "WORKER_DIED", CaseState.SKIPPED: "EMPTY_COHORT", CaseState.CLOSED: "DISK_FULL"}


def page_of_every_state() -> str:
    rows = [
        CaseRow(
            case=number,
            revision=1,
            state=state,
            held="CONFLICT" if state is CaseState.OPEN else "",
            reason=WHY.get(state, ""),
            message="no series can be used: MISSING_SLICE 1" if state is CaseState.SKIPPED else "",
            priority=3,
            images=120,
            series=2,
            conflicts=0,
            created=1.8e9 + number,
            closed=None,
            started=None,
            ended=None,
        )
        for number, state in enumerate(CaseState, 1)
    ]
    totals = Totals(planned=7, done=1, skipped=1, failed=1, open=4, held=1)
    return status_page("CTENRICH", rows, totals, disk=(10**11, 2 * 10**9))


@pytest.mark.long
def test_the_page_is_accessible_and_fits_a_narrow_screen() -> None:
    with chromium() as seen:
        page = seen.page
        for width, scheme in ((390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 844})
            page.set_content(page_of_every_state())
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert accessibility_faults(page) == []
            if width == 390:  # every cell of the table can be read without scrolling sideways
                right = page.evaluate(
                    "Math.max(...[...document.querySelectorAll('td,tbody th')].filter((e) => e.offsetParent)"
                    ".map((e) => e.getBoundingClientRect().right))"
                )
                assert right <= width
