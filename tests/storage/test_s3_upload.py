"""Uploads to S3: what the store is asked to promise, and what two writers, lost answers and odd stores make of it."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.conftest import need_package
from tests.support.storage_servers import Fault, FaultyProxy, request, s3_bucket, s3_put, s3_server

from ctenrich.errors import CtenrichError, IncompleteError, InputError, RetryExhaustedError, UsageError
from ctenrich.reasons import Reason
from ctenrich.settings import FetchSettings
from ctenrich.storage.base import Transfer
from ctenrich.storage.s3 import S3Storage
from ctenrich.storage.s3_upload import S3Uploader

PART = 16 * 1024**2
SMALL, LARGE = b"small" * 100, bytes(range(256)) * (PART // 256) + b"the second part"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    need_package("moto", "moto")
    with s3_server() as url:
        s3_bucket(url, "tests")
        yield url


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return hashlib.md5(request.node.name.encode(), usedforsecurity=False).hexdigest()


def settings_of(url: str, **changes: object) -> FetchSettings:
    values = {"tries": 3, "backoff": 0.02, "timeout": 10.0, "s3_endpoint": url} | changes
    return FetchSettings(**values)  # type: ignore[arg-type]


def uploader(url: str, **changes: object) -> S3Uploader:
    return S3Uploader(settings_of(url, **changes))


def file_of(folder: Path, content: bytes, name: str = "made.bin") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def stored(server: str, name: str) -> bytes:
    return request(f"{server}/tests/{name}", "GET")


def unfinished(server: str) -> int:
    return request(f"{server}/tests?uploads", "GET").count(b"<UploadId>")


def asked(proxy: FaultyProxy, *methods: str) -> list[tuple[str, dict[str, str]]]:
    return [(f"{m} {path}", headers) for _, m, path, headers in proxy.requests if m in methods]


def on(method: str, part: str, kind: str, times: int = 10**6) -> Fault:
    """A fault on the first `times` requests of a method whose path holds `part`."""
    left = iter(range(times))
    return lambda m, path, _: kind if m == method and part in path and next(left, None) is not None else ""


def test_a_new_object_is_asked_for_as_new_and_a_replaced_one_by_its_etag(
    server: str, tmp_path: Path, name: str
) -> None:
    with FaultyProxy(server, lambda *_: "") as proxy:
        first = uploader(proxy.url).upload(file_of(tmp_path, SMALL), f"s3://tests/{name}")
        uploader(proxy.url).upload(file_of(tmp_path, b"second"), f"s3://tests/{name}", replace=True)
        (_, created), (_, replaced) = asked(proxy, "PUT")
    assert (created.get("if-none-match"), created.get("if-match")) == ("*", None)
    assert created["content-md5"] == base64.b64encode(hashlib.md5(SMALL, usedforsecurity=False).digest()).decode()
    assert (replaced.get("if-none-match"), replaced.get("if-match")) == (None, f'"{first.version}"')
    assert stored(server, name) == b"second"


def test_a_large_object_is_sent_in_checked_parts_and_ended_under_the_precondition(
    server: str, tmp_path: Path, name: str
) -> None:
    source, url = file_of(tmp_path, LARGE), f"s3://tests/{name}"
    with FaultyProxy(server, lambda *_: "") as proxy:
        first = uploader(proxy.url).upload(source, url)
        assert uploader(proxy.url).upload(source, url) == first
        assert uploader(proxy.url).upload(source, url, replace=True) == first, "the same bytes are not sent again"
        uploader(proxy.url).upload(file_of(tmp_path, LARGE[::-1]), url, replace=True)
        ends = [headers for where, headers in asked(proxy, "POST") if "uploadId=" in where]
        parts = [headers["content-md5"] for _, headers in asked(proxy, "PUT")]
    assert stored(server, name) == LARGE[::-1]
    assert [(e.get("if-none-match"), e.get("if-match")) for e in ends] == [
        ("*", None),
        (None, f'"{first.version}"'),
    ]
    sent = [c for whole in (LARGE, LARGE[::-1]) for c in (whole[:PART], whole[PART:])]
    sums = [base64.b64encode(hashlib.md5(c, usedforsecurity=False).digest()).decode() for c in sent]
    assert sorted(parts) == sorted(sums)
    assert (first.size, first.md5) == (len(LARGE), None)


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["whole", "parts"])
def test_of_two_who_saw_nothing_there_the_second_is_told_and_changes_nothing(
    server: str, tmp_path: Path, name: str, content: bytes
) -> None:
    url = f"s3://tests/{name}"
    s3_put(server, "tests", name, b"first")
    with FaultyProxy(server, on("HEAD", name, "404", 1)) as proxy, pytest.raises(UsageError, match="another object"):
        uploader(proxy.url).upload(file_of(tmp_path, content), url)
    assert stored(server, name) == b"first"
    assert unfinished(server) == 0
    with FaultyProxy(server, on("HEAD", name, "404", 1)) as proxy:
        uploader(proxy.url).upload(file_of(tmp_path, b"first"), url)
        assert len(asked(proxy, "PUT")) == 1, "the same bytes are no clash, even if somebody else was first"


def test_what_came_after_our_look_is_not_replaced(server: str, tmp_path: Path, name: str) -> None:
    s3_put(server, "tests", name, b"seen")

    def somebody_else(method: str, _: str, before: int) -> str:
        if method == "PUT" and before == 0:
            s3_put(server, "tests", name, b"newer")
        return ""

    with FaultyProxy(server, somebody_else) as proxy, pytest.raises(UsageError, match="another object"):
        uploader(proxy.url).upload(file_of(tmp_path, SMALL), f"s3://tests/{name}", replace=True)
    assert stored(server, name) == b"newer"


def test_a_large_object_that_changed_before_the_end_of_its_replacement_stays(
    server: str, tmp_path: Path, name: str
) -> None:
    """moto looks at no If-Match where parts end: the refusal is the proxy's."""
    s3_put(server, "tests", name, b"newer")
    with (
        FaultyProxy(server, lambda *_: "", refuse=lambda path, _: "uploadId=" in path) as proxy,
        pytest.raises(UsageError, match="another object"),
    ):
        uploader(proxy.url).upload(file_of(tmp_path, LARGE), f"s3://tests/{name}", replace=True)
    assert stored(server, name) == b"newer"
    assert unfinished(server) == 0


