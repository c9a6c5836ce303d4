"""The base class of storages: list, download and upload objects by URL, every byte checked."""

from __future__ import annotations

import base64
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ctenrich.errors import TransientError, UsageError
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.settings import FetchSettings

__all__ = [
    "BatchStorage",
    "ReadOnlyStorage",
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
    """An object as its store describes it."""

    url: str
    size: int | None = None
    """Bytes."""
    md5: str | None = None
    """Hex; None where the store does not know it (S3 objects of several parts)."""
    crc32c: str | None = None
    """Base64, as Google Cloud Storage gives it."""
    version: str = ""
    """Generation or ETag, for preconditions."""


@dataclass(frozen=True)
class Transfer:
    """One object to download to `path`, and the size and checksums that its bytes must have."""

    url: str
    path: Path
    size: int | None = None
    md5: str | None = None
    crc32c: str | None = None


class Storage(ABC):
    """Where bytes are. A storage is made of the fetch settings and addressed by URLs of its scheme.

    Every method raises IncompleteError (INCOMPLETE) for an object that does not exist or is forbidden,
    RetryExhaustedError (RETRY_EXHAUSTED, with the number of tries) where the store kept failing, and InputError
    (CHECKSUM) where the bytes stay wrong.
    """

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings

    @abstractmethod
    def list_objects(self, url: str) -> list[StoredObject]:
        """List all objects below a URL that ends in ``/``, sorted by URL."""

    @abstractmethod
    def download(self, transfers: Sequence[Transfer], progress: Progress = SILENT) -> None:
        """Download all objects, many at a time; a file appears under its name only when it is whole and checked.

        Parameters
        ----------
        transfers : sequence of Transfer
            Objects, the files they become, and what is known of them.
        progress : Progress
            Advanced by one, context ``fetch``, for every object.
        """

    @abstractmethod
    def upload(self, source: Path, url: str, *, replace: bool = False) -> StoredObject:
        """Store a file, unless the object has these bytes already.

        Parameters
        ----------
        source : Path
            The file.
        url : str
            The object's name.
        replace : bool
            Overwrite an object with other bytes; without it such an object is left and raises UsageError
            (BAD_PARAMETER).
        """

    def refuses_overwriting(self, url: str) -> bool:
        """Whether the store creates an object only if it is new, so that two writers cannot clash.

        A store for which that is not certain tries it with an object of this name, which stays.
        """
        return True


class BatchStorage(Storage):
    """A storage that is faster when the objects of several series are fetched by one request."""

    @abstractmethod
    def list_folders(self, urls: Sequence[str]) -> dict[str, list[StoredObject]]:
        """List the objects below each of many URLs that end in ``/``; a folder that cannot be read is empty."""

    @abstractmethod
    def download_batch(self, transfers: Sequence[Transfer], progress: Progress = SILENT) -> None:
        """Download objects of any folders as `download` does, without listing them first."""


class ReadOnlyStorage(Storage):
    """An archive that files only come from."""

    archive: ClassVar[str]
    """Its name, which begins the message."""
    instead: ClassVar[str]
    """What to do instead of an upload."""

    def upload(self, source: Path, url: str, *, replace: bool = False) -> StoredObject:
        """Refused: the archive is only read."""
        raise UsageError(Reason.BAD_PARAMETER, f"{self.archive} is only read", self.instead)

    def refuses_overwriting(self, url: str) -> bool:
        """An archive is no place for shared files."""
        return False


def content_type(path: Path) -> str:
    """Media type of a file, by the end of its name."""
    return {".dcm": "application/dicom", ".json": "application/json"}.get(path.suffix, "application/octet-stream")


def name_taken() -> UsageError:
    """The error of an upload to a name that holds other bytes."""
    return UsageError(Reason.BAD_PARAMETER, "there is another object under this name already", "choose another name")


def parent_url(url: str) -> str:
    """The URL up to its last slash, which is included."""
    return url[: url.rstrip("/").rfind("/") + 1]


def verify_file(path: Path, expected: Transfer | StoredObject) -> None:
    """Compare a file with the size, MD5 and CRC32C that are known.

    Parameters
    ----------
    path : Path
        The file.
    expected : Transfer or StoredObject
        None for a size or checksum that is not known.

    Raises
    ------
    TransientError
        CHECKSUM: the bytes differ; another download may be right.
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
