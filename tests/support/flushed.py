"""Which files and folders a test's code flushes to the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def record_flushes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of all that is flushed from now on, in order; it is flushed all the same."""
    flushed: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return flushed
