"""Send a run's objects to a bucket, a DICOMweb store or a DICOM node, with a log by which it resumes."""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import SplitResult, urlsplit

from ctenrich.errors import TransientError, UsageError, did_you_mean
from ctenrich.progress import SILENT, Progress
from ctenrich.publish.privacy import check_identity_removed
from ctenrich.reasons import Reason
from ctenrich.review.store import ReviewStore
from ctenrich.series_store import SeriesStore
from ctenrich.settings import Settings
from ctenrich.storage import is_storage_url, open_storage
from ctenrich.storage.google import google_errors
from ctenrich.workspace import Workspace, sha256_of_file

__all__ = [
    "Sent",
    "bearer_of",
    "files_of",
    "node_of",
    "publish_bucket",
    "publish_dicomweb",
    "publish_node",
    "publish_to",
    "read_log",
]

_AT_ONCE = 8
"""Objects on their way to a store."""
_HOPELESS = {Reason.NO_CREDENTIALS, Reason.MISSING_EXTRA}
"""What no object of the run would escape."""
_GIVE_UP = 10
"""Failures in a row after which the rest is not tried."""
_KNOWN_TARGETS = (
    "bigquery:PROJECT.DATASET, gs://BUCKET/PREFIX, s3://BUCKET/PREFIX, http(s)://..., dicom://HOST:PORT/AET"
)
_HEALTHCARE = "healthcare.googleapis.com"
_SCOPE = "https://www.googleapis.com/auth/cloud-healthcare"


@dataclass(frozen=True)
class Sent:
    """Outcome of one object."""

    name: str
    """SOP Instance UID."""
    sha256: str
    status: str
    """``sent``, ``already there`` or ``failed``."""
    detail: str = ""


# ---------------------------------------------------------------- objects


def publish_to(
    workspace: Workspace,
    target: str,
    *,
    settings: Settings | None = None,
    identified: bool = False,
    accepted_only: bool = False,
    progress: Progress = SILENT,
) -> tuple[Sent, ...]:
    """Send the written objects to a bucket, a DICOMweb store or a DICOM node, by the form of the target.

    A bearer token for the DICOMweb store is taken from the variable CTENRICH_DICOMWEB_TOKEN; Google Healthcare gets one
    from the Google credentials of this machine where the variable is not set.

    Parameters
    ----------
    workspace : Workspace
        The run.
    target : str
        ``gs://`` or ``s3://BUCKET/PREFIX`` (or a registered storage), a DICOMweb root, or ``dicom://HOST:PORT/AET``.
    settings : Settings, optional
        How buckets are reached.
    identified : bool
        Whether patients who can be identified may go to a bucket or to Google Healthcare; a PACS is not asked about.
    accepted_only : bool
        Whether only objects of products are sent that reviewers have accepted.
    progress : Progress
        Advanced by one for every object.

    Returns
    -------
    tuple of Sent
        Outcome of every object.

    Raises
    ------
    UsageError
        BAD_PARAMETER for another target; NOT_PREPARED; NOT_ACCEPTED if no product is accepted; and as the function for
        the target.
    TransientError
        RETRY_EXHAUSTED if some objects failed.
    """
    parts = _parts_of(target)
    if parts.scheme in ("http", "https"):
        if parts.hostname == _HEALTHCARE:
            check_identity_removed(workspace, identified=identified)
        token = os.environ.get("CTENRICH_DICOMWEB_TOKEN", "")
        return publish_dicomweb(workspace, target, token=token, accepted_only=accepted_only, progress=progress)
    if parts.scheme == "dicom":
        host, port, called = node_of(target)
        return publish_node(workspace, (host, port), called, accepted_only=accepted_only, progress=progress)
    if parts.netloc and is_storage_url(target):
        return publish_bucket(
            workspace,
            target,
            settings=settings,
            identified=identified,
            accepted_only=accepted_only,
            progress=progress,
        )
    hint = did_you_mean(parts.scheme, ("gs", "s3", "http", "https", "dicom", "bigquery"), f"use {_KNOWN_TARGETS}")
    raise UsageError(Reason.BAD_PARAMETER, f"the target {target} is not known", hint)


