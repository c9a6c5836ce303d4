"""The models' folder of the session."""

from __future__ import annotations

from tests.support.models_home import models_home

__all__ = ["models_home"]
