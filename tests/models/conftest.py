"""Models are converted below the session's folder."""

from __future__ import annotations

from tests.support.models_home import in_process, models_home

__all__ = ["in_process", "models_home"]
