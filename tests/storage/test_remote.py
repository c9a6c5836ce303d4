from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import need_package
from tests.support.storage_servers import (
    Fault,
    FaultyProxy,
    gcs_bucket,
    gcs_put,
    gcs_server,
    s3_bucket,
    s3_put,
    s3_server,
)

from ctenrich.errors import IncompleteError, InputError, RetryExhaustedError, UsageError
from ctenrich.reasons import Reason
from ctenrich.settings import FetchSettings
from ctenrich.storage import open_storage
from ctenrich.storage.base import Storage, StoredObject, Transfer

OBJECTS = {f"series/{n}.dcm": np.random.default_rng(n).bytes(200_000 if n == 3 else 3000 + n) for n in range(6)}


@dataclass(frozen=True)
class Store:
    scheme: str
    url: str

    def storage(self, url: str | None = None, **changes: object) -> Storage:
        endpoint = {f"{self.scheme}_endpoint": url or self.url}
        settings = FetchSettings(**({"tries": 3, "backoff": 0.02, "timeout": 2.0} | endpoint | changes))  # type: ignore[arg-type]
        return open_storage(self.name(""), settings)

    def name(self, key: str) -> str:
        return f"{self.scheme}://tests/{key}"

    def transfers(self, folder: Path) -> list[Transfer]:
        return [Transfer(self.name(key), folder / Path(key).name) for key in OBJECTS]


