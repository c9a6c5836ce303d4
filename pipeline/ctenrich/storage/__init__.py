"""Where bytes come from and go to: the local disk, Google Cloud Storage, S3."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.storage.base import Storage

if TYPE_CHECKING:
    from ctenrich.settings import FetchSettings

__all__ = ["Storage", "open_storage"]


def open_storage(url: str, settings: FetchSettings) -> Storage:
    """The storage for a URL's scheme: ``file``, ``gs`` or ``s3``.

    Raises
    ------
    UsageError
        BAD_PARAMETER for another scheme, MISSING_EXTRA where the client is not installed.
    """
    scheme = urlsplit(url).scheme
    if scheme == "file":
        from ctenrich.storage.local import LocalStorage

        return LocalStorage()
    if scheme == "gs":
        from ctenrich.storage.gcs import GoogleStorage

        return GoogleStorage(settings)
    if scheme == "s3":
        from ctenrich.storage.s3 import S3Storage

        return S3Storage(settings)
    raise UsageError(Reason.BAD_PARAMETER, f"no storage for {scheme or 'a path without a scheme'}://", "gs, s3 or file")
