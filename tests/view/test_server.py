from __future__ import annotations

import http.client
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctenrich import steps
from ctenrich.errors import UnsafeInputError, UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Product, ProductKind
from ctenrich.view import RunView, ViewServer, serve
from ctenrich.view.ohif import app_config, clean_index, obtain_ohif
from ctenrich.workspace import Workspace
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
    return {"Cookie": f"ctenrich_view={server.token}"}


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
    assert "Measurement Group" in text
    assert "Sphericity" in text
    folded = text.split("<details>")[1].split("</details>")[0]
    slices = [item.sop_instance_uid for item in server.view.record(uid).slices]
    assert f"<summary>{len(slices)} images</summary>" in folded
    assert all(sop in folded for sop in slices)
    assert "Sphericity" not in folded
    front = get(server, "/", **known(server))[2].decode()
    assert f"/sr/{uid}/{report.item.sop_instance_uid}" in front


def test_a_pacs_is_asked_by_http_only(run: Workspace, site: Path) -> None:
    with pytest.raises(UsageError) as caught:
        serve(run, ohif=site, port=0, pacs=site.as_uri())
    assert caught.value.reason is Reason.BAD_PARAMETER


def test_unknown_series_and_files(server: ViewServer) -> None:
    uid = server.view.series[0]
    for path in ("/open/1.2.3", f"/sr/{uid}/1.2.3", f"/sr/{uid}", "/open/..%2f", "/nothing.js"):
        assert get(server, path, **known(server))[0] == 404
    with pytest.raises(UsageError):
        RunView(server.view.workspace).object_file(uid, "1.2.3")


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
        assert f"/open/{uid}" in get(server, "/", **known(server))[2].decode()
