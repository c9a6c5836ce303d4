"""Send files to a DICOMweb store with STOW-RS (PS3.18 section 10.5)."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from typing import Any

from ctenrich.archives.web import bearer_of
from ctenrich.publish.content import PublishedFile
from ctenrich.publish.sending import Answer, Route, part10_file
from ctenrich.reasons import Reason

__all__ = ["stow_route"]

_AT_ONCE = 8
"""Requests in parallel."""
_BOUNDARY = "ctenrich-boundary"
_SYNTAX_REFUSED = 0xC122
"""Failure reason: the transfer syntax is not supported (PS3.18 10.5.3)."""


def stow_route(url: str, token: str, tls: ssl.SSLContext | None = None) -> Route:
    """A route to a DICOMweb store: Orthanc, Google Healthcare. One request per object, with the bytes of its file.

    Parameters
    ----------
    url : str
        Root of the store, e.g. ``http://127.0.0.1:8042/dicom-web``; http or https.
    token : str
        Bearer token, if the store requires one; for Google Healthcare one is made with this machine's credentials.
    tls : ssl.SSLContext, optional
        Certificates for https; default: those of the system.

    Returns
    -------
    Route

    Raises
    ------
    UsageError
        NO_CREDENTIALS for Google Healthcare.
    """
    bearer = bearer_of(url, token)

    def send(file: PublishedFile) -> Answer:
        head = f"--{_BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        with part10_file(file) as path:
            body = head + path.read_bytes() + f"\r\n--{_BOUNDARY}--\r\n".encode()
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}',
            "Accept": "application/dicom+json",
        }
        if now := bearer():
            headers["Authorization"] = f"Bearer {now}"
        request = urllib.request.Request(f"{url.rstrip('/')}/studies", body, headers, method="POST")  # noqa: S310 - http or https, checked by the caller
        try:
            with urllib.request.urlopen(request, timeout=120, context=tls) as answer:  # noqa: S310 - as above
                return _answer(answer.read())
        except urllib.error.HTTPError as error:
            said = _answer(error.read())
            detail = f"{type(error).__name__}: {error.code} {error.reason} {said.detail}".strip()
            status = said.status if said.reason else error.code
            return Answer(reason=said.reason or Reason.RETRY_EXHAUSTED, detail=detail, status=status)

    return Route(target=url, send=send, at_once=_AT_ONCE)


def _answer(body: bytes) -> Answer:
    """What a STOW-RS answer states (PS3.18 section 10.5.3): Failed SOP Sequence (0008,1198), else a warning."""
    try:
        found = json.loads(body or b"{}")
    except ValueError:
        return Answer()
    failed = _first(found, "00081198", "00081197")
    if failed is not None:
        reason = Reason.TRANSFER_SYNTAX_REFUSED if failed == _SYNTAX_REFUSED else Reason.OBJECT_REFUSED
        status = failed if isinstance(failed, int) else None
        return Answer(reason=reason, detail=f"refused with reason {failed}", status=status)
    warning = _first(found, "00081199", "00081196")
    if isinstance(warning, int):
        return Answer(detail=f"stored with warning {warning}", status=warning)
    return Answer()


def _first(answer: Any, sequence: str, tag: str) -> Any:
    """A value of the first item of a sequence; ``unknown`` if the item lacks it, None if there is no item."""
    try:
        item = answer[sequence]["Value"][0]
        return item.get(tag, {}).get("Value", ["unknown"])[0]
    except (TypeError, KeyError, IndexError, AttributeError):
        return None