def _parts_of(target: str) -> SplitResult:
    try:
        parts = urlsplit(target)
        _ = parts.port  # raises for a port that is no number
    except ValueError as error:
        raise UsageError(Reason.BAD_PARAMETER, f"{target} is not an address: {error}", _KNOWN_TARGETS) from None
    return parts


def node_of(target: str) -> tuple[str, int, str]:
    """Host, port and application entity title of ``dicom://HOST:PORT/AET``.

    Raises
    ------
    UsageError
        BAD_PARAMETER where one of them is missing.
    """
    parts = _parts_of(target)
    title = parts.path.strip("/")
    if parts.scheme != "dicom" or not parts.hostname or not parts.port or not title:
        message = f"the target {target} is not known"
        raise UsageError(Reason.BAD_PARAMETER, message, "a DICOM node is dicom://HOST:PORT/AET")
    return parts.hostname, parts.port, title


def publish_bucket(
    workspace: Workspace,
    url: str,
    *,
    settings: Settings | None = None,
    identified: bool = False,
    accepted_only: bool = False,
    progress: Progress = SILENT,
) -> tuple[Sent, ...]:
    """Upload the written objects as ``series/.../objects/*.dcm`` below ``gs://BUCKET/PREFIX`` or ``s3://...``.

    An object that is there with the same bytes is not sent again; other bytes of an earlier run are replaced. The
    credentials are those of this machine.

    Parameters
    ----------
    workspace : Workspace
        The run.
    url : str
        ``gs://BUCKET/PREFIX``, ``s3://BUCKET/PREFIX``, or a URL of another registered storage.
    settings : Settings, optional
        How the bucket is reached.
    identified : bool
        Whether patients may be among them who can be identified.
    accepted_only : bool
        Whether only objects of products are sent that reviewers have accepted.
    progress : Progress
        Advanced by one for every object.

    Returns
    -------
    tuple of Sent
        Outcome of every object.

    Raises
    ------
    UsageError
        MISSING_EXTRA, NO_CREDENTIALS.
    TransientError
        RETRY_EXHAUSTED if some objects failed; the log says which, and a second call sends only those.
    """
    check_identity_removed(workspace, identified=identified)
    storage = open_storage(url, replace((settings or Settings()).fetch, anonymous=False))

    def send(path: Path) -> str:
        place = path.relative_to(workspace.root).as_posix()
        storage.upload(path, f"{url.rstrip('/')}/{place}", replace=True)
        return ""

    return _send_all(workspace, files_of(workspace, accepted_only=accepted_only), _Route(url, send, _AT_ONCE), progress)


def publish_dicomweb(
    workspace: Workspace,
    url: str,
    *,
    token: str = "",
    at_once: int = _AT_ONCE,
    accepted_only: bool = False,
    progress: Progress = SILENT,
) -> tuple[Sent, ...]:
    """Send the written objects to a DICOMweb store (STOW-RS, PS3.18 section 10.5): Orthanc, Google Healthcare.

    Parameters
    ----------
    workspace : Workspace
        The run.
    url : str
        Root of the store, e.g. ``http://127.0.0.1:8042/dicom-web``; http or https.
    token : str
        Bearer token, if the store requires one; for Google Healthcare one is made with this machine's credentials.
    at_once : int
        Requests in parallel.
    accepted_only : bool
        Whether only objects of products are sent that reviewers have accepted.
    progress : Progress
        Receives one step per object.

    Returns
    -------
    tuple of Sent
        Outcome of every object.

    Raises
    ------
    UsageError
        BAD_PARAMETER; NO_CREDENTIALS for Google Healthcare.
    TransientError
        RETRY_EXHAUSTED if some objects failed; the log says which and why, and a second call sends only those.
    """
    if not re.match(r"https?://", url):
        raise UsageError(Reason.BAD_PARAMETER, "a DICOMweb store has an http or https address")
    bearer = bearer_of(url, token)

    def send(path: Path) -> str:
        boundary = "ctenrich-boundary"
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = head + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Accept": "application/dicom+json",
        }
        if now := bearer():
            headers["Authorization"] = f"Bearer {now}"
        request = urllib.request.Request(f"{url.rstrip('/')}/studies", body, headers, method="POST")  # noqa: S310 - checked above
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310 - as above
                return _refused(answer.read())
        except urllib.error.HTTPError as error:
            return f"{type(error).__name__}: {error.code} {error.reason} {_refused(error.read())}".strip()

    return _send_all(workspace, files_of(workspace, accepted_only=accepted_only), _Route(url, send, at_once), progress)


