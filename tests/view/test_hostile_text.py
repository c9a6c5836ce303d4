"""Text of DICOM files is never run as script: in the report, the viewer's pages and its JSON, seen in chromium."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from ctenrich import steps
from ctenrich.phantom import write_phantom_study
from ctenrich.view import serve
from tests.support.browser import chromium
from tests.support.cohorts import TINY

SCRIPT = '"><img src=x onerror="window.hit=1"><script>window.hit=1</script>'
_TEXTS = ("PatientID", "SeriesDescription", "StudyDescription", "Manufacturer", "ProtocolName")


def make_hostile(folder: Path) -> None:
    """Write the attack into every text of CT and RTSTRUCT that is shown or kept; one ROI has a name that is mapped."""
    for path in folder.rglob("*.dcm"):
        data = pydicom.dcmread(path)
        for keyword in _TEXTS:
            setattr(data, keyword, SCRIPT[:60])
        data.PatientName = "<script>hit()</script>"
        for number, roi in enumerate(data.get("StructureSetROISequence") or ()):
            roi.ROIDescription = SCRIPT
            if number:
                roi.ROIName = SCRIPT[:60]
        data.save_as(path)


@pytest.mark.timeout(300)
@pytest.mark.long
def test_no_text_is_run_as_script(tmp_path: Path) -> None:
    write_phantom_study(tmp_path / "dicom", TINY)
    make_hostile(tmp_path / "dicom")
    catalog = tmp_path / "catalog.duckdb"
    steps.index([tmp_path / "dicom"], catalog)
    request = steps.SelectRequest("select_ct_series", f"folder:{catalog}", tmp_path / "cohort.parquet", {})
    assert len(steps.select_request(request)[0].cohort.series) == 1
    made = steps.start(tmp_path / "cohort.parquet", tmp_path / "run<b>x", segmenters=["expert"])
    steps.run_all(made)
    site = tmp_path / "ohif"
    site.mkdir()
    (site / "index.html").write_text("<!doctype html><title>OHIF</title>")
    pages = sorted(made.workspace.report.rglob("*.html"))
    assert pages
    with serve(made.workspace, ohif=site, port=0) as server, chromium() as seen:
        uid = server.view.series[0]
        study = server.view.record(uid).study_instance_uid
        reports = [o for o in server.view.objects(uid) if o.item.kind != "seg"]
        assert reports
        addresses = [path.as_uri() for path in pages]
        addresses += [server.url(), f"{server.root}/sr/{uid}/{reports[0].item.sop_instance_uid}"]
        addresses += [f"{server.root}/report/{path.relative_to(made.workspace.report).as_posix()}" for path in pages]
        addresses += [f"{server.root}/dicom-web/studies{rest}" for rest in ("", f"/{study}/series")]
        addresses += [f"{server.root}/dicom-web/studies/{study}/series/{uid}/metadata", f"{server.root}/{SCRIPT}"]
        shown = ""
        for address in addresses:
            try:
                seen.page.goto(address)
            except Exception as error:  # dicom+json is saved as a file, not shown
                if "Download is starting" not in str(error):
                    raise
                continue
            shown += seen.page.content()
            assert seen.page.evaluate("() => window.hit") is None, address
            assert seen.page.locator("img[src=x]").count() == 0, address
        assert "&lt;img src=x onerror=" in shown, "the attack is shown as text"
