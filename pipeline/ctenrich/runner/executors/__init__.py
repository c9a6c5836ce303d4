"""Who runs the jobs: one process, several on this machine, or Ray. All keep the same small protocol."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from ctenrich.progress import SILENT, Progress
from ctenrich.runner.executors.base import Executor

if TYPE_CHECKING:
    from ctenrich.inference.model_cache import ModelCache
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
    models: ModelCache | None = None,
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
    models : ModelCache, optional
        Open models, used by ``serial`` alone.
    address : str, optional
        Of a Ray cluster.
    progress : Progress
        Told by the stages, with ``serial`` alone.
    """
    if name is ExecutorName.PROCESSES:
        from ctenrich.runner.executors.processes import ProcessExecutor

        return ProcessExecutor(root, settings)
    if name is ExecutorName.RAY:
        from ctenrich.runner.executors.ray import RayExecutor

        return RayExecutor(root, settings, address=address)
    from ctenrich.runner.executors.serial import SerialExecutor

    return SerialExecutor(root, settings, models=models, progress=progress)
