"""Progress as an argument: stages report to an object that is silent by default."""

from __future__ import annotations

from typing import Protocol

__all__ = ["SILENT", "Progress"]


class Progress(Protocol):
    """What a stage tells while it works."""

    def start(self, task: str, total: float | None = None) -> None:
        """Begin a task of `total` units (None: unknown)."""

    def advance(self, task: str, amount: float = 1) -> None:
        """`amount` more units of `task` are done."""

    def note(self, message: str) -> None:
        """Something worth a line."""

    def status(self, task: str, text: str) -> None:
        """How `task` goes, in a few words that replace the last ones."""

    def finish(self, task: str) -> None:
        """The task has ended."""


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
"""The default: says nothing."""
