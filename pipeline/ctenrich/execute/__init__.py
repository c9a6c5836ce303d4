"""Who runs the units: one process, several on this machine, or Ray. All keep the same small protocol."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from ctenrich.execute.base import Executor
from ctenrich.progress import SILENT, Progress

if TYPE_CHECKING:
    from ctenrich.resident import Models
    from ctenrich.settings import Settings

__all__ = ["Executor", "ExecutorName", "open_executor"]


class ExecutorName(StrEnum):
    """The choices of ``--executor``."""

    AUTO = "auto"
    """serial for one series, processes for more."""
    SERIAL = "serial"
    PROCESSES = "processes"
    RAY = "ray"


def open_executor(
    name: ExecutorName,
    root: Path,
    settings: Settings,
    *,
    models: Models | None = None,
    address: str | None = None,
    progress: Progress = SILENT,
) -> Executor:
    """Start an executor; its owner closes it.

    Parameters
    ----------
    name : ExecutorName
        Which one; ``auto`` counts as ``serial`` here, the caller knows how many series there are.
    root : Path
        The run's folder.
    settings : Settings
        The run's settings.
    models : Models, optional
        Open models, used by ``serial`` alone.
    address : str, optional
        Of a Ray cluster.
    progress : Progress
        Told by the stages, with ``serial`` alone.
    """
    if name is ExecutorName.PROCESSES:
        from ctenrich.execute.processes import ProcessExecutor

        return ProcessExecutor(root, settings)
    if name is ExecutorName.RAY:
        from ctenrich.execute.ray import RayExecutor

        return RayExecutor(root, settings, address=address)
    from ctenrich.execute.serial import SerialExecutor

    return SerialExecutor(root, settings, models=models, progress=progress)
