"""The picture of a series page in chromium, opened from disk."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ctenrich.codes.mappings import codes_of
from ctenrich.masks import masks_from_segments
from ctenrich.records import Landmarks, Product, SegmentMasks, Volume
from ctenrich.report import build, build_report
from ctenrich.report.data import CohortData, RunData, SeriesRows, load_cohort, load_part
from ctenrich.results.tables import build_tables
from ctenrich.workspace import Workspace, load_array, load_record, save_array, save_record, sha256_of_array
from tests.support.browser import Watched, chromium
from tests.support.report_runs import NETWORK, SCORER, body, make_run, uid_of

EVIL = "<img src=x onerror=\"document.title='owned'\">"
RIGHT_TO_LEFT = "\u0635\u062f\u0631 \u202eabc"
UID = uid_of(0)
BRIGHT = 21
"""Slice of metal in the CT, on which the landmark Th8 lies."""
EXPERT = Product("expert")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A series with a network's and an expert's masks, of which two overlap; one slice is of metal."""
    workspace = make_run(tmp_path_factory.mktemp("page") / "run", 1)
    path = workspace.series_dir(UID) / "volume.json"
    volume = load_record(path, Volume)
    array = np.array(load_array(workspace.resolve(UID, volume.array_path)))
    array[BRIGHT] = 3000
    save_array(workspace.resolve(UID, volume.array_path), array)
    save_record(path, replace(volume, sha256=sha256_of_array(array)))
    labels = body(0)[1]
    folder = workspace.product_dir(UID, EXPERT)
    heart = np.roll(labels == 1, 2, axis=2)
    parts = [(1, "heart", "", heart), (2, "gtv", "", heart & (labels == 1)), (3, "aorta", "", labels == 2)]
    template = SegmentMasks(EXPERT, UID, labels.shape, (), None, "")
    save_record(folder / "masks.json", masks_from_segments(parts, template, folder / "masks", workspace))
    build_tables(workspace)

    def cohort(of: Workspace, db: Any) -> CohortData:
        data = load_cohort(of, db)
        first, *others = data.series
        first |= {"PatientID": EVIL, "SeriesDescription": RIGHT_TO_LEFT, "Manufacturer": "Maker", "PatientSex": "F"}
        return replace(data, series=SeriesRows(pa.Table.from_pylist([first, *others])))

    def named(db: Any, uids: Sequence[str]) -> RunData:
        data = load_part(db, uids)
        keys = ("SeriesInstanceUID", "product", "organ", "severity", "weight", "slice_index", "sentence")
        values = (UID, str(NETWORK), "heart", "error", 9.0, 12, f"heart: an island {EVIL}")
        data.quality = [dict(zip(keys, values, strict=True))]
        return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "load_cohort", cohort)
        patch.setattr(build, "load_part", named)
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
    page.locator(".hud.bl").filter(has_text=" of ").first.wait_for()
    return page


