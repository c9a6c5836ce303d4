"""Programs of this machine as an engine: they run as the user of this process, without the walls of a container."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import psutil

from ctenrich.containers.engines import ContainerSpec
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.workspace import sha256_of_file

__all__ = ["ProgramEngine"]

_WORK, _NAME, _OWNER = "CTENRICH_WORK", "CTENRICH_NAME", "CTENRICH_OWNER"
"""Environment variables by which the processes of a program are found, its children too."""
_KEPT = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR")
"""Variables of this process that a program gets; tokens and passwords are not among them."""
_GENERATIONS = 20


class ProgramEngine:
    """Runs programs that the station allows by name; mounts are folders of this machine.

    In a command, a word that is the path of a mount, or a path below it, is replaced by the path on this machine. The
    environment has the path of each mount too, under the name of its target: ``INPUT`` for ``/input``.

    Parameters
    ----------
    allowed : collection of str
        Absolute paths of programs.
    """

    name = "program"
    leaves = True

    def __init__(self, allowed: Collection[str]) -> None:
        self._allowed = frozenset(allowed)

    def image_id(self, image: str) -> str:
        """SHA-256 of a program; raises BAD_FLOW if it is not allowed, NOT_FOUND if it cannot be run."""
        if image not in self._allowed:
            message = f"{image} is not among the commands that are allowed here"
            raise UsageError(Reason.BAD_FLOW, message, "name its absolute path in commands of [run], in station.toml")
        if not Path(image).is_file() or not os.access(image, os.X_OK):
            raise UsageError(Reason.NOT_FOUND, f"{image} is no program that can be run")
        return f"sha256:{sha256_of_file(Path(image))}"

    def entrypoint(self, image: str) -> tuple[str, ...]:
        """Nothing: the command of the step is run."""
        return ()

    def environment(self, image: str) -> tuple[str, ...]:
        """Nothing: a program sets no variables."""
        return ()

    def read_file(self, image: str, path: str) -> bytes:
        """Nothing: a program has no files of its own."""
        return b""

    def command(self, spec: ContainerSpec) -> list[str]:
        """Command line with an environment of its own."""
        paths = {mount.target: str(mount.host.resolve()) for mount in spec.mounts}
        variables = {name: os.environ[name] for name in _KEPT if name in os.environ}
        variables |= {re.sub(r"\W", "_", target.strip("/")).upper(): host for target, host in paths.items()}
        variables |= {name: _on_this_machine(value, paths) for name, value in spec.environment.items()}
        variables |= {"CUDA_VISIBLE_DEVICES": _device(spec.gpu)} if not spec.gpu.endswith("=all") else {}
        variables |= {_WORK: spec.work, _NAME: spec.name, _OWNER: spec.owner}
        words = [_on_this_machine(word, paths) for word in spec.command]
        return ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in variables.items()), *words]

    def remove(self, name: str) -> None:
        """Kill all processes of a program."""
        _kill(_NAME, name)

    def reap(self, *, work: str = "", owner: str = "") -> int:
        """Kill the processes of programs whose clients have ended."""
        return _kill(_OWNER, owner) if owner else _kill(_WORK, work)


def _on_this_machine(text: str, paths: dict[str, str]) -> str:
    """A path of a mount, or below it, as the path on this machine; any other text unchanged."""
    for target in sorted(paths, key=len, reverse=True):
        if text == target or text.startswith(f"{target}/"):
            return paths[target] + text.removeprefix(target)
    return text


def _device(gpu: str) -> str:
    """Index of a GPU of a CDI name; empty, which hides all, for none."""
    return gpu.partition("=")[2]


def _kill(variable: str, value: str) -> int:
    """Stop the processes that have a variable of this value, until they make no new ones, and kill them."""
    found: dict[int, psutil.Process] = {}
    for _ in range(_GENERATIONS):
        new = [one for one in psutil.process_iter() if one.pid not in found and _variable(one, variable) == value]
        if not new:
            break
        for one in new:
            with suppress(psutil.Error):  # it has just ended
                one.suspend()
        found |= {one.pid: one for one in new}
    for one in found.values():
        with suppress(psutil.Error):
            one.kill()
    psutil.wait_procs(list(found.values()), timeout=1)
    return len(found)


def _variable(process: psutil.Process, name: str) -> str | None:
    try:
        return process.environ().get(name)  # type: ignore[no-any-return]
    except (psutil.Error, OSError):  # of another user, or it has just ended
        return None
