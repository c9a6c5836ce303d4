"""Send DICOM files to a bucket, a DICOMweb store or a DICOM node, with a log by which it resumes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ctenrich.archives.web import HEALTHCARE
from ctenrich.errors import UsageError, did_you_mean
from ctenrich.progress import SILENT, Progress
from ctenrich.publish.content import Publication, PublishedFile, gather
from ctenrich.publish.log import Sent
from ctenrich.publish.options import KNOWN_TARGETS, PublishOptions, node_of, parts_of
from ctenrich.publish.privacy import check_files
from ctenrich.publish.sending import Answer, Route, send_all
from ctenrich.publish.store_scu import store_route
from ctenrich.publish.stow import stow_route
from ctenrich.reasons import Reason
from ctenrich.settings import Settings
from ctenrich.storage import is_storage_url, open_storage
from ctenrich.workspace import Workspace

__all__ = ["publish_to"]

_AT_ONCE = 8
"""Objects on their way to a bucket."""


def publish_to(
    source: Workspace | Path,
    target: str,
    *,
    options: PublishOptions | None = None,
    settings: Settings | None = None,
    progress: Progress = SILENT,
) -> tuple[Sent, ...]:
    """Send files of a run to a bucket, a DICOMweb store or a DICOM node, by the form of the target.

    Files are sent byte for byte; nothing is compressed, decompressed or encoded again. Only missing or wrong file meta
    information (PS3.10 7.1) is replaced for DICOM nodes and DICOMweb stores. A source file that has changed since the
    run read it is not sent. A bearer token for the DICOMweb store is taken from the variable CTENRICH_DICOMWEB_TOKEN;
    Google Healthcare gets one from the Google credentials of this machine where the variable is not set.

    Parameters
    ----------
    source : Workspace or Path
        The run; or a folder of DICOM files, of which everything is sent.
    target : str
        ``gs://`` or ``s3://BUCKET/PREFIX`` (or a registered storage), a DICOMweb root, or ``dicom://HOST:PORT/AET``.
    options : PublishOptions, optional
        What is sent, and certificates; default: the objects of the run.
    settings : Settings, optional
        How buckets are reached.
    progress : Progress
        Advanced by one for every object.

    Returns
    -------
    tuple of Sent
        Outcome of every object.

    Raises
    ------
    UsageError
        BAD_PARAMETER for another target; NOT_PREPARED; NOT_ACCEPTED if no product is accepted; IDENTITY_NOT_REMOVED for
        buckets and Google Healthcare; MISSING_EXTRA, NO_CREDENTIALS.
    InputError, TransientError
        As :func:`ctenrich.publish.sending.send_all`; the log states which objects failed and why, and a second call
        sends only those.
    """
    chosen = options or PublishOptions()
    _check_target(target, chosen)
    publication = gather(source, chosen)
    if _is_shared(target):
        check_files(publication, identified=chosen.identified)
    for note in publication.notes:
        progress.note(note)
    with _route(target, publication, chosen, settings or Settings()) as route:
        return send_all(publication, route, progress)


def _check_target(target: str, options: PublishOptions) -> None:
    parts = parts_of(target)
    if parts.scheme.startswith(("dicomweb+", "xnat+", "nbia+")):
        hint = "a DICOMweb store is sent to by its address, https://HOST/ROOT"
        raise UsageError(Reason.BAD_PARAMETER, f"{target} names an archive that is fetched from", hint)
    if parts.scheme == "dicom":
        node_of(target, options)
    elif parts.scheme not in ("http", "https") and not (parts.netloc and is_storage_url(target)):
        hint = did_you_mean(parts.scheme, ("gs", "s3", "http", "https", "dicom", "bigquery"), f"use {KNOWN_TARGETS}")
        raise UsageError(Reason.BAD_PARAMETER, f"the target {target} is not known", hint)
    if options.tls is not None and parts.scheme not in ("dicom", "https"):
        raise UsageError(Reason.BAD_PARAMETER, "certificates are for DICOM nodes and https addresses")


def _is_shared(target: str) -> bool:
    """Whether a target is outside the hospital: a bucket, or Google Healthcare."""
    parts = parts_of(target)
    return parts.hostname == HEALTHCARE if parts.scheme in ("http", "https") else parts.scheme != "dicom"


@contextmanager
def _route(target: str, publication: Publication, options: PublishOptions, settings: Settings) -> Iterator[Route]:
    scheme = parts_of(target).scheme
    if scheme == "dicom":
        with store_route(target, node_of(target, options), publication.files) as route:
            yield route
    elif scheme in ("http", "https"):
        tls = options.tls.context() if options.tls is not None else None
        yield stow_route(target, os.environ.get("CTENRICH_DICOMWEB_TOKEN", ""), tls)
    else:
        yield _bucket_route(target, settings)


def _bucket_route(url: str, settings: Settings) -> Route:
    """Upload to ``URL/<place of the file>``; an object that is there with other bytes is replaced."""
    storage = open_storage(url, replace(settings.fetch, anonymous=False))

    def send(file: PublishedFile) -> Answer:
        storage.upload(file.path, f"{url.rstrip('/')}/{file.place}", replace=True)
        return Answer()

    return Route(target=url, send=send, at_once=_AT_ONCE)
