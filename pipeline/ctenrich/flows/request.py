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
    resources: tuple[str, ...] = ()
    """What containers that run at the same time may have together, ``NAME=NUMBER``: ``cpu=8``, ``gpu=1``, tags."""
    commands: tuple[str, ...] = ()
    """Absolute paths of programs of this machine that steps may run; none unless they are named."""
    static: str = ""
    """Folder of the static files (``static_mounts`` of steps)."""
    off_peak: str = ""
    """Hours in which flows with ``when: off_peak`` start, e.g. ``22:00-06:00``; empty: such flows are refused."""
    executor: str = "serial"
    """Where the jobs of the products run: ``serial``, ``processes`` or ``ray``; the results are the same."""
    address: str = ""
    """Address of a Ray cluster."""
    owner: str = ""
    """Hash of the station or run whose process runs the steps, alone; it labels their containers. Empty: none."""

    @property
    def asked(self) -> bool:
        """Whether anything runs."""
        return bool(self.segmenters) or self.bodypart != "none"