def settle(page: Any) -> None:
    """Wait until a change has been drawn."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def text_of(page: Any, pane: str) -> str:
    settle(page)
    return str(page.locator(f".p-{pane} .hud.bl").first.inner_text())


def centre_of_colour(page: Any, pane: str, colour: tuple[int, int, int], within: int = 4) -> tuple[float, float]:
    """Mean row and column, as shares of the picture, of the pixels of one colour."""
    settle(page)
    found = page.evaluate(
        """([pane, colour, within]) => {
          const canvas = document.querySelector(pane + " canvas");
          const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
          let n = 0, rows = 0, columns = 0;
          for (let p = 0; p < pixels.length / 4; p++) {
            if (colour.every((c, k) => Math.abs(pixels[4 * p + k] - c) < within)) {
              n++; rows += Math.floor(p / canvas.width) + 0.5; columns += p % canvas.width + 0.5;
            }
          }
          return [rows / n / canvas.height, columns / n / canvas.width];
        }""",
        [f".p-{pane}", list(colour), within],
    )
    return found[0], found[1]


def test_the_page_begins_with_the_patient(browser: Watched, run: Workspace) -> None:
    page = open_page(browser, run)
    assert page.title() == f"{EVIL}, {RIGHT_TO_LEFT}: series", "no script of a name ran"
    assert page.locator("h1").inner_text() == f"{EVIL} {RIGHT_TO_LEFT}"
    assert page.locator("h1 bdi").count() == 2, "directions of names do not spread"
    assert EVIL in page.locator(".findings").inner_text()
    assert page.locator(".head-facts dt").all_inner_texts() == [
        "Age and sex", "Scanner", "Spacing (slices, rows, columns)", "Volume"
    ]  # fmt: skip
    assert page.evaluate("document.documentElement.scrollWidth") == 1400
    assert browser.errors == []
    assert browser.outside() == []


@pytest.mark.long
def test_slices_scroll_by_keys_wheel_and_slider(browser: Watched, run: Workspace) -> None:
    page = open_page(browser, run)
    assert page.locator(".pane").count() == 3
    first = re.match(r"Slice (\d+) of 40 · z (−?[\d.]+) mm", text_of(page, "axial"))
    assert first is not None
    number = int(first[1])
    assert float(first[2].replace("−", "-")) == -60 + 8 * (number - 1)
    frame = page.locator(".p-axial .pane-picture")
    frame.focus()
    page.keyboard.press("ArrowDown")
    assert text_of(page, "axial").startswith(f"Slice {number - 1} of 40"), "down leads to the feet"
    page.keyboard.press("Home")
    assert text_of(page, "axial").startswith("Slice 40 of 40 · z 252.0 mm"), "the first plane is nearest to the head"
    page.keyboard.press("End")
    assert text_of(page, "axial").startswith("Slice 1 of 40 · z −60.0 mm")
    frame.hover()
    page.mouse.wheel(0, -100)
    assert text_of(page, "axial").startswith("Slice 2 of 40")
    page.locator(".p-axial input[type=range]").fill("30")
    assert text_of(page, "axial").startswith("Slice 10 of 40")
    assert page.locator(".p-coronal .hud.bl").inner_text().startswith("Plane "), "other planes are not slices"
    page.locator(".findings button.goto").click()
    assert text_of(page, "axial").startswith("Slice 13 of 40")
    page.locator("table.landmarks button.goto").first.click()
    assert text_of(page, "axial").endswith("lung end")


@pytest.mark.long
def test_masks_are_drawn_on_their_side(browser: Watched, run: Workspace) -> None:
    """The heart is on the patient's left: at the letter L. Its place in each plane is that of its voxels."""
    page = open_page(browser, run)
    sides = {p: page.locator(f".p-{p} .hud.side").all_inner_texts() for p in ("axial", "coronal", "sagittal")}
    assert sides == {"axial": ["R", "L", "A", "P"], "coronal": ["R", "L", "H", "F"], "sagittal": ["A", "P", "H", "F"]}
    page.locator("[data-product='0']").uncheck()  # the expert's masks
    page.select_option(".b-drawn", "fill")
    page.locator(".b-opacity").fill("1")
    page.locator("li[data-organ='aorta'] .b-shown").uncheck()
    page.locator("li[data-organ='heart'] button.b-name").click()
    colour = codes_of("heart").colour
    labels = body(0)[1] == 1
    where = np.argwhere(labels)
    areas = [labels.sum(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    at = [int(a[::-1].argmax()) if axis == 0 else int(a.argmax()) for axis, a in enumerate(areas)]
    cuts = {
        "axial": labels[39 - at[0]],
        "coronal": labels[::-1, at[1]],
        "sagittal": labels[::-1, :, at[2]],
    }
    assert where[:, 2].mean() > 42, "the phantom's heart is on its left"
    for pane, cut in cuts.items():
        rows, columns = (places.mean() + 0.5 for places in np.nonzero(cut))
        found = centre_of_colour(page, pane, colour)
        assert found == pytest.approx((rows / cut.shape[0], columns / cut.shape[1]), abs=0.012), pane


@pytest.mark.long
@pytest.mark.parametrize("width", [390, 600, 1400])
def test_landmark_lines_stay_on_their_slice(browser: Watched, run: Workspace, width: int) -> None:
    """The line of Th8 is in the middle of the slice of metal on which it lies, at every size and zoom."""
    marks = load_record(run.product_dir(UID, SCORER) / "landmarks.json", Landmarks)
    assert next(m for m in marks.items if m.name == "Th8").slice_index == BRIGHT
    page = open_page(browser, run, width)
    assert page.evaluate("document.documentElement.scrollWidth") == width, "nothing to scroll sideways"
    page.select_option(".b-view", "coronal")
    page.select_option(".b-window", "400,1800")
    page.locator(".p-coronal path[data-landmark]").nth(2).wait_for(state="attached")
    settle(page)
    lines = page.locator(".p-coronal path[data-landmark]").evaluate_all(
        "all => all.map((p) => [p.dataset.landmark, p.getBoundingClientRect().y])"
    )
    ordered = [name for name, _ in sorted(lines, key=lambda item: item[1])]
    assert ordered == ["lung end", "Th8", "lung start"]
    assert page.locator("table.landmarks tbody th").all_inner_texts() == ordered, "the head is at the top of both"
    for zoom in (1, 1.25):
        if zoom > 1:
            page.locator(".b-in").click()
        row, _ = centre_of_colour(page, "coronal", (255, 255, 255), within=60)
        line = page.locator(".p-coronal path[data-landmark=Th8]").bounding_box()
        frame = page.locator(".p-coronal .pane-picture").bounding_box()
        assert line["y"] - frame["y"] == pytest.approx(row * frame["height"], abs=2), zoom


@pytest.mark.long
def test_products_side_by_side_or_over_each_other(browser: Watched, run: Workspace) -> None:
    page = open_page(browser, run)
    page.select_option(".b-view", "axial")
    assert page.locator(".pane").count() == 1
    settle(page)
    assert page.locator(".pane canvas").get_attribute("aria-label").endswith(f"masks of expert and {NETWORK}")
    page.select_option(".b-compare", "side")
    assert page.locator(".pane").count() == 2
    assert page.locator(".hud.tl").all_inner_texts() == ["Axial · A\nexpert", f"Axial · B\n{NETWORK}"]
    boxes = [page.locator(".pane").nth(n).bounding_box() for n in (0, 1)]
    assert boxes[0]["y"] == boxes[1]["y"]
    page.locator(".pane-picture").first.focus()
    page.keyboard.press("PageDown")
    assert len(set(page.locator(".hud.bl").all_inner_texts())) == 1, "both show the same slice"
    heart = page.locator("li[data-organ='heart']").inner_text()
    assert re.search(r"A \d+ mL\nB \d+ mL, Dice 0\.\d\d", heart)
    row = page.locator("table.agree tbody tr").first.locator("td").all_inner_texts()
    assert len(row) == 5
    assert 0 < float(row[1]) < 1
    assert float(row[2]) > 0


@pytest.mark.long
def test_windows_and_structures(browser: Watched, run: Workspace) -> None:
    page = open_page(browser, run)
    page.fill(".b-centre", "100")
    page.locator(".b-centre").press("Enter")
    assert page.locator(".b-window").input_value() == "own"
    settle(page)
    assert page.locator(".p-axial .hud.tr").inner_text() == "C 100 W 400"
    page.locator(".p-axial .pane-picture").focus()
    page.keyboard.press("w")
    assert page.locator(".b-window").input_value() != "own"
    page.locator(".p-axial .pane-picture").hover()
    settle(page)
    assert re.match(r"≈ -?\d+ HU", page.locator(".bench-pointer").inner_text())
    bars = page.locator(".p-axial .scale-bar").evaluate("bar => [Number(bar.dataset.mm), bar.offsetWidth]")
    height = page.locator(".p-axial .pane-picture").bounding_box()
    scale = min(height["width"] / (80 * 2.5), height["height"] / (64 * 2.5))
    assert bars[1] == pytest.approx(bars[0] * scale, abs=1)
    page.fill(".organ-find", "hear")
    assert page.locator(".b-list li:visible button").all_inner_texts() == ["heart"]
    page.fill(".organ-find", "")
    assert page.locator("li.gone").inner_text() == "trachea\nB absent"


HIDDEN_TEXTS_OUTSIDE = """[...document.querySelectorAll(".away")].filter(text => {
    const box = text.closest(".b-list, .scroll");
    return box && text.offsetParent !== box && !box.contains(text.offsetParent);
}).length"""
"""Texts for screen readers that leave the box that scrolls them: with 117 organs the page was 2,900 pixels too long."""


def test_texts_for_screen_readers_make_no_page_longer(browser: Watched, run: Workspace) -> None:
    page = browser.page
    page.goto(f"file://{run.report}/series/{uid_of(0)}.html")
    page.wait_for_selector(".bench[data-ready]")
    assert page.locator(".b-list .away").count() > 0
    assert page.evaluate(HIDDEN_TEXTS_OUTSIDE) == 0
    end = page.evaluate("document.querySelector('footer').getBoundingClientRect().bottom + scrollY")
    assert page.evaluate("document.documentElement.scrollHeight") < end + 50


@pytest.mark.long
def test_without_javascript_or_data_there_is_a_still_picture(browser: Watched, run: Workspace, tmp_path: Path) -> None:
    context = browser.page.context.browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((run.report / "series" / f"{UID}.html").as_uri())
    still = page.locator(".still svg").nth(1)
    assert still.is_visible()
    assert still.locator("path.mark").count() == 3
    assert still.locator("image").first.bounding_box()["width"] > 100
    assert page.locator(".bench-controls").first.is_hidden()
    context.close()
    shutil.copytree(run.report, tmp_path / "report")
    for path in (tmp_path / "report" / "pictures").glob("*.js"):
        path.unlink()
    page = browser.page.context.browser.new_page()
    page.goto((tmp_path / "report" / "series" / f"{UID}.html").as_uri())
    page.locator(".bench-state").filter(has_text="The still picture").wait_for()
    assert page.locator(".still svg").first.is_visible()
    page.close()


@pytest.mark.long
def test_fingers_scroll_and_zoom(browser: Watched, run: Workspace) -> None:
    context = browser.page.context.browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True)
    page = context.new_page()
    page.goto((run.report / "series" / f"{UID}.html").as_uri())
    page.wait_for_selector(".bench[data-ready]")
    page.locator(".pane-picture").scroll_into_view_if_needed()
    box = page.locator(".pane-picture").bounding_box()
    row = box["y"] + box["height"] / 2
    fingers = context.new_cdp_session(page)

    def move(*points: tuple[float, float]) -> None:
        """Touch each start and move by each distance, to the right."""
        for step in range(11):
            kind = "touchMove" if step else "touchStart"
            touches = [{"x": x + by * step / 10, "y": row, "id": n} for n, (x, by) in enumerate(points)]
            fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})
        fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    before = int(re.match(r"Slice (\d+)", text_of(page, "axial"))[1])
    move((120, 100))
    after = int(re.match(r"Slice (\d+)", text_of(page, "axial"))[1])
    assert before - after == pytest.approx(40 * 90 / box["width"], abs=2), "towards the feet"
    move((150, -50), (200, 50))
    settle(page)
    assert int(page.locator(".b-zoom").inner_text().removesuffix(" %")) > 150
    context.close()
