"""Recognise files that certainly hold no DICOM object, by their first bytes."""

from __future__ import annotations

from pathlib import Path

__all__ = ["kind_of_other_file"]

_OTHER_FILES = (b"%PDF", b"\x89PNG", b"GIF8", b"\xff\xd8\xff", b"SQLite format 3", b"\x00\x05\x16\x07", b"n+1", b"ni1")
_ARCHIVES = (
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
    b"7z\xbc\xaf",
    b"Rar!",
    b"\x28\xb5\x2f\xfd",
)


def kind_of_other_file(path: Path) -> str | None:
    """Describe a file that certainly is no DICOM object; None if it may be one."""
    with path.open("rb") as handle:
        start = handle.read(4096)
    if start[128:132] == b"DICM" or not start:
        return None
    if start.startswith(_ARCHIVES) or start[257:262] == b"ustar":
        return "an archive (it was not opened)"
    if start.startswith(_OTHER_FILES) or start[344:347] in {b"n+1", b"ni1"}:
        return "a file of another kind"
    try:
        content = start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 4:
            return None
        content = start[: error.start].decode("utf-8")
    return "a text file" if all(c.isprintable() or c.isspace() for c in content) else None
