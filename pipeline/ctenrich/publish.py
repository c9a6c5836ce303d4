"""Bring a run's objects to a bucket, a DICOMweb store or a DICOM node: a log for every object, and resume."""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ctenrich.errors import TransientError, UsageError
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.workspace import Workspace, sha256_of_file, write_bytes

__all__ = [
    "Sent",
    "google_errors",
    "publish_bucket",
    "publish_dicomweb",
    "publish_node",
    "publish_to",
    "read_log",
]


@dataclass(frozen=True)
class Sent:
    """How one object fared."""

    name: str
    """SOP Instance UID."""
    sha256: str
    status: str
    """``sent``, ``already there`` or ``failed``."""
    detail: str = ""


# ---------------------------------------------------------------- objects


def publish_to(workspace: Workspace, target: str, *, progress: Progress = SILENT) -> tuple[Sent, ...]:
    """Send the written objects to ``gs://BUCKET/PREFIX``, a DICOMweb root or ``dicom://HOST:PORT/AET``.

    A bearer token for the DICOMweb store is taken from the variable CTENRICH_DICOMWEB_TOKEN.
    """
    parts = urlsplit(target)
    if parts.scheme == "gs" and parts.netloc:
        return publish_bucket(workspace, parts.netloc, prefix=parts.path, progress=progress)
    if parts.scheme in ("http", "https"):
        token = os.environ.get("CTENRICH_DICOMWEB_TOKEN", "")
        return publish_dicomweb(workspace, target, token=token, progress=progress)
    if parts.scheme == "dicom" and parts.hostname and parts.port and parts.path.strip("/"):
        return publish_node(workspace, parts.hostname, parts.port, parts.path.strip("/"), progress=progress)
    raise UsageError(
        Reason.BAD_PARAMETER, "the target is not known", "gs://BUCKET/PREFIX, http(s)://..., dicom://HOST:PORT/AET"
    )


def publish_bucket(
    workspace: Workspace, bucket: str, *, prefix: str = "", client: Any = None, progress: Progress = SILENT
) -> tuple[Sent, ...]:
    """Upload the written objects to a Google Cloud Storage bucket as ``PREFIX/series/.../objects/*.dcm``.

    An object that is there with the same CRC32C is not sent again.

    Raises
    ------
    UsageError
        MISSING_EXTRA, NO_CREDENTIALS.
    TransientError
        RETRY_EXHAUSTED if some objects failed; the log says which, and a second call sends only those.
    """
    with google_errors():
        store = (client or _storage_client()).bucket(bucket)

    def send(path: Path) -> str:
        from google.cloud.storage.retry import DEFAULT_RETRY

        blob = store.blob(f"{prefix.strip('/')}/{path.relative_to(workspace.root).as_posix()}".lstrip("/"))
        blob.upload_from_filename(path, content_type="application/dicom", checksum="crc32c", retry=DEFAULT_RETRY)
        return ""

    return _send_all(workspace, f"gs://{bucket}/{prefix}", send, progress)


