"""Progress bars for notebooks, one per task, redrawn in place."""

from __future__ import annotations

import time
from html import escape
from typing import Any

from ctenrich.notebook.output import html, show

__all__ = ["Bar"]


class Bar:
    """Progress for notebooks: one bar per task, redrawn in place."""

    def __init__(self) -> None:
        self._tasks: dict[str, _Task] = {}

    def start(self, task: str, total: float | None = None) -> None:
        """Begin a task of `total` units."""
        self._tasks[task] = _Task(task, total)
        self._tasks[task].draw()

    def advance(self, task: str, amount: float = 1) -> None:
        """Count `amount` more units of `task` as done."""
        if task in self._tasks:
            self._tasks[task].done += amount
            self._tasks[task].draw()

    def note(self, message: str) -> None:
        """Show a line."""
        show(html(f"<small>{escape(message)}</small>"))

    def status(self, task: str, text: str) -> None:
        """Ignore the status: bars in a notebook are short."""

    def finish(self, task: str) -> None:
        """End the task."""
        if task in self._tasks:
            self._tasks[task].draw(ended=True)


class _Task:
    """One bar, redrawn at most five times a second."""

    def __init__(self, name: str, total: float | None) -> None:
        self.name, self.total, self.done = name, total, 0.0
        self._handle: Any = None
        self._drawn = 0.0

    def draw(self, *, ended: bool = False) -> None:
        """Show the bar, or redraw it."""
        now = time.monotonic()
        if not ended and now - self._drawn < 0.2:
            return
        self._drawn = now
        label = escape(self.name)
        of = f" of {self.total:g}" if self.total else ""
        value = f' value="{self.done:g}" max="{self.total:g}"' if self.total else ""
        bar = "" if ended else f'<progress aria-label="{label}"{value}></progress> '
        shown = html(f"<small>{bar}{label}: {'done, ' if ended else ''}{self.done:g}{of}</small>")
        if self._handle is None:
            self._handle = show(shown, handle=True)
        else:
            self._handle.update(shown)
