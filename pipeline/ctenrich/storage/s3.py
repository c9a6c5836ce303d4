"""S3 through s5cmd: one manifest for many objects, every object checked against the size and ETag of the store.

Uploads go another way (`storage.s3_upload`), as s5cmd cannot send a precondition.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ctenrich.errors import CtenrichError, IncompleteError, TransientError, UsageError
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.settings import FetchSettings
from ctenrich.storage.base import BatchStorage, StoredObject, Transfer, parent_url, verify_file
from ctenrich.storage.bucket import complete_transfers, split_url
from ctenrich.storage.retry import retrying
from ctenrich.storage.s3_upload import S3Uploader
from ctenrich.tools import find_tool

__all__ = ["S3Storage"]

_GONE = re.compile(r"NoSuchKey|NoSuchBucket|NotFound|no object found|AccessDenied|Forbidden|status code: 40[34]", re.I)
_OWN_RETRIES = 1
"""s5cmd's own retries; the rounds around it count, pause and check."""


class S3Storage(BatchStorage):
    """Objects under ``s3://BUCKET/KEY``; unsigned requests by default."""

    def __init__(self, settings: FetchSettings) -> None:
        super().__init__(settings)
        self._uploader = S3Uploader(settings)
        self._command = [str(find_tool("s5cmd")), "--json", "--retry-count", str(_OWN_RETRIES)]
        self._signed = not settings.anonymous or settings.user_project is not None
        if not self._signed:
            self._command.append("--no-sign-request")
        if settings.user_project is not None:
            self._command += ["--request-payer", "requester"]
        if settings.s3_endpoint:
            self._command += ["--endpoint-url", settings.s3_endpoint]

    def list_objects(self, url: str) -> list[StoredObject]:
        """All objects below a URL that ends in ``/``, by key."""
        return retrying(lambda: self._list([_checked(url)]), self._settings)

    def download(self, transfers: Sequence[Transfer], progress: Progress = SILENT) -> None:
        """Download all objects with one s5cmd per round; the next round asks for those that are not yet whole."""
        self.download_batch(complete_transfers(transfers, self._describe(transfers)), progress)

    def download_batch(self, transfers: Sequence[Transfer], progress: Progress = SILENT) -> None:
        """Download objects of any folders by one manifest per round, without listing them first."""
        pending = list(transfers)

        def one_round() -> None:
            try:
                self._round(pending, progress)
            finally:
                pending[:] = [t for t in pending if not t.path.exists()]

        for transfer in pending:
            transfer.path.unlink(missing_ok=True)
        retrying(one_round, self._settings)

    def list_folders(self, urls: Sequence[str]) -> dict[str, list[StoredObject]]:
        """List the objects below each of many URLs by one s5cmd; a folder that cannot be read is empty."""
        found: list[StoredObject] = []
        with tempfile.TemporaryDirectory(prefix="s5cmd-") as name:
            self._run([["ls", _checked(url) + "*"] for url in urls], Path(name), found)
        found = self._with_hashes(found)
        return {url: sorted((o for o in found if o.url.startswith(url)), key=lambda o: o.url) for url in urls}

    def upload(self, source: Path, url: str, *, replace: bool = False) -> StoredObject:
        """Store a file under a precondition: two writers cannot clash, and the same bytes are no clash."""
        return self._uploader.upload(source, _checked(url), replace=replace)

    def refuses_overwriting(self, url: str) -> bool:
        """Whether the store creates an object only if it is new; tried with an object of this name, which stays."""
        return self._uploader.refuses_overwriting(_checked(url))

    def _round(self, pending: Sequence[Transfer], progress: Progress) -> None:
        failures: dict[str, str] = {}
        wrong: CtenrichError | None = None
        parent = pending[0].path.parent
        parent.mkdir(parents=True, exist_ok=True)
        for leftover in parent.glob(".s5cmd.*.tmp"):  # of a run that was killed
            shutil.rmtree(leftover)
        with tempfile.TemporaryDirectory(prefix=f".s5cmd.{os.getpid()}.", suffix=".tmp", dir=parent) as name:
            parts = [Path(name, f"{n}.part") for n in range(len(pending))]
            lines = [["cp", "--raw", t.url, str(p)] for t, p in zip(pending, parts, strict=True)]
            failures = self._run(lines, Path(name))
            for transfer, part in zip(pending, parts, strict=True):
                if not part.exists():
                    continue
                try:
                    verify_file(part, transfer)
                except TransientError as error:
                    wrong = error
                    continue
                transfer.path.parent.mkdir(parents=True, exist_ok=True)
                part.replace(transfer.path)
                progress.advance("fetch")
        if wrong is not None:
            raise wrong
        if not all(t.path.exists() for t in pending):
            _raise_first(failures)
            raise TransientError(Reason.RETRY_EXHAUSTED, "s5cmd did not download all objects")

    def _with_hashes(self, found: Sequence[StoredObject]) -> list[StoredObject]:
        """Take an ETag for an MD5 unless the first object of the folder is encrypted by KMS.

        A listing does not state encryption, and objects that are read without an account are never encrypted.
        """
        if not self._signed:
            return list(found)
        first = {parent_url(o.url): o.url for o in reversed(found) if o.md5 is not None}
        told = {folder: self._uploader.etag_is_md5(url) for folder, url in first.items()}
        return [o if told.get(parent_url(o.url), True) else replace(o, md5=None) for o in found]

    def _list(self, urls: Sequence[str]) -> list[StoredObject]:
        """Objects below prefixes; IncompleteError where a prefix holds none."""
        found: list[StoredObject] = []
        with tempfile.TemporaryDirectory(prefix="s5cmd-") as name:
            _raise_first(self._run([["ls", url + "*"] for url in urls], Path(name), found))
        return self._with_hashes(sorted(found, key=lambda o: o.url))

    def _describe(self, transfers: Sequence[Transfer]) -> dict[str, StoredObject] | None:
        """List the folders of all objects; None where listing is not allowed."""
        folders = sorted({parent_url(_checked(t.url)) for t in transfers})
        try:
            return {o.url: o for o in retrying(lambda: self._list(folders), self._settings)}
        except IncompleteError:
            return None

    def _run(
        self, lines: Sequence[Sequence[str]], folder: Path, found: list[StoredObject] | None = None
    ) -> dict[str, str]:
        """Run one manifest; what failed, by command line. Stopped when nothing moves for `timeout` seconds."""
        workers = str(max(1, self._settings.parallel_objects))
        with tempfile.TemporaryDirectory(prefix="s5cmd-") as name:
            manifest, out, err = (Path(name, n) for n in ("manifest", "out", "err"))
            manifest.write_text("".join(shlex.join(line) + "\n" for line in lines))
            command = [*self._command, "--numworkers", workers, "run", str(manifest)]
            with out.open("wb") as stdout, err.open("wb") as stderr:
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
                self._watch(process, [folder, Path(name)])
            if found is not None:
                found += [_listed_object(m) for m in _messages(out) if m.get("key") and m.get("type") == "file"]
            failures = {str(m.get("command", m.get("job"))): str(m["error"]) for m in _messages(err) if m.get("error")}
            if process.returncode != 0 and not failures:
                raise TransientError(Reason.RETRY_EXHAUSTED, f"s5cmd ended with exit code {process.returncode}")
            return failures

    def _watch(self, process: subprocess.Popen[bytes], folders: Sequence[Path]) -> None:
        seen, since = -1, time.monotonic()
        while True:
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                size = sum(_size(p) for folder in folders for p in folder.iterdir())
                if size != seen:
                    seen, since = size, time.monotonic()
                elif time.monotonic() - since > self._settings.timeout:
                    process.kill()
                    process.wait()
                    message = f"nothing arrived for {self._settings.timeout:g} s"
                    raise TransientError(Reason.RETRY_EXHAUSTED, message) from None
            else:
                return


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _checked(url: str) -> str:
    """The URL, if it can be a line of s5cmd's manifest."""
    if any(c in url for c in "*?\n\r\0"):
        raise UsageError(Reason.BAD_PARAMETER, "an S3 URL has the form s3://BUCKET/KEY, without wildcards")
    split_url(url, "s3")
    return url


def _messages(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(errors="replace").splitlines():
        try:
            message = json.loads(line)
        except json.JSONDecodeError:
            message = {"error": line}
        if isinstance(message, dict):
            yield message


def _listed_object(message: dict[str, Any]) -> StoredObject:
    etag = str(message.get("etag", "")).strip('"')
    md5 = etag if re.fullmatch(r"[0-9a-f]{32}", etag) else None
    return StoredObject(str(message["key"]), int(message.get("size", 0)), md5, version=etag)


def _raise_first(failures: dict[str, str]) -> None:
    if not failures:
        return
    gone = [f for f in failures.values() if _GONE.search(f)]
    if gone:
        message = f"{len(gone)} objects are missing or forbidden"
        raise IncompleteError(Reason.INCOMPLETE, message)
    first = next(iter(failures.values()))
    kind = re.search(r"\b([A-Z][A-Za-z]+(?:Error|Down|Timeout|Exceeded)|connection \w+|EOF|status code: \d+)", first)
    what = kind.group(1) if kind else "unknown error"
    raise TransientError(Reason.RETRY_EXHAUSTED, f"the store did not answer as it should ({what})")
