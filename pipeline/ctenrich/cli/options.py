"""Options that commands of several groups share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ctenrich.settings import SegSettings

__all__ = ["MaxVoxels", "SettingsFile", "seg_limits"]

SettingsFile = Annotated[Path | None, typer.Option("--settings", help="TOML file with settings.")]
MaxVoxels = Annotated[
    int | None, typer.Option(min=1, help="Voxels of the largest grid that a SEG may ask for; default: seg.max_voxels.")
]


def seg_limits(settings: Path | None, max_voxels: int | None, run: SegSettings | None = None) -> SegSettings:
    """Return the limits of SEGs that are read: of the option, else of the settings file, else of the run.

    Parameters
    ----------
    settings : Path or None
        Settings file that was named.
    max_voxels : int or None
        Value of ``--max-voxels``.
    run : SegSettings, optional
        Settings of the run.

    Returns
    -------
    SegSettings
    """
    from dataclasses import replace

    from ctenrich.settings import load_settings

    limits = load_settings(settings).seg if settings is not None or run is None else run
    return replace(limits, max_voxels=max_voxels) if max_voxels is not None else limits
