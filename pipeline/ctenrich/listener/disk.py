"""The operations on files that make received objects last, in one place so that tests can simulate a power failure."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ctenrich.workspace import sync_folders

__all__ = ["Disk"]


class Disk:
    """The local disk."""

    def create(self, path: Path) -> int:
        """Create an empty file that only its owner can read; returns its descriptor."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, descriptor: int, data: bytes | bytearray) -> None:
        """Write all of some bytes."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    def sync_file(self, descriptor: int) -> None:
        """Return once the bytes and the size of a file are on disk."""
        os.fdatasync(descriptor)

    def truncate(self, path: Path, size: int) -> None:
        """Cut a file off behind some bytes; a power failure may undo that."""
        os.truncate(path, size)

    def sync_folder(self, path: Path) -> None:
        """Return once the names in a folder are on disk."""
        sync_folders([path])

    def free(self, path: Path) -> int:
        """Bytes that can still be written."""
        return shutil.disk_usage(path).free
