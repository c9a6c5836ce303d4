"""The object in a multipart answer of WADO-RS (PS3.18 8.6.1.2)."""

from __future__ import annotations

import re

__all__ = ["first_part_of"]

_BOUNDARY = re.compile(r'boundary\s*=\s*(?:"([^"]+)"|([^;\s]+))', re.IGNORECASE)


def first_part_of(kind: str, body: bytes) -> bytes | None:
    """Return the first part of a multipart answer, or the whole body of another one.

    Parameters
    ----------
    kind : str
        Content type of the answer.
    body : bytes
        The answer.

    Returns
    -------
    bytes or None
        None where the part does not end with a delimiter: the answer is not complete.
    """
    if not kind.lower().startswith("multipart/"):
        return body
    found = _BOUNDARY.search(kind)
    if found is None:
        return None
    delimiter = b"--" + (found[1] or found[2]).encode("latin-1")
    start = body.find(delimiter)
    head = body.find(b"\r\n\r\n", start)
    if start < 0 or head < 0:
        return None
    headers = body[start:head].lower()
    length = re.search(rb"content-length:\s*(\d+)", headers)
    begin = head + 4
    end = begin + int(length[1]) if length else body.find(b"\r\n" + delimiter, begin)
    if end < begin or not body[end:].startswith(b"\r\n" + delimiter):
        return None
    return body[begin:end]
