"""What a model returned is read whole or refused: nothing that this process may not read is left out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import pytest

from ctenrich.errors import InputError
from ctenrich.flows.step_outputs import clear_folder, plain_files
from ctenrich.reasons import Reason

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="the system has no users of files")


@pytest.fixture
def output() -> Iterator[Path]:
    """Folder with two results, below folders that every user may enter."""
    root = Path(mkdtemp(prefix="outputs-"))
    root.chmod(0o755)
    (root / "out" / "a").mkdir(parents=True)
    for place in ("a/first.dcm", "second.dcm"):
        (root / "out" / place).write_bytes(b"x")
    yield root / "out"
    shutil.rmtree(root)


@contextmanager
def _without_rights() -> Iterator[None]:
    """Be a user whom file permissions bind, as the service of a listener is."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(own)


def test_all_files_are_found(output: Path) -> None:
    with _without_rights():
        assert [path.name for path in plain_files(output)] == ["first.dcm", "second.dcm"]
        assert plain_files(output / "none") == []


@pytest.mark.parametrize("place", ["a", "a/first.dcm"])
def test_what_cannot_be_read_is_not_left_out(output: Path, place: str) -> None:
    (output / place).chmod(0)
    with _without_rights(), pytest.raises(InputError, match="belong to another user") as caught:
        plain_files(output)
    assert caught.value.reason is Reason.IO_ERROR
    (output / place).chmod(0o755)


def test_an_attempt_does_not_start_on_what_an_earlier_one_left(output: Path) -> None:
    output.chmod(0o555)
    with _without_rights(), pytest.raises(InputError, match="cannot be deleted") as caught:
        clear_folder(output)
    assert caught.value.reason is Reason.IO_ERROR
    assert len(plain_files(output)) == 2
    output.chmod(0o755)
    clear_folder(output)
    assert plain_files(output) == []
