"""Everything in this process, one unit after another: for notebooks and debugging, the same bytes."""

from __future__ import annotations

from collections import deque
from pathlib import Path

from ctenrich.progress import SILENT, Progress
from ctenrich.runner.job import Unit, UnitResult, run_unit
from ctenrich.runner.model_cache import Models
from ctenrich.settings import Settings

__all__ = ["SerialExecutor"]

_ORDER = ("output", "infer", "input")


class SerialExecutor:
    """Runs a unit when its result is asked for; units that finish a series go first.

    Parameters
    ----------
    root : Path
        The run's folder.
    settings : Settings
        The run's settings.
    models : Models, optional
        Models that are open already.
    progress : Progress
        Told by the stages.
    """

    name = "serial"
    slots = 1

    def __init__(
        self, root: Path, settings: Settings, *, models: Models | None = None, progress: Progress = SILENT
    ) -> None:
        self._root = root
        self._settings = settings
        self._models = models or Models(settings)
        self._progress = progress
        self._queues: dict[str, deque[Unit]] = {lane: deque() for lane in _ORDER}

    def submit(self, unit: Unit) -> None:
        """Queue a unit."""
        self._queues[unit.lane].append(unit)

    def collect(self, timeout: float) -> UnitResult | None:
        """Run the next unit."""
        for lane in _ORDER:
            if self._queues[lane]:
                unit = self._queues[lane].popleft()
                return run_unit(
                    unit, self._root, self._settings, self._models, worker=self.name, progress=self._progress
                )
        return None

    def close(self, *, kill: bool = False) -> None:
        """Forget what is queued."""
        for queue in self._queues.values():
            queue.clear()
