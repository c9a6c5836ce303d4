from __future__ import annotations

import http.client
import socket
import stat
import struct
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit
from urllib.request import url2pathname

import numpy as np
import pydicom
import pytest
from PIL import Image
from typer.testing import CliRunner

from ctenrich import steps
from ctenrich.cli.main import app
from ctenrich.errors import UnsafeInputError, UsageError
from ctenrich.masks import full_mask
from ctenrich.reasons import Reason
from ctenrich.records import Product, ProductKind
from ctenrich.view import RunView, ViewServer, serve
from ctenrich.view.ohif import app_config, clean_index, obtain_ohif
from ctenrich.workspace import Workspace
from tests.support.browser import chromium
from tests.support.cohorts import make_cohort

EXPERT = Product(ProductKind.EXPERT)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("view")
    made = steps.start(make_cohort(folder, 1), folder / "run", segmenters=["expert"])
    for stage in (steps.fetch, steps.sort, steps.convert, steps.segment, steps.measure, steps.encode):
        stage(made)
    return made.workspace


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
    return {"Cookie": f"ctenrich_view_{server.port}={server.token}"}


def test_the_token_gives_a_cookie_and_nothing_goes_without(server: ViewServer) -> None:
    uid = server.view.series[0]
    for path in ("/", "/dicom-web/studies", f"/open/{uid}", "/app-config.js", "/?token=wrong"):
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


def test_the_first_view_is_the_ct_with_its_seg(server: ViewServer) -> None:
    uid = server.view.series[0]
    seg = next(o for o in server.view.objects(uid) if o.item.kind == "seg")
    target = get(server, f"/open/{uid}", **known(server))[1]["Location"]
    assert f"initialSeriesInstanceUID={uid}" in target
    assert target.endswith(f"overlay={seg.item.series_instance_uid}")
    assert f"StudyInstanceUIDs={server.view.record(uid).study_instance_uid}" in target


def test_reports_have_a_page_of_their_own(server: ViewServer) -> None:
    uid = server.view.series[0]
    report = next(o for o in server.view.objects(uid) if o.item.kind == "shape_sr")
    text = get(server, f"/sr/{uid}/{report.item.sop_instance_uid}", **known(server))[2].decode()
    tables, _, tree = text.partition("All content items of the report")
    assert "Measurement Group" in tree
    assert "Measurement Group" not in tables
    assert tables.index("<table>") < tables.index("<img")
    assert "Sphericity" in tables
    folded = tree.split("<details>")[1].split("</details>")[0]
    slices = [item.sop_instance_uid for item in server.view.record(uid).slices]
    assert f"<summary>{len(slices)} images</summary>" in folded
    assert all(sop in folded for sop in slices)
    assert "Sphericity" not in folded
    front = get(server, "/", **known(server))[2].decode()
    assert f"/sr/{uid}/{report.item.sop_instance_uid}" in front


def test_every_page_of_a_run_with_a_demonstration_model_has_the_banner(server: ViewServer) -> None:
    uid = server.view.series[0]
    report = next(o for o in server.view.objects(uid) if o.item.kind == "shape_sr")
    pages = ["/", f"/sr/{uid}/{report.item.sop_instance_uid}", "/viewer?StudyInstanceUIDs=1.2"]
    assert not any(b"DEMONSTRATION" in get(server, page, **known(server))[2] for page in pages)
    server.view.demonstration = ("my<model",)
    for page in pages:
        text = get(server, page, **known(server))[2].decode()
        assert "<b>DEMONSTRATION.</b> Made with my&lt;model" in text
    assert b"DEMONSTRATION" in get(server, "/", Accept="text/html")[2]


def test_a_pacs_is_asked_by_http_only(run: Workspace, site: Path) -> None:
    with pytest.raises(UsageError) as caught:
        serve(run, ohif=site, port=0, pacs=site.as_uri())
    assert caught.value.reason is Reason.BAD_PARAMETER


def test_unknown_series_and_files(server: ViewServer) -> None:
    uid = server.view.series[0]
    for path in ("/open/1.2.3", f"/sr/{uid}/1.2.3", f"/sr/{uid}", "/open/..%2f", "/nothing.js"):
        assert get(server, path, **known(server))[0] == 404
    with pytest.raises(UsageError):
        RunView(server.view.workspace).find_object(uid, "1.2.3")


def test_headers_keep_everything_here(server: ViewServer) -> None:
    _, headers, page = get(server, "/viewer", **known(server))
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert b"fonts.example" not in page
    assert b"service-worker" not in page


