"""Senders, one for each kind of address: they transmit objects one after the other, and report the answer to each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

from pydicom import dcmread

from ctenrich.archives.web import HEALTHCARE
from ctenrich.delivery.destination import Destination
from ctenrich.delivery.headers import ObjectHeader
from ctenrich.dicom.quiet import quiet
from ctenrich.errors import CtenrichError, TransientError, UsageError
from ctenrich.publish import sending
from ctenrich.publish.content import PublishedFile
from ctenrich.publish.options import Node, PublishOptions, TlsFiles, node_of
from ctenrich.publish.store_scu import store_route
from ctenrich.publish.stow import stow_route
from ctenrich.reasons import Reason
from ctenrich.settings import Settings
from ctenrich.storage import open_storage
from ctenrich.storage.local import local_path
from ctenrich.workspace import check_uid, sync_folders

__all__ = ["Answer", "Outcome", "Send", "UnreachableError", "node_of_destination", "open_sender"]

_SAME_ANSWER = (0x0117, 0x0118, 0x0122, 0x0124, 0xC122)
"""Invalid SOP Instance, No Such SOP Class, SOP Class Not Supported, Not Authorized (PS3.7 annex C), and a transfer
syntax that is not supported (PS3.18 10.5.3): another attempt gives the same answer."""
_DUPLICATE = 0x0111
"""Duplicate SOP Instance: the node has an object with this UID."""
_PERMANENT_HTTP = frozenset({400, 406, 409, 413, 415, 422})


class Outcome(StrEnum):
    """What became of an attempt."""

    DELIVERED = "delivered"
    WARNING = "warning"
    REFUSED = "refused"
    """The destination does not take this object; another attempt gives the same answer."""
    FAILED = "failed"
    """The destination could not process this object; another attempt may succeed."""
    BUSY = "busy"
    """The destination takes no object at the moment."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Answer of a destination about one object."""

    outcome: Outcome
    status: int | None = None
    """DIMSE status, or failure reason of STOW-RS, or status of HTTP."""
    detail: str = ""


class UnreachableError(TransientError):
    """The destination cannot be reached, or does not let us in."""

    def __init__(self, detail: str) -> None:
        super().__init__(Reason.DELIVERY_FAILED, detail)


Send = Callable[[ObjectHeader], Answer]
"""Sends one object; raises UnreachableError."""


@contextmanager
def open_sender(destination: Destination, headers: Sequence[ObjectHeader]) -> Iterator[Send]:
    """Open the connection to a destination.

    Parameters
    ----------
    destination : Destination
        Where objects go.
    headers : sequence of ObjectHeader
        What will be sent.

    Yields
    ------
    callable
        Sends one object, and returns its answer.

    Raises
    ------
    UnreachableError
        DELIVERY_FAILED, also raised by the function.
    UsageError
        MISSING_EXTRA, NO_CREDENTIALS, or a file of TLS that cannot be used.
    """
    with _SENDERS.get(destination.scheme, _storage_sender)(destination, headers) as send:
        yield send


# ---------------------------------------------------------------- C-STORE and STOW-RS


def _answer(found: sending.Answer) -> Answer:
    """Outcome of a status (PS3.4 table B.2-1, PS3.7 annex C), as far as publish has not judged it."""
    status, detail = found.status, found.detail
    if found.reason is None:
        kind = Outcome.WARNING if status else Outcome.DELIVERED
    elif found.reason is Reason.TRANSFER_SYNTAX_REFUSED or status in _SAME_ANSWER:
        kind = Outcome.REFUSED
    elif status is None:
        raise UnreachableError(detail or "no answer")
    elif status == _DUPLICATE:
        kind, detail = Outcome.WARNING, f"{detail}: it has an object of this UID"
    elif 0xA700 <= status <= 0xA7FF:
        kind, detail = Outcome.BUSY, f"{detail}: out of resources"
    else:
        kind = Outcome.REFUSED if 0xA900 <= status <= 0xA9FF else Outcome.FAILED
    return Answer(outcome=kind, status=status, detail=detail)


def _published(header: ObjectHeader) -> PublishedFile:
    return PublishedFile(
        path=header.path,
        place=f"{header.sop_instance_uid}.dcm",
        sop_class_uid=header.sop_class_uid,
        sop_instance_uid=header.sop_instance_uid,
        series_instance_uid=header.series_instance_uid,
        study_instance_uid=header.study_instance_uid,
        modality="",
        transfer_syntax=header.transfer_syntax,
        data_start=0,
        restated=False,
        identity_removed=False,
        sha256=header.sha256,
    )


