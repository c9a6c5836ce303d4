"""Bytes of the fetched objects of a run, which many series make slow to add up."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from ctenrich.workspace import Workspace, files_below

__all__ = ["fetched_bytes", "fits_quota"]

_QUICK = 0.05
"""Seconds: where adding up takes no longer it is done for every series."""
_AGAIN_AFTER = 10
"""Otherwise it is done again after this many times the seconds that it took, or before a series is refused."""

_lock = threading.Lock()
_known: dict[Path, tuple[float, int]] = {}
"""Folder of a run -> until when its sum counts (monotonic clock), bytes."""


def fetched_bytes(folder: Path) -> int:
    """Return the size of the fetched objects in a series' folder, in bytes."""
    return sum(status.st_size for _, status in files_below(folder / "source"))


def fits_quota(need: int, quota: int, folder: Path, workspace: Workspace) -> tuple[bool, int]:
    """Decide whether a series fits into what the fetched objects of all others leave of a quota.

    Adding up all series of a large run takes seconds. It is done at most a tenth of the time, so that what was fetched
    meanwhile may not be counted; no series is refused because of an old sum.

    Parameters
    ----------
    need : int
        Bytes of the series.
    quota : int
        Bytes of all.
    folder : Path
        Of the series, whose own objects do not count.
    workspace : Workspace

    Returns
    -------
    fits : bool
    used : int
        Bytes of the others.
    """
    with _lock:
        until, total = _known.get(workspace.root, (0.0, 0))
    own = fetched_bytes(folder)
    if time.monotonic() < until and max(total - own, 0) + need <= quota:
        return True, max(total - own, 0)
    begin = time.monotonic()
    total = sum(fetched_bytes(other) for other in workspace.series_dirs())
    took = time.monotonic() - begin
    with _lock:
        _known[workspace.root] = (begin + took * (1 + _AGAIN_AFTER) if took > _QUICK else 0.0, total)
    used = max(total - own, 0)
    return used + need <= quota, used
