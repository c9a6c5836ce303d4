"""Classify exceptions of Google's clients and turn them into errors of ctenrich: buckets, catalog, publishing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import NamedTuple

from ctenrich.errors import CtenrichError, TransientError, UsageError
from ctenrich.reasons import Reason
from ctenrich.storage.retry import retry_after

__all__ = ["Failure", "GoogleFailure", "google_error", "google_errors", "google_failure", "missing_credentials"]

_LOGIN = "gcloud auth application-default login"
_QUOTA = re.compile(r"quota|rate ?limit", re.IGNORECASE)


class Failure(Enum):
    """What went wrong, as far as it decides what to do next."""

    NO_CREDENTIALS = auto()
    CREDENTIALS_REFUSED = auto()
    FORBIDDEN = auto()
    QUOTA = auto()
    NOT_FOUND = auto()
    REQUEST_REFUSED = auto()
    """The request itself is wrong: another try gives the same answer."""
    SERVICE_FAILED = auto()
    UNREACHABLE = auto()


class GoogleFailure(NamedTuple):
    """One error of Google's clients."""

    failure: Failure
    text: str
    """First line of the message, without addresses."""
    status: int | None
    """HTTP status; None where there was no answer."""
    pause: float | None
    """Seconds after which the service asks to be called again."""


def google_failure(error: Exception) -> GoogleFailure:
    """Classify an exception of ``google.api_core``, ``google.auth`` or the HTTP library below them."""
    from google.api_core import exceptions as api  # optional, and slow to import
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError

    lines = re.sub(r"https?://\S+", "", getattr(error, "message", "") or str(error)).strip().splitlines()
    text = lines[0][:300] if lines else type(error).__name__
    status = int(error.code) if isinstance(error, api.GoogleAPICallError) and error.code else None
    pause = retry_after(getattr(getattr(error, "response", None), "headers", None))
    limited = isinstance(error, api.Forbidden) and _QUOTA.search(str(getattr(error, "message", ""))) is not None
    kinds: list[tuple[Failure, bool]] = [
        (Failure.NO_CREDENTIALS, isinstance(error, DefaultCredentialsError)),
        (Failure.UNREACHABLE, isinstance(error, TransportError)),
        (Failure.CREDENTIALS_REFUSED, isinstance(error, (GoogleAuthError, api.Unauthorized))),
        (Failure.QUOTA, limited or isinstance(error, api.TooManyRequests)),
        (Failure.FORBIDDEN, isinstance(error, api.Forbidden)),
        (Failure.NOT_FOUND, isinstance(error, api.NotFound)),
        (Failure.SERVICE_FAILED, isinstance(error, api.ServerError)),
        (Failure.REQUEST_REFUSED, isinstance(error, api.ClientError)),
    ]
    found = next((failure for failure, holds in kinds if holds), Failure.UNREACHABLE)
    return GoogleFailure(found, text, status, pause)


def google_error(error: Exception) -> CtenrichError:
    """The ctenrich error for an exception of Google's clients; a ctenrich error is returned as it is."""
    if isinstance(error, CtenrichError):
        return error
    failure, text, _, _ = google_failure(error)
    match failure:
        case Failure.NO_CREDENTIALS:
            return missing_credentials()
        case Failure.CREDENTIALS_REFUSED:
            return UsageError(Reason.NO_CREDENTIALS, f"the Google credentials were refused: {text}", _LOGIN)
        case Failure.FORBIDDEN:
            return UsageError(Reason.NO_CREDENTIALS, f"not allowed: {text}")
        case Failure.QUOTA:
            return TransientError(Reason.RETRY_EXHAUSTED, f"a quota is used up: {text}", "try again later")
        case Failure.NOT_FOUND:
            hint = "check project, dataset or bucket, and --location"
            return UsageError(Reason.NOT_FOUND, f"not found: {text}", hint)
        case Failure.SERVICE_FAILED:
            return TransientError(Reason.RETRY_EXHAUSTED, f"Google's service failed: {text}", "try again")
        case Failure.REQUEST_REFUSED:
            return UsageError(Reason.BAD_PARAMETER, f"Google's service refused: {text}")
    message = f"Google's service could not be reached: {type(error).__name__}"
    return TransientError(Reason.RETRY_EXHAUSTED, message)


@contextmanager
def google_errors() -> Iterator[None]:
    """Raise the ctenrich error for an exception of Google's clients; other exceptions pass.

    Raises
    ------
    UsageError
        MISSING_EXTRA, NO_CREDENTIALS, NOT_FOUND, BAD_PARAMETER.
    TransientError
        RETRY_EXHAUSTED.
    """
    try:
        from google.api_core.exceptions import GoogleAPIError  # optional, and slow to import
        from google.auth.exceptions import GoogleAuthError
        from requests.exceptions import RequestException
    except ImportError:
        hint = "pip install 'ctenrich[cloud]'"
        raise UsageError(Reason.MISSING_EXTRA, "Google's clients are missing", hint) from None
    try:
        yield
    except (GoogleAPIError, GoogleAuthError, RequestException) as error:
        raise google_error(error) from error


def missing_credentials() -> UsageError:
    """The error where this machine has no Google credentials."""
    return UsageError(Reason.NO_CREDENTIALS, "no Google credentials were found", _LOGIN)
