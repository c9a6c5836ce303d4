"""The first page of a report: ranked list, filters, charts, review, keyboard, print, narrow screens; in chromium."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctenrich.quality.finding import Finding
from ctenrich.quality.ranking import rank_cases
from ctenrich.quality.run import write_quality
from ctenrich.records import Severity
from ctenrich.report import build_report
from ctenrich.report.data import Group
from ctenrich.report.index_data import DataFiles, natural_key, write_features
from ctenrich.review.reading import read_review_file
from ctenrich.review.store import ReviewStore, objects_version, run_identifier
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace
from tests.support.accessibility import accessibility_faults
from tests.support.browser import Watched, chromium
from tests.support.report_runs import NETWORK, make_run, uid_of

EVIL = "<script>document.title='owned'</script>\"'&<img src=x onerror=alert(1)>"


SPHERICITY = "Sphericity, mL"
"""The fixture writes all of its values in mm3."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Twelve series, two of them failed, the fourth with findings of the quality checks."""
    workspace = make_run(tmp_path_factory.mktemp("made") / "run", 12, pictures=12, broken=2, text=EVIL)
    island = Finding(
        organ="heart",
        check="islands",
        value=3.0,
        high=1.0,
        severity=Severity.ERROR,
        sentence="heart: 3 pieces",
        slice_index=15,
    )
    volume = Finding(organ="aorta", check="volume", value=9.0, high=8.0, sentence=f"aorta: too large {EVIL}")
    cases = [(uid_of(i), str(NETWORK), [island, volume] if i == 3 else []) for i in range(10)]
    write_quality(workspace, rank_cases(cases))
    build_report(workspace)
    return workspace


@pytest.fixture(scope="module")
def browser() -> Iterator[Watched]:
    with chromium() as seen:
        yield seen


@pytest.fixture
def page(run: Workspace, browser: Watched) -> Any:
    """The first page, read to the end, as a new visitor sees it."""
    browser.page.set_viewport_size({"width": 1280, "height": 900})
    browser.page.goto(f"file://{run.report / 'index.html'}")
    browser.page.evaluate("localStorage.clear()")
    browser.page.reload()
    browser.page.wait_for_selector("#chart a.pt")
    browser.errors.clear()
    return browser.page