def _refused(body: bytes) -> str:
    """Failure reason in a STOW-RS answer (Failed SOP Sequence, 0008,1198; PS3.18 section 10.5.3); empty without one."""
    try:
        answer = json.loads(body or b"{}")
        failed = answer["00081198"]["Value"][0]
    except (ValueError, TypeError, KeyError, IndexError):
        return ""
    return f"refused with reason {failed.get('00081197', {}).get('Value', ['unknown'])[0]}"


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
    if token or (parts.scheme, parts.hostname) != ("https", _HEALTHCARE):
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


def publish_node(
    workspace: Workspace,
    address: tuple[str, int],
    called: str,
    *,
    calling: str = "CTENRICH",
    accepted_only: bool = False,
    progress: Progress = SILENT,
) -> tuple[Sent, ...]:
    """Send the written objects to a DICOM node with C-STORE (PS3.4 annex B), in one association.

    Parameters
    ----------
    workspace : Workspace
        The run.
    address : (str, int)
        Name or address of the node, and its port.
    called, calling : str
        Application entity titles of the node and of this side.
    accepted_only : bool
        Whether only objects of products are sent that reviewers have accepted.
    progress : Progress
        Advanced by one for every object.

    Returns
    -------
    tuple of Sent
        Outcome of every object.

    Raises
    ------
    UsageError
        MISSING_EXTRA, NOT_PREPARED.
    TransientError
        RETRY_EXHAUSTED: the association was not accepted, or some objects failed.
    """
    try:
        from pynetdicom import AE
    except ImportError:
        raise UsageError(Reason.MISSING_EXTRA, "C-STORE needs pynetdicom", "pip install 'ctenrich[pacs]'") from None
    import pydicom

    host, port = address
    files = files_of(workspace, accepted_only=accepted_only)
    entity = AE(ae_title=calling)
    for name, syntax in _contexts(files):
        entity.add_requested_context(name, syntax)
    association = entity.associate(host, port, ae_title=called)
    if not association.is_established:
        message = f"the node {called} at {host}:{port} did not accept the association"
        raise TransientError(Reason.RETRY_EXHAUSTED, message, "check address, port and application entity titles")

    def send(path: Path) -> str:
        status = association.send_c_store(pydicom.dcmread(path))
        code = getattr(status, "Status", None)
        return "" if code == 0 else f"status {code:04X}" if code is not None else "no answer"

    try:
        return _send_all(workspace, files, _Route(f"dicom://{host}:{port}/{called}", send, 1), progress)
    finally:
        association.release()


def _contexts(files: Sequence[Path]) -> list[tuple[str, str]]:
    """SOP classes of the objects with the transfer syntax that they are written in: nothing is converted."""
    import pydicom

    read = (pydicom.dcmread(p, specific_tags=["SOPClassUID"], stop_before_pixels=True) for p in files)
    return sorted({(str(data.SOPClassUID), str(data.file_meta.TransferSyntaxUID)) for data in read})


def files_of(workspace: Workspace, *, accepted_only: bool = False) -> list[Path]:
    """List the written objects of a run.

    Parameters
    ----------
    workspace : Workspace
        The run.
    accepted_only : bool
        Whether only objects of products are listed that reviewers have accepted.

    Returns
    -------
    list of Path

    Raises
    ------
    UsageError
        NOT_PREPARED if there are none, NOT_ACCEPTED if there are, but none is accepted.
    """
    found = sorted((workspace.root / "series").glob("*/*/objects/*.dcm"))
    if not found:
        raise UsageError(Reason.NOT_PREPARED, "the run has no objects to publish", "run it first")
    if not accepted_only:
        return found
    accepted = ReviewStore(workspace).accepted()
    store = SeriesStore(workspace)
    folders = {
        store.folder(uid, p)
        for uid in {u for u, _ in accepted}
        for p in store.products(uid)
        if (uid, str(p)) in accepted
    }
    kept = [path for path in found if path.parents[1] in folders]
    if not kept:
        hint = "review the products in the report, then: ctenrich review import RUN FILE"
        raise UsageError(Reason.NOT_ACCEPTED, "no reviewer has accepted a product of the run", hint)
    return kept


