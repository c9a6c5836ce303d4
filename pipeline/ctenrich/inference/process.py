"""Prepare a process for networks: torch is loaded, and memory that its tensors free stays with the process."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from functools import cache

__all__ = ["keep_freed_memory", "prepare_process", "return_excess_memory"]

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -2, -3, -4, -8
"""Parameters of mallopt(3)."""
_LARGEST = 2**31 - 1
_TOP_PAD_BYTES = 64 * 1024**2
_EXCESS = 1024**3


@cache
def prepare_process() -> None:
    """Load torch and set the allocator, once per process; called by everything that opens a network."""
    keep_freed_memory()
    was_enabled = gc.isenabled()
    gc.disable()  # an import makes many objects and no garbage
    try:
        with contextlib.suppress(ImportError):  # whoever needs torch reports that it is missing
            import torch  # noqa: F401  (heavy; only products with a network need it)
        gc.freeze()  # so that no later collection looks through the modules
    finally:
        if was_enabled:
            gc.enable()


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory instead of returning it to the system.

    A forward pass takes and frees its largest arrays once per layer. By default glibc maps each of them anew, and the
    system clears every page at its first use: for a network of TotalSegmentator's size a third of the CPU time. No
    result changes. The memory of the process stays at its peak until it ends, and the peak is higher, because freed
    blocks are not always joined.

    Returns
    -------
    bool
        Whether it was set. It is not where another C library is used, or where the user sets glibc's own variables
        (``MALLOC_...``, ``GLIBC_TUNABLES``).
    """
    if any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        library = ctypes.CDLL(None)
        mallopt, _ = library.mallopt, library.gnu_get_libc_version
    except (AttributeError, OSError, TypeError):
        return False
    mallopt(_ARENA_MAX, 1)  # further arenas cannot hold arrays of more than 64 MiB
    if not mallopt(_MMAP_THRESHOLD, _LARGEST):
        mallopt(_MMAP_MAX, 0)  # glibc before 2.35 has a lower limit for the threshold
    return bool(mallopt(_TRIM_THRESHOLD, _LARGEST) and mallopt(_TOP_PAD, _TOP_PAD_BYTES))


class _HeapUse(ctypes.Structure):
    """``struct mallinfo2`` of glibc 2.33 and later."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )


def return_excess_memory(limit: int = _EXCESS) -> bool:
    """Return freed memory that glibc keeps to the system, if it is more than a limit.

    Called between the networks of a product and after a volume: what a network freed is divided into blocks that the
    next one cannot always use, so that a process would grow from network to network. Clearing the pages again costs
    far less than a network of that size.

    Parameters
    ----------
    limit : int
        Bytes of freed memory that the process may keep.

    Returns
    -------
    bool
        Whether there was so much freed memory, and the system took some of it. Never with another C library, or a glibc
        before 2.33.
    """
    try:
        library = ctypes.CDLL(None)
        use, trim = library.mallinfo2, library.malloc_trim
    except (AttributeError, OSError, TypeError):
        return False
    use.restype = _HeapUse
    return use().fordblks > limit and bool(trim(0))