def publish_dicomweb(
    workspace: Workspace, url: str, *, token: str = "", progress: Progress = SILENT
) -> tuple[Sent, ...]:
    """Send the written objects to a DICOMweb store (STOW-RS, PS3.18 section 10.5): Orthanc, Google Healthcare.

    Parameters
    ----------
    url : str
        Root of the store, e.g. ``http://127.0.0.1:8042/dicom-web``; http or https.
    token : str
        Bearer token, if the store wants one.
    """
    if not re.match(r"https?://", url):
        raise UsageError(Reason.BAD_PARAMETER, "a DICOMweb store has an http or https address")

    def send(path: Path) -> str:
        boundary = "ctenrich-boundary"
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = head + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Accept": "application/dicom+json",
        }
        if token:
            headers["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(f"{url.rstrip('/')}/studies", body, headers, method="POST")  # noqa: S310
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
            return _refused(json.loads(answer.read() or b"{}"))

    return _send_all(workspace, url, send, progress)


def _refused(answer: Any) -> str:
    """Failure reason of a STOW-RS answer (Failed SOP Sequence, 0008,1198); empty if all was stored."""
    failed = answer.get("00081198", {}).get("Value") if isinstance(answer, dict) else None
    if not failed:
        return ""
    return f"refused with reason {failed[0].get('00081197', {}).get('Value', ['unknown'])[0]}"


def publish_node(
    workspace: Workspace, host: str, port: int, called: str, *, calling: str = "CTENRICH", progress: Progress = SILENT
) -> tuple[Sent, ...]:
    """Send the written objects to a DICOM node with C-STORE (PS3.4 annex B), one association for all.

    Parameters
    ----------
    called, calling : str
        Application entity titles of the node and of this side.
    """
    try:
        from pynetdicom import AE
    except ImportError:
        raise UsageError(Reason.MISSING_EXTRA, "C-STORE needs pynetdicom", "pip install 'ctenrich[pacs]'") from None
    import pydicom

    entity = AE(ae_title=calling)
    for name in _sop_classes(workspace):
        entity.add_requested_context(name)
    association = entity.associate(host, port, ae_title=called)
    if not association.is_established:
        raise TransientError(Reason.RETRY_EXHAUSTED, f"the node {called} did not accept the association")

    def send(path: Path) -> str:
        status = association.send_c_store(pydicom.dcmread(path))
        code = getattr(status, "Status", None)
        return "" if code == 0 else f"status {code:04X}" if code is not None else "no answer"

    try:
        return _send_all(workspace, f"dicom://{host}:{port}/{called}", send, progress)
    finally:
        association.release()


def _sop_classes(workspace: Workspace) -> list[str]:
    import pydicom

    read = (pydicom.dcmread(p, specific_tags=["SOPClassUID"], stop_before_pixels=True) for p in _files(workspace))
    return sorted({str(data.SOPClassUID) for data in read})


def _files(workspace: Workspace) -> list[Path]:
    found = sorted((workspace.root / "series").glob("*/*/objects/*.dcm"))
    if not found:
        raise UsageError(Reason.NOT_PREPARED, "the run has no objects to publish", "run it first")
    return found


def _send_all(workspace: Workspace, target: str, send: Callable[[Path], str], progress: Progress) -> tuple[Sent, ...]:
    """Send every object that the log does not hold as sent, and write the log after each."""
    import pydicom

    files = _files(workspace)
    done = {(s.name, s.sha256) for s in read_log(workspace, target) if s.status != "failed"}
    out: list[Sent] = []
    progress.start("publish", len(files))
    for path in files:
        uid = str(pydicom.dcmread(path, specific_tags=["SOPInstanceUID"], stop_before_pixels=True).SOPInstanceUID)
        digest = sha256_of_file(path)
        if (uid, digest) in done:
            out.append(Sent(uid, digest, "already there"))
        else:
            out.append(_send_one(path, uid, digest, send))
            _write_log(workspace, target, out)
        progress.advance("publish")
    _write_log(workspace, target, out)
    progress.finish("publish")
    failed = [s for s in out if s.status == "failed"]
    if failed:
        message = f"{len(failed)} of {len(out)} objects could not be sent: {failed[0].detail}"
        raise TransientError(Reason.RETRY_EXHAUSTED, message, "publish again: what was sent is not sent twice")
    return tuple(out)


def _send_one(path: Path, uid: str, digest: str, send: Callable[[Path], str]) -> Sent:
    try:
        problem = send(path)
    except Exception as error:  # noqa: BLE001 - any client's error ends this object only, and is logged
        problem = f"{type(error).__name__}: {str(error)[:200]}"
    return Sent(uid, digest, "failed" if problem else "sent", problem)


def _log_path(workspace: Workspace, target: str) -> Path:
    return workspace.root / "publish" / f"{re.sub(r'[^A-Za-z0-9]+', '_', target).strip('_')}.json"


def read_log(workspace: Workspace, target: str) -> tuple[Sent, ...]:
    """What the last publication to a target did, object by object."""
    path = _log_path(workspace, target)
    return tuple(Sent(**row) for row in json.loads(path.read_bytes())) if path.is_file() else ()


def _write_log(workspace: Workspace, target: str, sent: Sequence[Sent]) -> None:
    rows = [{"name": s.name, "sha256": s.sha256, "status": s.status, "detail": s.detail} for s in sent]
    write_bytes(_log_path(workspace, target), json.dumps(rows, indent=1).encode())


# ---------------------------------------------------------------- clients


def _storage_client() -> Any:
    from importlib import import_module

    storage: Any = import_module("google.cloud.storage")
    return storage.Client()


@contextmanager
def google_errors() -> Iterator[None]:
    """Google's errors as ours."""
    try:
        from google.api_core import exceptions
        from google.auth.exceptions import DefaultCredentialsError
    except ImportError:
        raise UsageError(
            Reason.MISSING_EXTRA, "Google's clients are missing", "pip install 'ctenrich[cloud]'"
        ) from None
    try:
        yield
    except DefaultCredentialsError:
        hint = "gcloud auth application-default login"
        raise UsageError(Reason.NO_CREDENTIALS, "no Google credentials were found", hint) from None
    except (exceptions.TooManyRequests, exceptions.ServiceUnavailable) as error:
        raise TransientError(Reason.RETRY_EXHAUSTED, f"Google's service refused for now: {error.message}") from None
    except exceptions.Forbidden as error:
        if "quota" in str(error.message).lower():
            raise TransientError(Reason.RETRY_EXHAUSTED, f"a quota is used up: {error.message}") from None
        raise UsageError(Reason.NO_CREDENTIALS, f"not allowed: {error.message}") from None
