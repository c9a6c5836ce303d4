"""Draw docs/images/report-series.png: a series page in the report of the demo, as chromium shows it.

python scripts/draw_docs_report.py [RUN]

RUN is a finished run of the demo (``make demo`` writes demo-run/run); without it the demo is run first.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from ctenrich.report import build_report
from ctenrich.workspace import Workspace

OUT = Path(__file__).resolve().parents[1] / "docs" / "images" / "report-series.png"
SIZE = {"width": 1180, "height": 1440}


def draw(run: Path, out: Path) -> None:
    """Take the picture of the first series' page."""
    from playwright.sync_api import sync_playwright

    index = build_report(Workspace(run))
    series = sorted(p.name for p in (run / "series").iterdir())[0]
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=binary, args=["--no-sandbox", "--force-color-profile=srgb"])
        page = browser.new_page(viewport=SIZE)
        page.goto(f"{index.resolve().as_uri()}#s-{series}")
        page.wait_for_selector(".page.open section.product img.over")
        section = page.locator(".page.open section.product:has(img.over)").first
        section.evaluate("element => element.scrollIntoView({block: 'start', behavior: 'instant'})")
        out.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(out))
        browser.close()


def main() -> None:
    if len(sys.argv) > 1:
        draw(Path(sys.argv[1]), OUT)
        return
    from ctenrich.demo import run_demo

    with tempfile.TemporaryDirectory() as folder:
        run_demo(Path(folder))
        draw(Path(folder) / "run", OUT)


if __name__ == "__main__":
    main()
