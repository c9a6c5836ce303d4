"""Registry of the executors: one process, several processes on this machine, or Ray."""

from __future__ import annotations

from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ctenrich.runner.executors.base import Executor, ExecutorOptions

if TYPE_CHECKING:
    from ctenrich.settings import Settings

__all__ = ["Executor", "ExecutorName", "ExecutorOptions", "open_executor"]


class ExecutorName(StrEnum):
    """The choices of ``--executor``, each with the module whose ``open_executor`` starts it.

    A new executor is one module and one line here.
    """

    module: str

    def __new__(cls, name: str, module: str = "") -> ExecutorName:
        """Use the name as the value, and keep the module."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.module = module
        return member

    AUTO = "auto"
    SERIAL = "serial", "ctenrich.runner.executors.serial"
    PROCESSES = "processes", "ctenrich.runner.executors.processes"
    RAY = "ray", "ctenrich.runner.executors.ray"

    def for_series(self, count: int) -> ExecutorName:
        """Return the executor that ``auto`` stands for: serial for one series, processes for more."""
        if self is not ExecutorName.AUTO:
            return self
        return ExecutorName.PROCESSES if count > 1 else ExecutorName.SERIAL


def open_executor(
    name: ExecutorName, root: Path, settings: Settings, options: ExecutorOptions | None = None
) -> Executor:
    """Start an executor; its owner closes it.

    Parameters
    ----------
    name : ExecutorName
        Which one; ``auto`` is ``serial`` here, see :meth:`ExecutorName.for_series`.
    root : Path
        The run's folder.
    settings : Settings
        The run's settings.
    options : ExecutorOptions, optional
        Open models, address of a cluster, progress.

    Returns
    -------
    Executor
        The started executor.

    Raises
    ------
    UsageError
        MISSING_EXTRA if a package that the executor needs is not installed.
    """
    # only the module of the executor that was chosen is loaded: Ray is heavy
    module = import_module(name.for_series(1).module)
    return cast("Executor", module.open_executor(root, settings, options or ExecutorOptions()))
