"""Negotiates an association (PS3.8 7.1): presentation contexts for storage and verification, and the answer.

All SOP classes are accepted, each with the first transfer syntax that is proposed: objects are stored as they are sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context, negotiate_unrestricted

from ctenrich.listener.admission import Rejection
from ctenrich.listener.incoming import IMPLEMENTATION_UID, IMPLEMENTATION_VERSION
from ctenrich.listener.pdus import AbortReason, ProtocolError

__all__ = ["Negotiated", "negotiate"]

_VERIFICATION = "1.2.840.10008.1.1"
_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
"""DICOM Application Context Name (PS3.7 annex A)."""
_TITLES = slice(10, 42)
"""Called and calling AE title in the PDU; those of the answer equal those of the request (PS3.8 table 9-17)."""
_VERSION_BIT = 0x01


@dataclass(frozen=True, kw_only=True)
class Negotiated:
    """What both sides agreed about."""

    answer: bytes
    """The A-ASSOCIATE-AC."""
    transfer_syntaxes: Mapping[int, str]
    """ID of an accepted presentation context -> its transfer syntax."""
    max_pdu: int
    """Largest length of a PDU that the requestor accepts, bytes; 0: any."""


def negotiate(request: bytes, max_pdu: int) -> Negotiated | Rejection:
    """Negotiate the association of an A-ASSOCIATE-RQ.

    Parameters
    ----------
    request : bytes
        The PDU.
    max_pdu : int
        Largest length of a PDU that we accept, bytes.

    Returns
    -------
    Negotiated or Rejection

    Raises
    ------
    ProtocolError
        If the PDU cannot be read.
    """
    if not int.from_bytes(request[6:8], "big") & _VERSION_BIT:
        return Rejection.PROTOCOL_VERSION
    try:
        pdu = A_ASSOCIATE_RQ()
        pdu.decode(request)
        primitive: Any = pdu.to_primitive()
        if primitive.application_context_name != _APPLICATION_CONTEXT:
            return Rejection.APPLICATION_CONTEXT
        return _answer(primitive, request, max_pdu)
    except Exception:  # noqa: BLE001  pynetdicom raises many kinds for items that it cannot read
        raise ProtocolError(AbortReason.INVALID_PARAMETER) from None


def _answer(primitive: Any, request: bytes, max_pdu: int) -> Negotiated:
    items = primitive.user_information
    roles = {one.sop_class_uid: (one.scu_role, one.scp_role) for one in items if hasattr(one, "scu_role")}
    verification = build_context(_VERIFICATION)
    contexts, accepted_roles = negotiate_unrestricted(
        primitive.presentation_context_definition_list, [verification], roles
    )
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    version = ImplementationVersionNameNotification()
    length.maximum_length_received = max_pdu
    implementation.implementation_class_uid = IMPLEMENTATION_UID
    version.implementation_version_name = IMPLEMENTATION_VERSION
    answer = A_ASSOCIATE()
    answer.application_context_name = _APPLICATION_CONTEXT
    answer.calling_ae_title, answer.called_ae_title = "REQUESTOR", "ACCEPTOR"  # replaced below
    answer.result, answer.result_source = 0, 1
    answer.presentation_context_definition_results_list = contexts
    answer.user_information = [length, implementation, version, *accepted_roles]
    encoded = A_ASSOCIATE_AC()
    encoded.from_primitive(answer)
    data = bytearray(encoded.encode())
    data[_TITLES] = request[_TITLES]
    accepted = [one for one in contexts if one.result == 0]
    return Negotiated(
        answer=bytes(data),
        transfer_syntaxes={int(one.context_id or 0): str(one.transfer_syntax[0]) for one in accepted},
        max_pdu=int(primitive.maximum_length_received or 0),
    )
