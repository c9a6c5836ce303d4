"""Send files to a DICOM node with C-STORE (PS3.4 annex B), in the transfer syntaxes that they have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.uid import UID

from ctenrich.archives.association import associate, open_entity
from ctenrich.archives.nodes import Node
from ctenrich.errors import TransientError
from ctenrich.publish.content import PublishedFile
from ctenrich.publish.sending import Answer, Route, part10_file
from ctenrich.reasons import Reason

if TYPE_CHECKING:
    from pynetdicom.association import Association

__all__ = ["store_route"]

_MOST_CONTEXTS = 127
"""Presentation contexts of an association (PS3.8 9.3.2.2: odd numbers below 256), without that of C-ECHO."""
_REFUSED = {
    3: "the node takes no {name}",
    4: "the node does not take {name} in the transfer syntax {syntax}, and nothing is compressed again",
}
"""Result of a presentation context (PS3.8 table 9-18) -> what it means."""
_WARNINGS = {
    0x0107: "the node finds elements that its SOP class does not have",
    0x0116: "the node finds values out of range",
    0xB000: "the node changed data elements (coercion)",
    0xB006: "the node discarded data elements",
    0xB007: "the node finds that the data set does not match its SOP class",
}
"""Statuses of objects that were stored with a reserve (PS3.4 B.2.3)."""
_Context = tuple[str, str]
"""SOP class and transfer syntax."""


@contextmanager
def store_route(target: str, node: Node, files: Sequence[PublishedFile]) -> Iterator[Route]:
    """A route to a DICOM node, with an association that is open in the block.

    Each SOP class is asked for in each transfer syntax that its files have, in a presentation context of its own. What
    the node refuses is not sent, and nothing is converted. An association that breaks is opened again.

    Parameters
    ----------
    target : str
        Address, as it is published to.
    node : Node
    files : sequence of PublishedFile
        What is going to be sent.

    Yields
    ------
    Route

    Raises
    ------
    UsageError
        MISSING_EXTRA without pynetdicom; as :meth:`ctenrich.publish.options.TlsFiles.context`.
    TransientError
        RETRY_EXHAUSTED: the association was not accepted.
    """
    sender = _StoreSender(node, sorted({_context_of(file) for file in files}))
    if files:
        sender.open(_context_of(files[0]))
    try:
        yield Route(target=target, send=sender.send)
    finally:
        sender.close()


def _context_of(file: PublishedFile) -> _Context:
    return file.sop_class_uid, file.transfer_syntax


class _StoreSender:
    """Sends files in one association after the other; there are several only for more than 127 contexts.

    Parameters
    ----------
    node : Node
    contexts : sequence of (str, str)
        SOP classes and transfer syntaxes of all files, sorted.
    """

    def __init__(self, node: Node, contexts: Sequence[_Context]) -> None:
        self._node = node
        groups = [contexts[n : n + _MOST_CONTEXTS] for n in range(0, len(contexts), _MOST_CONTEXTS)]
        self._groups = {context: tuple(group) for group in groups for context in group}
        self._association: Association | None = None
        self._asked: tuple[_Context, ...] = ()
        self._refused: dict[_Context, int] = {}

    def open(self, context: _Context) -> None:
        """Open an association for a context and those that are asked for with it."""
        self.close()
        self._asked = self._groups[context]
        entity = open_entity(self._node.calling)
        entity.add_requested_context("1.2.840.10008.1.1")  # C-ECHO: accepted where no storage class is
        for name, syntax in self._asked:
            entity.add_requested_context(name, syntax)
        association = associate(entity, self._node)
        self._refused = {
            (str(one.abstract_syntax), str(one.transfer_syntax[0])): int(one.result or 0)
            for one in association.rejected_contexts
        }
        if association.is_established:
            self._association = association
        elif not set(self._asked) <= set(self._refused):
            text = f"the node {self._node} did not accept the association"
            hint = "check address, port, application entity titles and certificates"
            raise TransientError(Reason.RETRY_EXHAUSTED, text, hint)

    def close(self) -> None:
        """Release the association."""
        if self._association is not None and self._association.is_established:
            self._association.release()
        self._association = None

    def _abort(self) -> None:
        """Give up an association that lacks an answer: a late one would be taken for that of the next object."""
        if self._association is not None and self._association.is_established:
            self._association.abort()
        self._association = None

    def _store(self, file: PublishedFile, context: _Context) -> Dataset:
        """Send one file, in a new association if there is none; the answer is empty if none came."""
        if self._association is None or not self._association.is_established:
            self.open(context)
        if self._association is None:
            return Dataset()
        with part10_file(file) as path:
            status = self._association.send_c_store(path)
        if "Status" not in status:
            self._abort()
        return status

    def send(self, file: PublishedFile) -> Answer:
        """Send one file, again in a new association if no answer comes: a C-STORE can be repeated (PS3.4 B.2)."""
        context = _context_of(file)
        if context not in self._asked:
            self.open(context)
        if (result := self._refused.get(context)) is not None:
            return _refusal(context, result)
        status = self._store(file, context)
        if "Status" not in status:  # the answer was lost, or the association broke
            status = self._store(file, context)
        code = getattr(status, "Status", None)
        if code == 0:
            return Answer(status=code)
        if code in _WARNINGS or (code is not None and 0xB000 <= code <= 0xBFFF):
            return Answer(status=code, detail=f"status {code:04X}: {_WARNINGS.get(code, 'stored with a warning')}")
        if code is None:
            return Answer(reason=Reason.RETRY_EXHAUSTED, detail="no answer")
        comment = str(status.get("ErrorComment", "") or "")[:64]
        detail = f"status {code:04X}" + (f": {comment}" if comment else "")
        return Answer(reason=Reason.OBJECT_REFUSED, detail=detail, status=code)


def _refusal(context: _Context, result: int) -> Answer:
    name, syntax = UID(context[0]).name, UID(context[1]).name
    text = _REFUSED.get(result, "the node refuses {name} in the transfer syntax {syntax}")
    detail = text.format(name=name, syntax=syntax)
    return Answer(reason=Reason.TRANSFER_SYNTAX_REFUSED, detail=detail)
