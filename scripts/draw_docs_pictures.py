"""Draw the pictures of the documentation that chromium takes: the demo in OHIF, and its series page in the report.

python scripts/draw_docs_pictures.py [RUN]

RUN is a finished run of the demo (``make demo`` writes demo-run/run); without it the demo is run first. Writes
docs/images/ohif.png and docs/images/report-series.png.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from ctenrich.demo import run_demo
from ctenrich.report import build_report
from ctenrich.view import RunView, serve
from ctenrich.workspace import Workspace

OUT = Path(__file__).resolve().parents[1] / "docs" / "images"
FLAGS = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


def draw_viewer(page: Any, workspace: Workspace) -> None:
    """Open the first series in OHIF, go to the middle of the chest, show the list of segments."""
    view = RunView(workspace)
    series = view.series[0]
    with serve(workspace, port=0) as server:
        page.goto(server.url(series), timeout=120_000)
        page.wait_for_function("() => /I:\\s*\\d+/.test(document.body.innerText)", timeout=120_000)
        page.wait_for_timeout(8000)
        page.locator('[data-cy="panelSegmentation-btn"], [data-cy*="egmentation"]').first.click()
        page.wait_for_timeout(2000)
        box = page.locator(".cornerstone-canvas").first.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        for _ in range(len(view.slices(series)) // 2):
            page.mouse.wheel(0, 100)
            page.wait_for_timeout(60)
        page.wait_for_timeout(3000)
        page.screenshot(path=str(OUT / "ohif.png"))


def draw_report(page: Any, workspace: Workspace) -> None:
    """Open the page of the first series at its masks."""
    index = build_report(workspace)
    page.goto(f"{index.resolve().as_uri()}#s-{RunView(workspace).series[0]}")
    page.wait_for_selector(".page.open section.product img.over")
    section = page.locator(".page.open section.product:has(img.over)").first
    section.evaluate("element => element.scrollIntoView({block: 'start', behavior: 'instant'})")
    page.screenshot(path=str(OUT / "report-series.png"))


def draw(run: Path) -> None:
    """Take both pictures of a run."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    OUT.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=binary, args=[*FLAGS, "--force-color-profile=srgb"])
        draw_viewer(browser.new_page(viewport={"width": 1280, "height": 800}), Workspace(run))
        draw_report(browser.new_page(viewport={"width": 1180, "height": 1440}), Workspace(run))
        browser.close()


def main() -> None:
    if len(sys.argv) > 1:
        draw(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        run_demo(Path(folder))
        draw(Path(folder) / "run")


if __name__ == "__main__":
    main()