def data_of(run: Workspace, name: str) -> Any:
    text = (run.report / "data" / f"{name}.js").read_text("utf-8")
    found = re.fullmatch(r'ctenrich\.put\("[\w-]+",(.*)\);\n', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def floats(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


# ---------------------------------------------------------------- data


def test_chart_data_hold_every_value_of_every_series(run: Workspace) -> None:
    meta = data_of(run, "index")
    assert meta["quantities"][0]["name"].startswith("Volume"), "volume is the first quantity"
    assert meta["quantities"][0]["unit"] == "mL"
    sphericity = next(q for q in meta["quantities"] if q["name"] == "Sphericity")
    assert [organ["organ"] for organ in sphericity["organs"]] == ["aorta", "heart"]
    (group,) = data_of(run, sphericity["organs"][1]["file"])
    values = floats(group["values"])
    uids = data_of(run, "series-0")["uid"]
    assert {uid for uid, value in zip(uids, values, strict=True) if not np.isnan(value)} == {
        uid_of(i) for i in range(10)
    }
    assert int(np.nanargmin(values)) == uids.index(uid_of(6)), "the planted outlier"


def test_values_of_few_series_are_written_with_their_positions(tmp_path: Path) -> None:
    places, values = np.array([7, 2], np.int32), np.array([5e3, 7e3])
    group = Group(quantity="Volume", unit="mm3", organ="liver", product="p", series=places, values=values)
    write_features(DataFiles(tmp_path), 0, [group], 100)
    text = (tmp_path / "feature-0-0.js").read_text()
    (found,) = json.loads(text.removeprefix('ctenrich.put("feature-0-0",').removesuffix(");\n"))
    assert floats(found["values"]).tolist() == [5.0, 7.0], "mL"
    assert np.frombuffer(base64.b64decode(found["series"]), "<u4").tolist() == [7, 2]


def test_natural_order() -> None:
    names = ["rib_left_10", "rib_left_2", "aorta", "Rib_left_1"]
    assert sorted(names, key=natural_key) == ["aorta", "Rib_left_1", "rib_left_2", "rib_left_10"]


def test_the_ranked_list_names_reasons_slice_and_picture(run: Workspace) -> None:
    text = (run.report / "index.html").read_text("utf-8")
    entries = text[text.index('<ol class="first"') :].partition("</ol>")[0]
    assert entries.count('<li class="case">') == 1, "series without findings are not listed"
    assert f'href="series/{uid_of(3)}.html#slice=15"' in entries
    assert "heart: 3 pieces" in entries
    assert EVIL not in text
    picture = re.search(r'<img src="(thumbnails/finding-[0-9a-f]{20}\.webp)"', entries)
    assert picture is not None
    assert (run.report / picture[1]).is_file()
    unusual = text[text.index("Unusual values") :]
    first = re.search(r'href="series/([\d.]+)\.html"', unusual)
    assert first is not None
    assert first[1] == uid_of(6)


def test_without_quality_checks_the_page_says_how_to_get_the_list(tmp_path: Path) -> None:
    text = build_report(make_run(tmp_path / "run", 1, pictures=0)).read_text("utf-8")
    assert "<code>ctenrich report RUN</code>" in text
    assert "(Distributions need at least 8 series.)" in text or "Unusual values" in text


# ---------------------------------------------------------------- in a browser


def shows(page: Any, text: str) -> None:
    """Wait for the number of series that the filters leave."""
    from playwright.sync_api import expect

    expect(page.locator("#count")).to_have_text(text)


def test_filters_do_what_they_say(page: Any, browser: Watched) -> None:
    shows(page, "12 of 12 series")
    for value, wanted in (
        ("missing_slice", 2),
        (uid_of(11), 1),
        ("bodypart", 10),
        ("nothing of the kind", 0),
        ("", 12),
    ):
        page.fill("#find", value)
        shows(page, f"{wanted} of 12 series")
    for control, value, wanted in (
        ("#state", "done", 10), ("#reason", "MISSING_SLICE", 2), ("#product", str(NETWORK), 10), ("#flag", "0", 1),
        ("#flag", "2", 10), ("#reviewed", "not reviewed", 12), ("#reviewed", "accepted", 0),
    ):  # fmt: skip
        page.select_option(control, value)
        shows(page, f"{wanted} of 12 series")
        page.select_option(control, "")
    page.select_option("#range-quantity", label=SPHERICITY)
    page.select_option("#range-organ", "heart")
    shows(page, "10 of 12 series")
    page.fill("#range-high", "0.0006")
    page.dispatch_event("#range-high", "change")
    shows(page, "1 of 12 series")
    assert page.locator("#gallery a.card").get_attribute("href") == f"series/{uid_of(6)}.html"
    page.click("button[type=reset]")
    shows(page, "12 of 12 series")
    assert browser.errors == []
    assert browser.outside() == []


@pytest.mark.long
def test_the_table_is_sorted_by_numbers(page: Any) -> None:
    page.click("#as-table")
    rows = page.locator("#series-list tbody tr th a")
    assert rows.count() == 12
    page.click("#series-list button[data-key=uid]")
    assert [text.rsplit(".", 1)[1] for text in rows.all_inner_texts()] == [str(n) for n in range(12)]
    page.select_option("#order", "score")
    assert rows.first.inner_text() == uid_of(3)
    assert page.locator("th[aria-sort=descending] button").inner_text() == "Score"


@pytest.mark.long
def test_a_point_leads_to_the_page_of_its_series_or_to_the_viewer(page: Any, browser: Watched, run: Workspace) -> None:
    from playwright.sync_api import expect

    page.select_option("#chart-quantity", label=SPHERICITY)
    expect(page.locator("#chart .what")).to_contain_text("Sphericity")
    page.select_option("#chart-organ", "aorta")
    expect(page.locator("#chart a.pt")).to_have_count(10)
    page.evaluate("window.opened = []; window.open = (url) => { window.opened.push(url) }; 0")
    point = page.locator("#chart a.pt.out").first
    point.dispatch_event("click", {"shiftKey": True})
    point.focus()
    page.keyboard.press("v")
    assert page.evaluate("window.opened") == [f"http://127.0.0.1:8790/open/{uid_of(6)}"] * 2
    point.dispatch_event("click")
    page.wait_for_url(f"**/series/{uid_of(6)}.html")
    assert browser.errors == []


@pytest.mark.long
def test_a_finding_leads_to_its_slice(page: Any, browser: Watched) -> None:
    from playwright.sync_api import expect

    page.click(".signs a")
    page.wait_for_url(f"**/series/{uid_of(3)}.html#slice=15")
    page.wait_for_selector(".bench[data-ready]")
    expect(page.get_by_label("Slice 16 of 40").first).to_be_attached()
    assert browser.errors == []


@pytest.mark.long
def test_five_tabs_reach_every_section(page: Any) -> None:
    reached = {}
    for presses in range(1, 6):
        page.keyboard.press("Tab")
        reached[page.evaluate("document.activeElement.getAttribute('href')")] = presses
    assert reached == {"#first": 1, "#series": 2, "#charts": 3, "#run": 4, "#about": 5}
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "about"
    sections = page.locator("main section").evaluate_all("all => all.map(one => one.id)")
    assert sorted(f"#{name}" for name in sections) == sorted(reached)


@pytest.mark.long
def test_a_review_is_kept_and_can_be_imported(page: Any, browser: Watched, run: Workspace, tmp_path: Path) -> None:
    box = page.locator(".case .review").first
    box.locator("summary").click()
    box.get_by_label("Accept").click()
    assert "Enter your name first" in page.locator(".review-bar .said").inner_text()
    assert page.evaluate("document.activeElement.className") == "reviewer"
    page.fill("input.reviewer", "Ada L.")
    box.get_by_label("Reason to reject").select_option("island")
    box.get_by_role("textbox", name="Comment").fill("two voxels </script> behind")
    box.get_by_role("textbox", name="Comment").blur()
    page.select_option("#reviewed", "rejected")
    shows(page, "1 of 12 series")
    page.goto(f"file://{run.report}/series/{uid_of(3)}.html")
    here = page.locator(f'.review[data-product="{NETWORK}"]')
    assert here.get_by_label("Reject").first.is_checked(), "the page of the series shows the same review"
    here.get_by_label("Accept").check()
    page.evaluate("delete window.showSaveFilePicker; window.showSaveFilePicker = undefined")
    with page.expect_download() as caught:
        page.click(".review-bar .save")
    path = tmp_path / "review.json"
    caught.value.save_as(path)
    (review,) = read_review_file(path).reviews
    assert (review.reviewer, review.decision, review.comment) == ("Ada L.", "accept", "two voxels </script> behind")
    assert ReviewStore(run).import_file(path).added == 1
    assert browser.errors == []


def test_imported_reviews_are_shown(run: Workspace, tmp_path: Path) -> None:
    workspace = make_run(tmp_path / "run", 2, pictures=0)
    version = objects_version(SeriesStore(workspace), uid_of(1), NETWORK)
    entry = {"series": uid_of(1), "product": str(NETWORK), "objects": version, "decision": "reject", "reviewer": "Ada"}
    entry["time"] = "2026-01-31T12:00:00Z"
    content = {"format": "ctenrich-review", "version": 1, "run": run_identifier(workspace), "reviews": [entry]}
    (tmp_path / "review.json").write_text(json.dumps(content))
    build_report(workspace)
    before = (workspace.report / "series" / f"{uid_of(0)}.html").stat().st_mtime_ns
    ReviewStore(workspace).import_file(tmp_path / "review.json")
    build_report(workspace)
    assert 'data-state="rejected"' in (workspace.report / "series" / f"{uid_of(1)}.html").read_text("utf-8")
    assert (workspace.report / "series" / f"{uid_of(0)}.html").stat().st_mtime_ns == before
    meta, columns = data_of(workspace, "index"), data_of(workspace, "series-0")
    place = columns["uid"].index(uid_of(1))
    product = meta["sets"][columns["set"][place]].index(str(NETWORK))
    assert meta["reviews"][columns["review"][place][product]] == "rejected"


@pytest.mark.long
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_accessible_and_without_sideways_scroll(page: Any, width: int, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 844})
    page.reload()
    page.wait_for_selector("#chart a.pt")
    for button in ("#as-gallery", "#as-table"):
        page.click(button)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert accessibility_faults(page) == []
    page.emulate_media(color_scheme="light")


def test_print_is_one_page(page: Any) -> None:
    pdf = page.pdf(format="A4", prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 1
    page.emulate_media(media="print")
    assert page.locator("ol.first .case").first.is_visible()
    assert page.locator("#chart .plot svg").is_visible()
    assert not page.locator("#filters").is_visible()
    page.emulate_media(media="screen")


@pytest.mark.long
def test_hundreds_of_series(tmp_path: Path, browser: Watched) -> None:
    workspace = make_run(tmp_path / "run", 301, pictures=3, broken=50)
    index = build_report(workspace)
    assert index.stat().st_size < 100e3, "the page itself does not grow with the series"
    assert len(list((workspace.report / "series").glob("*.html"))) == 301
    browser.page.set_viewport_size({"width": 1280, "height": 900})
    browser.errors.clear()
    browser.page.goto(f"file://{index}")
    shows(browser.page, "301 of 301 series")
    assert browser.page.locator("#gallery a.card").count() == 48
    browser.page.fill("#find", uid_of(300))
    shows(browser.page, "1 of 301 series")
    target = browser.page.locator("#gallery a.card").get_attribute("href")
    assert (workspace.report / target).is_file()
    assert browser.errors == []