@pytest.fixture(scope="module", params=["s3", "gs"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "s3":
        need_package("moto", "moto")
        with s3_server() as url:
            s3_bucket(url, "tests")
            for key, content in OBJECTS.items():
                s3_put(url, "tests", key, content)
            yield Store("s3", url)
    else:
        need_package("gcp-storage-emulator", "gcp_storage_emulator")
        with gcs_server() as url:
            gcs_bucket(url, "tests")
            for key, content in OBJECTS.items():
                gcs_put(url, "tests", key, content)
            yield Store("gs", url)


def on_object(kind: str, number: int, times: int) -> Fault:
    """A fault on the first `times` requests for the bytes of one object."""

    def fault(method: str, path: str, before: int) -> str:
        wanted = method == "GET" and f"{number}.dcm" in path and "prefix=" not in path
        return kind if wanted and before < times else ""

    return fault


def arrived(folder: Path) -> dict[str, bytes]:
    return {f"series/{p.name}": p.read_bytes() for p in folder.iterdir()}


def test_objects_are_listed_with_size_and_hash(store: Store) -> None:
    found = store.storage().list_objects(store.name("series/"))
    assert [o.url for o in found] == [store.name(k) for k in OBJECTS]
    assert [o.size for o in found] == [len(c) for c in OBJECTS.values()]
    assert all(isinstance(o, StoredObject) and o.md5 for o in found)
    with pytest.raises(IncompleteError):
        store.storage().list_objects(store.name("nothing/"))


def test_objects_arrive_whole_and_nothing_else_is_left(store: Store, tmp_path: Path) -> None:
    store.storage().download(store.transfers(tmp_path))
    assert arrived(tmp_path) == OBJECTS


@pytest.mark.parametrize("kind", ["503", "429", "500", "reset", "cut", "stall", "flip", "short"])
def test_a_passing_fault_is_overcome(store: Store, tmp_path: Path, kind: str) -> None:
    with FaultyProxy(store.url, on_object(kind, 3, 1)) as proxy:
        store.storage(proxy.url).download(store.transfers(tmp_path))
        assert proxy.faults[kind] >= 1
    assert arrived(tmp_path) == OBJECTS


@pytest.mark.parametrize("kind", ["503", "429", "reset"])
def test_a_lasting_fault_ends_with_the_count(store: Store, tmp_path: Path, kind: str) -> None:
    with (
        FaultyProxy(store.url, on_object(kind, 3, 10**6)) as proxy,
        pytest.raises(RetryExhaustedError, match="after 3 tries") as caught,
    ):
        store.storage(proxy.url).download(store.transfers(tmp_path))
    assert caught.value.reason is Reason.RETRY_EXHAUSTED
    assert not caught.value.retryable
    assert "series/3.dcm" not in arrived(tmp_path)


@pytest.mark.parametrize("kind", ["flip", "short"])
def test_bytes_that_stay_wrong_are_never_delivered(store: Store, tmp_path: Path, kind: str) -> None:
    with FaultyProxy(store.url, on_object(kind, 3, 10**6)) as proxy, pytest.raises(InputError) as caught:
        store.storage(proxy.url).download(store.transfers(tmp_path))
    assert caught.value.reason is Reason.CHECKSUM
    assert "3 times" in caught.value.message
    assert "series/3.dcm" not in arrived(tmp_path)


@pytest.mark.parametrize("kind", ["403", "404"])
def test_one_object_that_is_gone_makes_the_series_incomplete(store: Store, tmp_path: Path, kind: str) -> None:
    def fault(method: str, path: str, _: int) -> str:
        return kind if method in {"GET", "HEAD"} and "3.dcm" in path else ""

    with FaultyProxy(store.url, fault) as proxy, pytest.raises(IncompleteError) as caught:
        store.storage(proxy.url).download(store.transfers(tmp_path))
    assert caught.value.reason is Reason.INCOMPLETE
    extra = Transfer(store.name("series/never.dcm"), tmp_path / "never.dcm")
    with pytest.raises(IncompleteError, match="1 of 7"):
        store.storage().download([*store.transfers(tmp_path), extra])


def test_what_the_cohort_says_counts_too(store: Store, tmp_path: Path) -> None:
    transfers = store.transfers(tmp_path)
    transfers[2] = Transfer(transfers[2].url, transfers[2].path, size=3002, md5="0" * 32)
    with pytest.raises(InputError) as caught:
        store.storage().download(transfers)
    assert caught.value.reason is Reason.CHECKSUM


def test_a_closed_port_is_given_up_in_bounded_time(store: Store, tmp_path: Path) -> None:
    with pytest.raises((RetryExhaustedError, IncompleteError)):
        store.storage("http://127.0.0.1:1").download(store.transfers(tmp_path))


def test_upload_is_idempotent_and_never_overwrites(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "made.dcm"
    source.write_bytes(b"first")
    url = store.name(f"results/{store.scheme}.dcm")
    storage = store.storage()
    first = storage.upload(source, url)
    assert storage.upload(source, url) == first
    source.write_bytes(b"second")
    with pytest.raises(UsageError, match="another object"):
        storage.upload(source, url)
    assert storage.upload(source, url, replace=True).size == 6
    back = tmp_path / "back.dcm"
    storage.download([Transfer(url, back)])
    assert back.read_bytes() == b"second"


def test_an_upload_that_breaks_is_tried_again(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "made.dcm"
    source.write_bytes(b"content" * 1000)

    def fault(method: str, _: str, before: int) -> str:
        return "503" if method in {"PUT", "POST"} and before == 0 else ""

    with FaultyProxy(store.url, fault) as proxy:
        stored = store.storage(proxy.url).upload(source, store.name("results/broken.dcm"))
        assert proxy.faults["503"] >= 1
    assert stored.size == 7000
    assert len(store.storage().list_objects(store.name("results/broken"[:-6]))) >= 1


def test_google_resumes_where_it_broke_off(store: Store, tmp_path: Path) -> None:
    if store.scheme != "gs":
        pytest.skip("s5cmd fetches a broken object anew")
    with FaultyProxy(store.url, on_object("cut", 3, 1)) as proxy:
        store.storage(proxy.url).download(store.transfers(tmp_path))
        assert any(r.startswith("bytes=") and not r.startswith("bytes=0-") for r in proxy.ranges)
    assert arrived(tmp_path) == OBJECTS
