"""Exceptions of Google's clients mean the same for buckets, catalog and publishing."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conftest import need_package

from ctenrich.errors import CtenrichError, IncompleteError, TransientError, UsageError
from ctenrich.reasons import Reason
from ctenrich.storage.google import Failure, google_error, google_errors, google_failure

need_package("google", "google.api_core")

from google.api_core import exceptions as api  # noqa: E402 - only where it is installed
from google.auth import exceptions as auth  # noqa: E402
from requests import Response  # noqa: E402
from requests.exceptions import ConnectionError as RequestsConnectionError  # noqa: E402

CASES: list[tuple[Exception, Failure, Reason, type[CtenrichError]]] = [
    (auth.DefaultCredentialsError("none"), Failure.NO_CREDENTIALS, Reason.NO_CREDENTIALS, UsageError),
    (auth.RefreshError("expired"), Failure.CREDENTIALS_REFUSED, Reason.NO_CREDENTIALS, UsageError),
    (auth.TransportError("no route"), Failure.UNREACHABLE, Reason.RETRY_EXHAUSTED, TransientError),
    (api.Unauthorized("who"), Failure.CREDENTIALS_REFUSED, Reason.NO_CREDENTIALS, UsageError),
    (api.Forbidden("no access to the bucket"), Failure.FORBIDDEN, Reason.NO_CREDENTIALS, UsageError),
    (api.Forbidden("Quota exceeded: queries"), Failure.QUOTA, Reason.RETRY_EXHAUSTED, TransientError),
    (api.Forbidden("rateLimitExceeded"), Failure.QUOTA, Reason.RETRY_EXHAUSTED, TransientError),
    (api.TooManyRequests("slow down"), Failure.QUOTA, Reason.RETRY_EXHAUSTED, TransientError),
    (api.NotFound("no such table"), Failure.NOT_FOUND, Reason.NOT_FOUND, UsageError),
    (api.BadRequest("Syntax error"), Failure.REQUEST_REFUSED, Reason.BAD_PARAMETER, UsageError),
    (api.Conflict("exists"), Failure.REQUEST_REFUSED, Reason.BAD_PARAMETER, UsageError),
    (api.ServiceUnavailable("later"), Failure.SERVICE_FAILED, Reason.RETRY_EXHAUSTED, TransientError),
    (api.RetryError("gave up", None), Failure.UNREACHABLE, Reason.RETRY_EXHAUSTED, TransientError),
    (RequestsConnectionError("reset"), Failure.UNREACHABLE, Reason.RETRY_EXHAUSTED, TransientError),
]
NAMES = [f"{type(case[0]).__name__}-{case[1].name}" for case in CASES]


@pytest.mark.parametrize(("error", "failure", "reason", "kind"), CASES, ids=NAMES)
def test_the_error_for_an_exception(
    error: Exception, failure: Failure, reason: Reason, kind: type[CtenrichError]
) -> None:
    assert google_failure(error).failure is failure
    with pytest.raises(kind) as caught, google_errors():
        raise error
    assert caught.value.reason is reason
    assert google_error(caught.value) is caught.value, "it is not translated twice"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (api.NotFound("x"), IncompleteError),
        (api.Forbidden("x"), IncompleteError),
        (api.Unauthorized("x"), IncompleteError),
        (api.BadRequest("x"), IncompleteError),
        (api.Forbidden("quotaExceeded"), TransientError),
        (api.ServiceUnavailable("x"), TransientError),
        (auth.TransportError("x"), TransientError),
        (auth.RefreshError("x"), UsageError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.__name__,
)
def test_the_error_for_an_object_of_a_bucket(error: Exception, kind: type[CtenrichError]) -> None:
    from ctenrich.storage.gcs import _object_error

    assert type(_object_error(error)) is kind


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (api.BadRequest("Unrecognized name: Rowz at [1:8]"), Reason.MISSING_COLUMN),
        (api.BadRequest("Query exceeded limit for bytes billed: 5"), Reason.BYTE_LIMIT),
        (api.BadRequest("Syntax error"), Reason.BAD_QUERY),
        (api.NotFound("Not found: Table x"), Reason.BAD_QUERY),
        (api.Forbidden("Access Denied"), Reason.NO_CREDENTIALS),
        (api.Forbidden("Quota exceeded"), Reason.RETRY_EXHAUSTED),
        (api.InternalServerError("x"), Reason.CATALOG_UNREACHABLE),
        (RequestsConnectionError("x"), Reason.CATALOG_UNREACHABLE),
    ],
)
def test_the_error_for_a_query(error: Exception, reason: Reason) -> None:
    from ctenrich.catalog.bigquery import _query_error

    assert _query_error(error, "the query").reason is reason


def test_the_message_holds_no_address_and_one_line() -> None:
    found = google_failure(api.BadRequest("POST https://example.org/secret?token=1: wrong\nmore"))
    assert found.text == "POST  wrong"
    assert found.status == 400


def test_the_pause_that_the_service_asks_for() -> None:
    answer: Any = Response()
    answer.headers["Retry-After"] = "7"
    assert google_failure(api.TooManyRequests("x", response=answer)).pause == 7
    assert google_failure(api.TooManyRequests("x")).pause is None
