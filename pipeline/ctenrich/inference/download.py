"""Download one file with a bounded number of attempts, each resuming where the last one stopped."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from ctenrich.errors import ModelError, RetryExhaustedError
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason

__all__ = ["download"]

_CHUNK = 1024 * 1024
_TASK = "download"


def download(
    url: str, path: Path, *, tries: int = 5, pause: float = 1.0, timeout: float = 60.0, progress: Progress = SILENT
) -> None:
    """Download `url` to `path`; the bytes of an interrupted attempt stay in ``path.part`` and are not fetched again.

    Parameters
    ----------
    url : str
        http or https.
    path : Path
        Written by rename once all bytes are there.
    tries : int
        Attempts.
    pause : float
        Seconds before the second attempt; doubled before each further one.
    timeout : float
        Seconds without data after which an attempt ends.
    progress : Progress
        Counts bytes.

    Raises
    ------
    ModelError
        NOT_FOUND for an address that the server does not know, or that is not http(s).
    RetryExhaustedError
        RETRY_EXHAUSTED.
    """
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        raise ModelError(Reason.NOT_FOUND, "models are downloaded by http or https only")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    progress.start(_TASK)
    cause = ""
    for attempt in range(tries):
        if attempt:
            time.sleep(pause * 2 ** (attempt - 1))
        try:
            if _download_once(url, part, timeout, progress):
                part.replace(path)
                progress.finish(_TASK)
                return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in {400, 401, 403, 404, 410}:
                raise ModelError(Reason.NOT_FOUND, f"the server answers {error.code} for the model's file") from error
            if error.code == 416:
                part.unlink(missing_ok=True)
        except (OSError, http.client.HTTPException) as error:
            cause = str(getattr(error, "reason", error)) or type(error).__name__
    host = urllib.parse.urlsplit(url).hostname
    message = f"the download from {host} failed {tries} times{f' ({cause})' if cause else ''}"
    raise RetryExhaustedError(Reason.RETRY_EXHAUSTED, message, "check the network, then try again: it continues")


def _download_once(url: str, part: Path, timeout: float, progress: Progress) -> bool:
    """One request; whether the file is whole."""
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310 - the scheme was checked
    with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310 - as above
        resumed = answer.status == 206
        length = answer.headers.get("Content-Length")
        expected = int(length) + (have if resumed else 0) if length is not None else None
        with part.open("ab" if resumed else "wb") as handle:
            while chunk := answer.read(_CHUNK):
                handle.write(chunk)
                progress.advance(_TASK, len(chunk))
    return expected is None or part.stat().st_size == expected
