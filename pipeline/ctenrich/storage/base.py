"""The storage protocol: list, download and upload objects by URL, every byte checked against what the store says."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ctenrich.errors import TransientError, UsageError
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason

__all__ = [
    "Storage",
    "StoredObject",
    "Transfer",
    "content_type",
    "name_taken",
    "parent_url",
    "verify_file",
]


@dataclass(frozen=True)
class StoredObject:
    """What a store says of one object."""

    url: str
    size: int | None = None
    md5: str | None = None
    """Hex; None where the store does not know (S3 objects of several parts)."""
    crc32c: str | None = None
    """Base64, as Google Cloud Storage gives it."""
    version: str = ""
    """Generation or ETag: what a precondition names."""


@dataclass(frozen=True)
class Transfer:
    """One object to be brought to `path`, and what it must be."""

    url: str
    path: Path
    size: int | None = None
    md5: str | None = None
    crc32c: str | None = None


class Storage(Protocol):
    """Where bytes are.

    Every method raises IncompleteError (INCOMPLETE) for what does not exist or is forbidden, RetryExhaustedError
    (RETRY_EXHAUSTED, with the count) where the store kept failing, InputError (CHECKSUM) where the bytes stay wrong.
    """

    def list_objects(self, url: str) -> list[StoredObject]:
        """All objects below a URL that ends in ``/``, by URL."""

    def download(self, transfers: Sequence[Transfer], progress: Progress = SILENT) -> None:
        """Bring all objects, many at a time; each file appears under its name only when it is whole and checked."""

    def upload(self, source: Path, url: str, *, replace: bool = False) -> StoredObject:
        """Store a file, unless these bytes are there.

        Without `replace` an object with other bytes is not overwritten (UsageError BAD_PARAMETER).
        """


def content_type(path: Path) -> str:
    """What a store is told that a file holds."""
    return {".dcm": "application/dicom", ".json": "application/json"}.get(path.suffix, "application/octet-stream")


def name_taken() -> UsageError:
    """The error of an upload whose name holds other bytes."""
    return UsageError(Reason.BAD_PARAMETER, "there is another object under this name already", "choose another name")


def parent_url(url: str) -> str:
    """The URL up to and with its last slash."""
    return url[: url.rstrip("/").rfind("/") + 1]


def verify_file(path: Path, expected: Transfer | StoredObject) -> None:
    """Hold a file's bytes against the size, MD5 and CRC32C that are known.

    Raises
    ------
    TransientError
        CHECKSUM: the file is not what it should be, and may be when it is fetched again.
    """
    if expected.size is not None and path.stat().st_size != expected.size:
        message = f"an object came with {path.stat().st_size} bytes where {expected.size} were expected"
        raise TransientError(Reason.CHECKSUM, message)
    if expected.md5 is not None:
        with path.open("rb") as handle:
            digest = hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if digest != expected.md5.lower():
            raise TransientError(Reason.CHECKSUM, "an object's bytes do not have the expected MD5")
    if expected.crc32c is not None and _crc32c(path) not in {expected.crc32c, None}:
        raise TransientError(Reason.CHECKSUM, "an object's bytes do not have the expected CRC32C")


def _crc32c(path: Path) -> str | None:
    """Base64 CRC32C; None where no implementation is installed (the size is checked anyway)."""
    try:
        import google_crc32c
    except ImportError:
        return None
    checksum: Any = google_crc32c.Checksum()  # type: ignore[no-untyped-call]
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            checksum.update(chunk)
    return base64.b64encode(checksum.digest()).decode()
