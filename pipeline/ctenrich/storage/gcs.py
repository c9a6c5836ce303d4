"""Google Cloud Storage: parallel, resumable downloads and conditional uploads, with CRC32C and MD5 checked."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from ctenrich.errors import CtenrichError, IncompleteError, TransientError, UsageError
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.settings import FetchSettings
from ctenrich.storage.base import Storage, StoredObject, Transfer, content_type, name_taken, parent_url, verify_file
from ctenrich.storage.bucket import complete_transfers, has_bytes, split_url, with_facts
from ctenrich.storage.google import Failure, google_error, google_errors, google_failure
from ctenrich.storage.retry import BusyError, retrying

__all__ = ["GoogleStorage"]

_ABSENT = {Failure.NOT_FOUND, Failure.FORBIDDEN, Failure.CREDENTIALS_REFUSED, Failure.REQUEST_REFUSED}


class GoogleStorage(Storage):
    """Objects under ``gs://BUCKET/NAME``; anonymous by default, a user project where the bucket asks for one."""

    def __init__(self, settings: FetchSettings) -> None:
        try:
            from google.cloud import storage  # type: ignore[attr-defined, unused-ignore]
        except ImportError as error:
            hint = "install ctenrich[cloud]"
            raise UsageError(Reason.MISSING_EXTRA, "google-cloud-storage is not installed", hint) from error
        super().__init__(settings)
        options = {"api_endpoint": settings.gs_endpoint} if settings.gs_endpoint else None
        if settings.anonymous and settings.user_project is None:
            from google.auth.credentials import AnonymousCredentials

            credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]
            self._client: Any = storage.Client(project="anonymous", credentials=credentials, client_options=options)
        else:
            self._client = _open_google_client(storage.Client, project=settings.user_project, client_options=options)
        self._widen_pool()

    def list_objects(self, url: str) -> list[StoredObject]:
        """List all objects below a URL that ends in ``/``, by name; one request per thousand."""
        bucket, prefix = split_url(url, "gs")
        found = retrying(lambda: self._list(bucket, prefix), self._settings)
        if not found:
            raise IncompleteError(Reason.INCOMPLETE, "there is no object below a URL of the series")
        return found

    def download(self, transfers: Sequence[Transfer], progress: Progress = SILENT) -> None:
        """Download all objects; each is checked against size and checksums of cohort and store."""
        complete = complete_transfers(transfers, self._describe(transfers))

        def work(transfer: Transfer) -> None:
            retrying(lambda: self._fetch(transfer), self._settings)
            progress.advance("fetch")

        with ThreadPoolExecutor(self._settings.parallel_objects) as pool:
            futures = [pool.submit(work, t) for t in complete]
            try:
                for future in futures:
                    future.result()
            finally:
                for future in futures:
                    future.cancel()

    def upload(self, source: Path, url: str, *, replace: bool = False) -> StoredObject:
        """Store a file under a generation precondition: two writers cannot clash, and the same bytes are no clash."""
        return retrying(lambda: self._put(source, url, replace), self._settings)

    def _list(self, bucket: str, prefix: str) -> list[StoredObject]:
        try:
            blobs: Iterable[Any] = self._client.list_blobs(
                self._bucket(bucket), prefix=prefix, retry=None, timeout=self._settings.timeout
            )
            return sorted((_stored_blob(b, f"gs://{bucket}/") for b in blobs), key=lambda o: o.url)
        except Exception as error:
            raise _object_error(error) from error

    def _describe(self, transfers: Sequence[Transfer]) -> dict[str, StoredObject] | None:
        """List the folders of all objects; None where listing is not allowed."""
        known: dict[str, StoredObject] = {}
        try:
            for folder in sorted({parent_url(t.url) for t in transfers}):
                found = retrying(partial(self._list, *split_url(folder, "gs")), self._settings)
                known |= {o.url: o for o in found}
        except IncompleteError:
            return None
        return known

    def _fetch(self, transfer: Transfer) -> None:
        """Download one object; bytes of an earlier try are kept, only the rest is requested, the whole is checked."""
        bucket, name = split_url(transfer.url, "gs")
        transfer.path.parent.mkdir(parents=True, exist_ok=True)
        part = transfer.path.with_name(f".{transfer.path.name}.part.tmp")
        start = part.stat().st_size if part.exists() else 0
        if start and (transfer.size is None or start > transfer.size):
            part.unlink()
            start = 0
        blob = self._bucket(bucket).blob(name)
        if start == 0 or start != transfer.size:
            try:
                with part.open("ab") as handle:
                    blob.download_to_file(
                        handle,
                        start=start or None,
                        raw_download=True,
                        checksum=None,
                        retry=None,
                        timeout=(10, self._settings.timeout),
                    )
            except Exception as error:
                raise _object_error(error) from error
        expected = transfer if start else with_facts(transfer, _stored_blob(blob, f"gs://{bucket}/"))
        try:
            verify_file(part, expected)
        except TransientError:
            # too short is worth going on with, wrong is not
            if transfer.size is None or part.stat().st_size >= transfer.size:
                part.unlink()
            raise
        part.replace(transfer.path)

    def _put(self, source: Path, url: str, replace_: bool) -> StoredObject:
        from google.api_core.exceptions import PreconditionFailed

        bucket, name = split_url(url, "gs")
        try:
            blob = self._bucket(bucket).blob(name)
            present = self._look(bucket, name)
            if present is not None:
                there = _stored_blob(present, f"gs://{bucket}/")
                if has_bytes(there, source):
                    return there
                if not replace_:
                    raise name_taken()
            generation = 0 if present is None else present.generation
            try:
                blob.upload_from_filename(
                    str(source),
                    if_generation_match=generation,
                    checksum="crc32c",
                    content_type=content_type(source),
                    timeout=self._settings.timeout,
                    retry=None,
                )
            except PreconditionFailed:
                winner = self._look(bucket, name)
                if winner is None:
                    raise TransientError(Reason.RETRY_EXHAUSTED, "an object came and went during an upload") from None
                there = _stored_blob(winner, f"gs://{bucket}/")
                if not has_bytes(there, source):
                    raise name_taken() from None
                return there
            return _stored_blob(blob, f"gs://{bucket}/")
        except CtenrichError:
            raise
        except Exception as error:
            raise _object_error(error) from error

    def _look(self, bucket: str, name: str) -> Any:
        """What has the name, or None; the client's own retries would go on for minutes."""
        return self._bucket(bucket).get_blob(name, timeout=self._settings.timeout, retry=None)

    def _bucket(self, name: str) -> Any:
        return self._client.bucket(name, user_project=self._settings.user_project)

    def _widen_pool(self) -> None:
        from requests.adapters import HTTPAdapter

        adapter = HTTPAdapter(pool_connections=4, pool_maxsize=self._settings.parallel_objects)
        for scheme in ("https://", "http://"):
            self._client._http.mount(scheme, adapter)  # the client has no public way


def _stored_blob(blob: Any, base: str) -> StoredObject:
    md5 = base64.b64decode(blob.md5_hash).hex() if blob.md5_hash else None
    return StoredObject(base + blob.name, blob.size, md5, blob.crc32c, str(blob.generation or ""))


def _open_google_client(make: Any, **options: Any) -> Any:
    with google_errors():
        return make(**options)


def _object_error(error: Exception) -> CtenrichError:
    """The error for one object: absent or forbidden ends its series, credentials end the run, the rest is retried."""
    found = google_failure(error)
    if found.failure in {Failure.NO_CREDENTIALS, Failure.CREDENTIALS_REFUSED} and found.status is None:
        return google_error(error)
    if found.failure in _ABSENT:
        return IncompleteError(Reason.INCOMPLETE, f"an object is missing or forbidden (HTTP {found.status})")
    what = f"HTTP {found.status}" if found.status is not None else type(error).__name__
    message = f"the store did not answer as it should ({what})"
    if found.pause:
        return BusyError(Reason.RETRY_EXHAUSTED, message, pause=found.pause)
    return TransientError(Reason.RETRY_EXHAUSTED, message)