@pytest.mark.parametrize(("content", "method"), [(SMALL, "PUT"), (LARGE, "POST")], ids=["whole", "parts"])
def test_an_upload_whose_answer_is_lost_is_known_for_ours(
    server: str, tmp_path: Path, name: str, content: bytes, method: str
) -> None:
    part = name if method == "PUT" else "uploadId="
    with FaultyProxy(server, on(method, part, "lost", 1)) as proxy:
        made = uploader(proxy.url).upload(file_of(tmp_path, content), f"s3://tests/{name}")
        assert proxy.faults["lost"] == 1
    assert made.size == len(content)
    assert stored(server, name) == content
    assert unfinished(server) == 0


def test_bytes_are_compared_where_the_store_tells_no_hash(server: str, tmp_path: Path, name: str) -> None:
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config

    config, url = Config(signature_version=UNSIGNED), f"s3://tests/{name}"
    client = botocore.session.Session().create_client("s3", "us-east-1", endpoint_url=server, config=config)
    place = {"Bucket": "tests", "Key": name}
    place["UploadId"] = client.create_multipart_upload(**place)["UploadId"]
    cuts = (LARGE[: 6 * 1024**2], LARGE[6 * 1024**2 :])
    tags = [client.upload_part(**place, PartNumber=n, Body=c)["ETag"] for n, c in enumerate(cuts, 1)]
    parts = [{"PartNumber": n, "ETag": tag} for n, tag in enumerate(tags, 1)]
    client.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
    client.close()
    assert uploader(server).upload(file_of(tmp_path, LARGE), url).size == len(LARGE)
    with pytest.raises(UsageError, match="another object"):
        uploader(server).upload(file_of(tmp_path, LARGE[:-1] + b"X"), url)
    with FaultyProxy(server, on("GET", name, "cut", 1)) as proxy:
        uploader(proxy.url).upload(file_of(tmp_path, LARGE), url)
        assert proxy.faults["cut"] == 1


