"""Storages: where bytes come from and go to. They are registered by URL scheme and found when a URL is opened."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.resources import plugins, registered
from ctenrich.storage.base import BatchStorage, Storage

if TYPE_CHECKING:
    from ctenrich.settings import FetchSettings

__all__ = ["GROUP", "STORAGES", "BatchStorage", "Storage", "is_storage_url", "open_storage", "prefers_batches"]

STORAGES = {
    "file": "ctenrich.storage.local:LocalStorage",
    "gs": "ctenrich.storage.gcs:GoogleStorage",
    "s3": "ctenrich.storage.s3:S3Storage",
    "dicom": "ctenrich.archives.node:NodeStorage",
    "dicomweb+https": "ctenrich.archives.dicomweb:DicomwebStorage",
    "dicomweb+http": "ctenrich.archives.dicomweb:DicomwebStorage",
    "xnat+https": "ctenrich.archives.xnat:XnatStorage",
    "xnat+http": "ctenrich.archives.xnat:XnatStorage",
    "nbia+https": "ctenrich.archives.nbia:NbiaStorage",
    "nbia+http": "ctenrich.archives.nbia:NbiaStorage",
}
"""URL scheme -> its `Storage` class. A new storage is a module with such a class and one line here."""
GROUP = "ctenrich.storages"
"""Entry point group in which other packages register a `Storage` class by its URL scheme."""


def open_storage(url: str, settings: FetchSettings) -> Storage:
    """Open the storage for a URL's scheme.

    Parameters
    ----------
    url : str
        ``file:///...``, ``gs://BUCKET/...``, ``s3://BUCKET/...``, ``dicom://HOST:PORT/AET/...``, or a scheme
        that another package registers.
    settings : FetchSettings
        Account, endpoints, time-outs and tries.

    Returns
    -------
    Storage
        For every URL of this scheme.

    Raises
    ------
    UsageError
        BAD_PARAMETER for another scheme, BAD_PLUGIN, MISSING_EXTRA where the client is not installed.
    """
    scheme = urlsplit(url).scheme
    kind = _storage_class(scheme)
    if kind is None:
        known = ", ".join([*STORAGES, *plugins(GROUP)])
        raise UsageError(Reason.BAD_PARAMETER, f"no storage for {scheme or 'a path without a scheme'}://", known)
    return kind(settings)


def is_storage_url(url: str) -> bool:
    """Whether a storage is registered for the URL's scheme."""
    return _storage_class(urlsplit(url).scheme) is not None


def prefers_batches(url: str) -> bool:
    """Whether the storage of a URL is faster when the objects of several series are fetched by one request."""
    kind = _storage_class(urlsplit(url).scheme)
    return kind is not None and issubclass(kind, BatchStorage)


@lru_cache(maxsize=32)
def _storage_class(scheme: str) -> type[Storage] | None:
    found = registered(scheme, STORAGES, GROUP)
    if found is None:
        return None
    if isinstance(found, type) and issubclass(found, Storage):
        return found
    message = f"{scheme!r} in {GROUP} is not a class that derives from ctenrich.storage.Storage"
    raise UsageError(Reason.BAD_PLUGIN, message, "update or uninstall the package that registers it")
