"""Uploads to S3 under a precondition: an object is created only if it is new, replaced only if it is the one we saw."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from ctenrich.errors import CtenrichError, IncompleteError, TransientError, UsageError
from ctenrich.reasons import Reason
from ctenrich.settings import FetchSettings
from ctenrich.storage.base import StoredObject, content_type, name_taken, verify_file
from ctenrich.storage.bucket import split_url
from ctenrich.storage.retry import BusyError, retry_after, retrying

__all__ = ["S3Uploader"]

_PART = 16 * 1024**2
"""Bytes; larger files go in parts of this size, one of which is in memory per connection."""
_MOST_PARTS = 10_000
_AT_ONCE = 4
"""Parts in flight."""
_NEW = {"IfNoneMatch": "*"}
_DAMAGED = {"BadDigest", "IncompleteBody", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"}
_PASSING = {"NoSuchKey", "NoSuchUpload", "RequestTimeout", "RequestTimeTooSkewed"}
"""Answers of 400, 403 and 404 that the next try may not give: a stalled body, an object that was removed meanwhile."""


class _TakenError(Exception):
    """The store refused: the object under the name does not meet the precondition."""


class S3Uploader:
    """Puts files under ``s3://BUCKET/KEY``; the store checks the MD5 of every body that it takes.

    Parameters
    ----------
    settings : FetchSettings
        Endpoint, account, payer, time-outs and tries. The client's own retries are off.
    """

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        self._made: tuple[int, Any] = (0, None)
        self._payer = {"RequestPayer": "requester"} if settings.user_project is not None else {}

    def upload(self, source: Path, url: str, *, replace: bool = False) -> StoredObject:
        """Store a file; the same bytes under the name are no clash, other bytes are left as they are.

        With `replace` what is there when the upload starts is replaced, and nothing that came after that.

        Raises
        ------
        UsageError
            BAD_PARAMETER where other bytes have the name, or the store knows no preconditions; NO_CREDENTIALS;
            MISSING_EXTRA.
        IncompleteError
            INCOMPLETE: there is no such bucket, or it may not be written.
        """
        return retrying(lambda: self._put(source, url, replace), self._settings)

    def refuses_overwriting(self, url: str) -> bool:
        """Whether the store keeps to "only if it is new": tried with a small object of this name, which stays."""
        content = b"an object of this name is created once\n"
        for _ in range(2):
            try:
                retrying(lambda: self._send_whole(content, url, _NEW), self._settings)
            except _TakenError:
                return True
        return False

    def etag_is_md5(self, url: str) -> bool:
        """Whether an object's ETag is its MD5, as far as we may know: that of one that KMS encrypted only looks so."""
        stored = retrying(lambda: self._look(url), self._settings)
        return stored is None or stored.md5 is not None

    def _put(self, source: Path, url: str, replace: bool) -> StoredObject:
        present = self._look(url)
        if present is not None:
            if self._is_same(present, source):
                return present
            if not replace:
                raise name_taken()
        condition = _NEW if present is None else {"IfMatch": f'"{present.version}"'}
        size = source.stat().st_size
        try:
            if size <= _PART:
                answer = self._send_whole(source.read_bytes(), url, condition, content_type(source))
            else:
                answer = self._send_parts(source, url, condition)
        except _TakenError:
            winner = self._look(url)
            if winner is None:
                raise TransientError(Reason.RETRY_EXHAUSTED, "an object came and went during an upload") from None
            if not self._is_same(winner, source):
                raise name_taken() from None
            return winner
        stored = _answered_object(url, size, answer)
        verify_file(source, stored)
        return stored

    def _send_whole(
        self, content: bytes, url: str, condition: dict[str, str], kind: str = "text/plain"
    ) -> dict[str, Any]:
        body = {"Body": io.BytesIO(content), "ContentMD5": _md5(content), "ContentType": kind}
        return self._ask("put_object", url, **body, **condition)

    def _send_parts(self, source: Path, url: str, condition: dict[str, str]) -> dict[str, Any]:
        """Send a file in parts, each tried again on its own; what cannot be ended is taken back."""
        upload = {"UploadId": self._ask("create_multipart_upload", url, ContentType=content_type(source))["UploadId"]}
        part = _part_size(source.stat().st_size)

        def send(number: int) -> dict[str, Any]:
            with source.open("rb") as handle:
                handle.seek((number - 1) * part)
                content = handle.read(part)

            def once() -> dict[str, Any]:
                body = {"Body": io.BytesIO(content), "ContentMD5": _md5(content)}
                return self._ask("upload_part", url, PartNumber=number, **upload, **body)

            return {"PartNumber": number, "ETag": retrying(once, self._settings)["ETag"]}

        try:
            parts = _each(send, -(-source.stat().st_size // part))
            return self._ask("complete_multipart_upload", url, MultipartUpload={"Parts": parts}, **upload, **condition)
        except BaseException:
            with suppress(Exception):
                self._ask("abort_multipart_upload", url, **upload)
            raise

    def _look(self, url: str) -> StoredObject | None:
        """What has the name; None where nothing has, or where we may not know: the precondition decides then."""
        try:
            answer = self._ask("head_object", url)
        except IncompleteError:
            return None
        return _answered_object(url, int(answer["ContentLength"]), answer)

    def _is_same(self, stored: StoredObject, source: Path) -> bool:
        try:
            verify_file(source, stored)
        except TransientError:
            return False
        told = stored.md5 is not None or stored.version == _etag_of_parts(source)
        return told or self._same_bytes(stored, source)

    def _same_bytes(self, stored: StoredObject, source: Path) -> bool:
        """Compare with the object itself: for encrypted ones, and for other parts, the store has no hash."""
        try:
            answer = self._ask("get_object", stored.url, IfMatch=f'"{stored.version}"')
            with source.open("rb") as handle, _translating(), closing(answer["Body"]) as body:
                return all(chunk == handle.read(len(chunk)) for chunk in body.iter_chunks(1 << 20))
        except _TakenError:
            raise TransientError(Reason.RETRY_EXHAUSTED, "an object changed while it was compared") from None

    def _ask(self, operation: str, url: str, **arguments: Any) -> dict[str, Any]:
        bucket, key = split_url(url, "s3")
        place = {"Bucket": bucket, "Key": key}
        with _translating():
            answer: dict[str, Any] = getattr(self._client(), operation)(**place, **arguments, **self._payer)
            return answer

    def _client(self) -> Any:
        """The client of this process: connections are not shared with the process that this one was forked from."""
        if self._made[0] != os.getpid():
            self._made = (os.getpid(), _open_s3_client(self._settings))
        return self._made[1]


def _open_s3_client(settings: FetchSettings) -> Any:
    try:
        import botocore.session
        from botocore import UNSIGNED
        from botocore.config import Config
    except ImportError as error:
        raise UsageError(Reason.MISSING_EXTRA, "botocore is not installed", "install ctenrich[cloud]") from error
    config = Config(
        signature_version=UNSIGNED if settings.anonymous and settings.user_project is None else None,
        connect_timeout=settings.timeout,
        read_timeout=settings.timeout,
        retries={"total_max_attempts": 1},
        max_pool_connections=_AT_ONCE,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if settings.s3_endpoint else "auto"},
    )
    return botocore.session.Session().create_client("s3", endpoint_url=settings.s3_endpoint, config=config)


def _each(send: Callable[[int], dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Send parts 1 to `count`, some at once; at the first that fails the rest is not begun."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        futures = [pool.submit(send, number) for number in range(1, count + 1)]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()


def _part_size(size: int) -> int:
    return max(_PART, -(-size // _MOST_PARTS))


def _md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def _etag_of_parts(source: Path) -> str:
    """The ETag of a file in our parts: the MD5 of the parts' MD5s, and their number."""
    part, digests = _part_size(source.stat().st_size), []
    with source.open("rb") as handle:
        while content := handle.read(part):
            digests.append(hashlib.md5(content, usedforsecurity=False).digest())
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"


def _answered_object(url: str, size: int, answer: dict[str, Any]) -> StoredObject:
    """The stored object of an answer; an ETag is the MD5 only of an object in one part without a key of KMS."""
    etag = str(answer["ETag"]).strip('"')
    plain = answer.get("ServerSideEncryption", "AES256") == "AES256" and re.fullmatch(r"[0-9a-f]{32}", etag)
    return StoredObject(url, size, etag if plain else None, version=etag)


@contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except (CtenrichError, _TakenError):
        raise
    except Exception as error:
        raise _translated(error) from error


def _translated(error: Exception) -> Exception:
    """What a client's error means here: taken, gone, of no use to try again, or worth another try."""
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        return _refused(error)
    missing = (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.ProfileNotFound)
    if isinstance(error, missing):
        return UsageError(Reason.NO_CREDENTIALS, "no AWS credentials were found", "see the AWS CLI's `aws configure`")
    if isinstance(error, exceptions.ParamValidationError):
        return UsageError(Reason.BAD_PARAMETER, "an S3 URL has the form s3://BUCKET/KEY")
    return TransientError(Reason.RETRY_EXHAUSTED, f"the store did not answer as it should ({type(error).__name__})")


def _refused(error: Any) -> Exception:
    answer = error.response
    code = re.sub(r"[^A-Za-z0-9]", "", str(answer.get("Error", {}).get("Code", "")))[:60]
    about = answer.get("ResponseMetadata", {})
    status = int(about.get("HTTPStatusCode", 500))
    if status == 412:
        return _TakenError()
    if code in _DAMAGED:
        return TransientError(Reason.CHECKSUM, "an upload came damaged to the store")
    if status == 501:
        message = "the store does not know uploads with a precondition"
        return UsageError(Reason.BAD_PARAMETER, message, "use a store that can create an object only if it is new")
    if status in {409, 429} or status >= 500 or code in _PASSING:
        message = f"the store did not answer as it should (HTTP {status})"
        pause = retry_after({"Retry-After": about.get("HTTPHeaders", {}).get("retry-after", "")})
        return BusyError(Reason.RETRY_EXHAUSTED, message, pause=pause or 0.0)
    return IncompleteError(Reason.INCOMPLETE, f"an object is missing or forbidden ({code or status})")
