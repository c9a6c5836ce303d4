"""Run one container: time limit, watch on the size of its output, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctenrich.containers.engines import ContainerSpec, Engine
from ctenrich.errors import InputError, ToolError
from ctenrich.reasons import Reason

__all__ = ["ContainerLimits", "run_container"]

_POLL_SECONDS = 0.1
_WATCH_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class ContainerLimits:
    """Limits that are kept from outside."""

    timeout: float
    """Seconds."""
    output_bytes: int = 50 * 1024**3
    """Of all writable mounts together."""


def run_container(
    engine: Engine,
    spec: ContainerSpec,
    limits: ContainerLimits,
    log: Path,
    *,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Run a container until it ends.

    A container of the same step that a killed client left is removed first, unless it belongs to an owner, whose
    containers were removed when this process began.

    Parameters
    ----------
    engine : Engine
        The engine.
    spec : ContainerSpec
        The container.
    limits : ContainerLimits
        Time and size of its output.
    log : Path
        Gets what it prints.
    stop : callable
        Whether to end it; called a few times a second.

    Raises
    ------
    ToolError
        TIMEOUT; TOOL_FAILED for another exit code than 0; TOOL_MISSING.
    InputError
        OUTPUT_TOO_LARGE.
    KeyboardInterrupt
        It was stopped.
    """
    if not spec.owner:
        engine.reap(work=spec.work)
    writable = [mount.host for mount in spec.mounts if mount.writable]
    try:
        with log.open("wb") as handle:
            process = subprocess.Popen(
                engine.command(spec),
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=subprocess.STDOUT,
                cwd=log.parent,  # podman writes a file "oom" here about a container that had no memory left
            )
            try:
                code = _wait(process, spec, limits, [*writable, log], stop)
            finally:
                if process.poll() is None or engine.leaves:
                    engine.remove(spec.name)
                if process.poll() is None:
                    process.kill()
                    process.wait()
    except FileNotFoundError as error:
        raise ToolError(Reason.TOOL_MISSING, f"{engine.name} is not installed") from error
    if code != 0:
        raise ToolError(Reason.TOOL_FAILED, f"the container ended with exit code {code}; its log is {log.name}")


def _wait(
    process: subprocess.Popen[bytes],
    spec: ContainerSpec,
    limits: ContainerLimits,
    watched: Sequence[Path],
    stop: Callable[[], bool],
) -> int:
    end, next_look = time.monotonic() + limits.timeout, 0.0
    while (code := process.poll()) is None:
        now = time.monotonic()
        if now > end:
            raise ToolError(Reason.TIMEOUT, f"{spec.name} did not end within {limits.timeout:g} s")
        if stop():
            raise KeyboardInterrupt
        if now > next_look:
            next_look = now + _WATCH_SECONDS
            _check_size(watched, limits)
        time.sleep(_POLL_SECONDS)
    _check_size(watched, limits)
    return code


def _check_size(watched: Sequence[Path], limits: ContainerLimits) -> None:
    if sum(_size(path) for path in watched) > limits.output_bytes:
        raise InputError(Reason.OUTPUT_TOO_LARGE, f"a step wrote more than {limits.output_bytes} bytes")


def _size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; links are not followed."""
    files = (Path(folder) / name for folder, _, names in os.walk(path) for name in names) if path.is_dir() else [path]
    total = 0
    for file in files:
        try:
            total += file.lstat().st_blocks * 512
        except OSError:  # it has just gone
            continue
    return total
