"""Derive unique identifiers from the inputs of an object, so that a second run makes the same ones."""

from __future__ import annotations

import hashlib

__all__ = ["derive_uid"]


def derive_uid(*parts: str) -> str:
    """UID below 2.25 (PS3.5 annex B.2) from the SHA-256 of `parts`.

    Every part is framed by its length, so that ``("a", "bc")`` and ``("ab", "c")`` differ. The first 128 bits are
    used, marked as a name-based UUID (version 8, RFC 9562) as PS3.5 wants a UUID there.

    Parameters
    ----------
    *parts : str
        What the object depends on: a purpose first, then source UIDs and hashes.

    Examples
    --------
    >>> derive_uid("seg", "1.2.3") == derive_uid("seg", "1.2.3") != derive_uid("seg", "1.2.4")
    True
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8")
        digest.update(len(data).to_bytes(8, "big") + data)
    number = int.from_bytes(digest.digest()[:16], "big")
    number = number & ~(0xF << 76) | 8 << 76
    number = number & ~(0x3 << 62) | 2 << 62
    return f"2.25.{number}"
