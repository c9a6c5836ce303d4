"""The models of a test session are converted below a folder of its own, never in the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctenrich.nnunet import conversion, store

__all__ = ["in_process", "models_home"]


@pytest.fixture(autouse=True)
def models_home(models_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point CTENRICH_MODELS at the session's folder."""
    monkeypatch.setenv("CTENRICH_MODELS", str(models_folder))


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are converted in this process: a child imports torch anew for each of them."""
    monkeypatch.setattr(store, "run_isolated", lambda _, request, **__: conversion._convert_request(request))
