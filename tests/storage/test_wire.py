"""What goes over the wire: pauses that a store asks for, who pays, preconditions, uploads that break between parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from tests.conftest import need_package
from tests.support.storage_servers import FaultyProxy, gcs_bucket, gcs_put, gcs_server, s3_bucket, s3_put, s3_server

from ctenrich.errors import IncompleteError, RetryExhaustedError, UsageError
from ctenrich.settings import FetchSettings
from ctenrich.storage import open_storage
from ctenrich.storage.base import Storage, Transfer
from ctenrich.storage.retry import LONGEST_PAUSE, retry_after

CONTENT = bytes(range(256)) * 8


@pytest.fixture(scope="module", params=["s3", "gs"])
def store(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """(scheme, URL of the server)."""
    scheme = request.param
    if scheme == "s3":
        need_package("moto", "moto")
    else:
        need_package("gcp-storage-emulator", "gcp_storage_emulator")
    server, bucket, put = (s3_server, s3_bucket, s3_put) if scheme == "s3" else (gcs_server, gcs_bucket, gcs_put)
    with server() as url:
        bucket(url, "tests")
        put(url, "tests", "series/one.dcm", CONTENT)
        yield scheme, url


def opened(scheme: str, url: str, **changes: object) -> Storage:
    values = {"tries": 3, "backoff": 0.02, "timeout": 5.0, f"{scheme}_endpoint": url} | changes
    return open_storage(f"{scheme}://tests/", FetchSettings(**values))  # type: ignore[arg-type]


def lasting(kind: str, method: str, part: str) -> object:
    return lambda m, path, _: kind if m == method and part in path else ""


@pytest.mark.parametrize("kind", ["429", "503"])
def test_the_pause_that_a_store_asks_for_is_kept(store: tuple[str, str], tmp_path: Path, kind: str) -> None:
    scheme, url = store

    def fault(method: str, path: str, before: int) -> str:
        return kind if method == "GET" and "one.dcm" in path and "prefix=" not in path and before == 0 else ""

    with FaultyProxy(url, fault, retry_after="1") as proxy:
        opened(scheme, proxy.url).download([Transfer(f"{scheme}://tests/series/one.dcm", tmp_path / "one.dcm")])
        first, second = [t for t, m, p, _ in proxy.requests if m == "GET" and "one.dcm" in p and "prefix=" not in p][:2]
    assert second - first >= 0.99
    assert (tmp_path / "one.dcm").read_bytes() == CONTENT


def test_a_pause_is_bounded_and_may_be_a_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=10), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    assert retry_after({"Retry-After": "3"}) == 3
    assert 5 < (retry_after({"Retry-After": soon}) or 0) <= 10
    assert retry_after({"Retry-After": past}) == 0
    assert retry_after({"Retry-After": "9" * 30}) == LONGEST_PAUSE
    assert [retry_after(h) for h in (None, {}, {"Retry-After": "-1"}, {"Retry-After": "soon"})] == [None] * 4


def test_the_project_that_pays_is_named_in_every_request(
    store: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheme, url = store
    source = tmp_path / "made.dcm"
    source.write_bytes(b"paid")
    with FaultyProxy(url, lambda *_: "") as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)  # Google's client asks nobody for credentials then
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        storage = opened(scheme, proxy.url, user_project="payer-project")
        storage.list_objects(f"{scheme}://tests/series/")
        storage.download([Transfer(f"{scheme}://tests/series/one.dcm", tmp_path / "one.dcm")])
        storage.upload(source, f"{scheme}://tests/results/paid.dcm")
        about = "/b/tests/o" if scheme == "gs" else "/tests/results/paid.dcm"
        asked = [(p, h) for _, _, p, h in proxy.requests if about in p or "prefix=" in p or "one.dcm" in p]
    assert len(asked) >= 4
    if scheme == "gs":
        assert all("userProject=payer-project" in path for path, _ in asked)
    else:
        assert all(headers.get("x-amz-request-payer") == "requester" for _, headers in asked)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("asked", ["list", "bytes", "look", "upload"])
def test_a_server_that_accepts_and_never_answers_is_given_up(
    store: tuple[str, str], tmp_path: Path, asked: str
) -> None:
    scheme, url = store
    source = tmp_path / "made.dcm"
    source.write_bytes(b"content")

    def fault(method: str, path: str, _: int) -> str:
        listing, writing = method == "GET" and "prefix=" in path, method in {"PUT", "POST"}
        kinds = {
            "list": listing,
            "bytes": method == "GET" and not listing and "series" in path,
            "look": not writing and not listing and "results" in path,
            "upload": writing,
        }
        return "mute" if kinds[asked] else ""

    with FaultyProxy(url, fault) as proxy:
        storage = opened(scheme, proxy.url, tries=2, timeout=1.0)
        act: Callable[[], object] = {
            "list": lambda: storage.list_objects(f"{scheme}://tests/series/"),
            "bytes": lambda: storage.download([Transfer(f"{scheme}://tests/series/one.dcm", tmp_path / "one.dcm")]),
        }.get(asked, lambda: storage.upload(source, f"{scheme}://tests/results/mute.dcm"))
        with pytest.raises(RetryExhaustedError, match="after 2 tries"):
            act()
        assert proxy.faults["mute"] == 2, "no client tries on its own"
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == ["made.dcm"]


def test_google_uploads_name_the_generation_that_they_replace(store: tuple[str, str], tmp_path: Path) -> None:
    scheme, url = store
    if scheme != "gs":
        pytest.skip("S3's preconditions are seen in test_s3_upload.py")
    source = tmp_path / "made.dcm"
    source.write_bytes(b"first")
    target = "gs://tests/results/raced.dcm"
    with FaultyProxy(url, lambda *_: "") as proxy:
        storage = opened(scheme, proxy.url)
        stored = storage.upload(source, target)
        source.write_bytes(b"second")
        storage.upload(source, target, replace=True)
        uploads = [p for _, m, p, _ in proxy.requests if m == "POST"]
    assert "ifGenerationMatch=0" in uploads[0]
    assert f"ifGenerationMatch={stored.version}" in uploads[1]


def test_an_upload_that_breaks_between_its_parts_leaves_nothing_and_a_second_one_heals(
    store: tuple[str, str], tmp_path: Path
) -> None:
    scheme, url = store
    large = tmp_path / "large.bin"
    large.write_bytes(CONTENT * (10_000 if scheme == "s3" else 5000))  # parts of 16 MiB, and from 8 MiB at Google
    target = f"{scheme}://tests/large/object.bin"
    broken = lasting("drop", "PUT", "partNumber=2" if scheme == "s3" else "upload_id=")
    with FaultyProxy(url, broken) as proxy:  # type: ignore[arg-type]
        with pytest.raises(RetryExhaustedError, match="after 3 tries"):
            opened(scheme, proxy.url).upload(large, target)
        assert proxy.faults["drop"] >= 3
    with pytest.raises(IncompleteError):
        opened(scheme, url).list_objects(f"{scheme}://tests/large/")
    stored = opened(scheme, url, timeout=60.0).upload(large, target)
    assert stored.size == large.stat().st_size
    opened(scheme, url, timeout=60.0).download([Transfer(target, tmp_path / "back.bin")])
    assert (tmp_path / "back.bin").read_bytes() == large.read_bytes()
    large.write_bytes(b"other")
    with pytest.raises(UsageError, match="another object"):
        opened(scheme, url).upload(large, target)
