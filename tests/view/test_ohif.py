from __future__ import annotations

import os
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pydicom
import pytest

from ctenrich import steps
from ctenrich.encode.seg import encode_seg
from ctenrich.records import EncodedObjects, ObjectKind, Product, ProductKind, SegmentMasks, SortedSeries, Volume
from ctenrich.settings import Settings
from ctenrich.view import RunView, serve
from ctenrich.workspace import Workspace, load_record, save_record
from tests.conftest import need_program
from tests.support.browser import chromium
from tests.support.cohorts import make_cohort, write_series
from tests.support.view_screens import check_slice, complaints, overlay_of, scroll_to, wait_for_overlay

pytestmark = pytest.mark.long
EXPERT = Product(ProductKind.EXPERT)


@pytest.fixture(scope="module")
def ohif() -> Path | None:
    """OHIF's build where it is named; otherwise npm must be able to fetch it."""
    named = os.environ.get("CTENRICH_OHIF")
    if not named:
        need_program("npm", "npm")
    return Path(named) if named else None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A run whose masks differ between left and right: contours as drawn, but without the right lung."""
    folder = tmp_path_factory.mktemp("ohif")
    made = steps.start(make_cohort(folder, 1), folder / "run", segmenters=["expert"])
    for stage in (steps.fetch, steps.sort, steps.convert, steps.segment):
        stage(made)
    workspace, uid = made.workspace, made.workspace.series_uids()[0]
    folder = workspace.product_dir(uid, EXPERT)
    masks = load_record(folder / "masks.json", SegmentMasks)
    kept = tuple(s for s in masks.segments if s.name != "lung_right")
    numbered = tuple(replace(s, number=n) for n, s in enumerate(kept, 1))
    masks = replace(masks, segments=numbered)
    save_record(folder / "masks.json", masks)
    volume = load_record(workspace.series_dir(uid) / "volume.json", Volume)
    series = load_record(workspace.series_dir(uid) / "sorted.json", SortedSeries)
    seg = encode_seg(masks, volume, series, settings=Settings(), workspace=workspace)
    save_record(folder / "objects.json", EncodedObjects(EXPERT, uid, (seg,)))
    return workspace


def test_masks_stay_on_their_slices_while_scrolling(run: Workspace, ohif: Path | None) -> None:
    uid = RunView(run).series[0]
    overlay = overlay_of(run, uid, EXPERT)
    with serve(run, ohif=ohif, port=0) as server, chromium() as seen:
        page = seen.page
        page.goto(server.url(uid), timeout=120_000)
        wait_for_overlay(page, overlay)
        checked = {check_slice(page, overlay)}
        organs = np.sum([mask.any(axis=(1, 2)) for mask in overlay.masks.values()], axis=0)
        assert organs[min(checked)] == organs.max(), "it opens on a slice with most organs"
        for instance in [*overlay.instance_numbers[::-2], *overlay.instance_numbers[3::5]]:
            scroll_to(page, overlay, instance)
            checked.add(check_slice(page, overlay))
        assert sum(overlay.one_sided(k) for k in checked) >= 4
        text = page.inner_text("body")
        assert "Expert contours" in text, "the SEG has the name of its product"
        shown = RunView(run).segmentations(uid)[0]
        labels = {str(s.SegmentLabel) for s in pydicom.dcmread(shown.path, stop_before_pixels=True).SegmentSequence}
        assert len(labels) >= len(overlay.masks)
        assert {label for label in labels if label not in text} == set()
        assert seen.outside(server.root) == []
        assert complaints(seen.errors) == []
        assert urlsplit(page.url).hostname == "127.0.0.1"


def test_three_planes_with_masks_and_a_slice_that_a_report_links(run: Workspace, ohif: Path | None) -> None:
    """Each plane is drawn with masks; the axial one shows the slice that was asked for."""
    uid = RunView(run).series[0]
    record = RunView(run).record(uid)
    wanted = record.slices[len(record.slices) // 2]
    with serve(run, ohif=ohif, port=0) as server, chromium() as seen:
        page = seen.page
        page.goto(server.url(), timeout=60_000)
        page.goto(f"{server.root}/open/{uid}?layout=mpr&slice={wanted.sop_instance_uid}", timeout=120_000)
        page.wait_for_function(
            """([x, y, z]) => {
              const shown = window.cornerstone?.getEnabledElements() ?? [];
              const masks = window.services?.segmentationService;
              const axial = shown.find(({ viewport }) => Math.abs(viewport.getCamera().viewPlaneNormal[2]) > 0.9);
              return shown.length === 3 && shown.every(({ viewport, viewportId }) => viewport.type === "orthographic"
                && masks.getSegmentationRepresentations(viewportId).length)
                && Math.abs(axial.viewport.getCamera().focalPoint[2] - z) < 1;
            }""",
            arg=list(wanted.position),
            timeout=120_000,
        )
        assert seen.outside(server.root) == []
        assert complaints(seen.errors) == []


@pytest.mark.data
def test_expert_contours_of_a_real_ct(real_data: Callable[[str], Path], tmp_path: Path, ohif: Path | None) -> None:
    steps.index([real_data("LUNG1-005")], tmp_path / "catalog.duckdb")
    steps.select("select_ct_series", f"folder:{tmp_path / 'catalog.duckdb'}", tmp_path / "cohort.parquet")
    made = steps.start(tmp_path / "cohort.parquet", tmp_path / "run", segmenters=["expert"])
    for stage in (steps.fetch, steps.sort, steps.convert, steps.segment, steps.measure, steps.encode):
        stage(made)
    run, uid = made.workspace, made.workspace.series_uids()[0]
    overlay = overlay_of(run, uid, EXPERT)
    filled = np.flatnonzero(overlay.union.any(axis=(1, 2)))
    with serve(run, ohif=ohif, port=0) as server, chromium() as seen:
        page = seen.page
        page.goto(server.url(uid), timeout=120_000)
        wait_for_overlay(page, overlay)
        checked = set()
        for index in reversed(filled[[len(filled) // 4, len(filled) // 2, 3 * len(filled) // 4]]):
            scroll_to(page, overlay, overlay.instance_numbers[index])
            checked.add(check_slice(page, overlay, least=0.75))
        assert len(checked) == 3
        assert any(overlay.masks["gtv_1"][k].sum() >= 8 for k in checked), (
            "the segment that overlaps a lung is looked at"
        )
        assert seen.outside(server.root) == []
        assert complaints(seen.errors) == []


def test_a_pacs_shows_the_same(run: Workspace, orthanc: tuple[str, int], ohif: Path | None) -> None:
    uid = RunView(run).series[0]
    for path in [*RunView(run).slices(uid), RunView(run).segmentations(uid)[0].path]:
        request = urllib.request.Request(f"{orthanc[0]}/instances", path.read_bytes(), method="POST")
        urllib.request.urlopen(request, timeout=30).close()
    overlay = overlay_of(run, uid, EXPERT)
    with serve(run, ohif=ohif, port=0, pacs=f"{orthanc[0]}/dicom-web") as server, chromium() as seen:
        page = seen.page
        page.goto(server.url(), timeout=120_000)
        page.wait_for_selector("text=Phantom, Chest", timeout=60_000)
        page.goto(server.url(uid), timeout=120_000)
        wait_for_overlay(page, overlay)
        for instance in overlay.instance_numbers[-1:2:-4]:
            scroll_to(page, overlay, instance)
            check_slice(page, overlay)
        assert seen.outside(server.root) == []
        assert complaints(seen.errors) == []


def test_markup_in_dicom_text_is_text(tmp_path: Path, ohif: Path | None) -> None:
    """Names with quotes and HTML: shown as they are, no script runs, on our pages and in OHIF."""
    evil = "<img src=x onerror=\"window.ran='1'\"><script>window.ran='2'</script>'"
    write_series(tmp_path / "dicom", 1)
    for path in (tmp_path / "dicom").rglob("*.dcm"):
        data = pydicom.dcmread(path)
        data.StudyDescription = data.PatientID = data.SeriesDescription = evil[:64]
        data.save_as(path)
    steps.index([tmp_path / "dicom"], tmp_path / "catalog.duckdb")
    steps.select("select_ct_series", f"folder:{tmp_path / 'catalog.duckdb'}", tmp_path / "cohort.parquet")
    made = steps.start(tmp_path / "cohort.parquet", tmp_path / "run", segmenters=["expert"])
    for stage in (steps.fetch, steps.sort, steps.convert, steps.segment, steps.measure, steps.encode):
        stage(made)
    view = RunView(made.workspace)
    uid = view.series[0]
    report = next(o for o in view.objects(uid) if o.item.kind == ObjectKind.SHAPE_SR)
    data = pydicom.dcmread(report.path)
    data.SeriesDescription = evil[:64]
    data.ContentSequence[-1].ConceptNameCodeSequence[0].CodeMeaning = evil[:64]
    data.save_as(report.path)
    with serve(made.workspace, ohif=ohif, port=0) as server, chromium() as seen:
        page = seen.page
        page.goto(server.url(), timeout=60_000)
        page.goto(f"{server.root}/sr/{uid}/{report.item.sop_instance_uid}")
        assert evil[:64] in page.inner_text("body")
        assert page.evaluate("window.ran") is None
        page.goto(server.url(uid), timeout=120_000)
        wait_for_overlay(page, overlay_of(made.workspace, uid, EXPERT))
        assert evil[:20] in page.inner_text("body")
        assert page.evaluate("window.ran") is None
        assert seen.outside(server.root) == []
