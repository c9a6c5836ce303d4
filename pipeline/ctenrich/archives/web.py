"""HTTP requests to archives: credentials, certificates, bounded answers, typed errors."""

from __future__ import annotations

import base64
import http.client
import http.cookiejar
import json
import netrc
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import urlsplit

from ctenrich.archives.nodes import TlsFiles
from ctenrich.errors import (
    CtenrichError,
    IncompleteError,
    InputError,
    TransientError,
    UnsafeInputError,
    UsageError,
    is_disk_full,
)
from ctenrich.reasons import Reason
from ctenrich.storage.base import Transfer
from ctenrich.storage.google import google_errors
from ctenrich.storage.retry import BusyError, retry_after

__all__ = ["HEALTHCARE", "WebClient", "basic_authorization", "bearer_authorization", "bearer_of", "download_at_once"]

HEALTHCARE = "healthcare.googleapis.com"
_SCOPE = "https://www.googleapis.com/auth/cloud-healthcare"
_LARGEST_JSON = 512 * 1024**2
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class _Authorization(Protocol):
    """Value of the header Authorization; empty for none."""

    def __call__(self) -> str: ...


class WebClient:
    """Requests to one archive. Cookies are kept, so that a server with sessions begins one only once.

    Redirections to another server are refused: they would give it the credentials.

    Parameters
    ----------
    tls : TlsFiles
        Certificates for https.
    timeout : float
        Seconds without an answer.
    authorization : callable
        Returns the header ``Authorization`` of a request; empty: none.
    """

    def __init__(self, tls: TlsFiles, timeout: float, authorization: _Authorization) -> None:
        self._timeout = timeout
        self._authorization = authorization
        handlers: list[urllib.request.BaseHandler] = [
            urllib.request.HTTPSHandler(context=tls.context()),
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()),
            _SameServer(),
        ]
        self._opener = urllib.request.build_opener(*handlers)

    def json(self, url: str, accept: str = "application/json") -> Any:
        """Return the parsed answer; None for an empty one.

        Parameters
        ----------
        url : str
            http or https.
        accept : str
            Media type.

        Raises
        ------
        UsageError
            NO_CREDENTIALS for the status 401 and 403.
        IncompleteError
            INCOMPLETE for 404 and 410.
        InputError
            RETRIEVE_REFUSED for another status of the group 4xx.
        TransientError
            CATALOG_UNREACHABLE for everything that may pass.
        """
        try:
            with self._open(url, accept) as answer:
                body = answer.read(_LARGEST_JSON + 1)
        except (OSError, http.client.HTTPException) as error:
            raise _typed(error) from error
        if len(body) > _LARGEST_JSON:
            raise TransientError(Reason.CATALOG_UNREACHABLE, "the archive's answer is too large")
        try:
            return json.loads(body) if body.strip() else None
        except ValueError as error:
            raise TransientError(Reason.CATALOG_UNREACHABLE, "the archive's answer is not JSON") from error

    def download(self, url: str, path: Path, accept: str = "*/*", *, most: int | None = None) -> str:
        """Download into a file; returns the content type.

        An answer that is shorter than its Content-Length, or ends inside a chunk, is an error.

        Parameters
        ----------
        url : str
            http or https.
        path : Path
            The file, which is overwritten.
        accept : str
            Media types.
        most : int, optional
            Bytes that the answer may have; None: no limit.

        Raises
        ------
        CtenrichError
            As :meth:`json`.
        UnsafeInputError
            DECOMPRESSION_BOMB for a larger answer.
        OSError
            The disk is full.
        """
        try:
            with self._open(url, accept) as answer, path.open("wb") as out:
                stated = answer.headers.get("Content-Length", "")
                _copy(answer, out, most)
                written = out.tell()
                kind = str(answer.headers.get("Content-Type", ""))
        except (OSError, http.client.HTTPException) as error:
            if is_disk_full(error):
                raise
            raise _typed(error) from error
        if stated.isascii() and stated.isdigit() and written != int(stated):
            raise TransientError(Reason.CHECKSUM, f"{written} of {stated} bytes of an object came")
        return kind

    def _open(self, url: str, accept: str) -> Any:
        headers = {"Accept": accept, "User-Agent": "ctenrich"}
        if value := self._authorization():
            parts = urlsplit(url)
            if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
                message = "credentials are not sent without TLS"
                raise UsageError(Reason.BAD_PARAMETER, message, "use the https address of the archive")
            headers["Authorization"] = value
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - http or https, by the kinds of archives
        return self._opener.open(request, timeout=self._timeout)


