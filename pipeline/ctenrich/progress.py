"""Progress reports: stages report to an object that they are given, silent by default."""

from __future__ import annotations

from typing import Protocol

__all__ = ["SILENT", "Progress"]


class Progress(Protocol):
    """Receives the progress of a stage.

    A task is identified by its name; `total` and `amount` are counted in units that the stage chooses.
    """

    def start(self, task: str, total: float | None = None) -> None:
        """Begin a task.

        Parameters
        ----------
        task : str
            Name of the task, by which later calls refer to it.
        total : float, optional
            Units of work; None: unknown.
        """

    def advance(self, task: str, amount: float = 1) -> None:
        """Count more units of a task as done.

        Parameters
        ----------
        task : str
            Name of the task.
        amount : float
            Units of work.
        """

    def note(self, message: str) -> None:
        """Show a message."""

    def status(self, task: str, text: str) -> None:
        """Show a short text about a task, in place of the last one.

        Parameters
        ----------
        task : str
            Name of the task.
        text : str
            A few words.
        """

    def finish(self, task: str) -> None:
        """End the task."""


class _Silent:
    def start(self, task: str, total: float | None = None) -> None:
        return None

    def advance(self, task: str, amount: float = 1) -> None:
        return None

    def note(self, message: str) -> None:
        return None

    def status(self, task: str, text: str) -> None:
        return None

    def finish(self, task: str) -> None:
        return None


SILENT: Progress = _Silent()
"""The default: reports nothing."""
