"""The secret key, and what is derived from it: UIDs, pseudonyms, shifts of dates and tokens for words."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason

__all__ = ["LARGEST_SHIFT", "SMALLEST_SHIFT", "Key", "create_key", "read_key"]

SMALLEST_SHIFT, LARGEST_SHIFT = 365, 3652
"""Days by which the dates of a patient are moved into the past, at least and at most."""
_KEY = re.compile(rb"[0-9a-f]{64}\s*")
_HINT = "a key file is made with --create-key; it has 64 hexadecimal digits, and only its owner may read it (chmod 600)"


@dataclass(frozen=True, kw_only=True)
class Key:
    """Derives all replacements by HMAC-SHA256 (RFC 2104): the same key gives the same ones on every machine."""

    secret: bytes = field(repr=False)

    def _digest(self, purpose: str, *parts: str) -> bytes:
        """Code of the parts, each framed by its length, so that ``("a", "bc")`` and ``("ab", "c")`` differ."""
        code = hmac.new(self.secret, digestmod=hashlib.sha256)
        for part in (purpose, *parts):
            data = part.encode("utf-8", "surrogatepass")
            code.update(len(data).to_bytes(8, "big") + data)
        return code.digest()

    def uid(self, original: str) -> str:
        """UID below 2.25 (PS3.5 annex B.2) that replaces another one; 122 bits of it depend on key and original."""
        number = int.from_bytes(self._digest("uid", original)[:16], "big")
        number = number & ~(0xF << 76) | 8 << 76
        number = number & ~(0x3 << 62) | 2 << 62
        return f"2.25.{number}"

    def pseudonym(self, patient_id: str) -> str:
        """Pseudonym of a patient: P and 16 letters and digits (80 bits)."""
        return "P" + _base32(self._digest("patient", patient_id)[:10])

    def shift(self, pseudonym: str) -> int:
        """Days by which the dates of a patient are moved; negative."""
        number = int.from_bytes(self._digest("dates", pseudonym)[:8], "big")
        return -(SMALLEST_SHIFT + number % (LARGEST_SHIFT - SMALLEST_SHIFT + 1))

    def token(self, word: str) -> str:
        """Token that replaces a word of free text, whatever its case: x and 5 letters and digits (25 bits)."""
        return "x" + _base32(self._digest("word", word.casefold())[:5])[:5].lower()

    def fingerprint(self, *parts: str) -> str:
        """Short code of texts, from which neither they nor the key can be found; equal texts have equal codes."""
        return self._digest("fingerprint", *parts)[:12].hex()


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode("ascii").rstrip("=")


def create_key(path: Path) -> None:
    """Create a key file of 256 random bits that only its owner can read.

    Raises
    ------
    UsageError
        KEY_FILE if the file exists: a key is never overwritten.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        hint = "leave --create-key out to use that key"
        raise UsageError(Reason.KEY_FILE, "the key file exists already, and a key is never overwritten", hint) from None
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(secrets.token_hex(32).encode("ascii") + b"\n")
        handle.flush()
        os.fsync(handle.fileno())


def read_key(path: Path) -> Key:
    """Read a key file.

    Raises
    ------
    UsageError
        KEY_FILE if there is none, if others may read or write it, or if it holds no key.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0))
    except OSError as error:
        message = f"the key file cannot be opened: {os.strerror(error.errno or 0).lower()}"
        raise UsageError(Reason.KEY_FILE, message, _HINT) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(Reason.KEY_FILE, "the key file is not a regular file", _HINT)
        if status.st_mode & 0o077:
            raise UsageError(Reason.KEY_FILE, "others than its owner may use the key file", _HINT)
        content = os.read(descriptor, 200)
    finally:
        os.close(descriptor)
    if _KEY.fullmatch(content) is None:
        raise UsageError(Reason.KEY_FILE, "the file holds no key", _HINT)
    return Key(secret=bytes.fromhex(content.decode("ascii").strip()))
