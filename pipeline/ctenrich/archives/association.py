"""Associations with DICOM nodes, through pynetdicom."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ctenrich.archives.nodes import Node
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason

if TYPE_CHECKING:
    from pynetdicom import AE
    from pynetdicom.association import Association

__all__ = ["associate", "open_entity"]

_SECONDS = 30.0
"""Time for a connection."""


def open_entity(title: str) -> AE:
    """Return an application entity of pynetdicom.

    Raises
    ------
    UsageError
        MISSING_EXTRA without pynetdicom.
    """
    try:
        from pynetdicom import AE, _config  # heavy adapter
    except ImportError:
        raise UsageError(Reason.MISSING_EXTRA, "DICOM nodes need pynetdicom", "pip install 'ctenrich[pacs]'") from None
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # its messages hold identifiers of patients
    _config.STORE_SEND_CHUNKED_DATASET = True  # files are sent as they are, in parts, never decoded
    entity = AE(ae_title=title)
    entity.connection_timeout = _SECONDS
    return entity


def associate(entity: AE, node: Node, **options: Any) -> Association:
    """Request an association with a node, with TLS where the node has certificates.

    Parameters
    ----------
    entity : AE
        With the presentation contexts that are asked for.
    node : Node
    **options
        Passed on to pynetdicom.

    Returns
    -------
    Association
        Established or not.
    """
    tls = (node.tls.context(), node.host) if node.tls is not None else None
    return entity.associate(node.host, node.port, ae_title=node.called, tls_args=tls, **options)
