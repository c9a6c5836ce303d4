"""Draw the pictures of the documentation of the report's first page: a cohort of generated patients in chromium.

python scripts/draw_docs_index.py [RUN]

RUN is a finished run of generated studies; without it, ten generated chests with their planted contours are run. The
names of two organs are exchanged in three of them. Writes docs/images/report-index*.png.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from ctenrich import steps
from ctenrich.phantom.options import PhantomOptions, Quirk
from ctenrich.phantom.study import write_phantom_study
from ctenrich.quality.run import check_run, write_quality
from ctenrich.records import SegmentMasks
from ctenrich.runner.run import Run
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import save_record

OUT = Path(__file__).resolve().parents[1] / "docs" / "images"
_PATIENTS = 10


def make_cohort(folder: Path) -> Run:
    """Run the stages on generated chests; one has a gap between its slices and fails."""
    for seed in range(_PATIENTS):
        quirks = frozenset({Quirk.MISSING_SLICE} if seed == 4 else ())
        options = PhantomOptions(
            seed=100 + seed, rows=128, columns=128, pixel_spacing=(3.1, 3.1), slices=64, slice_spacing=5.0,
            rtstruct=True, quirks=quirks,
        )  # fmt: skip
        write_phantom_study(folder / "dicom" / f"patient_{seed}", options)
    steps.index([folder / "dicom"], folder / "catalog.duckdb")
    steps.select("select_ct_series", f"folder:{folder / 'catalog.duckdb'}", folder / "cohort.parquet")
    made = steps.start(folder / "cohort.parquet", folder / "generated chests", segmenters=["expert"])
    steps.run_all(made)
    return made


def plant_faults(run: Run) -> None:
    """Exchange the names of two organs in some series, as a network that mistakes one for the other."""
    store = SeriesStore(run.workspace)
    for number, pair in ((1, ("lung_left", "lung_right")), (4, ("heart", "trachea")), (6, ("aorta", "esophagus"))):
        uid = run.cohort.series[number].series_instance_uid
        product = next(iter(store.products(uid)))
        masks = store.load(SegmentMasks, uid, product)
        other = {pair[0]: pair[1], pair[1]: pair[0]}
        segments = tuple(replace(segment, name=other.get(segment.name, segment.name)) for segment in masks.segments)
        save_record(store.path(SegmentMasks, uid, product), replace(masks, segments=segments))


def draw(browser: Any, run: Run) -> None:
    """Plant faults, check the masks, build the report, and take pictures at 1,400 and 390 pixels."""
    plant_faults(run)
    write_quality(run.workspace, check_run(run.workspace, run.cohort))
    index = steps.report(run)
    for suffix, width, height in (("", 1400, 1900), ("-390", 390, 1900)):
        page = browser.new_page(viewport={"width": width, "height": height})
        page.goto(index.resolve().as_uri())
        page.wait_for_selector("#chart a.pt")
        page.wait_for_timeout(1500)
        page.screenshot(path=str(OUT / f"report-index{suffix}.png"))
        if suffix:
            page.locator("#series").evaluate("element => element.scrollIntoView({behavior: 'instant'})")
        else:
            page.set_viewport_size({"width": 1400, "height": 1500})
            page.locator("#series-title").evaluate("element => element.scrollIntoView({behavior: 'instant'})")
        page.wait_for_timeout(1500)
        page.screenshot(path=str(OUT / f"report-index-series{suffix}.png"))
        page.close()


def main() -> None:
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as play, tempfile.TemporaryDirectory() as name:
        run = steps.open_run(Path(sys.argv[1])) if len(sys.argv) > 1 else make_cohort(Path(name))
        browser = play.chromium.launch(executable_path=binary, args=["--no-sandbox", "--force-color-profile=srgb"])
        draw(browser, run)
        browser.close()


if __name__ == "__main__":
    main()
