"""STOW-RS: takes the objects of a multipart request apart as they arrive, and stores each (PS3.18 10.5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.message import Message
from typing import Any, Protocol

from ctenrich.listener.incoming import FileMeta, IncomingFile, StoreStatus, read_meta
from ctenrich.listener.store import ObjectStore, Receipt, Result

__all__ = ["BadRequestError", "StoredPart", "boundary_of", "chunks_of", "response_body", "store_parts"]

_CHUNK = 256 * 1024
_LARGEST_HEADERS = 16 * 1024
_LARGEST_PARTS = 100_000


class BadRequestError(Exception):
    """The request cannot be read any further."""


class Body(Protocol):
    """What the body of a request is read from."""

    def read(self, size: int, /) -> bytes:
        """Read up to `size` bytes."""

    def readline(self, size: int, /) -> bytes:
        """Read up to the end of a line."""


@dataclass(frozen=True, kw_only=True)
class StoredPart:
    """Outcome of one part of a request."""

    meta: FileMeta
    receipt: Receipt


def boundary_of(content_type: str) -> bytes:
    """Return the boundary of a Content-Type ``multipart/related; type="application/dicom"; boundary=...``.

    Raises
    ------
    BadRequestError
        For anything else.
    """
    message = Message()
    message["content-type"] = content_type
    if message.get_content_type() != "multipart/related":
        raise BadRequestError("the content type is not multipart/related")
    if str(message.get_param("type") or "").lower() != "application/dicom":
        raise BadRequestError("the type of the parts is not application/dicom")
    boundary = str(message.get_param("boundary") or "")
    if re.fullmatch(r"[\x20-\x7e]{1,70}", boundary) is None:
        raise BadRequestError("there is no boundary")
    return boundary.encode("ascii")


def chunks_of(body: Body, length: int | None, limit: int) -> Iterator[bytes]:
    """Yield the body of a request.

    Parameters
    ----------
    body : file object
        What follows the headers.
    length : int or None
        Content-Length; None for a chunked body (RFC 9112 7.1).
    limit : int
        Bytes that the body may have.

    Raises
    ------
    BadRequestError
        If the body ends too early or is too large.
    """
    if length is not None:
        yield from _exactly(body, length)
        return
    total = 0
    while True:
        line = body.readline(1024).split(b";")[0].strip()
        if re.fullmatch(rb"[0-9A-Fa-f]{1,15}", line) is None:
            raise BadRequestError("the chunks of the body cannot be read")
        size = int(line, 16)
        total += size
        if total > limit:
            raise BadRequestError("the body is too large")
        yield from _exactly(body, size)
        if body.readline(1024) not in (b"\r\n", b"\n") and size:
            raise BadRequestError("the chunks of the body cannot be read")
        if not size:
            return


def _exactly(body: Body, length: int) -> Iterator[bytes]:
    while length:
        data = body.read(min(_CHUNK, length))
        if not data:
            raise BadRequestError("the body ended too early")
        length -= len(data)
        yield data


def store_parts(chunks: Iterable[bytes], boundary: bytes, store: ObjectStore, association: int) -> list[StoredPart]:
    """Store the parts of a multipart body; each is on disk before the next one begins.

    Parameters
    ----------
    chunks : iterable of bytes
        The body.
    boundary : bytes
        Its boundary.
    store : ObjectStore
        Gets the objects.
    association : int
        Number under which the request is recorded.

    Returns
    -------
    list of StoredPart
        In the order of the parts.

    Raises
    ------
    BadRequestError
        If the body is no multipart body, or is cut; parts that were complete stay stored.
    """
    parser = _Parts(chunks, boundary)
    found: list[StoredPart] = []
    while parser.next_part():
        if len(found) >= _LARGEST_PARTS:
            raise BadRequestError("the request has too many parts")
        incoming = store.begin()
        try:
            for data in parser.data():
                incoming.write(data)
        except BaseException:
            incoming.discard()
            raise
        found.append(_stored(incoming, store, association))
    return found


def _stored(incoming: IncomingFile, store: ObjectStore, association: int) -> StoredPart:
    meta = read_meta(incoming.head) if incoming.head else None
    if meta is None:
        if incoming.status is StoreStatus.SUCCESS:
            incoming.status = StoreStatus.CANNOT_UNDERSTAND
        incoming.discard()
        refused = Receipt(result=Result.REFUSED, status=incoming.status)
        return StoredPart(meta=FileMeta("", "", ""), receipt=refused)
    return StoredPart(meta=meta, receipt=store.commit(incoming, meta, association))


class _Parts:
    """Finds the parts of a multipart body (RFC 2046 5.1.1) in bounded memory."""

    def __init__(self, chunks: Iterable[bytes], boundary: bytes) -> None:
        self._chunks = iter(chunks)
        self._delimiter = b"\r\n--" + boundary
        self._buffer = bytearray(b"\r\n")  # the first delimiter need not follow a line
        self._ended = False
        for _ in self.data():
            pass

    def _more(self) -> None:
        try:
            self._buffer += next(self._chunks)
        except StopIteration:
            raise BadRequestError("the body ended too early") from None

    def data(self) -> Iterator[bytes]:
        """Yield the bytes before the next delimiter, and go past it."""
        keep = len(self._delimiter)
        while True:
            at = self._buffer.find(self._delimiter)
            if at >= 0:
                if at:
                    yield bytes(self._buffer[:at])
                del self._buffer[: at + keep]
                break
            if len(self._buffer) > keep:
                yield bytes(self._buffer[:-keep])
                del self._buffer[:-keep]
            self._more()
        while len(self._buffer) < 2:
            self._more()
        self._ended = self._buffer[:2] == b"--"

    def next_part(self) -> bool:
        """Skip the headers of the next part; False after the last one."""
        if self._ended:
            for _ in self._chunks:
                pass
            return False
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _LARGEST_HEADERS:
                raise BadRequestError("the headers of a part are too long")
            self._more()
        del self._buffer[: end + 4]
        return True


def response_body(parts: list[StoredPart]) -> tuple[int, dict[str, Any]]:
    """Return HTTP status and body of the response (PS3.18 10.5.3, table 10.5.3-1).

    Parameters
    ----------
    parts : list of StoredPart
        Outcome of every part.

    Returns
    -------
    tuple of int and dict
        200: all stored; 202: some; 409: none, or 503 if there is no space. The body is DICOM JSON.
    """
    good = [part for part in parts if part.receipt.status is StoreStatus.SUCCESS]
    bad = [part for part in parts if part.receipt.status is not StoreStatus.SUCCESS]
    body: dict[str, Any] = {}
    if good:
        body["00081199"] = {"vr": "SQ", "Value": [_item(part.meta) for part in good]}
    if bad:
        failed = [{**_item(part.meta), "00081197": {"vr": "US", "Value": [int(part.receipt.status)]}} for part in bad]
        body["00081198"] = {"vr": "SQ", "Value": failed}
    if not bad and good:
        return 200, body
    if good:
        return 202, body
    full = any(part.receipt.status is StoreStatus.OUT_OF_RESOURCES for part in bad)
    return (503 if full else 409), body


def _item(meta: FileMeta) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [meta.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [meta.sop_instance_uid]},
    }
