"""What runs on the images of a case: a record that the process which receives them reads without the stages."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RunRequest"]


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What runs on a closed case."""

    segmenters: tuple[str, ...] = ()
    bodypart: str = "none"
    settings: str = ""
    """Settings file (TOML)."""
    device: str = ""
    """Device of the networks; empty: that of the settings."""
    rois: tuple[str, ...] = ()
    mappings: str = ""
    allow_demo_models: bool = False
    engine: str = ""
    """Container engine (podman, docker or apptainer); empty: the first that is installed."""

    @property
    def asked(self) -> bool:
        """Whether anything runs."""
        return bool(self.segmenters) or self.bodypart != "none"
