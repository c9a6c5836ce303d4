"""The controls of the dose in the picture of a series page, in chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctenrich.dose.measure import DoseInput, measure_doses
from ctenrich.dose.structures import DoseOptions
from ctenrich.evaluate.doses import write_dose_tables
from ctenrich.records import FetchedFile, FetchedSeries, SegmentMasks, SortedSeries
from ctenrich.report import build_report
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace
from tests.support.browser import Watched, chromium
from tests.support.doses import write_dose
from tests.support.report_runs import NETWORK, make_run, uid_of

pytestmark = pytest.mark.long

UID = uid_of(0)
ROWS, COLUMNS, SPACING = 64, 80, 2.5


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A series whose dose rises by 0.2 Gy per mm towards the patient's left, from 0 to 40 Gy, and ends at row 50."""
    folder = tmp_path_factory.mktemp("dosed")
    workspace = make_run(folder / "run", 1)
    store = SeriesStore(workspace)
    series = store.load(SortedSeries, UID)
    stored = np.broadcast_to((np.arange(101) * 400).astype(np.uint16), (41, 51, 101)).copy()
    path = write_dose(
        folder / "rd.dcm", stored, FrameOfReferenceUID=series.frame_of_reference_uid, PixelSpacing=[SPACING, 2],
        ImagePositionPatient=[-100, -80, -60], GridFrameOffsetVector=[8.0 * k for k in range(41)],
    )  # fmt: skip
    companion = FetchedFile(str(path), path.as_uri(), path.stat().st_size, "0" * 64)
    fetched = FetchedSeries(UID, series.study_instance_uid, (), (companion,))
    store.save(fetched, UID)
    masks = store.load(SegmentMasks, UID, NETWORK)
    given = DoseInput(series=series, fetched=fetched)
    options = DoseOptions(bounds=False, second=False)
    store.save(measure_doses(masks, given, options, workspace=workspace), UID, NETWORK)
    write_dose_tables(workspace)
    build_report(workspace)
    return workspace


@pytest.fixture(scope="module")
def browser() -> Iterator[Watched]:
    with chromium(1400, 1000) as seen:
        yield seen


def open_page(seen: Watched, run: Workspace, width: int = 1400) -> Any:
    page = seen.page
    page.set_viewport_size({"width": width, "height": 1000})
    page.goto("about:blank")
    page.goto((run.report / "series" / f"{UID}.html").as_uri())
    page.wait_for_selector(".bench[data-ready]")
    page.locator(".b-dose-legend .b-isodose").first.wait_for()
    page.evaluate("document.querySelectorAll('.b-shown:checked').forEach((box) => box.click())")
    return page


def coloured(page: Any, every: int = 211) -> list[list[float]]:
    """(Row, column, red, green, blue) of the pixels of the axial picture that are not grey; places in samples."""
    found: list[list[float]] = page.evaluate(
        """([rows, columns, every]) => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
          const canvas = document.querySelector(".p-axial canvas"), w = canvas.width, h = canvas.height;
          const pixels = canvas.getContext("2d").getImageData(0, 0, w, h).data, out = [];
          const scale = Math.min(w / columns, h / rows);
          for (let p = 0; p < w * h; p += every) {
            const r = pixels[4 * p], g = pixels[4 * p + 1], b = pixels[4 * p + 2];
            const row = (Math.floor(p / w) + 0.5 - h / 2) / scale + rows / 2;
            const column = (p % w + 0.5 - w / 2) / scale + columns / 2;
            if (Math.max(r, g, b) - Math.min(r, g, b) > 20) out.push([row, column, r, g, b]);
          }
          done(out);
        })))""",
        [ROWS, COLUMNS, every],
    )
    return found


