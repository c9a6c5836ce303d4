"""Draw docs/images/ohif.png: the demo's CT with its segmentation in OHIF, as `ctenrich view` shows it in chromium.

python scripts/draw_docs_ohif.py [RUN]

RUN is a finished run of the demo (``make demo`` writes demo-run/run); without it the demo is run first.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from ctenrich.view import RunView, serve
from ctenrich.workspace import Workspace

OUT = Path(__file__).resolve().parents[1] / "docs" / "images" / "ohif.png"
SIZE = {"width": 1280, "height": 800}
FLAGS = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


def draw(run: Path, out: Path) -> None:
    """Open the first series, go to the middle of the chest, show the list of segments, take the picture."""
    from playwright.sync_api import sync_playwright

    workspace = Workspace(run)
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with serve(workspace, port=0) as server, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=binary, args=[*FLAGS, "--force-color-profile=srgb"])
        page = browser.new_page(viewport=SIZE)
        page.goto(server.url(RunView(workspace).series[0]), timeout=120_000)
        page.wait_for_function("() => /I:\\s*\\d+/.test(document.body.innerText)", timeout=120_000)
        page.wait_for_timeout(8000)
        page.locator('[data-cy="panelSegmentation-btn"], [data-cy*="egmentation"]').first.click()
        page.wait_for_timeout(2000)
        box = page.locator(".cornerstone-canvas").first.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        for _ in range(len(RunView(workspace).slices(RunView(workspace).series[0])) // 2):
            page.mouse.wheel(0, 100)
            page.wait_for_timeout(60)
        page.wait_for_timeout(3000)
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
