"""The trailer of a received file: what its row in the database states, for as long as that is not on disk."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from ctenrich.listener.incoming import FileMeta

__all__ = ["Trailer", "encode_trailer", "read_trailer"]

_MAGIC = b"\r\nctenrich trailer 1\r\n"
_DIGEST = 32
_LENGTH = 4
_END = _DIGEST + _LENGTH + len(_MAGIC)
_LARGEST = 4096
_META_START = 144
_CHUNK = 256 * 1024


@dataclass(frozen=True, kw_only=True)
class Trailer:
    """What is known of a received object."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax: str
    sha256: str
    """Of the data set."""
    size: int
    """Bytes of the DICOM file, which are followed by the trailer."""
    association: int
    received: float

    @classmethod
    def of(cls, meta: FileMeta, *, sha256: str, size: int, association: int, received: float) -> Trailer:
        """Make the trailer of an object.

        Parameters
        ----------
        meta : FileMeta
            Its identifiers.
        sha256 : str
            SHA-256 of its data set, hexadecimal.
        size : int
            Bytes of its file.
        association : int
            Row of the association, request or folder that it came by.
        received : float
            Seconds since 1970.
        """
        return cls(
            sop_instance_uid=meta.sop_instance_uid,
            sop_class_uid=meta.sop_class_uid,
            transfer_syntax=meta.transfer_syntax,
            sha256=sha256,
            size=size,
            association=association,
            received=received,
        )


def encode_trailer(trailer: Trailer) -> bytes:
    """Return the bytes of a trailer: JSON, its SHA-256, its length, and a magic number."""
    text = json.dumps(vars(trailer)).encode()
    return text + hashlib.sha256(text).digest() + len(text).to_bytes(_LENGTH, "big") + _MAGIC


def read_trailer(path: Path) -> Trailer | None:
    """Read the trailer of a file; None if there is none, or the file is not exactly what its trailer states.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    total = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, total - _END - _LARGEST))
        tail = file.read()
        if len(tail) < _END or not tail.endswith(_MAGIC):
            return None
        digest, length = tail[-_END : -_END + _DIGEST], tail[-_END + _DIGEST : -len(_MAGIC)]
        text = tail[: len(tail) - _END][-int.from_bytes(length, "big") :]
        if len(text) != int.from_bytes(length, "big") or hashlib.sha256(text).digest() != digest:
            return None
        trailer = Trailer(**json.loads(text))
        if trailer.size + len(text) + _END != total:
            return None
        file.seek(140)
        start = _META_START + int.from_bytes(file.read(_LENGTH), "little")
        file.seek(start)
        found, left = hashlib.sha256(), trailer.size - start
        while left > 0 and (data := file.read(min(_CHUNK, left))):
            found.update(data)
            left -= len(data)
    return trailer if found.hexdigest() == trailer.sha256 else None
