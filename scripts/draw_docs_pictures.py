"""Draw the pictures of the documentation that chromium takes: the viewer's pages, and the report's page of a series.

python scripts/draw_docs_pictures.py [RUN]

RUN is a finished run of a generated study; without it the study of the demo is segmented by its network and by the
contours of its RTSTRUCT. Writes docs/images/ohif*.png, viewer-*.png and report-*.png.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from ctenrich import steps
from ctenrich.demo import BODYPART, SEGMENTER, write_demo_study
from ctenrich.records import ObjectKind
from ctenrich.report import build_report
from ctenrich.view import RunView, serve
from ctenrich.workspace import Workspace

OUT = Path(__file__).resolve().parents[1] / "docs" / "images"
FLAGS = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
_READY = 25_000
"""Milliseconds until OHIF has laid a segmentation over the CT, on a slow machine."""


def draw_viewer(browser: Any, workspace: Workspace) -> None:
    """Draw the overview, OHIF (slices and planes) and a report of the first series, for a desk and for a telephone."""
    view = RunView(workspace)
    series = view.series[0]
    report = next(one for one in view.objects(series) if one.item.kind == ObjectKind.SHAPE_SR)
    pages = {
        "viewer-overview": "/",
        "ohif": f"/open/{series}",
        "ohif-planes": f"/open/{series}?layout=mpr",
        "viewer-report": f"/sr/{series}/{report.item.sop_instance_uid}",
    }
    with serve(workspace, port=0) as server:
        for suffix, width, height in (("", 1400, 820), ("-390", 390, 760)):
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(server.url(), timeout=120_000)
            for name, path in pages.items():
                if suffix and name == "ohif-planes":
                    continue
                page.goto(f"{server.root}{path}", timeout=120_000)
                if name.startswith("ohif"):
                    page.wait_for_function("() => /I:\\s*\\d+/.test(document.body.innerText)", timeout=120_000)
                page.wait_for_timeout(_READY)
                page.screenshot(path=str(OUT / f"{name}{suffix}.png"))
            page.close()


def draw_report(browser: Any, workspace: Workspace) -> None:
    """Draw the page of the first series: three planes, and two products side by side, for two widths of screen."""
    index = build_report(workspace)
    for suffix, width, height in (("", 1400, 1300), ("-390", 390, 1500)):
        page = browser.new_page(viewport={"width": width, "height": height})
        page.goto((index.resolve().parent / "series" / f"{RunView(workspace).series[0]}.html").as_uri())
        page.wait_for_selector(".bench[data-ready]:visible")
        page.wait_for_timeout(2000)
        page.screenshot(path=str(OUT / f"report-series{suffix}.png"))
        page.locator(".b-view:visible").select_option("axial")
        page.locator(".b-compare:visible").select_option("side")
        page.locator(".bench:visible").evaluate("element => element.scrollIntoView({behavior: 'instant'})")
        page.wait_for_timeout(1000)
        page.screenshot(path=str(OUT / f"report-side-by-side{suffix}.png"))
        page.close()


def draw(run: Path) -> None:
    """Take the pictures of a run."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    OUT.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=binary, args=[*FLAGS, "--force-color-profile=srgb"])
        draw_viewer(browser, Workspace(run))
        draw_report(browser, Workspace(run))
        browser.close()


def main() -> None:
    if len(sys.argv) > 1:
        draw(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_demo_study(folder / "dicom", contours=True)
        steps.index([folder / "dicom"], folder / "catalog.duckdb")
        steps.select("select_ct_series", f"folder:{folder / 'catalog.duckdb'}", folder / "cohort.parquet")
        segmenters = ["expert", SEGMENTER]
        made = steps.start(folder / "cohort.parquet", folder / "run", segmenters=segmenters, bodypart=BODYPART)
        steps.run_all(made)
        draw(folder / "run")


if __name__ == "__main__":
    main()
