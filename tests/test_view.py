from __future__ import annotations

import http.client
import json
import os
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from ctenrich import steps
from ctenrich.encode.seg import encode_seg
from ctenrich.errors import UnsafeInputError, UsageError
from ctenrich.masks import full_mask, masks_from_label_map
from ctenrich.ohif import app_config, clean_index, obtain_ohif
from ctenrich.reasons import Reason
from ctenrich.records import EncodedObjects, Product, ProductKind, SegmentMasks, SortedSeries, Volume
from ctenrich.settings import Settings
from ctenrich.view import RunView, ViewServer, serve
from ctenrich.workspace import Workspace, load_record, save_record
from tests.browser import chromium
from tests.cohorts import make_cohort
from tests.conftest import need_program

EXPERT = Product(ProductKind.EXPERT)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("view")
    made = steps.start(make_cohort(folder, 1), folder / "run", segmenters=["expert"])
    for stage in (steps.fetch, steps.sort, steps.convert, steps.segment, steps.measure, steps.encode):
        stage(made)
    return made.workspace


@pytest.fixture(scope="module")
def disjoint(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A run with one large segment on one side, from the slice on where it is large: what the first view shows."""
    folder = tmp_path_factory.mktemp("disjoint")
    made = steps.start(make_cohort(folder, 1), folder / "run", segmenters=["expert"])
    for stage in (steps.fetch, steps.sort, steps.convert, steps.segment):
        stage(made)
    workspace, uid = made.workspace, made.workspace.series_uids()[0]
    room = workspace.product_room(uid, EXPERT)
    masks = load_record(room / "masks.json", SegmentMasks)
    labels = np.zeros(masks.shape, np.uint8)
    lung = next(s for s in masks.segments if s.name == "lung_left")
    labels[full_mask(masks, lung.number, workspace)] = lung.number
    labels[(labels > 0).sum(axis=(1, 2)) < 40] = 0
    names = [(s.number, s.name, s.source_label) for s in masks.segments]
    masks = masks_from_label_map(labels, names, masks, room / "masks" / "labels.npy", workspace)
    save_record(room / "masks.json", masks)
    volume = load_record(workspace.room(uid) / "volume.json", Volume)
    series = load_record(workspace.room(uid) / "sorted.json", SortedSeries)
    seg = encode_seg(masks, volume, series, settings=Settings(), workspace=workspace)
    save_record(room / "objects.json", EncodedObjects(EXPERT, uid, (seg,)))
    return workspace


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "ohif"
    folder.mkdir()
    (folder / "index.html").write_text(
        '<html><link href="https://fonts.example/x.css"><script src="/init-service-worker.js"></script>OHIF</html>'
    )
    (folder / "app.js").write_text("1")
    (tmp_path / "secret.txt").write_text("secret")
    return folder


@pytest.fixture
def server(run: Workspace, site: Path) -> Iterator[ViewServer]:
    with serve(run, ohif=site, port=0) as running:
        yield running


def get(server: ViewServer, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), content


def known(server: ViewServer) -> dict[str, str]:
    return {"Cookie": f"ctenrich_view={server.token}"}


def test_the_token_gives_a_cookie_and_nothing_goes_without(server: ViewServer) -> None:
    uid = server.view.series[0]
    for path in ("/", f"/study/{uid}.json", f"/files/{uid}/0", "/app-config.js", "/?token=wrong"):
        assert get(server, path)[0] == 403
    status, headers, _ = get(server, f"/open/{uid}?token={server.token}")
    assert (status, headers["Location"]) == (302, f"/open/{uid}")
    assert "HttpOnly" in headers["Set-Cookie"]
    assert "SameSite=Strict" in headers["Set-Cookie"]
    assert server.token not in headers["Location"]


def test_another_host_name_is_refused(server: ViewServer) -> None:
    assert get(server, "/", Host="evil.example", **known(server))[0] == 403


@pytest.mark.parametrize(
    "path", ["/../secret.txt", "/report/../../secret.txt", "/%2e%2e/secret.txt", "/x/../../secret.txt"]
)
def test_no_file_outside_the_site(server: ViewServer, path: str) -> None:
    status, _, content = get(server, path, **known(server))
    assert b"secret" not in content
    assert status in (200, 404)


def test_study_holds_ct_and_seg_of_this_run(server: ViewServer, run: Workspace) -> None:
    uid = server.view.series[0]
    study = json.loads(get(server, f"/study/{uid}.json", **known(server))[2])["studies"][0]
    ct, seg = study["series"]
    slices = load_record(run.room(uid) / "sorted.json", SortedSeries)
    assert [i["metadata"]["SOPInstanceUID"] for i in ct["instances"]] == list(slices.sop_instance_uids)
    assert ct["instances"][0]["metadata"]["ImagePositionPatient"] == pytest.approx(slices.slices[0].position)
    assert seg["Modality"] == "SEG"
    assert seg["instances"][0]["metadata"]["ReferencedSeriesSequence"]["SeriesInstanceUID"] == uid
    address = seg["instances"][0]["url"].removeprefix("dicomweb:")
    status, headers, content = get(server, address, **known(server))
    assert (status, headers["Content-Type"], content[128:132]) == (200, "application/dicom", b"DICM")


def test_the_first_view_is_the_seg(server: ViewServer) -> None:
    uid = server.view.series[0]
    seg = next(o for o in server.view.objects(uid) if o.item.kind.value == "seg")
    target = get(server, f"/open/{uid}", **known(server))[1]["Location"]
    assert f"initialSeriesInstanceUID={seg.item.series_instance_uid}" in target
    assert f"url=/study/{uid}.json" in target


def test_reports_have_a_page_of_their_own(server: ViewServer) -> None:
    uid = server.view.series[0]
    report = next(o for o in server.view.objects(uid) if o.item.kind.value == "shape_sr")
    text = get(server, f"/sr/{uid}/{report.item.sop_instance_uid}", **known(server))[2].decode()
    assert "Measurement Group" in text
    assert "Sphericity" in text
    front = get(server, "/", **known(server))[2].decode()
    assert f"/sr/{uid}/{report.item.sop_instance_uid}" in front


def test_unknown_series_and_files(server: ViewServer) -> None:
    uid = server.view.series[0]
    for path in ("/open/1.2.3", f"/files/{uid}/99999", f"/files/{uid}/1.2.3", "/study/..%2f.json", "/nothing.js"):
        assert get(server, path, **known(server))[0] == 404
    with pytest.raises(UsageError):
        RunView(server.view.workspace).file(uid, "1.2.3")


def test_headers_keep_everything_here(server: ViewServer) -> None:
    _, headers, page = get(server, "/viewer", **known(server))
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert b"fonts.example" not in page
    assert b"service-worker" not in page


def test_configuration() -> None:
    text = app_config(pacs=False)
    assert '"defaultDataSourceName": "dicomjson"' in text
    assert "/dicom-web" in app_config(pacs=True)
    assert clean_index('<link rel=x href="/local.css">') == '<link rel=x href="/local.css">'


def test_bad_viewers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(UsageError) as caught:
        obtain_ohif(tmp_path)
    assert caught.value.reason is Reason.NOT_FOUND
    package = tmp_path / "x.tgz"
    package.write_bytes(b"not it")
    with pytest.raises(UnsafeInputError) as unsafe:
        obtain_ohif(package)
    assert unsafe.value.reason is Reason.HASH_MISMATCH
    assert not (tmp_path / "cache" / "ctenrich" / "ohif-3.13.2").exists()


def test_a_run_with_nothing_to_show(workspace: Workspace, site: Path) -> None:
    with pytest.raises(UsageError) as caught:
        serve(workspace, ohif=site)
    assert caught.value.reason is Reason.BAD_RUN


# ---------------------------------------------------------------- in a browser


def _hue_matches(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Whether the colour cast of each pixel points the way of `colour`."""
    cast = pixels.astype(float) - pixels.astype(float).min(axis=-1, keepdims=True)
    want = np.array(colour, float) - min(colour)
    size = np.linalg.norm(cast, axis=-1)
    cosine = (cast @ want) / np.maximum(size * np.linalg.norm(want), 1e-9)
    return (size > 25) & (cosine > 0.94)


def _expected(run: Workspace, uid: str, instance: int, *, mirrored: bool = False) -> dict[str, np.ndarray]:
    """Segment name -> mask of the slice with an Instance Number."""
    series = load_record(run.room(uid) / "sorted.json", SortedSeries)
    masks = load_record(run.product_room(uid, EXPERT) / "masks.json", SegmentMasks)
    index = next(k for k, one in enumerate(series.slices) if one.instance_number == instance)
    planes = {s.name: full_mask(masks, s.number, run)[index] for s in masks.segments if not s.absent}
    return {name: plane[:, ::-1] if mirrored else plane for name, plane in planes.items() if plane.any()}


def _agreement(picture: Any, box: dict[str, float], planes: dict[str, np.ndarray]) -> dict[str, float]:
    """Share of each segment's inner pixels that show its colour, on the screen."""
    from ctenrich.codes import load_segments

    pixels = np.asarray(picture.convert("RGB"))
    rows, columns = next(iter(planes.values())).shape
    scale = min(box["width"] / columns, box["height"] / rows)
    left = box["x"] + box["width"] / 2 - scale * columns / 2
    top = box["y"] + box["height"] / 2 - scale * rows / 2
    out = {}
    union = sum(p.astype(int) for p in planes.values())
    for name, plane in planes.items():
        inner = plane & (union == 1)
        for axis in (0, 1):
            for step in (1, -1):
                inner &= np.roll(plane, step, axis)
        j, i = np.nonzero(inner)
        if len(j) < 4:
            continue
        y = np.clip((top + (j + 0.5) * scale).astype(int), 0, pixels.shape[0] - 1)
        x = np.clip((left + (i + 0.5) * scale).astype(int), 0, pixels.shape[1] - 1)
        out[name] = float(_hue_matches(pixels[y, x], load_segments()[name].colour).mean())
    return out


def _wait_for_colours(page: Any) -> None:
    """Until the overlay is drawn: some pixels in the middle of the screen are not grey."""
    from PIL import Image

    for _ in range(60):
        page.wait_for_timeout(1000)
        pixels = np.asarray(Image.open(BytesIO(page.screenshot())).convert("RGB")).astype(int)[100:700, 350:1200]
        if (pixels.max(axis=-1) - pixels.min(axis=-1) > 40).sum() > 200 and "Loading SEG" not in page.inner_text(
            "body"
        ):
            return
    pytest.fail("no overlay was drawn within a minute")


@pytest.mark.long
def test_ohif_shows_the_segments_where_they_are(disjoint: Workspace) -> None:
    run = disjoint
    from PIL import Image

    if not os.environ.get("CTENRICH_OHIF"):
        need_program("npm", "npm")
    named = os.environ.get("CTENRICH_OHIF")
    uid = RunView(run).series[0]
    with serve(run, ohif=Path(named) if named else None, port=0) as server, chromium() as seen:
        page = seen.page
        page.goto(server.url(uid), timeout=120_000)
        page.wait_for_selector(".cornerstone-canvas", timeout=120_000)
        _wait_for_colours(page)
        box = page.locator(".cornerstone-canvas").first.bounding_box()
        found = re.search(r"I:\s*(\d+)", page.inner_text("body"))
        assert found is not None
        picture = Image.open(BytesIO(page.screenshot()))
        shown = _agreement(picture, box, _expected(run, uid, int(found[1])))
        mirrored = _agreement(picture, box, _expected(run, uid, int(found[1]), mirrored=True))
        assert shown["lung_left"] > 0.9
        assert mirrored["lung_left"] < 0.2, "a wrong side must not pass"
        assert seen.outside(server.root) == []
        known = ("favicon", "The stack viewport has been destroyed")  # OHIF's own, while it swaps the viewport
        assert [e for e in seen.errors if not any(k in e for k in known)] == []
        assert urlsplit(page.url).hostname == "127.0.0.1"
