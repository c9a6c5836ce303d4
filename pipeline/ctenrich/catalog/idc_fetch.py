"""Fetch the tables of IDC's series index that its package does not carry, within a bounded wait."""

from __future__ import annotations

import os
import time
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from ctenrich.errors import TransientError, UsageError
from ctenrich.reasons import Reason
from ctenrich.workspace import atomic_path

__all__ = ["fetch_index"]

RELEASES = "https://github.com/ImagingDataCommons/idc-index-data/releases/download"
"""Where the package's releases keep the tables; CTENRICH_IDC_INDEX_URL names another place of the same layout."""
_ANSWER, _WHOLE = 10.0, 180.0
"""Seconds to wait for a connection or the next bytes, and for a whole table."""
_LARGEST = 512 * 1024**2
_CHUNK = 1024**2


def fetch_index(name: str, version: str, folder: Path) -> Path:
    """Download ``NAME.parquet`` of a release into `folder`, where ``idc-index`` looks for it too.

    Parameters
    ----------
    name : str
        ``volume_geometry_index`` or ``ct_index``.
    version : str
        Version of idc-index-data, e.g. ``25.0.5``.
    folder : Path
        Made where it is not there.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    UsageError
        BAD_PARAMETER if CTENRICH_IDC_INDEX_URL is no http(s) address.
    TransientError
        CATALOG_UNREACHABLE: no answer in time, or the answer is not the table.
    """
    base = os.environ.get("CTENRICH_IDC_INDEX_URL", "") or RELEASES
    if urlsplit(base).scheme not in {"http", "https"}:
        raise UsageError(Reason.BAD_PARAMETER, "CTENRICH_IDC_INDEX_URL is not an http(s) address")
    target = folder / f"{name}.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_path(target) as temporary:
            _download(f"{base.rstrip('/')}/{version}/{name}.parquet", temporary)
            _check(temporary, name)
    except (URLError, OSError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        message = f"{name} of idc-index-data {version} cannot be fetched: {str(why)[:200] or type(error).__name__}"
        raise TransientError(Reason.CATALOG_UNREACHABLE, message) from error
    return target


def _download(url: str, target: Path) -> None:
    end = time.monotonic() + _WHOLE
    size = 0
    request = Request(url, headers={"User-Agent": "ctenrich"})  # noqa: S310 - the scheme is checked
    with urlopen(request, timeout=_ANSWER) as answer, target.open("wb") as handle:  # noqa: S310 - as above
        while chunk := answer.read1(_CHUNK):
            size += len(chunk)
            if size > _LARGEST or time.monotonic() > end:
                raise ValueError("it is too large or comes too slowly")
            handle.write(chunk)


def _check(path: Path, name: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
    except pa.ArrowException as error:
        raise ValueError("what came is not a Parquet file") from error
    if "SeriesInstanceUID" not in names:
        raise ValueError(f"what came is not {name}")
