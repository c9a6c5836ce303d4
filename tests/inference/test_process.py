"""The process that networks run in: freed memory is kept, and the user's own allocator settings are respected."""

from __future__ import annotations

import gc
import resource
import subprocess
import sys

import pytest

from ctenrich.inference import process

_PAGES_OF_LAYERS = """
import sys
from ctenrich.inference.process import prepare_process
if sys.argv[1] == "kept":
    prepare_process()
import resource, torch
torch.set_num_threads(1)
def layers():
    for _ in range(12):
        torch.ones(2**24)
layers()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
layers()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _new_pages(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", _PAGES_OF_LAYERS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_memory_that_layers_free_is_used_again() -> None:
    layer = 2**26 // resource.getpagesize()
    assert _new_pages("as the system does") >= 10 * layer
    assert _new_pages("kept") < 2 * layer


_EXCESS = """
from ctenrich.inference.process import keep_freed_memory, return_excess_memory
import numpy as np
def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
kept = keep_freed_memory()
layers = [np.ones(2**20) for _ in range(16)]
held = layers.pop(8)
del layers
before = resident()
print(kept, return_excess_memory(2**30), before - resident() > 100_000, return_excess_memory(2**24), end=" ")
print(before - resident() > 100_000, held.sum() == 2**20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_beyond_the_limit_is_returned() -> None:
    done = subprocess.run([sys.executable, "-c", _EXCESS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "False", "True", "True", "True"]


def test_without_glibc_nothing_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.ctypes, "CDLL", lambda _: object())
    assert process.return_excess_memory(0) is False


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_the_users_own_settings_of_the_allocator_stay(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "2")
    monkeypatch.setattr(process.ctypes, "CDLL", lambda _: pytest.fail("the allocator was changed"))
    assert process.keep_freed_memory() is False


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.ctypes, "CDLL", lambda _: object())
    assert process.keep_freed_memory() is False


def test_old_glibc_gets_no_mappings_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []

    class Library:
        gnu_get_libc_version = None

        @staticmethod
        def mallopt(parameter: int, value: int) -> int:
            calls.append((parameter, value))
            return 0 if parameter == -3 else 1  # M_MMAP_THRESHOLD above its limit

    monkeypatch.setattr(process.ctypes, "CDLL", lambda _: Library)
    assert process.keep_freed_memory() is True
    assert (-4, 0) in calls  # M_MMAP_MAX


def test_collection_of_garbage_goes_on_as_it_was() -> None:
    process.prepare_process()
    assert gc.isenabled()
    gc.disable()
    try:
        process.prepare_process.__wrapped__()
        assert not gc.isenabled()
    finally:
        gc.enable()