def node_of_destination(destination: Destination) -> Node:
    """Return the DICOM node of a destination, with TLS where it has certificates."""
    return node_of(destination.address, PublishOptions(calling=destination.calling, tls=_tls_files(destination)))


def _tls_files(destination: Destination) -> TlsFiles | None:
    if not destination.tls_ca:
        return None
    names = (destination.tls_ca, destination.tls_certificate, destination.tls_key)
    ca, certificate, key = (Path(name) if name else None for name in names)
    return TlsFiles(ca=ca, certificate=certificate, key=key)


@contextmanager
def _node(destination: Destination, headers: Sequence[ObjectHeader]) -> Iterator[Send]:
    """One association; objects are sent in the transfer syntax in which they are stored."""
    opened = False

    def send(header: ObjectHeader) -> Answer:
        try:
            return _answer(route.send(_published(header)))
        except (TransientError, RuntimeError, OSError) as error:  # pynetdicom raises RuntimeError without association
            raise UnreachableError(getattr(error, "message", "") or "the node ended the association") from None

    try:
        node = node_of_destination(destination)
        with store_route(destination.address, node, [_published(one) for one in headers]) as route:
            opened = True
            yield send
    except TransientError as error:
        if opened:
            raise
        raise UnreachableError(error.message) from None


@contextmanager
def _dicomweb(destination: Destination, _headers: Sequence[ObjectHeader]) -> Iterator[Send]:
    token = os.environ.get(destination.token_variable, "") if destination.token_variable else ""
    tls = _tls_files(destination)
    route = stow_route(destination.address, token, tls.context() if tls else None)
    shared = urlsplit(destination.address).hostname == HEALTHCARE

    def send(header: ObjectHeader) -> Answer:
        if shared and (refused := _identified(destination, header)):
            return refused
        try:
            found = route.send(_published(header))
        except (OSError, HTTPException) as error:
            raise UnreachableError(f"the store cannot be reached: {type(error).__name__}") from None
        if found.reason is Reason.RETRY_EXHAUSTED and found.status is not None:
            kind = Outcome.REFUSED if found.status in _PERMANENT_HTTP else Outcome.BUSY
            return Answer(outcome=kind, status=found.status, detail=f"HTTP status {found.status}")
        return _answer(found)

    yield send


# ---------------------------------------------------------------- folders and buckets


@contextmanager
def _storage_sender(destination: Destination, _headers: Sequence[ObjectHeader]) -> Iterator[Send]:
    """Objects are ``STUDY/SERIES/SOP.dcm`` below the address; other bytes under a name are never replaced."""
    storage = open_storage(destination.address, replace(Settings().fetch, anonymous=False))
    local = destination.scheme == "file"

    def send(header: ObjectHeader) -> Answer:
        if not local and (refused := _identified(destination, header)):
            return refused
        uids = (header.study_instance_uid, header.series_instance_uid, header.sop_instance_uid)
        url = f"{destination.address.rstrip('/')}/{'/'.join(map(check_uid, uids))}.dcm"
        try:
            storage.upload(header.path, url)
            if local:
                _synchronise(local_path(url))
        except CtenrichError as error:
            kind = Outcome.REFUSED if isinstance(error, UsageError) else Outcome.BUSY
            return Answer(outcome=kind, detail=f"{error.reason.value}: {error.message}")
        except OSError as error:
            raise UnreachableError(f"the folder cannot be written: {error.strerror}") from None
        return Answer(outcome=Outcome.DELIVERED)

    yield send


def _synchronise(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    sync_folders([path.parent, path.parent.parent, path.parent.parent.parent])


def _identified(destination: Destination, header: ObjectHeader) -> Answer | None:
    """The refusal to share an object of a patient who can be identified, unless the destination may have it."""
    if destination.identified:
        return None
    with quiet():
        data = dcmread(header.path, specific_tags=["PatientIdentityRemoved"], stop_before_pixels=True)
    if data.get("PatientIdentityRemoved") == "YES":
        return None
    detail = f"{Reason.IDENTITY_NOT_REMOVED.value}: Patient Identity Removed is not YES"
    return Answer(outcome=Outcome.REFUSED, detail=detail)


_SENDERS: Mapping[str, Callable[..., AbstractContextManager[Send]]] = MappingProxyType(
    {"dicom": _node, "http": _dicomweb, "https": _dicomweb}
)
"""Scheme -> sender; all others are storages."""