def test_a_browser_that_hangs_up_is_no_news(server: ViewServer, capfd: pytest.CaptureFixture[str]) -> None:
    for reset in (True, False):
        with socket.create_connection(("127.0.0.1", server.port)) as half:
            half.sendall(b"GET / HTTP/1.1\r\nHost:")
            if reset:
                half.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert get(server, "/", **known(server))[0] == 200
    time.sleep(0.2)
    assert "Traceback" not in capfd.readouterr().err


def test_configuration() -> None:
    assert '"showStudyList": false' in app_config(pacs=False)
    assert '"showStudyList": true' in app_config(pacs=True)
    assert "All series" in app_config(pacs=False)
    assert "All series" not in app_config(pacs=True), "a PACS has its own list of studies"
    assert clean_index('<link rel=x href="/local.css">') == '<link rel=x href="/local.css">'


def test_segments_that_overlap_lose_no_slice(run: Workspace, site: Path) -> None:
    """Arrays with holes are walked whole; a build that is not known is said to be so."""
    with serve(run, ohif=site, port=0) as server:
        assert "not the tested build of OHIF" in get(server, "/", **known(server))[2].decode()
    script = site / "1.bundle.js"
    script.write_bytes(b"a();largerArray.forEach((_, currentImageIndex) => {b();});")
    with serve(run, ohif=site, port=0) as server:
        served = get(server, "/1.bundle.js", **known(server))[2]
        assert served == b"a();Array.from(largerArray).forEach((_, currentImageIndex) => {b();});"
        assert "that line of its code is repaired" in get(server, "/", **known(server))[2].decode()
        assert get(server, "/app.js", **known(server))[2] == b"1"
    assert script.read_bytes().startswith(b"a();largerArray"), "the build itself is left as it was"


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


def test_a_run_without_any_success_shows_its_cts(tmp_path: Path, site: Path) -> None:
    made = steps.start(make_cohort(tmp_path, 1), tmp_path / "run", segmenters=["expert"])
    steps.fetch(made)
    with pytest.raises(UsageError):
        serve(made.workspace, ohif=site)
    steps.sort(made)
    uid = made.workspace.series_uids()[0]
    with serve(made.workspace, ohif=site, port=0) as server:
        target = get(server, f"/open/{uid}", **known(server))[1]["Location"]
        assert target.endswith(f"initialSeriesInstanceUID={uid}")
        assert "No product has been written" in get(server, "/", **known(server))[2].decode()
        assert f"/open/{uid}" in get(server, "/", **known(server))[2].decode()


# ---------------------------------------------------------------- several viewers, faults, ranges


def test_two_viewers_on_one_computer(run: Workspace, site: Path) -> None:
    """A browser sends the cookies of both to both; each finds its own. A port in use is not an error."""
    with serve(run, ohif=site, port=0) as first, serve(run, ohif=site, port=first.port) as second:
        assert first.port < second.port <= first.port + 20
        cookies = {}
        for server in (first, second):
            made = get(server, f"/?token={server.token}")[1]["Set-Cookie"].split(";")[0]
            name, _, value = made.partition("=")
            cookies[name] = value
        assert len(cookies) == 2
        both = {"Cookie": "; ".join(f"{k}={v}" for k, v in cookies.items())}
        assert get(first, "/", **both)[0] == get(second, "/", **both)[0] == 200
        assert get(second, "/", **known(first))[0] == 403


def test_a_link_of_the_report_is_explained(server: ViewServer) -> None:
    uid = server.view.series[0]
    status, headers, page = get(server, f"/open/{uid}", Accept="text/html,*/*")
    assert status == 403
    assert headers["Content-Type"].startswith("text/html")
    assert b"ctenrich view" in page
    assert server.token.encode() not in page
    assert f'href="/open/{uid}"'.encode() in page
    strange = get(server, '/x%22%3E%3Cscript%3Ealert(1)%3C/script%3E"><img>', Accept="text/html")[2]
    assert b"<img>" not in strange
    assert b"<script" not in strange
    assert get(server, "/dicom-web/studies", Accept="text/html")[1]["Content-Type"].startswith("text/plain")


