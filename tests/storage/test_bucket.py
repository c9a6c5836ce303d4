"""URLs of objects, and what the cohort and the store say of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ctenrich.errors import IncompleteError, UsageError
from ctenrich.reasons import Reason
from ctenrich.storage.base import StoredObject, Transfer
from ctenrich.storage.bucket import complete_transfers, has_bytes, split_url


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("gs://b/a/1.dcm", ("b", "a/1.dcm")),
        ("gs://b/", ("b", "")),
        ("gs://b", ("b", "")),
        ("gs://b/a#1?x=2", ("b", "a#1?x=2")),
        ("gs://b//a", ("b", "/a")),
    ],
)
def test_bucket_and_name(url: str, parts: tuple[str, str]) -> None:
    assert split_url(url, "gs") == parts


@pytest.mark.parametrize("url", ["s3://b/a", "gs:///a", "gs:b/a", "b/a", ""])
def test_another_form_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="gs://BUCKET/NAME") as caught:
        split_url(url, "gs")
    assert caught.value.reason is Reason.BAD_PARAMETER


def test_the_cohort_goes_before_the_store() -> None:
    wanted = [Transfer("gs://b/1", Path("1"), size=0, md5="cohort"), Transfer("gs://b/2", Path("2"))]
    listed = {url: StoredObject(url, 9, "store", "crc", "v") for url in ("gs://b/1", "gs://b/2", "gs://b/3")}
    assert complete_transfers(wanted, listed) == [
        Transfer("gs://b/1", Path("1"), 0, "cohort", "crc"),
        Transfer("gs://b/2", Path("2"), 9, "store", "crc"),
    ]
    assert complete_transfers(wanted, None) == wanted


def test_objects_that_the_store_does_not_list_are_missing() -> None:
    wanted = [Transfer(f"gs://b/{n}", Path(str(n))) for n in range(3)]
    with pytest.raises(IncompleteError, match="2 of 3 objects"):
        complete_transfers(wanted, {"gs://b/1": StoredObject("gs://b/1")})


def test_the_same_bytes_are_known_by_a_checksum_only(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"bytes")
    md5 = hashlib.md5(b"bytes", usedforsecurity=False).hexdigest()
    assert has_bytes(StoredObject("gs://b/x", 5, md5), path)
    assert not has_bytes(StoredObject("gs://b/x", 5), path), "of the same size, but without a checksum"
    assert not has_bytes(StoredObject("gs://b/x", 5, "0" * 32), path)
