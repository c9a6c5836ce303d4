"""Foreign files are read in a child process with limits; whatever happens there is one typed error here."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ctenrich.errors import ModelError
from ctenrich.inference import isolation
from ctenrich.inference.isolation import run_isolated
from ctenrich.reasons import Reason

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "_PACKAGE_PARENT", os.pathsep.join((str(ROOT / "pipeline"), str(ROOT))))
    monkeypatch.setattr(isolation, "_SECONDS", 1)


def ask(input_bytes: int = 0, **request: Any) -> None:
    run_isolated("tests.support.isolated_worker", request, input_bytes=input_bytes)


def test_results_are_files(tmp_path: Path) -> None:
    ask(act="work", file=str(tmp_path / "result"))
    assert (tmp_path / "result").read_text() == "done"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the address space is limited on Linux alone")
def test_memory_is_limited_in_proportion_to_the_input() -> None:
    with pytest.raises(ModelError, match="takes more than 1536 MB") as caught:
        ask(act="allocate", bytes=2 * 1024**3)
    assert caught.value.reason is Reason.UNSAFE_WEIGHTS
    ask(act="allocate", bytes=2 * 1024**3, input_bytes=1024**3)


def test_time_is_limited() -> None:
    begin = time.monotonic()
    with pytest.raises(ModelError, match="or 1 s") as caught:
        ask(act="spin")
    assert caught.value.reason is Reason.UNSAFE_WEIGHTS
    assert time.monotonic() - begin < 60


@pytest.mark.parametrize(
    ("act", "reason", "message"),
    [
        ("die", Reason.BAD_MODEL, "exit code 7"),
        ("raise", Reason.BAD_MODEL, "ValueError: no such thing"),
        ("refuse", Reason.WRONG_MODALITY, "needs MR"),
    ],
)
def test_failures_have_a_reason(act: str, reason: Reason, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        ask(act=act)
    assert caught.value.reason is reason
