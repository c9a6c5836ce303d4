"""Fixtures of the networks other than nnU-Net."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for files of a test, with a folder of models in it that is empty."""
    monkeypatch.setenv("CTENRICH_MODELS", str(tmp_path / "own"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no-hub"))
    return tmp_path
