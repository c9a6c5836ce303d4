"""Read back what was published and compare it with the run's objects."""

from __future__ import annotations

import hashlib
import os
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

from ctenrich.archives.multipart import first_part_of
from ctenrich.archives.web import bearer_of
from ctenrich.errors import CtenrichError, UsageError
from ctenrich.progress import SILENT, Progress
from ctenrich.publish.content import PublishedFile, gather
from ctenrich.publish.log import read_log
from ctenrich.publish.node import NodeObject, ask_node
from ctenrich.publish.options import Node, PublishOptions, node_of
from ctenrich.reasons import Reason
from ctenrich.settings import Settings
from ctenrich.storage import is_storage_url, open_storage
from ctenrich.storage.base import Transfer
from ctenrich.workspace import Workspace, sha256_of_file

__all__ = ["Verified", "verify_published"]


@dataclass(frozen=True, kw_only=True)
class Verified:
    """Outcome of one object."""

    name: str
    """Name of the object at the target."""
    status: str
    """``equal``, ``differs``, ``missing``, ``failed`` (it could not be read) or ``not sent`` (by the log).

    From a DICOM node: ``committed`` or ``listed``, see :class:`ctenrich.publish.node.Held`; bytes are not compared."""
    detail: str = ""

    @property
    def good(self) -> bool:
        """Whether the target has the object, as far as it can be asked."""
        return self.status in ("equal", "committed", "listed")


def verify_published(
    source: Workspace | Path,
    target: str,
    *,
    options: PublishOptions | None = None,
    settings: Settings | None = None,
    progress: Progress = SILENT,
) -> tuple[Verified, ...]:
    """Read every published object back from a bucket or DICOMweb store (WADO-RS) and compare it with the file.

    From a bucket every byte is compared. A DICOMweb store may write file meta information of its own (PS3.10 7.1):
    there the data sets are compared. A DICOM node is asked for storage commitment, else whether it lists the objects
    (:func:`ctenrich.publish.node.ask_node`).

    Parameters
    ----------
    source : Workspace or Path
        The run, or the folder of DICOM files.
    target : str
        As it was published to.
    options : PublishOptions, optional
        What was sent, and certificates.
    settings : Settings, optional
        How buckets are reached.
    progress : Progress
        Advanced by one for every object.

    Returns
    -------
    tuple of Verified
        One for every object.

    Raises
    ------
    UsageError
        BAD_PARAMETER for a target that cannot be read back; NOT_PREPARED if the run has no objects; MISSING_EXTRA.
    TransientError
        RETRY_EXHAUSTED if a DICOM node cannot be asked.
    """
    chosen = replace(options or PublishOptions(), accepted_only=False)
    scheme = urlsplit(target).scheme
    read = None if scheme == "dicom" else _reader(target, settings or Settings(), chosen)
    node = node_of(target, chosen) if scheme == "dicom" else None
    publication = gather(source, chosen)
    sent = {(one.name, one.sha256) for one in read_log(source, target) if one.status != "failed"}
    out = [
        Verified(name=one.name, status="not sent", detail=one.detail or _NOT_LOGGED) for one in publication.unavailable
    ]
    progress.start("verify", len(publication.files))
    if node is not None:
        out += _verify_node(publication.files, sent, node)
        progress.advance("verify", len(publication.files))
    elif read is not None:
        for file in publication.files:
            out.append(_verify_one(file, sent, read))
            progress.advance("verify")
    progress.finish("verify")
    return tuple(out)


def _verify_node(files: Sequence[PublishedFile], sent: set[tuple[str, str]], node: Node) -> list[Verified]:
    """Ask a node for the objects that the log holds as sent, with the bytes that the files have."""
    names, asked, out = {}, [], []
    for file in files:
        uid = file.sop_instance_uid
        if (uid, sha256_of_file(file.path)) not in sent:
            out.append(Verified(name=file.place, status="not sent", detail=_NOT_LOGGED))
            continue
        names[uid] = file.place
        asked.append(
            NodeObject(
                sop_class=file.sop_class_uid,
                sop_instance_uid=uid,
                series_instance_uid=file.series_instance_uid,
                study_instance_uid=file.study_instance_uid,
            )
        )
    held = ask_node(asked, node) if asked else {}
    out += [Verified(name=names[uid], status=one.status, detail=one.detail) for uid, one in held.items()]
    return sorted(out, key=lambda one: one.name)


_NOT_LOGGED = "the log of the publication does not hold these bytes"
_Read = Callable[[PublishedFile], tuple[bytes | None, bool]]
"""File -> what the target holds (None: nothing), and whether its file meta information counts."""


def _verify_one(file: PublishedFile, sent: set[tuple[str, str]], read: _Read) -> Verified:
    name = file.place
    try:
        content = file.path.read_bytes()
        if (file.sop_instance_uid, hashlib.sha256(content).hexdigest()) not in sent:
            return Verified(name=name, status="not sent", detail=_NOT_LOGGED)
        found, whole = read(file)
    except CtenrichError as error:
        return Verified(name=name, status="failed", detail=error.message)
    except OSError as error:
        return Verified(name=name, status="failed", detail=f"{type(error).__name__}: {str(error)[:200]}")
    if found is None:
        return Verified(name=name, status="missing", detail="the target does not have it")
    if found == content or (not whole and _same_dataset(found, content)):
        return Verified(name=name, status="equal")
    return Verified(name=name, status="differs", detail=f"{len(found)} bytes instead of {len(content)}, or other ones")


def _same_dataset(one: bytes, two: bytes) -> bool:
    import pydicom

    try:
        return bool(pydicom.dcmread(BytesIO(one), force=True) == pydicom.dcmread(BytesIO(two), force=True))
    except Exception:  # noqa: BLE001  pydicom raises many kinds; what cannot be parsed is not the same
        return False


def _reader(target: str, settings: Settings, options: PublishOptions) -> _Read:
    scheme = urlsplit(target).scheme
    if scheme in ("http", "https"):
        return _dicomweb_reader(target, options.tls.context() if options.tls else None)
    if is_storage_url(target):
        return _bucket_reader(target, settings)
    message = f"{target} cannot be read back"
    raise UsageError(Reason.BAD_PARAMETER, message, "name a bucket, a DICOMweb store or dicom://HOST:PORT/AET")


def _bucket_reader(url: str, settings: Settings) -> _Read:
    storage = open_storage(url, replace(settings.fetch, anonymous=False))

    def read(file: PublishedFile) -> tuple[bytes | None, bool]:
        place = f"{url.rstrip('/')}/{file.place}"
        folder = place.rpartition("/")[0] + "/"
        held = [one for one in storage.list_objects(folder) if one.url == place]
        if not held:
            return None, True
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch, "object.dcm")
            storage.download([Transfer(place, copy)])
            return copy.read_bytes(), True

    return read


def _dicomweb_reader(url: str, tls: ssl.SSLContext | None) -> _Read:
    bearer = bearer_of(url, os.environ.get("CTENRICH_DICOMWEB_TOKEN", ""))

    def read(file: PublishedFile) -> tuple[bytes | None, bool]:
        address = (
            f"{url.rstrip('/')}/studies/{file.study_instance_uid}/series/{file.series_instance_uid}"
            f"/instances/{file.sop_instance_uid}"
        )
        headers = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
        if token := bearer():
            headers["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(address, headers=headers)  # noqa: S310 - http or https, checked by the caller
        try:
            with urllib.request.urlopen(request, timeout=120, context=tls) as answer:  # noqa: S310 - as above
                return first_part_of(answer.headers.get("Content-Type", ""), answer.read()), False
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (404, 410):
                return None, False
            raise

    return read
