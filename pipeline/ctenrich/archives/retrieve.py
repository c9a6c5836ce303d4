"""Retrieve objects from a DICOM node with C-GET or C-MOVE (PS3.4 annex C, Study Root)."""

from __future__ import annotations

import errno
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import (
    HEVCM10P51,
    HEVCMP51,
    AllTransferSyntaxes,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MPEGTransferSyntaxes,
    RTBeamsTreatmentRecordStorage,
    RTBrachyTreatmentRecordStorage,
    RTIonBeamsTreatmentRecordStorage,
    RTTreatmentSummaryRecordStorage,
)

from ctenrich.archives.archive import Place
from ctenrich.archives.association import associate, open_entity
from ctenrich.archives.nodes import Node
from ctenrich.archives.received import check_received
from ctenrich.dicom.sop_classes import (
    CT_IMAGE,
    ENHANCED_CT_IMAGE,
    LABEL_MAP_SEGMENTATION,
    LEGACY_CONVERTED_CT_IMAGE,
    RT_DOSE,
    RT_PLAN,
    RT_STRUCTURE_SET,
    SEGMENTATION,
)
from ctenrich.errors import CtenrichError, InputError, TransientError, UsageError, is_disk_full
from ctenrich.progress import Progress
from ctenrich.reasons import Reason
from ctenrich.workspace import atomic_path

__all__ = ["Request", "retrieve"]

_RECORDS = (
    RTBeamsTreatmentRecordStorage,
    RTBrachyTreatmentRecordStorage,
    RTTreatmentSummaryRecordStorage,
    RTIonBeamsTreatmentRecordStorage,
)
_IMAGES = (CT_IMAGE, ENHANCED_CT_IMAGE, LEGACY_CONVERTED_CT_IMAGE)
_OTHERS = (RT_STRUCTURE_SET, RT_PLAN, RT_DOSE, *_RECORDS, SEGMENTATION, LABEL_MAP_SEGMENTATION)
_UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_VIDEO = frozenset({*MPEGTransferSyntaxes, HEVCMP51, HEVCM10P51})
"""Transfer syntaxes of MPEG-2, H.264 and H.265, in which no CT is coded."""
_PENDING = 0xFF00
_NO_DESTINATION = 0xA801
_TEMPORARY = (0xA701, 0xA702)
"""Out of resources (PS3.4 tables C.4-2, C.4-3)."""
_UIDS_AT_ONCE = 50
_PORT_SECONDS = 600.0
"""Time that another worker of the run may hold the port."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Instances of one series, and the files that they become."""

    study: str
    series: str
    root: str
    """Address of the archive."""
    paths: Mapping[str, Path]
    """File by SOP Instance UID."""
    whole: bool = False
    """Request the series instead of its instances."""


def retrieve(node: Node, request: Request, *, port: int | None, timeout: float, progress: Progress) -> None:
    """Retrieve instances; a file appears under its name only when its object has arrived and is the one requested.

    Objects are kept in the transfer syntax in which the node sends them: each syntax is proposed in a presentation
    context of its own, so that the node has no need to convert.

    Parameters
    ----------
    node : Node
        Where the instances are.
    request : Request
        What is wanted. Objects that nobody asked for are refused.
    port : int or None
        None: C-GET. Otherwise C-MOVE: objects are received on this port (0: any free one).
    timeout : float
        Seconds without an answer.
    progress : Progress
        Advanced by one, context ``fetch``, for every object.

    Raises
    ------
    UsageError
        MISSING_EXTRA without pynetdicom; as :meth:`ctenrich.archives.nodes.TlsFiles.context`.
    TransientError
        RETRY_EXHAUSTED: the association is not accepted, breaks, or brings fewer objects; another try may succeed.
    InputError
        WRONG_OBJECT; RETRIEVE_REFUSED: the node does not retrieve for this side.
    OSError
        The disk is full.
    """
    inbox = _Inbox(request, progress)
    missing = inbox.missing()
    parts = [[]] if request.whole else [missing[n : n + _UIDS_AT_ONCE] for n in range(0, len(missing), _UIDS_AT_ONCE)]
    move = port is not None
    receiver = _receiver(node, inbox, port) if port is not None else nullcontext()
    with receiver, _association(node, inbox, timeout, move=move) as association:
        for uids in parts:
            status = _ask(association, request, uids, node.calling if move else None)
            if inbox.error is not None:
                raise inbox.error
            if inbox.missing():
                _check_status(status, node)
    missing = inbox.missing()
    if missing:
        message = f"{len(missing)} of {len(request.paths)} objects did not arrive from the node {node}"
        raise TransientError(Reason.RETRY_EXHAUSTED, message)


