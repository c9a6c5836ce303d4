"""Send the files of a publication one after the other or some at once, with a line of the log for each."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID

from ctenrich import __version__
from ctenrich.encode.files import file_meta_bytes
from ctenrich.errors import CtenrichError, InputError, TransientError, UsageError, count
from ctenrich.progress import SILENT, Progress
from ctenrich.publish.content import Publication, PublishedFile
from ctenrich.publish.log import Sent, log_folder, open_log, read_log
from ctenrich.reasons import Reason
from ctenrich.uids import derive_uid
from ctenrich.workspace import sha256_of_file

__all__ = ["Answer", "Route", "part10_file", "part10_header", "send_all"]

_HOPELESS = {Reason.NO_CREDENTIALS, Reason.MISSING_EXTRA}
"""What no object of the publication would escape."""
_GIVE_UP = 10
"""Failures in a row after which the rest is not tried."""
_SAME_NEXT_TIME = frozenset({Reason.CONFLICTING_DUPLICATE, Reason.CHECKSUM, Reason.TRANSFER_SYNTAX_REFUSED})
"""Failures that sending again does not help against."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Answer of a receiver about one object."""

    reason: Reason | None = None
    """Why it does not have the object; None: it has it."""
    detail: str = ""
    status: int | None = None
    """Status of C-STORE (PS3.4 table B.2-1), failure or warning reason of STOW-RS, or status of HTTP."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """Where files are sent, and how."""

    target: str
    send: Callable[[PublishedFile], Answer]
    at_once: int = 1


def send_all(publication: Publication, route: Route, progress: Progress = SILENT) -> tuple[Sent, ...]:
    """Send every file that the log does not hold as sent, some at once; the log gets their lines in order.

    Parameters
    ----------
    publication : Publication
    route : Route
    progress : Progress
        Advanced by one for every object.

    Returns
    -------
    tuple of Sent
        Outcome of every file and of what cannot be sent.

    Raises
    ------
    InputError
        The reason of the failures, where there is one reason that sending again does not help against.
    TransientError
        RETRY_EXHAUSTED if objects failed for other reasons.
    """
    done = {(s.name, s.sha256) for s in read_log(publication.source, route.target) if s.status != "failed"}
    sending = _Sending(route.send, frozenset(done))
    out: list[Sent] = []
    progress.start("publish", len(publication.files))
    with _log(publication, route.target) as write, ThreadPoolExecutor(route.at_once) as pool:
        for one in publication.unavailable:
            row = Sent(one.name, "", "failed", one.detail, one.reason.value, one.modality, one.series_instance_uid)
            out.append(row)
            write(row)
        try:
            for sent in pool.map(sending, publication.files):
                out.append(sent)
                write(sent)
                progress.advance("publish")
        finally:
            pool.shutdown(cancel_futures=True)
    progress.finish("publish")
    _raise_failures(out, route.target)
    return tuple(out)


@contextmanager
def _log(publication: Publication, target: str) -> Iterator[Callable[[Sent], None]]:
    with open_log(log_folder(publication.source), target) as log:

        def write(row: Sent) -> None:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            log.write(json.dumps({**asdict(row), "time": now}) + "\n")
            log.flush()

        yield write


def _raise_failures(rows: list[Sent], target: str) -> None:
    failed = [row for row in rows if row.status == "failed"]
    if not failed:
        return
    reasons = Counter(row.reason for row in failed)
    listed = ", ".join(f"{reason} {number}" for reason, number in reasons.most_common())
    message = f"{len(failed)} of {count(len(rows), 'object')} could not be sent to {_place(target)}: {failed[0].detail}"
    if len(reasons) == 1 and Reason(failed[0].reason) in _SAME_NEXT_TIME:
        raise InputError(Reason(failed[0].reason), message, "what was sent is not sent twice")
    hint = "publish again: what was sent is not sent twice"
    raise TransientError(Reason.RETRY_EXHAUSTED, message, hint if len(reasons) == 1 else f"{listed}; {hint}")


def _place(target: str) -> str:
    """Host, or bucket, of a target: without a user name or password that the address may hold."""
    parts = urlsplit(target)
    return parts.hostname or parts.scheme or target


class _Sending:
    """Sends one file after the other until too many in a row have failed; for several threads.

    Parameters
    ----------
    send : function
        Sends a file.
    done : set of (SOP Instance UID, SHA-256)
        What is not sent again.
    """

    def __init__(self, send: Callable[[PublishedFile], Answer], done: frozenset[tuple[str, str]]) -> None:
        self._send, self._done = send, done
        self._in_a_row = 0

    def __call__(self, file: PublishedFile) -> Sent:
        digest = ""
        try:
            digest = sha256_of_file(file.path)
            if file.sha256 and digest != file.sha256:
                answer = Answer(reason=Reason.CHECKSUM, detail="the file has changed since the run read it: not sent")
            elif (file.sop_instance_uid, digest) in self._done:
                return _row(file, digest, "already there")
            elif self._in_a_row >= _GIVE_UP:
                detail = "not tried: the store had failed too often"
                return _row(file, digest, "failed", Answer(reason=Reason.RETRY_EXHAUSTED, detail=detail))
            else:
                answer = self._send(file)
        except Exception as error:  # any client's error ends this object only, and is logged
            if isinstance(error, UsageError) and error.reason in _HOPELESS:
                raise
            reason = error.reason if isinstance(error, CtenrichError) else Reason.RETRY_EXHAUSTED
            answer = Answer(reason=reason, detail=f"{type(error).__name__}: {str(error)[:200]}")
        if answer.reason not in _SAME_NEXT_TIME:
            self._in_a_row = self._in_a_row + 1 if answer.reason else 0
        return _row(file, digest, "failed" if answer.reason else "sent", answer)


def _row(file: PublishedFile, digest: str, status: str, answer: Answer = Answer()) -> Sent:
    reason = answer.reason.value if answer.reason else ""
    series = file.series_instance_uid
    return Sent(file.sop_instance_uid, digest, status, answer.detail, reason, file.modality, series)


def part10_header(file: PublishedFile) -> bytes:
    """Preamble and file meta information (PS3.10 7.1) of a file whose own are missing or wrong.

    The data set that follows is the file's, byte for byte.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(file.sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(file.sop_instance_uid)
    meta.TransferSyntaxUID = UID(file.transfer_syntax)
    meta.ImplementationClassUID = UID(derive_uid("implementation", "ctenrich", __version__))
    meta.ImplementationVersionName = f"CTENRICH_{__version__}"[:16]
    return file_meta_bytes(meta)


@contextmanager
def part10_file(file: PublishedFile) -> Iterator[Path]:
    """The path of a file with right file meta information: its own, or a temporary copy."""
    if not file.restated:
        yield file.path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "object.dcm")
        with file.path.open("rb") as source, copy.open("wb") as out:
            source.seek(file.data_start)
            out.write(part10_header(file))
            while part := source.read(1 << 20):
                out.write(part)
        yield copy
