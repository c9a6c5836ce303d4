"""The models of a test session are converted below a folder of its own, never in the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

__all__ = ["models_home"]


@pytest.fixture(autouse=True)
def models_home(models_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point CTENRICH_MODELS at the session's folder."""
    monkeypatch.setenv("CTENRICH_MODELS", str(models_folder))
