"""The models of a test session are converted below a folder of their own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where models are converted, once a session."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(autouse=True)
def _models_home(models_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTENRICH_MODELS", str(models_folder))