def test_objects_that_kms_encrypted_have_no_md5_and_are_still_brought_and_known(
    server: str, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ETag of what KMS encrypts with a key looks like an MD5 and is none (moto's is one, so it is rewritten)."""
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "test")
    connection = http.client.HTTPConnection(urlsplit(server).netloc)
    connection.request("PUT", f"/tests/{name}/one.dcm", SMALL, {"x-amz-server-side-encryption": "aws:kms"})
    assert connection.getresponse().status == 200
    connection.close()
    digest = hashlib.md5(SMALL, usedforsecurity=False).hexdigest()
    folder, back = f"s3://tests/{name}/", tmp_path / "back.dcm"
    url = folder + "one.dcm"
    with FaultyProxy(server, lambda *_: "", rewrite=(digest, digest[::-1])) as proxy:
        storage = S3Storage(settings_of(proxy.url, anonymous=False))
        (listed,) = storage.list_objects(folder)
        assert (listed.md5, listed.version) == (None, digest[::-1])
        assert storage.list_folders([folder]) == {folder: [listed]}
        storage.download([Transfer(url, back)])
        assert back.read_bytes() == SMALL
        with pytest.raises(InputError, match="MD5"):
            storage.download([Transfer(url, back, md5="0" * 32)])
        assert storage.upload(file_of(tmp_path, SMALL), url) == listed
        with pytest.raises(UsageError, match="another object"):
            storage.upload(file_of(tmp_path, SMALL[:-1] + b"X"), url)


@pytest.mark.parametrize("kind", ["503", "429", "409:ConditionalRequestConflict", "404:NoSuchKey", "drop"])
def test_only_our_own_tries_are_made_and_counted(server: str, tmp_path: Path, name: str, kind: str) -> None:
    with (
        FaultyProxy(server, on("PUT", name, kind)) as proxy,
        pytest.raises(RetryExhaustedError, match="after 3 tries"),
    ):
        uploader(proxy.url).upload(file_of(tmp_path, SMALL), f"s3://tests/{name}")
    assert proxy.faults[kind] == 3
    with FaultyProxy(server, on("PUT", name, kind, 2)) as proxy:
        uploader(proxy.url).upload(file_of(tmp_path, SMALL), f"s3://tests/{name}")
    assert stored(server, name) == SMALL


@pytest.mark.parametrize(
    ("method", "part"), [("POST", "?uploads"), ("PUT", "partNumber=1"), ("PUT", "partNumber=2"), ("POST", "uploadId=")]
)
def test_a_part_that_fails_for_good_takes_the_upload_back(
    server: str, tmp_path: Path, name: str, method: str, part: str
) -> None:
    source, url = file_of(tmp_path, LARGE), f"s3://tests/{name}"
    with (
        FaultyProxy(server, on(method, part, "503")) as proxy,
        pytest.raises(RetryExhaustedError, match="after 3 tries"),
    ):
        uploader(proxy.url).upload(source, url)
    assert proxy.faults["503"] == 3
    assert unfinished(server) == 0
    assert name.encode() not in request(f"{server}/tests?list-type=2", "GET")
    with FaultyProxy(server, on(method, part, "503", 1)) as proxy:
        uploader(proxy.url).upload(source, url)
        assert proxy.faults["503"] == 1
    assert stored(server, name) == LARGE


@pytest.mark.parametrize(
    ("kind", "error", "reason"),
    [
        ("400:BadDigest", InputError, Reason.CHECKSUM),
        ("501:NotImplemented", UsageError, Reason.BAD_PARAMETER),
        ("403:AccessDenied", IncompleteError, Reason.INCOMPLETE),
        ("404:NoSuchBucket", IncompleteError, Reason.INCOMPLETE),
        ("400:RequestTimeout", RetryExhaustedError, Reason.RETRY_EXHAUSTED),
    ],
)
def test_what_a_store_refuses_has_its_reason(
    server: str, tmp_path: Path, name: str, kind: str, error: type[CtenrichError], reason: Reason
) -> None:
    with FaultyProxy(server, on("PUT", name, kind)) as proxy, pytest.raises(error) as caught:
        uploader(proxy.url).upload(file_of(tmp_path, SMALL), f"s3://tests/{name}")
    assert caught.value.reason is reason
    assert name.encode() not in request(f"{server}/tests?list-type=2", "GET")


def test_who_may_write_but_not_look_can_create(server: str, tmp_path: Path, name: str) -> None:
    with FaultyProxy(server, on("HEAD", name, "403")) as proxy:
        uploader(proxy.url).upload(file_of(tmp_path, SMALL), f"s3://tests/{name}")
    assert stored(server, name) == SMALL


def test_the_account_is_the_machines_or_nobodys(
    server: str, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in [v for v in os.environ if v.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    for variable, value in {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(variable, value)
    source = file_of(tmp_path, SMALL)
    with pytest.raises(UsageError) as caught:
        uploader(server, anonymous=False).upload(source, f"s3://tests/{name}")
    assert caught.value.reason is Reason.NO_CREDENTIALS
    with FaultyProxy(server, lambda *_: "") as proxy:
        uploader(proxy.url).upload(source, f"s3://tests/{name}")
        assert all("authorization" not in headers for _, headers in asked(proxy, "HEAD", "PUT"))
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        "[other]\naws_access_key_id = AKIDOTHER\naws_secret_access_key = x\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "other")
    with FaultyProxy(server, lambda *_: "") as proxy:
        uploader(proxy.url, anonymous=False).upload(source, f"s3://tests/{name}")
        assert all("AKIDOTHER" in headers["authorization"] for _, headers in asked(proxy, "HEAD", "PUT"))


def test_a_store_that_ignores_preconditions_is_found_out(server: str, name: str) -> None:
    assert uploader(server).refuses_overwriting(f"s3://tests/{name}")
    with FaultyProxy(server, lambda *_: "") as proxy:
        assert uploader(proxy.url).refuses_overwriting(f"s3://tests/{name}")
        assert len(asked(proxy, "PUT")) == 1, "asked once where the object is there already"
    with FaultyProxy(server, lambda *_: "", strip="if-none-match") as proxy:
        assert not uploader(proxy.url).refuses_overwriting(f"s3://tests/{name}")


def test_another_process_has_connections_of_its_own(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = uploader(server)
    ours = made._client()
    assert made._client() is ours
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert made._client() is not ours


def test_without_the_client_the_extra_is_named(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    with pytest.raises(UsageError, match=r"ctenrich\[cloud\]") as caught:
        uploader(server).upload(file_of(tmp_path, SMALL), "s3://tests/never")
    assert caught.value.reason is Reason.MISSING_EXTRA