def _copy(answer: Any, out: BinaryIO, most: int | None) -> None:
    """Copy an answer into a file, up to a number of bytes."""
    while chunk := answer.read(1 << 20):
        out.write(chunk)
        if most is not None and out.tell() > most:
            raise UnsafeInputError(Reason.DECOMPRESSION_BOMB, f"the archive's answer has more than {most} bytes")


class _SameServer(urllib.request.HTTPRedirectHandler):
    """Follows redirections that stay on the server."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if (old.scheme, old.netloc) != (new.scheme, new.netloc):
            return None  # the status of the redirection becomes an error
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _typed(error: Exception) -> CtenrichError:
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        code = error.code
        if code in (401, 403):
            return UsageError(Reason.NO_CREDENTIALS, f"the archive refuses access (status {code})", "see its page")
        if code in (404, 410):
            return IncompleteError(Reason.INCOMPLETE, "the archive does not have an object")
        if code in (408, 425, 429) or code >= 500:
            pause = retry_after(dict(error.headers)) or 0.0
            return BusyError(Reason.CATALOG_UNREACHABLE, f"the archive answers with status {code}", pause=pause)
        return InputError(Reason.RETRIEVE_REFUSED, f"the archive answers with status {code}")
    why = str(getattr(error, "reason", None) or type(error).__name__)[:200]
    return TransientError(Reason.CATALOG_UNREACHABLE, f"the archive cannot be read: {why}")


def download_at_once(transfers: Sequence[Transfer], download: Callable[[Transfer], None], threads: int) -> None:
    """Download several objects at once; the first error cancels those that have not begun, and is raised.

    Parameters
    ----------
    transfers : sequence of Transfer
    download : callable
        Downloads one of them.
    threads : int
        Objects at once.
    """
    with ThreadPoolExecutor(max(1, threads)) as pool:
        try:
            list(pool.map(download, transfers))
        finally:
            pool.shutdown(cancel_futures=True)


def basic_authorization(host: str, prefix: str) -> Callable[[], str]:
    """Return the header of HTTP Basic authentication, from the environment or the file netrc.

    Parameters
    ----------
    host : str
        Whose entry of netrc is used (``~/.netrc``, or the file that NETRC names).
    prefix : str
        The variables ``PREFIX_USER`` and ``PREFIX_PASSWORD`` come first.

    Returns
    -------
    callable
        Returns the value; empty where there are no credentials.

    Raises
    ------
    UsageError
        NO_CREDENTIALS for a file netrc that cannot be read.
    """
    user, password = os.environ.get(f"{prefix}_USER", ""), os.environ.get(f"{prefix}_PASSWORD", "")
    if not (user and password):
        try:
            found = netrc.netrc(os.environ.get("NETRC") or None).authenticators(host)
        except FileNotFoundError:
            found = None
        except (OSError, netrc.NetrcParseError):  # the message of the parser may hold a password
            raise UsageError(Reason.NO_CREDENTIALS, "the file netrc cannot be read") from None
        user, password = (found[0], found[2] or "") if found else ("", "")
    value = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode() if user else ""
    return lambda: value


def bearer_authorization(url: str) -> Callable[[], str]:
    """Return the header with the token of CTENRICH_DICOMWEB_TOKEN, or of Google for its Healthcare service.

    Without a token: Basic authentication by CTENRICH_DICOMWEB_USER and CTENRICH_DICOMWEB_PASSWORD, or netrc.
    """
    bearer = bearer_of(url, os.environ.get("CTENRICH_DICOMWEB_TOKEN", ""))
    basic = basic_authorization(urlsplit(url).hostname or "", "CTENRICH_DICOMWEB")

    def value() -> str:
        token = bearer()
        return f"Bearer {token}" if token else basic()

    return value


def bearer_of(url: str, token: str) -> Callable[[], str]:
    """Return a function that gives the bearer token of a request; Google's end after an hour and are renewed.

    Parameters
    ----------
    url : str
        Root of the DICOMweb store.
    token : str
        Token that the user gave; empty: made from this machine's credentials for Google Healthcare, none elsewhere.

    Returns
    -------
    function

    Raises
    ------
    UsageError
        NO_CREDENTIALS, MISSING_EXTRA for Google Healthcare.
    """
    parts = urlsplit(url)
    if token or (parts.scheme, parts.hostname) != ("https", HEALTHCARE):
        return lambda: token
    with google_errors():
        credentials, _ = import_module("google.auth").default(scopes=[_SCOPE])
        transport = import_module("google.auth.transport.requests").Request()

    def fresh() -> str:
        if not credentials.valid:
            with google_errors():
                credentials.refresh(transport)
        return str(credentials.token)

    return fresh
