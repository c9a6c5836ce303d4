"""Time to the first CT frame of `ctenrich view`, compared with the same OHIF build on a static dicomjson.

    python -m benchmarks.view [--quick]

Both are opened in turn, each in a fresh profile of one browser run; the time is from the request of the page until the
canvas shows a picture. The static site has the same files and a study described once, before the clock starts.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

import pydicom
from tests.support.browser import chromium
from tests.support.cohorts import make_cohort

from ctenrich import steps
from ctenrich.phantom import PhantomOptions
from ctenrich.view import RunView, serve
from ctenrich.view.ohif import app_config, clean_index, obtain_ohif
from ctenrich.workspace import Workspace

AIM = 1.5
KEYS = """
SOPClassUID SOPInstanceUID SeriesInstanceUID StudyInstanceUID FrameOfReferenceUID Modality InstanceNumber Rows Columns
SeriesNumber SeriesDescription SeriesDate PhotometricInterpretation BitsAllocated BitsStored HighBit PixelSpacing
PixelRepresentation SamplesPerPixel ImageOrientationPatient ImagePositionPatient WindowCenter WindowWidth
RescaleIntercept RescaleSlope SliceThickness
"""
DRAWN = """() => {
  const canvas = document.querySelector('.cornerstone-canvas');
  if (!canvas || !/I:\\s*\\d+/.test(document.body.innerText)) return false;
  const small = document.createElement('canvas');
  small.width = small.height = 32;
  const context = small.getContext('2d');
  context.drawImage(canvas, 0, 0, 32, 32);
  return context.getImageData(0, 0, 32, 32).data.some((v, k) => k % 4 < 3 && v > 20);
}"""


def main() -> int:
    """Make a run, open it both ways in turn, print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder), quick)
        uid = RunView(run).series[0]
        site = Path(folder) / "site"
        study = static_site(run, uid, site)
        ours: list[float] = []
        static: list[float] = []
        with serve(run, port=0) as server, static_server(site) as root, chromium() as seen:
            address = f"{root}/viewer/dicomjson?url=/study.json&StudyInstanceUIDs={study}"
            for turn in range(2 if quick else 6):
                for times, url in ((static, address), (ours, server.url(uid))):
                    seconds = first_frame(seen.page.context.browser, url)
                    if turn:
                        times.append(seconds)
    ratio = median(ours) / median(static)
    print(f"first CT frame: {median(ours):.2f} s, static dicomjson {median(static):.2f} s")
    print(f"ratio {ratio:.2f} (aim {AIM}), after a first turn that does not count, {len(ours)} turns each")
    return 0 if ratio <= AIM or quick else 1


def make_run(folder: Path, quick: bool) -> Workspace:
    """A generated chest with its contours as SEG."""
    size, slices = (128, 40) if quick else (512, 120)
    options = PhantomOptions(
        rows=size,
        columns=size,
        pixel_spacing=(400 / size, 400 / size),
        slices=slices,
        slice_spacing=320 / slices,
        rtstruct=True,
    )
    made = steps.start(make_cohort(folder, 1, options=options), folder / "run", segmenters=["expert"])
    for stage in (steps.fetch, steps.sort, steps.convert, steps.segment, steps.measure, steps.encode):
        stage(made)
    return made.workspace


def first_frame(browser: Any, url: str) -> float:
    """Seconds from the request of the page, with empty caches, until its canvas shows a picture."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    started = time.monotonic()
    page.goto(url, timeout=120_000, wait_until="commit")
    page.wait_for_function(DRAWN, timeout=120_000)
    seconds = time.monotonic() - started
    page.close()
    return seconds


# ---------------------------------------------------------------- the static site


def static_site(run: Workspace, uid: str, site: Path) -> str:
    """OHIF's files, the CT and its description as dicomjson; returns the Study Instance UID."""
    site.mkdir()
    ohif = obtain_ohif()
    for path in ohif.iterdir():
        if path.name not in ("index.html", "app-config.js"):
            (site / path.name).symlink_to(path)
    (site / "index.html").write_text(clean_index((ohif / "index.html").read_text("utf-8")))
    source = {
        "namespace": "@ohif/extension-default.dataSourcesModule.dicomjson",
        "sourceName": "dicomjson",
        "configuration": {"friendlyName": "static", "name": "json"},
    }
    head, _, rest = app_config(pacs=False).partition("=")
    config, end = json.JSONDecoder().raw_decode(rest)
    config.update(dataSources=[source], defaultDataSourceName="dicomjson")
    (site / "app-config.js").write_text(f"{head}={json.dumps(config)}{rest[end:]}")
    instances = []
    for k, path in enumerate(RunView(run).slices(uid)):
        (site / f"{k}.dcm").write_bytes(path.read_bytes())
        instances.append(
            {"metadata": plain(pydicom.dcmread(path, stop_before_pixels=True)), "url": f"dicomweb:/{k}.dcm"}
        )
    first = instances[0]["metadata"]
    series = {n: first[n] for n in ("SeriesInstanceUID", "Modality", "SeriesNumber") if n in first}
    study = {
        "StudyInstanceUID": first["StudyInstanceUID"],
        "NumInstances": len(instances),
        "Modalities": "CT",
        "series": [{**series, "instances": instances}],
    }
    (site / "study.json").write_text(json.dumps({"studies": [study]}))
    return str(first["StudyInstanceUID"])


def plain(data: Any) -> dict[str, Any]:
    """Attributes of a slice that OHIF needs, by keyword."""

    def value(one: Any) -> Any:
        if isinstance(one, int):
            return int(one)
        return float(one) if hasattr(one, "__float__") else str(one)

    found = {e.keyword: e for e in data if e.keyword in KEYS.split()}
    return {k: [value(v) for v in e.value] if e.VM > 1 else value(e.value) for k, e in found.items()}


class _Site(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def translate_path(self, path: str) -> str:
        found = super().translate_path(path)
        return found if Path(found).is_file() else super().translate_path("/index.html")

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        return None


@contextmanager
def static_server(site: Path) -> Iterator[str]:
    """File server of the standard library; any other address is OHIF's page."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Site, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
