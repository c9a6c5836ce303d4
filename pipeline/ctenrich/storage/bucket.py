"""URLs and transfers that are alike for every bucket store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from ctenrich.errors import IncompleteError, TransientError, UsageError
from ctenrich.reasons import Reason
from ctenrich.storage.base import StoredObject, Transfer, verify_file

__all__ = ["complete_transfers", "has_bytes", "split_url", "with_facts"]


def split_url(url: str, scheme: str) -> tuple[str, str]:
    """Bucket and object name of a URL.

    Parameters
    ----------
    url : str
        ``SCHEME://BUCKET/NAME``. ``#`` and ``?`` are part of the name.
    scheme : str
        ``gs`` or ``s3``.

    Returns
    -------
    (str, str)
        Bucket and name.

    Raises
    ------
    UsageError
        BAD_PARAMETER for another form.
    """
    parts = urlsplit(url, allow_fragments=False)
    if parts.scheme != scheme or not parts.netloc:
        raise UsageError(Reason.BAD_PARAMETER, f"an object's URL has the form {scheme}://BUCKET/NAME")
    return parts.netloc, url[len(scheme) + len("://") + len(parts.netloc) + 1 :]


def complete_transfers(transfers: Sequence[Transfer], listed: Mapping[str, StoredObject] | None) -> list[Transfer]:
    """Transfers with the sizes and checksums that the store states added.

    Where the cohort and the store disagree, the cohort's value is used, and the check of the bytes fails.

    Parameters
    ----------
    transfers : sequence of Transfer
        As the cohort describes the objects.
    listed : mapping, optional
        URL -> object in the store; None where the store does not allow listing.

    Returns
    -------
    list of Transfer
        In their order.

    Raises
    ------
    IncompleteError
        INCOMPLETE: the store does not list some of the objects.
    """
    if listed is None:
        return list(transfers)
    missing = sum(transfer.url not in listed for transfer in transfers)
    if missing:
        raise IncompleteError(Reason.INCOMPLETE, f"{missing} of {len(transfers)} objects are not in the store")
    return [with_facts(transfer, listed[transfer.url]) for transfer in transfers]


def with_facts(transfer: Transfer, stored: StoredObject) -> Transfer:
    """Add the size and checksums of the store to a transfer where the cohort has none.

    Parameters
    ----------
    transfer : Transfer
        As the cohort describes the object.
    stored : StoredObject
        As the store describes it.

    Returns
    -------
    Transfer
        If both have a value, the cohort's.
    """
    return replace(
        transfer,
        size=transfer.size if transfer.size is not None else stored.size,
        md5=transfer.md5 or stored.md5,
        crc32c=transfer.crc32c or stored.crc32c,
    )


def has_bytes(stored: StoredObject, source: Path) -> bool:
    """Whether an object has the bytes of a file, by its checksum.

    Parameters
    ----------
    stored : StoredObject
        As the store describes it; without a checksum it counts as different.
    source : Path
        The file.

    Returns
    -------
    bool
        True only if size and checksum agree.
    """
    try:
        verify_file(source, stored)
    except TransientError:
        return False
    return stored.md5 is not None or stored.crc32c is not None