class _Inbox:
    """Takes the objects that arrive, in threads of pynetdicom."""

    def __init__(self, request: Request, progress: Progress) -> None:
        self._request = request
        self._progress = progress
        self._lock = threading.Lock()
        self._arrived: set[str] = set()
        self.error: Exception | None = None
        """The first error that another try does not mend."""

    def missing(self) -> list[str]:
        """SOP Instance UIDs that have not arrived."""
        return sorted(self._request.paths.keys() - self._arrived)

    def take(self, event: Any) -> int:
        """Handle a C-STORE; returns its status (PS3.4 B.2.3)."""
        uid = str(event.request.AffectedSOPInstanceUID)
        path = self._request.paths.get(uid)
        if path is None:
            return 0xA900
        try:
            with atomic_path(path) as temporary:
                temporary.write_bytes(event.encoded_dataset())
                check_received(temporary, Place(self._request.root, self._request.study, self._request.series, uid))
        except (CtenrichError, OSError) as raised:
            error: Exception = raised
            wrong = isinstance(error, CtenrichError)
            if not wrong and not is_disk_full(error):
                error = InputError(
                    Reason.IO_ERROR, f"an object could not be written: {getattr(raised, 'strerror', raised)}"
                )
            self.error = self.error or error
            return 0xA900 if wrong else 0xA700
        with self._lock:
            if uid not in self._arrived:
                self._arrived.add(uid)
                self._progress.advance("fetch")
        return 0


def _ask(association: Any, request: Request, uids: Sequence[str], destination: str | None) -> int | None:
    """Request instances, or the series where no instance is named; returns the last status."""
    from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # heavy adapter
        StudyRootQueryRetrieveInformationModelGet,
        StudyRootQueryRetrieveInformationModelMove,
    )

    wanted = Dataset()
    wanted.QueryRetrieveLevel = "IMAGE" if uids else "SERIES"
    wanted.StudyInstanceUID, wanted.SeriesInstanceUID = request.study, request.series
    if uids:
        wanted.SOPInstanceUID = list(uids)
    last: int | None = None
    try:
        if destination is None:
            answers = association.send_c_get(wanted, StudyRootQueryRetrieveInformationModelGet)
        else:
            answers = association.send_c_move(wanted, destination, StudyRootQueryRetrieveInformationModelMove)
        for status, _ in answers:
            last = getattr(status, "Status", None)
    except RuntimeError:  # the association has ended
        return None
    return last


def _check_status(status: int | None, node: Node) -> None:
    if status == _NO_DESTINATION:
        hint = f"enter the title {node.calling} with host and port of this machine (fetch.dicom_port) at the node"
        raise InputError(Reason.RETRIEVE_REFUSED, f"the node {node} does not know where {node.calling} is", hint)
    if status is None or status in _TEMPORARY or status in (0, _PENDING) or status >> 12 == 0xB:
        return  # objects are missing: another try may bring them
    raise InputError(Reason.RETRIEVE_REFUSED, f"the node {node} does not send the objects: status {status:04X}")


