"""Progress as lines of text, for output that is not a terminal: one at once, then one per minute."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ctenrich.cli.text import printable

__all__ = ["LineProgress", "progress_lines"]

_SECONDS = 60.0
_SHOWN = 3
"""Tasks that one line shows."""


@dataclass
class _Task:
    total: float | None
    done: float = 0
    status: str = ""

    def text(self, name: str) -> str:
        amount = f"{self.done:.0f}" if self.total is None else f"{self.done:.0f} of {self.total:.0f}"
        return ", ".join(filter(None, (f"{name} {amount}", self.status)))


class LineProgress:
    """Counts tasks; a line with all of them is written when the first one starts, and by `write_line`."""

    def __init__(self) -> None:
        self._tasks: dict[str, _Task] = {}
        self._lock = threading.Lock()
        self._begun = False

    def start(self, task: str, total: float | None = None) -> None:
        """Begin a task."""
        with self._lock:
            self._tasks[task] = _Task(total)
            first, self._begun = not self._begun, True
        if first:
            self.write_line()

    def advance(self, task: str, amount: float = 1) -> None:
        """Count more units of a task as done."""
        with self._lock:
            if task in self._tasks:
                self._tasks[task].done += amount

    def note(self, message: str) -> None:
        """Write a message."""
        print(printable(message), file=sys.stderr, flush=True)  # noqa: T201 - the command line's own output

    def status(self, task: str, text: str) -> None:
        """Keep a short text about a task for the next line."""
        with self._lock:
            if task in self._tasks:
                self._tasks[task].status = text

    def finish(self, task: str) -> None:
        """End a task."""
        with self._lock:
            self._tasks.pop(task, None)

    def text(self) -> str:
        """Return the tasks in progress as one line; empty where there is none."""
        with self._lock:
            return "; ".join(task.text(name) for name, task in list(self._tasks.items())[:_SHOWN])

    def write_line(self) -> None:
        """Write the time and the tasks in progress, if there are any."""
        text = self.text()
        if text:
            self.note(f"{time.strftime('%H:%M:%S')} {text}")


@contextmanager
def progress_lines(seconds: float = _SECONDS) -> Iterator[LineProgress]:
    """Write a line about the progress of the block every so often.

    Parameters
    ----------
    seconds : float
        Between two lines.

    Yields
    ------
    LineProgress
    """
    progress, ended = LineProgress(), threading.Event()

    def write() -> None:
        while not ended.wait(seconds):
            progress.write_line()

    thread = threading.Thread(target=write, name="progress", daemon=True)
    thread.start()
    try:
        yield progress
    finally:
        ended.set()
        thread.join(timeout=1)
