"""Ask a DICOM node whether it has the published objects: by storage commitment, or by a query."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from ctenrich.archives.association import associate, open_entity
from ctenrich.archives.nodes import Node
from ctenrich.errors import TransientError
from ctenrich.reasons import Reason

if TYPE_CHECKING:
    from pynetdicom.association import Association

__all__ = ["Held", "NodeObject", "ask_node"]

_WELL_KNOWN = "1.2.840.10008.1.20.1.1"
"""Storage Commitment Push Model SOP Instance (PS3.4 J.3.5)."""
_REQUEST = 1
"""Action Type ID of a request for commitment (PS3.4 table J.3-1)."""
_REPORT_SECONDS = 10.0
"""Time for an answer and for the report of a node; one that reports on an association of its own is queried."""
_ANSWER_SECONDS = 0.3
"""Time in which our answer to the report leaves, before the association is released."""
_PENDING = (0xFF00, 0xFF01)


@dataclass(frozen=True, kw_only=True)
class NodeObject:
    """Identifiers of an object."""

    sop_class: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str


@dataclass(frozen=True, kw_only=True)
class Held:
    """Answer of a node about one object."""

    status: str
    """``committed`` (the node has taken responsibility for it), ``listed`` (a query finds it), ``missing`` or
    ``failed`` (the node could not be asked)."""
    detail: str = ""


def ask_node(objects: Sequence[NodeObject], node: Node) -> Mapping[str, Held]:
    """Ask a node which objects it has.

    Storage commitment (PS3.4 annex J) where the node accepts it and reports on the same association; otherwise, and for
    objects that it does not commit to, C-FIND at the level IMAGE (PS3.4 C.4.1, Study Root). Bytes are not compared.

    Parameters
    ----------
    objects : sequence of NodeObject
        What was sent.
    node : Node

    Returns
    -------
    mapping
        SOP Instance UID -> answer.

    Raises
    ------
    UsageError
        MISSING_EXTRA without pynetdicom.
    TransientError
        RETRY_EXHAUSTED if the node does not accept the association, or accepts neither service.
    """
    entity = open_entity(node.calling)
    from pynetdicom import evt  # heavy adapter
    from pynetdicom.sop_class import (  # type: ignore[attr-defined]
        StorageCommitmentPushModel,
        StudyRootQueryRetrieveInformationModelFind,
    )

    commitment, query = StorageCommitmentPushModel, StudyRootQueryRetrieveInformationModelFind
    entity.dimse_timeout = _REPORT_SECONDS
    for service in (commitment, query):
        entity.add_requested_context(service)
    report = _Report()
    answers: dict[str, Held] = {}
    with _associated(entity, node, [(evt.EVT_N_EVENT_REPORT, report.take)]) as association:
        accepted = {str(context.abstract_syntax) for context in association.accepted_contexts}
        if commitment in accepted:
            answers.update(_committed(association, objects, report, commitment))
    rest = [one for one in objects if one.sop_instance_uid not in answers]
    if rest and query in accepted:  # anew: some nodes end the association after a request for commitment
        with _associated(entity, node, []) as association:
            answers.update((one.sop_instance_uid, _queried(association, one, query)) for one in rest)
    unknown = Held(status="failed", detail="the node has not committed to it, and accepts no query")
    return {one.sop_instance_uid: answers.get(one.sop_instance_uid, unknown) for one in objects}


@contextmanager
def _associated(entity: Any, node: Node, handlers: list[Any]) -> Iterator[Association]:
    association = associate(entity, node, evt_handlers=handlers)
    try:
        if not association.is_established:
            message = f"the node {node} did not accept storage commitment or queries"
            hint = "check address, port and application entity titles, and what the node offers"
            raise TransientError(Reason.RETRY_EXHAUSTED, message, hint)
        yield association
    finally:
        if association.is_established:
            association.release()


class _Report:
    """Takes the report of a storage commitment (N-EVENT-REPORT), which arrives in a thread of pynetdicom."""

    def __init__(self) -> None:
        self.transaction = str(generate_uid())
        self.committed: set[str] = set()
        self.arrived = threading.Event()

    def take(self, event: Any) -> tuple[int, None]:
        """Handle an N-EVENT-REPORT; a report of another transaction is acknowledged and not used."""
        information = event.event_information
        if str(information.get("TransactionUID", "")) == self.transaction:
            done = information.get("ReferencedSOPSequence") or ()
            self.committed = {str(item.ReferencedSOPInstanceUID) for item in done}
            self.arrived.set()
        return 0x0000, None


def _committed(
    association: Association, objects: Sequence[NodeObject], report: _Report, service: Any
) -> dict[str, Held]:
    """Objects that the node commits to; empty where it refuses, or does not report on this association."""
    request = Dataset()
    request.TransactionUID = report.transaction
    request.ReferencedSOPSequence = []
    for one in objects:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.sop_class, one.sop_instance_uid
        request.ReferencedSOPSequence.append(item)
    status, _ = association.send_n_action(request, _REQUEST, service, _WELL_KNOWN)
    if getattr(status, "Status", None) != 0 or not report.arrived.wait(_REPORT_SECONDS):
        return {}
    time.sleep(_ANSWER_SECONDS)
    return {uid: Held(status="committed") for uid in report.committed}


def _queried(association: Association, one: NodeObject, service: Any) -> Held:
    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    query.StudyInstanceUID, query.SeriesInstanceUID = one.study_instance_uid, one.series_instance_uid
    query.SOPInstanceUID = one.sop_instance_uid
    found, last = False, None
    if not association.is_established:
        return Held(status="failed", detail="the node has ended the association")
    for status, identifier in association.send_c_find(query, service):
        last = getattr(status, "Status", None)
        if last in _PENDING and identifier is not None:
            found = found or str(identifier.get("SOPInstanceUID", "")) == one.sop_instance_uid
    if found:
        return Held(status="listed")
    why = "a query does not find it" if last == 0 else "the query failed" + (f" (status {last:04X})" if last else "")
    return Held(status="missing" if last == 0 else "failed", detail=why)