@contextmanager
def _association(node: Node, inbox: _Inbox, timeout: float, *, move: bool) -> Iterator[Any]:
    entity = open_entity(node.calling)
    from pynetdicom import build_role, evt  # heavy adapter
    from pynetdicom.sop_class import (  # type: ignore[attr-defined]
        StudyRootQueryRetrieveInformationModelGet,
        StudyRootQueryRetrieveInformationModelMove,
    )

    entity.dimse_timeout = entity.network_timeout = timeout
    service = StudyRootQueryRetrieveInformationModelMove if move else StudyRootQueryRetrieveInformationModelGet
    entity.add_requested_context(service)
    options: dict[str, Any] = {}
    if not move:
        for name, syntax in _storage_contexts():
            entity.add_requested_context(name, syntax)
        roles = [build_role(name, scp_role=True) for name in (*_IMAGES, *_OTHERS)]
        options = {"ext_neg": roles, "evt_handlers": [(evt.EVT_C_STORE, inbox.take)]}
    association = associate(entity, node, **options)
    try:
        accepted = {context.abstract_syntax for context in association.accepted_contexts}
        rejected = {context.abstract_syntax for context in association.rejected_contexts}
        if service in rejected or (accepted and service not in accepted):
            other = "set fetch.dicom_retrieval to " + ("get" if move else "move")
            message = f"the node {node} offers no {'C-MOVE' if move else 'C-GET'}"
            raise InputError(Reason.RETRIEVE_REFUSED, message, other)
        if not association.is_established:
            hint = "check address, port, application entity titles and certificates"
            raise TransientError(Reason.RETRY_EXHAUSTED, f"the node {node} did not accept the association", hint)
        yield association
    finally:
        if association.is_established:
            association.release()


def _storage_contexts() -> list[tuple[str, str]]:
    """SOP classes and transfer syntaxes that are taken; fewer than the 128 that an association may have."""
    compressed = [s for s in AllTransferSyntaxes if s not in _UNCOMPRESSED and s not in _VIDEO]
    images = [(name, str(syntax)) for name in _IMAGES for syntax in (*_UNCOMPRESSED, *compressed)]
    return images + [(name, str(syntax)) for name in _OTHERS for syntax in _UNCOMPRESSED]


@contextmanager
def _receiver(node: Node, inbox: _Inbox, port: int) -> Iterator[None]:
    """Listen for the objects of a C-MOVE, under the title of this side."""
    entity = open_entity(node.calling)
    from pynetdicom import evt  # heavy adapter

    entity.require_called_aet = True
    entity.add_supported_context("1.2.840.10008.1.1")
    syntaxes: dict[str, list[str]] = {}
    for name, syntax in _storage_contexts():
        syntaxes.setdefault(name, []).append(syntax)
    for name, accepted in syntaxes.items():
        entity.add_supported_context(name, accepted)
    handlers: list[Any] = [(evt.EVT_C_STORE, inbox.take)]
    end = time.monotonic() + _PORT_SECONDS
    while True:
        try:
            server: Any = entity.start_server(
                ("", port), block=False, evt_handlers=handlers, ssl_context=_server_context(node)
            )
            break
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > end:
                message = f"port {port} cannot be listened on: {error.strerror}"
                raise TransientError(Reason.RETRY_EXHAUSTED, message, "set fetch.dicom_port") from error
            time.sleep(0.2)
    try:
        yield
    finally:
        server.shutdown()


def _server_context(node: Node) -> ssl.SSLContext | None:
    if node.tls is None:
        return None
    if node.tls.certificate is None or node.tls.key is None:
        message = "objects are received with TLS, for which this side needs a certificate"
        raise UsageError(Reason.BAD_PARAMETER, message, "set fetch.tls_certificate and fetch.tls_key")
    node.tls.context()  # checks the files
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(node.tls.certificate, node.tls.key)
    if node.tls.ca is not None:
        context.load_verify_locations(node.tls.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
