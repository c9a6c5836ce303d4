"""A folder of a user whom file permissions bind, which root is not: the test runs as that user meanwhile."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import pytest

_NOBODY = 65534


@contextmanager
def folder_of_plain_user() -> Iterator[Path]:
    """Make a folder, and be its owner until the end, who is not root; skips where files have no owners."""
    if not hasattr(os, "geteuid"):
        pytest.skip("files have no owners on this system")
    folder = Path(mkdtemp(prefix="plain-user-"))
    own = os.geteuid()
    try:
        if own == 0:
            os.chown(folder, _NOBODY, -1)
            os.seteuid(_NOBODY)
        yield folder
    finally:
        for place, names, _ in os.walk(folder):
            for path in (Path(place), *(Path(place, name) for name in names)):
                path.chmod(0o700)
        if own == 0:
            os.seteuid(own)
        shutil.rmtree(folder)