def test_wash_lines_and_neither(browser: Watched, run: Workspace) -> None:
    page = open_page(browser, run)
    mode, legend = page.locator(".b-dose"), page.locator(".b-dose-legend")
    assert mode.input_value() == "both"
    assert legend.inner_text().split("\n")[0] == "4.0 Gy", "the wash begins at a tenth of the maximum"
    mode.select_option("off")
    assert not legend.is_visible()
    assert coloured(page) == []
    mode.select_option("wash")
    assert legend.locator(".b-isodose").count() == 0
    wash = np.array(coloured(page))
    assert wash[:, 0].max() < 51.5, "outside the dose grid nothing is drawn"
    assert wash[:, 1].min() == pytest.approx(20 / SPACING, abs=1.0), "below a tenth of the maximum neither"
    left, right = wash[wash[:, 1] < 20], wash[wash[:, 1] > 70]
    assert (left[:, 4] > left[:, 2]).mean() > 0.9, "blue for little dose"
    assert (right[:, 2] > right[:, 4]).mean() > 0.9, "red for the most"
    opacity = page.locator(".b-dose-opacity")
    spread = np.ptp(wash[:, 2:], axis=1).mean()
    opacity.evaluate("input => { input.value = 0.9; input.dispatchEvent(new Event('input')); }")
    assert np.ptp(np.array(coloured(page))[:, 2:], axis=1).mean() > 1.5 * spread
    assert browser.errors == []
    assert browser.outside() == []


def test_an_isodose_line_is_where_the_dose_is(browser: Watched, run: Workspace) -> None:
    page = open_page(browser, run)
    page.locator(".b-dose").select_option("lines")
    page.locator(".b-isodoses").fill("20; 99 nonsense 20")
    page.locator(".b-isodoses").press("Tab")
    legend = page.locator(".b-dose-legend .b-isodose")
    assert legend.all_inner_texts() == ["20 Gy"], "above the maximum there is no line; one dose has one line"
    line = np.array(coloured(page, 1))
    # pixel i is at -100 + 2.5 i mm, and has 0.5 i Gy: 20 Gy at the middle of pixel 40
    assert line[:, 1].mean() == pytest.approx(40.5, abs=0.4)
    assert np.ptp(line[:, 1]) < 1.5
    assert line[:, 0].max() == pytest.approx(50.5, abs=1.0)


def test_the_dose_under_the_pointer(browser: Watched, run: Workspace) -> None:
    page = open_page(browser, run)
    page.locator(".p-axial .pane-picture").scroll_into_view_if_needed()
    box = page.locator(".p-axial .pane-picture").bounding_box()
    scale = min(box["width"] / COLUMNS, box["height"] / ROWS)
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(middle[0] + (60.5 - COLUMNS / 2) * scale, middle[1])
    (dose,) = re.findall(r"· ≈ ([\d.]+) Gy", page.locator(".bench-pointer").inner_text())
    assert float(dose) == pytest.approx(30.0, abs=40 / 254), "drawn in 254 levels"
    page.mouse.move(middle[0], middle[1] + (60 - ROWS / 2) * scale)
    assert "outside the dose grid" in page.locator(".bench-pointer").inner_text()


def test_a_narrow_screen_shows_all_controls(browser: Watched, run: Workspace) -> None:
    page = open_page(browser, run, 390)
    for control in (".b-dose", ".b-isodoses", ".b-dose-opacity", ".b-dose-legend"):
        box = page.locator(control).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        assert box["height"] > 10
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    table = page.locator(".doses table").inner_text()
    assert "heart" in table
    assert "Research only" in page.locator(".doses").inner_text()


def test_a_page_whose_dose_changed_has_no_controls(browser: Watched, run: Workspace, tmp_path: Path) -> None:
    store = SeriesStore(run)
    before = store.load(FetchedSeries, UID)
    gone = FetchedFile(str(tmp_path / "gone.dcm"), "file:///gone.dcm", 1, "0" * 64)
    store.save(FetchedSeries(UID, before.study_instance_uid, (), (gone,)), UID)
    target = Workspace(run.root)
    for picture in (run.report / "pictures").glob("*.js"):
        picture.unlink()
    (run.report / "pages.json").unlink()
    build_report(target)
    page = browser.page
    page.goto("about:blank")
    page.goto((run.report / "series" / f"{UID}.html").as_uri())
    page.wait_for_selector(".bench[data-ready]")
    assert page.locator(".b-dose").count() == 0
    assert "heart" in page.locator(".doses table").inner_text(), "the metrics of the record stay"
