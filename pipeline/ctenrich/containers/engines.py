"""Command lines of container engines: docker, podman and apptainer behind one protocol."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol
from uuid import uuid4

from ctenrich.errors import ToolError, UsageError, did_you_mean
from ctenrich.reasons import Reason
from ctenrich.tools import find_tool, run_tool

__all__ = ["ContainerSpec", "Engine", "HostMount", "find_engine"]

_SECONDS = 60.0
_LABEL, _OWNER = "ctenrich.work", "ctenrich.owner"
_USER = "1000:1000"
_PIDS = 512
_TMP = "/tmp:size=2g"  # noqa: S108  of the container
"""Folder in memory: without a size podman lets a container fill half of the memory with it."""
_BACKSTOP = 60
"""Seconds after the end of its time that a container has until podman ends it by itself."""
_MANIFEST_BYTES = 1 << 20
"""Longest file that is read from an image."""


@dataclass(frozen=True, kw_only=True)
class HostMount:
    """A folder of this machine inside a container."""

    host: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """What runs, and what it may do."""

    name: str
    """Unique name of the container."""
    work: str
    """Label by which a container of the same step is found whose client was killed."""
    image: str
    """ID or reference of an image that is on this machine."""
    mounts: tuple[HostMount, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cpus: float = 0.0
    memory: int = 0
    """Bytes; 0: no limit of ours."""
    shared_memory: int = 0
    network: bool = False
    root: bool = False
    user: str = ""
    gpu: str = ""
    """CDI name of a device, e.g. ``nvidia.com/gpu=0``; empty: none."""
    owner: str = ""
    """Label by which all containers of a station or run are found; empty: it belongs to none."""
    seconds: float = 0.0
    """Time that the step may take, after which podman ends a container whose client was killed; 0: it does not."""


class Engine(Protocol):
    """A container engine."""

    name: str
    leaves: bool
    """Whether something is left of a container whose client has ended, so that it has to be removed."""

    def image_id(self, image: str) -> str:
        """ID of an image that is on this machine; raises NOT_FOUND if it is not: nothing is pulled."""

    def entrypoint(self, image: str) -> tuple[str, ...]:
        """Entry point of an image."""

    def environment(self, image: str) -> tuple[str, ...] | None:
        """Names of the variables that an image sets; None: the engine does not know them."""

    def read_file(self, image: str, path: str) -> bytes:
        """Content of a small file of an image; empty if it has none of that path."""

    def command(self, spec: ContainerSpec) -> list[str]:
        """Command line that runs a container in the foreground."""

    def remove(self, name: str) -> None:
        """Kill and remove a container, if there is one of that name."""

    def reap(self, *, work: str = "", owner: str = "") -> int:
        """Remove containers of a step, or of an owner, whose clients have ended; returns how many."""


def _own_ids() -> str:
    """User and group of this process as ``--user`` states them; empty for root, or where there are none."""
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        return ""
    return f"{os.geteuid()}:{os.getegid()}"


def _shared_options(spec: ContainerSpec) -> list[str]:
    """Options that all engines spell alike."""
    made = ["--pids-limit", str(_PIDS)]
    made += [] if spec.network else ["--network", "none"]
    made += ["--cpus", f"{spec.cpus:g}"] if spec.cpus else []
    made += ["--memory", str(spec.memory)] if spec.memory else []
    for key, value in spec.environment.items():
        made += ["--env", f"{key}={value}"]
    return made


class DockerEngine:
    """Podman or Docker: they have one command line.

    Parameters
    ----------
    program : Path
        The program.
    """

    def __init__(self, program: Path) -> None:
        self.name = program.name
        self.leaves = self.name != "podman"
        self._program = program
        self._ids: dict[str, str] = {}
        self._configs: dict[str, dict[str, Any]] = {}
        """Image -> its configuration when it was last asked for its ID: a call takes some tenths of a second."""

    def image_id(self, image: str) -> str:
        """ID of an image; raises NOT_FOUND.

        It is asked for once: an engine is made for each run of a flow, whose steps have the same image under one name.
        """
        if image in self._ids:
            return self._ids[image]
        found = run_tool([self._program, "image", "inspect", image], timeout=_SECONDS, check=False)
        try:
            known = json.loads(found.stdout)[0]
            self._configs[image] = known.get("Config") or {}
            self._ids[image] = str(known["Id"])
            return self._ids[image]
        except (ValueError, LookupError, TypeError, AttributeError):
            message = f"the image {image} is not on this machine"
            raise UsageError(Reason.NOT_FOUND, message, "images are never pulled implicitly: load or pull it") from None

    def entrypoint(self, image: str) -> tuple[str, ...]:
        """Entry point of an image."""
        config = self._config(image)
        return tuple(config.get("Entrypoint") or ()) + tuple(config.get("Cmd") or ())

    def environment(self, image: str) -> tuple[str, ...]:
        """Names of the variables that an image sets."""
        return tuple(str(one).partition("=")[0] for one in self._config(image).get("Env") or ())

    def _config(self, image: str) -> dict[str, Any]:
        if image not in self._configs:
            self.image_id(image)
        return self._configs[image]

    def read_file(self, image: str, path: str) -> bytes:
        """Content of a file of an image, by a container that is never started."""
        name = f"ctenrich-{uuid4().hex}"
        run_tool([self._program, "create", "--pull", "never", "--name", name, image, "none"], timeout=_SECONDS)
        try:
            with TemporaryDirectory() as folder:
                copy = Path(folder) / "file"
                run_tool([self._program, "cp", f"{name}:{path}", copy], timeout=_SECONDS, check=False)
                if copy.is_symlink() or not copy.is_file():  # a link would lead to a file of this machine
                    return b""
                with copy.open("rb") as handle:
                    return handle.read(_MANIFEST_BYTES)
        finally:
            run_tool([self._program, "rm", "--force", name], timeout=_SECONDS, check=False)

    def command(self, spec: ContainerSpec) -> list[str]:
        """Command line of ``run``."""
        made = [str(self._program), "run", "--pull", "never", "--name", spec.name, "--label"]
        made += [f"{_LABEL}={spec.work}", "--read-only", "--tmpfs", _TMP, "--cap-drop", "all"]
        made += ["--security-opt", "no-new-privileges"]
        # with --rm the client of Docker reports exit code 0 for every container of podman's API (podman 4.3)
        made += [] if self.leaves else ["--rm"]
        made += ["--label", f"{_OWNER}={spec.owner}"] if spec.owner else []
        made += ["--timeout", str(int(spec.seconds) + _BACKSTOP)] if spec.seconds and self.name == "podman" else []
        made += self._user_options(spec)
        made += ["--shm-size", str(spec.shared_memory)] if spec.shared_memory else []
        made += ["--device", spec.gpu] if spec.gpu else []
        made += _shared_options(spec)
        for mount in spec.mounts:
            made += ["--volume", f"{mount.host.absolute()}:{mount.target}" + ("" if mount.writable else ":ro")]
        command = list(spec.command)
        if spec.entrypoint:
            made += ["--entrypoint", spec.entrypoint[0]]
            command = [*spec.entrypoint[1:], *command]
        return [*made, spec.image, *command]

    def _user_options(self, spec: ContainerSpec) -> list[str]:
        """User in the container, so that what it writes can be read and deleted by the user of this process.

        Root of this machine can do so whoever wrote it. Podman without root maps its user to the one in the container;
        Docker's service has no such mapping for one container, so that the default there is the user of this process.
        """
        own = _own_ids()
        if spec.root:
            return ["--user", "0:0"]
        if self.name != "podman":
            return ["--user", spec.user or own or _USER]
        user = spec.user or _USER
        ids = re.fullmatch(r"(\d+)(?::(\d+))?", user)
        mapped = f"keep-id:uid={ids[1]},gid={ids[2] or ids[1]}" if own and ids else ""
        return [*(["--userns", mapped] if mapped else []), "--user", user]

    def remove(self, name: str) -> None:
        """Kill and remove a container."""
        run_tool([self._program, "kill", name], timeout=_SECONDS, check=False)  # rm alone waits 10 s for it to end
        run_tool([self._program, "rm", "--force", "--volumes", name], timeout=_SECONDS, check=False)

    def reap(self, *, work: str = "", owner: str = "") -> int:
        """Remove containers with the label of the owner, or of the step."""
        label = f"label={_OWNER}={owner}" if owner else f"label={_LABEL}={work}"
        listed = run_tool([self._program, "ps", "-aq", "--filter", label], timeout=_SECONDS)
        names = listed.stdout.split()
        for name in names:
            self.remove(name)
        return len(names)


class ApptainerEngine:
    """Apptainer, or Singularity: images are SIF files; a container ends with its client.

    Parameters
    ----------
    program : Path
        The program.
    """

    leaves = False

    def __init__(self, program: Path) -> None:
        self.name = program.name
        self._program = program

    def image_id(self, image: str) -> str:
        """Path of the SIF file; raises NOT_FOUND."""
        path = Path(image)
        if not path.is_file():
            raise UsageError(Reason.NOT_FOUND, f"there is no image file {image}", "build it with apptainer pull")
        return str(path.resolve())

    def entrypoint(self, image: str) -> tuple[str, ...]:
        """Nothing: the run script of the file is run."""
        return ()

    def environment(self, image: str) -> None:
        """Nothing is known: it is in the scripts of the file."""

    def read_file(self, image: str, path: str) -> bytes:
        """Content of a file of an image, by its own ``cat``."""
        words = [str(self._program), "exec", "--containall", "--cleanenv", "--no-home", image, "cat", path]
        found = run_tool(words, timeout=_SECONDS, check=False)
        return b"" if found.returncode else found.stdout.encode()[:_MANIFEST_BYTES]

    def command(self, spec: ContainerSpec) -> list[str]:
        """Command line of ``run``, or ``exec`` with a command."""
        if spec.root:
            raise UsageError(Reason.BAD_FLOW, "apptainer runs containers as the user who starts it", "leave root out")
        words = [*spec.entrypoint, *spec.command]
        made = [str(self._program), "exec" if words else "run", "--containall", "--cleanenv", "--no-home"]
        made += ["--drop-caps", "all", "--no-privs"]
        made += [] if spec.network else ["--net"]
        made += ["--nv"] if spec.gpu else []
        made += _shared_options(spec)
        for mount in spec.mounts:
            made += ["--bind", f"{mount.host.absolute()}:{mount.target}:{'rw' if mount.writable else 'ro'}"]
        return [*made, spec.image, *words]

    def remove(self, name: str) -> None:
        """Nothing: the container ended with its client."""

    def reap(self, *, work: str = "", owner: str = "") -> int:
        """Nothing is left."""
        return 0


_ENGINES: dict[str, Callable[[Path], Engine]] = {
    "podman": DockerEngine,
    "docker": DockerEngine,
    "apptainer": ApptainerEngine,
}
"""Program -> engine, the preferred one first. A new engine is a class and one line here."""


def find_engine(name: str = "") -> Engine:
    """Return the engine of this machine.

    Parameters
    ----------
    name : str
        ``podman``, ``docker`` or ``apptainer``; empty: the first that is installed.

    Returns
    -------
    Engine

    Raises
    ------
    UsageError
        BAD_PARAMETER for another name.
    ToolError
        TOOL_MISSING.
    """
    if name and name not in _ENGINES:
        hint = did_you_mean(name, list(_ENGINES), f"choose from {', '.join(_ENGINES)}")
        raise UsageError(Reason.BAD_PARAMETER, f"there is no container engine {name[:40]!r}", hint)
    chosen = [name] if name else [one for one in _ENGINES if shutil.which(one)]
    if not chosen:
        message = "no container engine is installed"
        raise ToolError(Reason.TOOL_MISSING, message, f"install one of {', '.join(_ENGINES)}")
    return _ENGINES[chosen[0]](find_tool(chosen[0]))