class _Route(NamedTuple):
    """Where objects are sent, and how."""

    target: str
    send: Callable[[Path], str]
    at_once: int


def _send_all(workspace: Workspace, files: Sequence[Path], route: _Route, progress: Progress) -> tuple[Sent, ...]:
    """Send every object that the log does not hold as sent, some at once; the log gets their lines in order."""
    target, send, at_once = route
    sending = _Sending(send, frozenset((s.name, s.sha256) for s in read_log(workspace, target) if s.status != "failed"))
    out: list[Sent] = []
    progress.start("publish", len(files))
    with _open_log(workspace, target) as log, ThreadPoolExecutor(at_once) as pool:
        try:
            for sent in pool.map(sending, files):
                out.append(sent)
                log.write(json.dumps(asdict(sent)) + "\n")
                log.flush()
                progress.advance("publish")
        finally:
            pool.shutdown(cancel_futures=True)
    progress.finish("publish")
    failed = [s for s in out if s.status == "failed"]
    if failed:
        message = f"{len(failed)} of {len(out)} objects could not be sent to {_place(target)}: {failed[0].detail}"
        raise TransientError(Reason.RETRY_EXHAUSTED, message, "publish again: what was sent is not sent twice")
    return tuple(out)


def _place(target: str) -> str:
    """Host, or bucket, of a target: without a user name or password that the address may hold."""
    parts = urlsplit(target)
    return parts.hostname or parts.scheme or target


class _Sending:
    """Sends one object after the other until too many in a row have failed; for several threads.

    Parameters
    ----------
    send : function
        Sends a file; returns what went wrong, or nothing.
    done : set of (SOP Instance UID, SHA-256)
        What is not sent again.
    """

    def __init__(self, send: Callable[[Path], str], done: frozenset[tuple[str, str]]) -> None:
        self._send, self._done = send, done
        self._in_a_row = 0

    def __call__(self, path: Path) -> Sent:
        import pydicom

        uid = str(pydicom.dcmread(path, specific_tags=["SOPInstanceUID"], stop_before_pixels=True).SOPInstanceUID)
        digest = sha256_of_file(path)
        if (uid, digest) in self._done:
            return Sent(uid, digest, "already there")
        if self._in_a_row >= _GIVE_UP:
            return Sent(uid, digest, "failed", "not tried: the store had failed too often")
        try:
            problem = self._send(path)
        except Exception as error:  # any client's error ends this object only, and is logged
            if isinstance(error, UsageError) and error.reason in _HOPELESS:
                raise
            problem = f"{type(error).__name__}: {str(error)[:200]}"
        self._in_a_row = self._in_a_row + 1 if problem else 0
        return Sent(uid, digest, "failed" if problem else "sent", problem)


def _log_path(workspace: Workspace, target: str) -> Path:
    return workspace.root / "publish" / f"{re.sub(r'[^A-Za-z0-9]+', '_', target).strip('_')}.jsonl"


def _open_log(workspace: Workspace, target: str) -> IO[str]:
    path = _log_path(workspace, target)
    path.parent.mkdir(parents=True, exist_ok=True)
    log = path.open("a", encoding="utf-8")
    if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
        log.write("\n")  # ends the line that a killed process was writing
    return log


def read_log(workspace: Workspace, target: str) -> tuple[Sent, ...]:
    """Read the log of the publications to one target.

    Parameters
    ----------
    workspace : Workspace
        The run.
    target : str
        Address, as it was published to.

    Returns
    -------
    tuple of Sent
        The last outcome of each object.
    """
    path = _log_path(workspace, target)
    last: dict[str, Sent] = {}
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        try:
            row = Sent(**json.loads(line))
        except (ValueError, TypeError):
            continue  # the line that a killed process was writing
        last[row.name] = row
    return tuple(last.values())
