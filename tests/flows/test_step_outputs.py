"""What a model returned is read whole or refused: nothing that this process may not read is left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.permissions import folder_of_plain_user

from ctenrich.errors import InputError
from ctenrich.flows.step_outputs import clear_folder, plain_files
from ctenrich.reasons import Reason


@pytest.fixture
def output() -> Iterator[Path]:
    with folder_of_plain_user() as folder:
        (folder / "out" / "a").mkdir(parents=True)
        for place in ("a/first.dcm", "second.dcm"):
            (folder / "out" / place).write_bytes(b"x")
        yield folder / "out"


def test_all_files_are_found(output: Path) -> None:
    assert [path.name for path in plain_files(output)] == ["first.dcm", "second.dcm"]
    assert plain_files(output / "none") == []


@pytest.mark.parametrize("place", ["a", "a/first.dcm"])
def test_what_cannot_be_read_is_not_left_out(output: Path, place: str) -> None:
    (output / place).chmod(0)
    with pytest.raises(InputError, match="belong to another user") as caught:
        plain_files(output)
    assert caught.value.reason is Reason.IO_ERROR


def test_an_attempt_does_not_start_on_what_an_earlier_one_left(output: Path) -> None:
    output.chmod(0o500)
    with pytest.raises(InputError, match="cannot be deleted") as caught:
        clear_folder(output)
    assert caught.value.reason is Reason.IO_ERROR
    assert len(plain_files(output)) >= 1
    output.chmod(0o700)
    clear_folder(output)
    assert plain_files(output) == []
