"""Keep pydicom's warnings off while files are read whose values our own rules judge."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pydicom import config

__all__ = ["quiet"]


class _Quiet:
    """Filters of warnings and pydicom's checks belong to the process: the last thread to leave sets them back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = ExitStack()

    def enter(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                settings = config.settings
                self._before.callback(setattr, settings, "reading_validation_mode", settings.reading_validation_mode)
                settings.reading_validation_mode = config.IGNORE
                self._before.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._before.close()


_quiet = _Quiet()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom from warning about values that our own rules judge anyway; several threads may be inside."""
    _quiet.enter()
    try:
        yield
    finally:
        _quiet.leave()