def test_a_fault_is_an_answer_and_one_line(
    server: ViewServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("secret of a patient")

    monkeypatch.setattr(server.web, "answer", fail)
    status, _, content = get(server, "/dicom-web/studies", **known(server))
    assert (status, content) == (500, b"This page could not be made.")
    line = capfd.readouterr().err
    assert line == "view: dicom-web could not be answered (ValueError)\n"
    assert get(server, "/", **known(server))[0] == 200


def test_a_damaged_object_is_an_answer(server: ViewServer, tmp_path: Path) -> None:
    uid = server.view.series[0]
    report = next(o for o in server.view.objects(uid) if o.item.kind == "shape_sr")
    content = report.path.read_bytes()
    try:
        report.path.write_bytes(b"no DICOM any more")
        assert get(server, f"/sr/{uid}/{report.item.sop_instance_uid}", **known(server))[0] in (404, 500)
    finally:
        report.path.write_bytes(content)


@pytest.mark.parametrize("path", ["/", "/dicom-web/studies", "/app-config.js", "/app.js", "/viewer"])
def test_nothing_is_stored_by_the_browser(server: ViewServer, path: str) -> None:
    assert get(server, path, **known(server))[1]["Cache-Control"] == "no-store"
    assert get(server, path)[1]["Cache-Control"] == "no-store"
    assert get(server, f"/?token={server.token}")[1]["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("asked", "status", "content"),
    [
        ("bytes=0-3", 206, b"0123"),
        ("bytes=4-", 206, b"456789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=8-99", 206, b"89"),
        ("bytes=10-", 416, b""),
        ("bytes=5-2", 200, b"0123456789"),
        ("lines=1-2", 200, b"0123456789"),
        ("bytes=0-1,4-5", 200, b"0123456789"),
    ],
)
def test_ranges(run: Workspace, site: Path, asked: str, status: int, content: bytes) -> None:
    (site / "digits.wasm").write_bytes(b"0123456789")
    with serve(run, ohif=site, port=0) as server:
        found = get(server, "/digits.wasm", Range=asked, **known(server))
        assert (found[0], found[2]) == (status, content)
        assert int(found[1]["Content-Length"]) == len(content)
        if status == 206:
            assert found[1]["Content-Range"].endswith("/10")


def test_a_silent_connection_is_closed(server: ViewServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctenrich.view.server._Handler.timeout", 0.3)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as silent:
        silent.sendall(b"GET / HTTP/1.1\r\n")
        assert silent.recv(100) == b""


def test_the_browser_is_started_without_the_token(
    run: Workspace, site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The token is in a file that only this user can read, never in an argument of the browser."""
    opened: list[str] = []
    pages: list[str] = []

    def start(address: str) -> bool:
        path = Path(url2pathname(urlsplit(address).path))
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        opened.append(address)
        pages.append(path.read_text())
        return True

    def wait(_: threading.Event, timeout: float | None = None) -> bool:
        if threading.current_thread() is threading.main_thread() and opened and timeout is None:
            raise KeyboardInterrupt
        return real_wait(_, timeout)

    real_wait = threading.Event.wait
    monkeypatch.setattr("webbrowser.open", start)
    monkeypatch.setattr(threading.Event, "wait", wait)
    result = CliRunner().invoke(app, ["view", str(run.root), "--ohif", str(site), "--port", "0"])
    assert opened, result.output
    token = result.output.partition("token=")[2].split()[0]
    assert token not in opened[0]
    assert f"token={token}" in pages[0]
    assert not Path(url2pathname(urlsplit(opened[0]).path)).exists()


def test_from_another_page_the_cookie_is_set_by_a_page(server: ViewServer) -> None:
    found = get(server, f"/?token={server.token}", **{"Sec-Fetch-Site": "cross-site"})
    assert found[0] == 200
    assert found[1]["Set-Cookie"].startswith(f"{server.cookie}={server.token}")
    assert b'content="0;url=/"' in found[2]
    assert server.token.encode() not in found[2]
    assert "Set-Cookie" not in get(server, "/", **known(server))[1]


def test_frames_are_allowed_to_notebooks_only_where_the_server_says_so(server: ViewServer) -> None:
    cookie = {"Cookie": f"{server.cookie}={server.token}", "Accept": "text/html"}
    _, closed, _ = get(server, "/", **cookie)
    assert "frame-ancestors 'none'" in closed["Content-Security-Policy"]
    server.framed = True
    _, opened, _ = get(server, "/", **cookie)
    assert "frame-ancestors http://localhost:*" in opened["Content-Security-Policy"]
    assert "'none'" not in opened["Content-Security-Policy"].rpartition("frame-ancestors")[2]


def test_in_a_frame_the_cookie_may_be_sent_to_another_site(server: ViewServer) -> None:
    server.framed = True
    made = get(server, f"/?token={server.token}")[1]["Set-Cookie"]
    assert "SameSite=None; Secure; Partitioned" in made
    assert "HttpOnly" in made


@pytest.mark.long
@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_a_notebook_shows_the_viewer_under_either_name_of_this_computer(
    server: ViewServer, tmp_path: Path, name: str
) -> None:
    """Jupyter prints addresses with both names; the frame is always on localhost, for 127.0.0.1 another site."""
    server.framed = True
    address = f"http://localhost:{server.port}{server.url().partition(str(server.port))[2]}"
    (tmp_path / "notebook.html").write_text(f'<iframe src="{address}"></iframe>')
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as notebook, chromium() as seen:
        threading.Thread(target=notebook.serve_forever, daemon=True).start()
        seen.page.goto(f"http://{name}:{notebook.server_address[1]}/notebook.html")
        seen.page.frame_locator("iframe").locator(".card").wait_for(timeout=20_000)
        notebook.shutdown()


def test_a_line_break_in_the_address_is_no_header(server: ViewServer) -> None:
    headers = get(server, f"/open/1?token={server.token}&product=a%0d%0aX-Injected:%20yes")[1]
    assert "X-Injected" not in headers
    assert headers["Location"] == "/open/1?product=a%0D%0AX-Injected:+yes"


def test_colabs_proxy_is_answered_under_its_own_name_and_still_needs_the_token(server: ViewServer) -> None:
    elsewhere = {"Host": "8790-abc.colab.googleusercontent.com", "Accept": "text/html"}
    assert get(server, f"/?token={server.token}", **elsewhere)[0] == 403
    server.proxied = True
    assert get(server, "/", **elsewhere)[0] == 403, "no token"
    status, headers, _ = get(server, f"/?token={server.token}", **elsewhere)
    assert status in (200, 302)
    assert "SameSite=None; Secure; Partitioned" in headers["Set-Cookie"]


# ---------------------------------------------------------------- opening slice, overview, pictures


def test_it_opens_on_the_slice_with_most_organs(server: ViewServer) -> None:
    """Counted here from the voxels: no slice has more organs than the one that is opened."""
    uid = server.view.series[0]
    masks = server.view.masks(uid, "expert")
    assert masks is not None
    organs = [full_mask(masks, s.number, server.view.workspace).any(axis=(1, 2)) for s in masks.segments if s.voxels]
    counts = np.sum(organs, axis=0)
    target = parse_qs(urlsplit(get(server, f"/open/{uid}", **known(server))[1]["Location"]).query)
    opened = server.view.record(uid).sop_instance_uids.index(target["initialSOPInstanceUID"][0])
    assert counts[opened] == counts.max()
    assert "hangingprotocolId" not in target


def test_a_slice_and_three_planes_can_be_asked_for(server: ViewServer) -> None:
    uid = server.view.series[0]
    record = server.view.record(uid)
    chosen = record.slices[3]
    address = f"/open/{uid}?product=expert&layout=mpr&slice={chosen.sop_instance_uid}"
    target = parse_qs(urlsplit(get(server, address, **known(server))[1]["Location"]).query)
    assert target["initialSOPInstanceUID"] == [chosen.sop_instance_uid]
    assert target["hangingprotocolId"] == ["mpr"]
    x, y, z = (float(value) for value in target["point"][0].split(","))
    assert z == pytest.approx(chosen.position[2], abs=0.06)
    assert abs(x) < record.columns * record.pixel_spacing[1]
    assert abs(y) < record.rows * record.pixel_spacing[0]
    for wrong in ("1.2.3", "..", "%3Cscript%3E"):
        assert get(server, f"/open/{uid}?slice={wrong}", **known(server))[0] == 404


def test_the_overview_has_patient_date_picture_and_products(server: ViewServer) -> None:
    uid = server.view.series[0]
    data = pydicom.dcmread(server.view.slices(uid)[0], stop_before_pixels=True)
    text = get(server, "/", **known(server))[2].decode()
    assert f"Patient {data.PatientID}" in text
    assert f"{data.StudyDate[:4]}-{data.StudyDate[4:6]}-{data.StudyDate[6:]}" in text
    assert str(data.PatientName) not in text
    assert "Expert contours (RTSTRUCT)" in text
    assert f'src="/picture/{uid}/coronal?product=expert"' in text
    assert f'href="/open/{uid}?product=expert&amp;layout=mpr"' in text


@pytest.mark.parametrize(
    ("asked", "found"), [("find=phantom", True), ("find=nothing-like-it", False), ("page=99", True)]
)
def test_the_overview_is_searched_and_paged(server: ViewServer, asked: str, found: bool) -> None:
    text = get(server, f"/?{asked}", **known(server))[2].decode()
    assert ('class="card"' in text) is found


def test_pictures_show_the_masks(server: ViewServer) -> None:
    uid = server.view.series[0]
    status, headers, content = get(server, f"/picture/{uid}/axial?product=expert", **known(server))
    assert (status, headers["Content-Type"]) == (200, "image/webp")
    shown = np.asarray(Image.open(BytesIO(content)).convert("RGB")).astype(int)
    assert (shown.max(axis=-1) - shown.min(axis=-1) > 40).mean() > 0.02, "organs have colours"
    plain = get(server, f"/picture/{uid}/axial", **known(server))[2]
    grey = np.asarray(Image.open(BytesIO(plain)).convert("RGB")).astype(int)
    assert (grey.max(axis=-1) - grey.min(axis=-1)).max() < 40, "without a product there is the CT alone"
    for wrong in (f"/picture/{uid}/oblique", f"/picture/{uid}", "/picture/1.2.3/axial"):
        assert get(server, wrong, **known(server))[0] == 404


def test_a_deleted_volume_leaves_a_page_without_pictures(
    run: Workspace, server: ViewServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = server.view.series[0]
    monkeypatch.setattr(server.view, "volume", lambda _uid: None)
    assert get(server, f"/picture/{uid}/axial", **known(server))[0] == 404
    report = next(o for o in server.view.objects(uid) if o.item.kind == "shape_sr")
    for page in ("/", f"/sr/{uid}/{report.item.sop_instance_uid}"):
        status, _, content = get(server, page, **known(server))
        assert status == 200
        assert b"<img" not in content


# ---------------------------------------------------------------- beyond this computer


@pytest.fixture
def everywhere(run: Workspace, site: Path) -> Iterator[ViewServer]:
    with serve(run, ohif=site, port=0, host="0.0.0.0") as running:
        yield running


def test_other_computers_need_the_token_too(everywhere: ViewServer) -> None:
    uid = everywhere.view.series[0]
    name = {"Host": f"{socket.gethostname()}:{everywhere.port}"}
    for path in ("/", "/dicom-web/studies", f"/picture/{uid}/axial", f"/open/{uid}", "/?token=", "/?token=w\u00e4re"):
        assert get(everywhere, quote(path, safe="/?="), **name)[0] == 403
    assert get(everywhere, f"/?token={everywhere.token}", **name)[0] == 302
    assert get(everywhere, "/", **name, **known(everywhere))[0] == 200
    assert get(everywhere, "/", Host="evil.example", **known(everywhere))[0] == 403
    assert everywhere.url().startswith(f"http://{socket.gethostname()}:{everywhere.port}/?token=")


def test_a_tunnel_may_have_another_port(server: ViewServer) -> None:
    """``ssh -L 9000:127.0.0.1:8790``: the browser names the port of its own computer."""
    assert get(server, "/", Host="localhost:9000", **known(server))[0] == 200
    hint = server.tunnel_hint("1.2.3")
    assert f"ssh -L {server.port}:127.0.0.1:{server.port} " in hint
    assert hint.endswith(f"http://localhost:{server.port}/open/1.2.3?token={server.token}")


def test_an_address_of_another_computer(run: Workspace, site: Path) -> None:
    with pytest.raises(UsageError) as caught, serve(run, ohif=site, port=0, host="198.51.100.77"):
        pass
    assert caught.value.reason is Reason.BAD_PARAMETER


def test_other_sites_get_nothing(server: ViewServer) -> None:
    """No answer allows another origin to read it, preflights are refused, and nothing can be stored."""
    origin = {"Origin": "https://evil.example", **known(server)}
    for path in ("/", "/dicom-web/studies", "/app.js"):
        headers = get(server, path, **origin)[1]
        assert not any(name.lower().startswith("access-control-") for name in headers)
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    for method in ("OPTIONS", "POST", "PUT", "DELETE"):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request(method, "/dicom-web/studies", headers=origin)
        assert connection.getresponse().status == 501
        connection.close()


def test_the_token_is_in_no_line_of_the_log(server: ViewServer, capfd: pytest.CaptureFixture[str]) -> None:
    get(server, f"/?token={server.token}")
    get(server, f"/dicom-web/{server.token}?token={server.token}x")
    assert server.token not in "".join(capfd.readouterr())
